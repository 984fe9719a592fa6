// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package pack makes container images of our own static binaries, for the demo and
// for tests, without a registry and without a container engine: [Build] compiles,
// [Image] packs, [Tar] writes what "docker load" reads, [Load] hands it to an
// engine. The same binary gives the same image, digest and all, each time. It
// refuses to fetch anything: an image has one layer and no base.
package pack

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Options say what is in an image beside the binary, and how it runs.
type Options struct {
	Path        string            // of the binary in the image; "": "/app"
	Args        []string          // default command after the entrypoint
	Env         map[string]string // default environment
	Expose      []string          // "80/tcp"
	Health      []string          // {"CMD", ...}; empty: no HEALTHCHECK
	HealthEvery time.Duration     // 0: the engine's default
	Arch        string            // "": this machine's
}

// Build compiles the main package in dir (as "go build" names it) into a static
// Linux binary and returns its bytes.
func Build(ctx context.Context, dir string) ([]byte, error) {
	tmp, err := os.MkdirTemp("", "shoal-pack-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // a leftover in /tmp harms nobody
	out := path.Join(tmp, "app")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", dir, err, bytes.TrimSpace(text))
	}
	return os.ReadFile(out)
}

// Image packs a static binary. All times in it are 1970.
func Image(binary []byte, opts Options) (v1.Image, error) {
	if opts.Path == "" {
		opts.Path = "/app"
	}
	if opts.Arch == "" {
		opts.Arch = runtime.GOARCH
	}
	raw, err := layerTar(binary, opts.Path)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(raw)), nil
	})
	if err != nil {
		return nil, fmt.Errorf("pack layer: %w", err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("pack image: %w", err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("pack image: %w", err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", opts.Arch
	cfg.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	cfg.Config.Entrypoint = []string{opts.Path}
	cfg.Config.Cmd = opts.Args
	for _, k := range slices.Sorted(maps.Keys(opts.Env)) {
		cfg.Config.Env = append(cfg.Config.Env, k+"="+opts.Env[k])
	}
	if len(opts.Health) > 0 {
		cfg.Config.Healthcheck = &v1.HealthConfig{Test: opts.Health, Interval: opts.HealthEvery}
	}
	for _, p := range opts.Expose {
		if cfg.Config.ExposedPorts == nil {
			cfg.Config.ExposedPorts = map[string]struct{}{}
		}
		cfg.Config.ExposedPorts[p] = struct{}{}
	}
	return mutate.ConfigFile(img, cfg)
}

// layerTar holds the binary and the directories above it.
func layerTar(binary []byte, at string) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	at = strings.TrimPrefix(path.Clean(at), "/")
	for i, c := range at {
		if c != '/' {
			continue
		}
		h := &tar.Header{Typeflag: tar.TypeDir, Name: at[:i+1], Mode: 0o755, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack %s: %w", h.Name, err)
		}
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: at, Mode: 0o755, Size: int64(len(binary)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if err := w.WriteHeader(h); err != nil {
		return nil, fmt.Errorf("pack %s: %w", at, err)
	}
	if _, err := w.Write(binary); err != nil {
		return nil, fmt.Errorf("pack %s: %w", at, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack %s: %w", at, err)
	}
	return buf.Bytes(), nil
}

// Tar writes an image as "docker load" reads it, under one tag ("hello:1").
func Tar(w io.Writer, ref string, img v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("name image: %w", err)
	}
	if err := tarball.Write(tag, img, w); err != nil {
		return fmt.Errorf("write image %s: %w", ref, err)
	}
	return nil
}

// Load gives a tar to the engine behind a unix socket ("unix:///var/run/docker.sock"
// or a path). It needs no docker command.
func Load(ctx context.Context, host string, tar io.Reader) error {
	client, err := clientOf(host)
	if err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine/images/load?quiet=1", tar)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read from
	return loaded(resp)
}

// Ping asks the engine behind a unix socket for a sign of life.
func Ping(ctx context.Context, host string) error {
	client, err := clientOf(host)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/_ping", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ping engine: %w", err)
	}
	_ = resp.Body.Close() // the status is all that counts
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ping engine: it answers %s", resp.Status)
	}
	return nil
}

// clientOf returns a client that reaches nothing but one unix socket.
func clientOf(host string) (*http.Client, error) {
	socket := strings.TrimPrefix(host, "unix://")
	if strings.Contains(socket, "://") {
		return nil, fmt.Errorf("engine at %s: only unix sockets are supported", host)
	}
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}, nil
}

// loaded reads the engine's answer: JSON messages, an error among them or not.
func loaded(resp *http.Response) error {
	dec := json.NewDecoder(io.LimitReader(resp.Body, 1<<20))
	for {
		var m struct {
			Error   string `json:"error"`
			Message string `json:"message"`
		}
		err := dec.Decode(&m)
		switch {
		case m.Error != "":
			return fmt.Errorf("load image: engine says: %s", m.Error)
		case resp.StatusCode != http.StatusOK:
			return fmt.Errorf("load image: engine answers %s: %s", resp.Status, m.Message)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("load image: read answer: %w", err)
		}
	}
}
