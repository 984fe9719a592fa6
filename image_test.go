// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
)

func TestNormalizeRef(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for ref, want := range map[string]string{
		"hello":                         "hello:latest",
		"hello:1":                       "hello:1",
		"docker.io/library/hello:1":     "hello:1",
		"docker.io/acme/hello":          "acme/hello:latest",
		"index.docker.io/library/hello": "hello:latest",
		"127.0.0.1:5050/app":            "127.0.0.1:5050/app:latest",
		"127.0.0.1:5050/app:v1":         "127.0.0.1:5050/app:v1",
		"hello@" + digest:               "hello@" + digest,
		"hello:1@" + digest:             "hello@" + digest,
		"127.0.0.1:5050/app@" + digest:  "127.0.0.1:5050/app@" + digest,
	} {
		if got := shoal.NormalizeRef(ref); got != want {
			t.Errorf("NormalizeRef(%q) = %q, want %q", ref, got, want)
		}
	}
}

func TestCheckImage(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("a", 64)
	for _, ref := range []string{
		"hello", "hello:1", "hello" + digest, "hello:1" + digest, "acme/hello_a/b--c.d:V1", "127.0.0.1:5050/ghcr.io/x/y:v1",
		"localhost/app", "GHCR.io/x/y", "a__b", strings.Repeat("a", 255) + ":" + strings.Repeat("T", 128) + digest,
	} {
		if err := shoal.CheckImage(ref); err != nil {
			t.Errorf("CheckImage(%q) = %v, want nil", ref, err)
		}
	}
	for ref, want := range map[string]string{
		"":                                      "image is missing",
		":":                                     `":" is not an image reference: it has no name`,
		":v1":                                   "it has no name",
		digest:                                  "it has no name",
		"app:":                                  "its tag is empty; write app, or app:TAG",
		"Hello:1":                               "the repository must be lower case; write hello:1",
		"ghcr.io/Acme/Web":                      "the repository must be lower case; write ghcr.io/acme/web",
		"app:-x":                                `the tag "-x" must start with a letter`,
		"app:a b":                               `the tag "a b" must start`,
		"app:" + strings.Repeat("t", 129):       "its tag has 129 characters, at most 128",
		strings.Repeat("a", 256):                "its name has 256 characters, at most 255",
		"app@":                                  "its digest is empty",
		"app@sha256:0123":                       "its digest has 4 hex digits, sha256 has 64",
		"app@sha256:":                           "its digest has 0 hex digits",
		"app@md5:0123":                          "its digest must be sha256:, and 64 hex digits",
		"app@sha256:" + strings.Repeat("A", 64): "its digest must have only the hex digits 0-9 and a-f",
		"a//b":                                  "a part of its name is empty",
		"app/":                                  "a part of its name is empty",
		"a..b":                                  `"a..b" must have only`,
		"a___b":                                 `"a___b" must have only`,
		"../x":                                  `".." is not a registry's host`,
		"host:port/x":                           `"host:port" is not a registry's host`,
		"a\x00b":                                "must have only",
		"é":                                     "must have only",
		"https://x/y":                           `"https:" is not a registry's host`,
	} {
		var inv *shoal.InvalidError
		if err := shoal.CheckImage(ref); !errors.As(err, &inv) || inv.Field != "image" || !strings.Contains(err.Error(), want) {
			t.Errorf("CheckImage(%q) = %v, want %s", ref, err, want)
		}
	}
}

func TestCheckImageName(t *testing.T) {
	for name, want := range map[string]string{
		"hello:1": "", "127.0.0.1:5050/app:v1": "", "ghcr.io/a/b:latest": "",
		"hello": `"hello" is another name of "hello:latest"`, "docker.io/library/hello:1": `is another name of "hello:1"`,
		"hello@sha256:" + strings.Repeat("a", 64): "has a digest", "Hello:1": "lower case",
	} {
		if err := shoal.CheckImageName(name); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("CheckImageName(%q) = %v, want %q", name, err, want)
		}
	}
}

func TestBlobKeyOf(t *testing.T) {
	if got, ok := shoal.BlobKeyOf("sha256:0123456789abcdef" + strings.Repeat("f", 48)); !ok || got != 0x0123456789abcdef {
		t.Errorf("BlobKeyOf = %x, %v, want its first 8 bytes, big endian", got, ok)
	}
	if _, ok := shoal.BlobKeyOf("sha256:0123"); ok {
		t.Error("BlobKeyOf takes what is no digest")
	}
}

// TestImageKeysTellNamesApart: no two names share a key, and the longest fits.
func TestImageKeysTellNamesApart(t *testing.T) {
	long := strings.Repeat("a__", 84) + "abc:" + strings.Repeat("_", 128)
	seen := map[string]string{}
	for _, name := range []string{"a_b:1", "a/b:1", "a_2fb:1", "a.b:1", "a-b:1", "a:b_1", "a:b-1", "h:1/a:1", "h/a:1", long} {
		if err := shoal.CheckImageName(name); err != nil {
			t.Fatalf("CheckImageName(%q) = %v, want nil", name, err)
		}
		key := shoal.ImageKey(name)
		if old, twice := seen[key]; twice || len(key) > 1024 {
			t.Errorf("ImageKey(%q) = %q (%d bytes), that of %q", name, key, len(key), old)
		}
		seen[key] = name
	}
}
