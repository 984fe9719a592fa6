// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package manifest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/manifest"
)

var digest = "sha256:" + strings.Repeat("ab", 32)

func desc(more string) string {
	return fmt.Sprintf(`{"mediaType":"x/y","digest":%q,"size":7%s}`, digest, more)
}

func TestParse(t *testing.T) {
	image := func(more string) string {
		return `{"schemaVersion":2,"config":` + desc("") + `,"layers":[` + desc("") + `]` + more + `}`
	}
	index := func(more string) string {
		return `{"schemaVersion":2,"manifests":[` + desc(`,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}`) + `]` + more + `}`
	}
	for _, c := range []struct {
		name, said, raw string
		want            string // the media type
		why             string // part of the error
	}{
		{name: "manifest that says nothing", raw: image(""), want: manifest.TypeManifest},
		{name: "index that says nothing", raw: index(""), want: manifest.TypeIndex},
		{name: "sent as docker's", said: manifest.TypeDockerManifest, raw: image(""), want: manifest.TypeDockerManifest},
		{name: "says docker's", raw: image(`,"mediaType":"` + manifest.TypeDockerManifest + `"`), want: manifest.TypeDockerManifest},
		{name: "docker's list", said: manifest.TypeDockerList, raw: index(""), want: manifest.TypeDockerList},
		{name: "two names", said: manifest.TypeManifest, raw: image(`,"mediaType":"` + manifest.TypeDockerManifest + `"`), why: "but it was sent as"},
		{name: "schema 1", raw: `{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}`, why: "schema 1"},
		{name: "schema 1 in its name", said: "application/vnd.docker.distribution.manifest.v1+prettyjws", raw: image(""), why: "schema 1"},
		{name: "no schema", raw: `{}`, why: "must be 2"},
		{name: "not JSON", raw: `tar`, why: "not JSON"},
		{name: "empty", raw: ``, why: "not JSON"},
		{name: "no manifest", raw: image(`,"mediaType":"text/html"`), why: "no manifest of an image"},
		{name: "index and manifest", raw: image(`,"manifests":[]`), why: "one reader"},
		{name: "no config", raw: `{"schemaVersion":2,"layers":[]}`, why: "config is missing"},
		{name: "url", raw: `{"schemaVersion":2,"config":` + desc("") + `,"layers":[` + desc(`,"urls":["http://169.254.169.254/"]`) + `]}`, why: "layers[0] is to be fetched"},
		{name: "foreign", raw: strings.ReplaceAll(image(""), "x/y", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), why: "to be fetched"},
		{name: "other digest", raw: strings.ReplaceAll(image(""), "sha256:", "sha512:"), why: "config.digest must be sha256"},
		{name: "negative size", raw: strings.ReplaceAll(image(""), `"size":7`, `"size":-7`), why: "negative"},
		{name: "huge config", raw: strings.ReplaceAll(image(""), `"size":7`, `"size":52428800`), why: "config.size is 52428800 bytes"},
		{name: "thousand layers", raw: `{"schemaVersion":2,"config":` + desc("") + `,"layers":[` + strings.Repeat(desc("")+",", 999) + desc("") + `]}`, why: "are 1000, at most 256"},
		{name: "thousand images", raw: `{"schemaVersion":2,"manifests":[` + strings.Repeat(desc("")+",", 999) + desc("") + `]}`, why: "are 1000, at most 128"},
		{name: "subject", raw: image(`,"subject":` + desc("")), want: manifest.TypeManifest},
		{name: "bad subject", raw: image(`,"subject":{}`), why: "subject.digest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := manifest.Parse(c.said, []byte(c.raw))
			if c.why != "" {
				var invalid *shoal.InvalidError
				if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.why) {
					t.Fatalf("Parse = %v, want an InvalidError with %q", err, c.why)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if m.MediaType != c.want {
				t.Errorf("MediaType = %q, want %q", m.MediaType, c.want)
			}
			if refs := m.Refs(); len(refs) == 0 || refs[0].Digest != digest || refs[0].Size != 7 {
				t.Errorf("Refs = %+v", refs)
			}
			if got := m.Subject != nil; got != (c.name == "subject") {
				t.Errorf("Subject = %v", m.Subject)
			}
		})
	}
}

func TestFor(t *testing.T) {
	list := ""
	for _, p := range []string{"linux amd64 ", "linux arm v6", "linux arm v7", "linux arm64 v8", "unknown unknown "} {
		f := strings.Split(p, " ")
		list += "," + desc(fmt.Sprintf(`,"platform":{"os":%q,"architecture":%q,"variant":%q}`, f[0], f[1], f[2]))
	}
	m, err := manifest.Parse("", []byte(`{"schemaVersion":2,"manifests":[`+list[1:]+`]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64"}
	if got := m.Platforms(); !slices.Equal(got, want) {
		t.Errorf("Platforms = %q, want %q", got, want)
	}
	for machine, want := range map[string]string{
		"linux/amd64": "linux/amd64", "linux/arm64": "linux/arm64", "linux/arm/v6": "linux/arm/v6",
		"linux/arm/v7": "linux/arm/v7", "linux/riscv64": "", "windows/amd64": "",
	} {
		d, err := m.For(machine)
		if (err == nil) != (want != "") || d.Platform != want {
			t.Errorf("For(%s) = %q, %v, want %q", machine, d.Platform, err, want)
		}
		if want == "" && !strings.Contains(err.Error(), "image is linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64, this machine is "+machine) {
			t.Errorf("For(%s): %v", machine, err)
		}
	}
}

func TestParseConfig(t *testing.T) {
	c, err := manifest.ParseConfig([]byte(`{"os":"linux","architecture":"arm","variant":"v7","rootfs":{"type":"layers","diff_ids":["` + digest + `"]}}`))
	if err != nil || c.Platform != "linux/arm/v7" || !slices.Equal(c.DiffIDs, []string{digest}) {
		t.Errorf("ParseConfig = %+v, %v", c, err)
	}
	if c, err := manifest.ParseConfig([]byte(`{}`)); err != nil || c.Platform != "" {
		t.Errorf("ParseConfig of an artifact = %+v, %v, want nothing and no error", c, err)
	}
	for raw, why := range map[string]string{
		`[`:                                    "not JSON",
		`{"rootfs":{"diff_ids":["sha256:1"]}}`: "diff_ids[0]",
		`{"rootfs":{"diff_ids":[` + strings.Repeat(`"`+digest+`",`, 300) + `"` + digest + `"]}}`: "at most 256",
		strings.Repeat(" ", manifest.MaxConfig+1):                                                "at most",
	} {
		if _, err := manifest.ParseConfig([]byte(raw)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("ParseConfig(%.40q) = %v, want %q", raw, err, why)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("", []byte(`{"schemaVersion":2,"config":`+desc("")+`,"layers":[`+desc("")+`]}`))
	f.Add(manifest.TypeIndex, []byte(`{"schemaVersion":2,"manifests":[`+desc("")+`]}`))
	f.Fuzz(func(t *testing.T, said string, raw []byte) {
		m, err := manifest.Parse(said, raw)
		if err != nil {
			return
		}
		if !manifest.IsType(m.MediaType) {
			t.Errorf("took a manifest of type %q", m.MediaType)
		}
		for _, d := range m.Refs() {
			if len(d.Digest) != 71 || d.Size < 0 {
				t.Errorf("took %+v", d)
			}
		}
	})
}
