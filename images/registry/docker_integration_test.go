//go:build integration

// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
	dockerregistry "github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// engine is the Docker Engine of this machine, and what to tell it of a registry.
type engine struct {
	*client.Client
	t     *testing.T
	login shoal.RegistryLogin
}

func newEngine(t *testing.T, login shoal.RegistryLogin) *engine {
	t.Helper()
	c, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &engine{Client: c, t: t, login: login}
}

func (e *engine) auth(login shoal.RegistryLogin) string {
	e.t.Helper()
	s, err := dockerregistry.EncodeAuthConfig(dockerregistry.AuthConfig{Username: login.User, Password: login.Password})
	if err != nil {
		e.t.Fatal(err)
	}
	return s
}

// make gives the engine an image with one layer of so many bytes.
func (e *engine) make(ref string, seed uint64, size int) {
	e.t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "content", Mode: 0o644, Size: int64(size)}); err != nil {
		e.t.Fatal(err)
	}
	_, err := w.Write(content(seed, size))
	if err = errors.Join(err, w.Close()); err != nil {
		e.t.Fatal(err)
	}
	answer, err := e.ImageImport(e.t.Context(), image.ImportSource{Source: &archive, SourceName: "-"}, ref, image.ImportOptions{})
	if err == nil {
		err = end(answer)
	}
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { e.remove(ref) })
}

// remove takes an image from the engine, whether it is there or not.
func (e *engine) remove(ref string) {
	_, _ = e.ImageRemove(context.WithoutCancel(e.t.Context()), ref, image.RemoveOptions{Force: true})
}

func (e *engine) push(ref string, login shoal.RegistryLogin) error {
	answer, err := e.ImagePush(e.t.Context(), ref, image.PushOptions{RegistryAuth: e.auth(login)})
	if err != nil {
		return err
	}
	return end(answer)
}

func (e *engine) pull(ref string) error {
	answer, err := e.ImagePull(e.t.Context(), ref, image.PullOptions{RegistryAuth: e.auth(e.login)})
	if err != nil {
		return err
	}
	return end(answer)
}

// end reads the engine's progress and returns the error that it ends with.
func end(answer io.ReadCloser) error {
	defer answer.Close()
	for dec := json.NewDecoder(answer); ; {
		var line struct{ Error string }
		if err := dec.Decode(&line); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if line.Error != "" {
			return errors.New(line.Error)
		}
	}
}

// TestDocker: the engine pushes and pulls with the login and without any configuration,
// and shows why not.
func TestDocker(t *testing.T) {
	login := shoal.RegistryLogin{User: "shoal", Password: "secret"}
	s := serve(t, Config{Login: login})
	e := newEngine(t, login)
	ref := s.addr + "/shoal-registry-test/app:v1"
	e.make(ref, 1, 20<<20)

	if err := e.push(ref, shoal.RegistryLogin{User: "shoal", Password: "wrong"}); err == nil || !strings.Contains(err.Error(), "unauthorized") {
		t.Errorf("push with a wrong password = %v, want unauthorized", err)
	}
	if err := e.push(ref, login); err != nil {
		t.Fatal(err)
	}
	before, err := s.store.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.push(ref, login); err != nil {
		t.Errorf("second push = %v", err)
	}
	if after, err := s.store.Usage(); err != nil || after != before {
		t.Errorf("after a second push: Usage = %+v, %v, want %+v", after, err, before)
	}
	named, err := s.room.Tag(t.Context(), "shoal-registry-test/app", "v1")
	if err != nil || named.MediaType != manifest.TypeDockerManifest {
		t.Fatalf("Tag = %+v, %v", named, err)
	}
	for _, ref := range []string{ref, s.addr + "/shoal-registry-test/app@" + named.Digest} {
		e.remove(ref)
		if err := e.pull(ref); err != nil {
			t.Errorf("pull %s = %v", ref, err)
		}
		if _, err := e.ImageInspect(t.Context(), ref); err != nil {
			t.Errorf("inspect %s = %v", ref, err)
		}
		e.remove(ref)
	}

	other := blobs.DigestOf(nil).String()
	s.room.tags["shoal-registry-test/app"]["v1"] = []manifest.Descriptor{named, {Digest: other}}
	if err := e.pull(ref); err == nil || !strings.Contains(err.Error(), named.Digest) || !strings.Contains(err.Error(), other) {
		t.Errorf("pull of what stands for two = %v, want both digests", err)
	}
	if err := e.pull(s.addr + "/shoal-registry-test/none:v1"); err == nil {
		t.Error("pull of what nobody pushed succeeds")
	}
}

// TestDockerRefused: what does not go away by itself is shown at once; docker does not try
// for a minute.
func TestDockerRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		limits blobs.Config
		cfg    Config
		refuse error
		want   string
	}{
		"full":      {blobs.Config{Expire: time.Hour, Limit: 4 << 20}, Config{}, nil, "shoal image gc"},
		"too large": {openStore, Config{MaxBlob: 4 << 20}, nil, "blob is larger than 4194304 bytes"},
		"observer":  {openStore, Config{}, fmt.Errorf("%w: this peer is an observer", shoal.ErrRefused), "this peer is an observer"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newRoom()
			b.refuse = tt.refuse
			s := serveDir(t, t.TempDir(), tt.limits, tt.cfg, b)
			e := newEngine(t, shoal.RegistryLogin{})
			ref := s.addr + "/shoal-registry-test/refused:v1"
			e.make(ref, 2, 20<<20)
			from := time.Now()
			err := e.push(ref, e.login)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("push = %v, want %s", err, tt.want)
			}
			if took := time.Since(from); took > 20*time.Second {
				t.Errorf("push was given up after %s", took)
			} else {
				t.Logf("%v after %s", err, took.Round(time.Millisecond))
			}
		})
	}
}

// TestDockerThrough: the engine pulls an image of which the layers arrive meanwhile.
func TestDockerThrough(t *testing.T) {
	from, to := serve(t, Config{}), serve(t, Config{})
	e := newEngine(t, shoal.RegistryLogin{})
	ref := from.addr + "/shoal-registry-test/through:v1"
	e.make(ref, 3, 20<<20)
	if err := e.push(ref, e.login); err != nil {
		t.Fatal(err)
	}
	e.remove(ref)
	to.room.tags = from.room.tags
	var copies sync.WaitGroup
	defer copies.Wait()
	to.room.need = func(ctx context.Context, d blobs.Digest, _ int64) error {
		size, list, err := from.store.ChunkList(d)
		if err != nil {
			return err
		}
		if have, err := to.store.Begin(d, size, list); err != nil || have.Full() {
			return err
		}
		copies.Go(func() { copyBlob(ctx, t, from.store, to.store, d, len(list)) })
		return nil
	}
	ref = to.addr + "/shoal-registry-test/through:v1"
	if err := e.pull(ref); err != nil {
		t.Errorf("pull = %v", err)
	}
	e.remove(ref)
}

func copyBlob(ctx context.Context, t *testing.T, from, to *blobs.Store, d blobs.Digest, chunks int) {
	r, err := from.Read(context.WithoutCancel(ctx), d)
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	buf := make([]byte, 1<<20)
	for i := range chunks {
		n, err := r.ReadAt(buf, int64(i)<<20)
		if err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
			return
		}
		if _, err := to.WriteChunk(d, i, buf[:n]); err != nil {
			t.Error(err)
			return
		}
	}
}
