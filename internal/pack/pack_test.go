// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package pack_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/shoalnet/shoal/internal/pack"
)

func image(t *testing.T, binary string) v1.Image {
	t.Helper()
	img, err := pack.Image([]byte(binary), pack.Options{
		Path: "/usr/bin/app", Args: []string{"serve"}, Arch: "amd64",
		Env: map[string]string{"B": "2", "A": "1"}, Expose: []string{"80/tcp"},
		Health: []string{"CMD", "/usr/bin/app", "check"}, HealthEvery: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func digest(t *testing.T, img v1.Image) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func TestImageIsTheSameEachTime(t *testing.T) {
	first, again, other := digest(t, image(t, "binary")), digest(t, image(t, "binary")), digest(t, image(t, "another"))
	if first != again {
		t.Errorf("digests of one binary = %s and %s", first, again)
	}
	if first == other {
		t.Errorf("digest of another binary = %s, the first one's", other)
	}
}

func TestTarSaysWhatWasAsked(t *testing.T) {
	var buf bytes.Buffer
	if err := pack.Tar(&buf, "hello:1", image(t, "binary")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(file, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := cfg.Config
	if !slices.Equal(c.Entrypoint, []string{"/usr/bin/app"}) || !slices.Equal(c.Cmd, []string{"serve"}) || !slices.Equal(c.Env, []string{"A=1", "B=2"}) {
		t.Errorf("configuration = %+v", c)
	}
	if c.Healthcheck == nil || !slices.Equal(c.Healthcheck.Test, []string{"CMD", "/usr/bin/app", "check"}) || c.Healthcheck.Interval != time.Second {
		t.Errorf("health check = %+v", c.Healthcheck)
	}
	if _, ok := c.ExposedPorts["80/tcp"]; !ok || cfg.OS != "linux" || cfg.Architecture != "amd64" {
		t.Errorf("configuration = %+v", cfg)
	}
	files := mutate.Extract(img)
	defer files.Close()
	var names []string
	for r := tar.NewReader(files); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, strings.Trim(h.Name, "/"))
		if h.ModTime.Unix() != 0 {
			t.Errorf("%s is of %s, want 1970", h.Name, h.ModTime)
		}
		if h.Typeflag == tar.TypeReg && h.Mode != 0o755 {
			t.Errorf("%s has mode %o, want 755", h.Name, h.Mode)
		}
	}
	slices.Sort(names)
	if want := []string{"usr", "usr/bin", "usr/bin/app"}; !slices.Equal(names, want) {
		t.Errorf("files = %q, want %q", names, want)
	}
}

func TestTarRefusesABadName(t *testing.T) {
	if err := pack.Tar(io.Discard, "Not A Name", image(t, "binary")); err == nil {
		t.Error("Tar with a bad name = nil")
	}
}

func TestBuildMakesAStaticBinary(t *testing.T) {
	binary, err := pack.Build(t.Context(), "./testdata/tiny")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(binary, []byte("\x7fELF")) || bytes.Contains(binary, []byte("/ld-linux")) {
		t.Errorf("binary of %d bytes is no static ELF file", len(binary))
	}
	again, err := pack.Build(t.Context(), "./testdata/tiny")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(binary, again) {
		t.Error("the same source gave another binary")
	}
	if _, err := pack.Build(t.Context(), "./testdata/nothing"); err == nil || !strings.Contains(err.Error(), "build ./testdata/nothing") {
		t.Errorf("Build of nothing = %v", err)
	}
}

func TestLoadAndPing(t *testing.T) {
	dir, err := os.MkdirTemp("", "shoal-") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	status, answer, got := http.StatusOK, "", ""
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		got = r.Method + " " + r.URL.Path + " " + string(raw)
		w.WriteHeader(status)
		io.WriteString(w, answer)
	})}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	defer func() { server.Close(); <-done }()

	for _, tt := range []struct {
		status       int
		answer, want string
	}{
		{200, `{"stream":"Loaded image: hello:1\n"}`, ""},
		{200, ``, ""},
		{200, `{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}`, "load image: engine says: unexpected EOF"},
		{500, `{"message":"no room"}`, "load image: engine answers 500 Internal Server Error: no room"},
	} {
		status, answer = tt.status, tt.answer
		err := pack.Load(t.Context(), "unix://"+socket, strings.NewReader("tar"))
		if text := errText(err); text != tt.want {
			t.Errorf("answer %d %s: Load = %q, want %q", tt.status, tt.answer, text, tt.want)
		}
		if got != "POST /images/load tar" {
			t.Errorf("the engine got %q", got)
		}
	}
	status = http.StatusOK
	if err := pack.Ping(t.Context(), socket); err != nil || got != "GET /_ping " {
		t.Errorf("Ping = %v, the engine got %q", err, got)
	}
	status = http.StatusInternalServerError
	if err := pack.Ping(t.Context(), socket); err == nil {
		t.Error("Ping of a broken engine = nil")
	}
	if err := pack.Ping(t.Context(), dir+"/nobody.sock"); err == nil {
		t.Error("Ping of no engine = nil")
	}
	if err := pack.Load(t.Context(), "tcp://127.0.0.1:2375", strings.NewReader("")); err == nil {
		t.Error("Load into a TCP engine = nil")
	}
	if err := pack.Load(t.Context(), dir+"/nobody.sock", strings.NewReader("")); err == nil {
		t.Error("Load into no engine = nil")
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
