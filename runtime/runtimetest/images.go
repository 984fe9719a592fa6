// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtimetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/shoalnet/shoal"
)

func images(t *testing.T, f *Fixture) {
	all, err := f.Puller.Images(t.Context())
	if err != nil || !slices.Contains(all, shoal.NormalizeRef(f.Steady.Image)) || !slices.IsSorted(all) {
		t.Errorf("Images = %q, %v; want %q in it, sorted", all, err, f.Steady.Image)
	}
	found := f.found(t, f.Steady.Image)
	for range 2 {
		if id, err := f.Puller.Ensure(t.Context(), f.Steady.Image, nil); err != nil || id != found.ID {
			t.Errorf("Ensure(%s) = %s, %v; want %s", f.Steady.Image, id, err, found.ID)
		}
	}
	_, err = f.Puller.Ensure(t.Context(), "shoal-nobody-has-this:9", nil)
	if want := "image shoal-nobody-has-this:9 is not there (shoal image push it where docker has it)"; !errors.Is(err, shoal.ErrNotFound) || err.Error() != want {
		t.Errorf("Ensure of a missing image = %v, want %q", err, want)
	}
}

// found is Find of what has to be there.
func (f *Fixture) found(t testing.TB, ref string) shoal.EngineImage {
	t.Helper()
	found, err := f.Engine.Find(t.Context(), ref)
	if err != nil {
		t.Fatalf("Find(%s) = %v", ref, err)
	}
	return found
}

// wantMissing wants an image not to be there.
func (f *Fixture) wantMissing(t testing.TB, ref string) {
	t.Helper()
	if found, err := f.Engine.Find(t.Context(), ref); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Find(%s) = %+v, %v; want ErrNotFound", ref, found, err)
	}
}

// loaded gives the engine an image under a name, for the time of the test.
func (f *Fixture) loaded(t testing.TB, c *content, name string) {
	t.Helper()
	if err := f.Engine.Load(t.Context(), bytes.NewReader(c.archive(t, name))); err != nil {
		t.Fatalf("Load = %v", err)
	}
	t.Cleanup(func() { f.Forget(t, c.id) })
}

func imageNames(t *testing.T, f *Fixture) {
	c := newContent(t)
	f.wantMissing(t, c.id)
	f.loaded(t, c, "shoal-contract:1")
	for _, ref := range []string{"shoal-contract:1", "docker.io/library/shoal-contract:1", c.id} {
		if got := f.found(t, ref); got.ID != c.id || !slices.Contains(got.Names, "shoal-contract:1") || got.Platform != "linux/amd64" || got.Size < 600_000 {
			t.Errorf("Find(%s) = %+v, want image %s", ref, got, c.id)
		}
	}
	for _, ref := range []string{"shoal-contract", "shoal-contract:2", c.id[:20], c.digest, "shoal-contract@" + c.digest, strings.TrimPrefix(c.id, "sha256:")[:12]} {
		f.wantMissing(t, ref)
	}
	if err := f.Engine.Tag(t.Context(), c.id, "shoal-contract:2"); err != nil {
		t.Errorf("Tag = %v", err)
	}
	if got := f.found(t, "shoal-contract:2"); got.ID != c.id || !slices.Equal(got.Names, []string{"shoal-contract:1", "shoal-contract:2"}) {
		t.Errorf("after Tag: %+v, want both names of %s", got, c.id)
	}
	other := newContent(t)
	f.loaded(t, other, "shoal-contract:3")
	if err := f.Engine.Tag(t.Context(), other.id, "shoal-contract:2"); err != nil {
		t.Errorf("Tag of another image = %v", err)
	}
	if a, b := f.found(t, "shoal-contract:2"), f.found(t, c.id); a.ID != other.id || slices.Contains(b.Names, "shoal-contract:2") {
		t.Errorf("a name that moved stands for %s, and %s has names %q", a.ID, b.ID, b.Names)
	}
	if err := f.Engine.Tag(t.Context(), "shoal-nobody-has-this:9", "shoal-contract:9"); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Tag of a missing image = %v, want ErrNotFound", err)
	}
	if err := f.Engine.Tag(t.Context(), c.id, "shoal-contract@"+c.digest); !isInvalid(err) {
		t.Errorf("Tag by a digest = %v, want *InvalidError", err)
	}
	f.createsFrom(t, c.id, "shoal-contract:1")
	f.createsFrom(t, c.id, "shoal-contract:3") // a name that stands for another image
	f.createsFrom(t, c.id, "shoal-nobody-has-this:9")
}

func isInvalid(err error) bool { _, ok := errors.AsType[*shoal.InvalidError](err); return ok }

// createsFrom wants a container of exactly this image, whatever its name stands for.
func (f *Fixture) createsFrom(t testing.TB, id, name string) {
	t.Helper()
	spec := f.Steady
	spec.Image, spec.Health = name, nil
	cs := f.Container(&spec)
	cs.Image = id
	made := f.must(t, f.create(t, cs))
	if made.Image != id {
		t.Errorf("container of %s called %s has image %s", id, name, made.Image)
	}
	if err := f.Engine.Remove(t.Context(), made.ID); err != nil {
		t.Errorf("Remove = %v", err)
	}
}

func imageArchives(t *testing.T, f *Fixture) {
	c := newContent(t)
	f.loaded(t, c, "shoal-contract:1")
	var saved bytes.Buffer
	if err := f.Engine.Save(t.Context(), "shoal-contract:1", &saved); err != nil {
		t.Fatalf("Save = %v", err)
	}
	whole := 0
	for r := tar.NewReader(bytes.NewReader(saved.Bytes())); ; whole++ {
		if _, err := r.Next(); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("saved archive: %v", err)
			}
			break
		}
	}
	if whole == 0 {
		t.Error("saved archive is empty")
	}
	f.Forget(t, c.id)
	f.wantMissing(t, c.id)
	if err := f.Engine.Load(t.Context(), iotest.OneByteReader(bytes.NewReader(saved.Bytes()[:0]))); err == nil {
		t.Error("Load of nothing = nil")
	}
	if err := f.Engine.Load(t.Context(), bytes.NewReader(saved.Bytes())); err != nil {
		t.Errorf("Load of what was saved = %v", err)
	}
	if got := f.found(t, "shoal-contract:1"); got.ID != c.id {
		t.Errorf("saved and loaded again: %s, want %s", got.ID, c.id)
	}
	saved.Reset()
	if err := f.Engine.Save(t.Context(), c.id, &saved); err != nil || saved.Len() < 600_000 {
		t.Errorf("Save by ID = %v, %d bytes", err, saved.Len())
	}
	saved.Reset()
	if err := f.Engine.Save(t.Context(), "shoal-nobody-has-this:9", &saved); !errors.Is(err, shoal.ErrNotFound) || saved.Len() != 0 {
		t.Errorf("Save of a missing image = %v, %d bytes; want ErrNotFound, none", err, saved.Len())
	}
	enough := errors.New("enough")
	if err := f.Engine.Save(t.Context(), c.id, broken{enough}); !errors.Is(err, enough) {
		t.Errorf("Save = %v, want the writer's own error", err)
	}
	next := newContent(t)
	raw := next.archive(t, "shoal-contract:4")
	if err := f.Engine.Load(t.Context(), io.MultiReader(bytes.NewReader(raw[:400_000]), broken{enough})); !errors.Is(err, enough) {
		t.Errorf("Load = %v, want the archive's own error", err)
	}
	wrong := bytes.Replace(raw, []byte(`"RepoTags"`), []byte(`"RepoTags`), 1)
	for what, bad := range map[string][]byte{"broken JSON": wrong, "cut off": raw[:400_000], "no tar": bytes.Repeat([]byte("no tar "), 1000)} {
		if err := f.Engine.Load(t.Context(), bytes.NewReader(bad)); err == nil || errors.Is(err, shoal.ErrEngineDown) {
			t.Errorf("Load of an archive with %s = %v, want an error, not about the engine", what, err)
		}
	}
	f.wantMissing(t, "shoal-contract:4")
}

func imagePulls(t *testing.T, f *Fixture) {
	c := newContent(t)
	r := c.serve(t)
	from := r.login.Address + "/app@" + c.digest
	t.Cleanup(func() { f.Forget(t, c.id) })
	wrong := r.login
	wrong.Password = "guessed"
	if err := f.Engine.Pull(t.Context(), from, wrong, nil); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("Pull with a wrong password = %v, want ErrRefused", err)
	}
	if err := f.Engine.Pull(t.Context(), "elsewhere.example/app@"+c.digest, r.login, nil); !isInvalid(err) {
		t.Errorf("Pull from another registry = %v, want *InvalidError", err)
	}
	if err := f.Engine.Pull(t.Context(), r.login.Address+"/app@sha256:"+strings.Repeat("0", 64), r.login, nil); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Pull of a missing image = %v, want ErrNotFound", err)
	}
	nobody := r.login
	nobody.Address = "127.0.0.1:1" // tcpmux: nobody listens
	if err := f.Engine.Pull(t.Context(), nobody.Address+"/app@"+c.digest, nobody, nil); !errors.Is(err, shoal.ErrUnreachable) {
		t.Errorf("Pull where nobody listens = %v, want ErrUnreachable", err)
	}
	var last shoal.ImageProgress
	if err := f.Engine.Pull(t.Context(), from, r.login, func(p shoal.ImageProgress) { last = p }); err != nil {
		t.Fatalf("Pull = %v", err)
	}
	if last.What != "load" || last.Done < 600_000 || last.Done != last.Total {
		t.Errorf("last progress = %+v, want all of 600 kB", last)
	}
	for _, ref := range []string{from, "app:v1@" + c.digest, "other.example/team/app@" + c.digest, c.digest, c.id} {
		got := f.found(t, ref)
		if got.ID != c.id || !slices.Contains(got.Names, from) {
			t.Errorf("Find(%s) = %+v, want %s with the name %s", ref, got, c.id, from)
		}
		if id, err := f.Puller.Ensure(t.Context(), ref, nil); err != nil || id != c.id {
			t.Errorf("Ensure(%s) = %s, %v; want %s", ref, id, err, c.id)
		}
	}
	if err := f.Engine.Pull(t.Context(), from, r.login, nil); err != nil {
		t.Errorf("second Pull = %v", err)
	}
	if err := f.Engine.Tag(t.Context(), c.id, "shoal-contract:pulled"); err != nil {
		t.Errorf("Tag = %v", err)
	}
	if got := f.found(t, c.id); !slices.Equal(got.Names, []string{"shoal-contract:pulled"}) {
		t.Errorf("names after Tag = %q, want its own alone", got.Names)
	}
}

// imagePullsFail: what is not what its digest says is not taken, and a pull that waits
// ends with its context.
func imagePullsFail(t *testing.T, f *Fixture) {
	c := newContent(t)
	r := c.serve(t)
	from := r.login.Address + "/app@" + c.digest
	t.Cleanup(func() { f.Forget(t, c.id) })
	flipped := bytes.Clone(c.blobs[c.layer])
	flipped[len(flipped)/2] ^= 1
	r.change(c.layer, flipped)
	if err := f.Engine.Pull(t.Context(), from, r.login, nil); err == nil || errors.Is(err, shoal.ErrEngineDown) {
		t.Errorf("Pull with one bit flipped = %v, want an error, not about the engine", err)
	}
	f.wantMissing(t, c.id)
	f.wantMissing(t, from)

	r.change(c.layer, c.blobs[c.layer])
	gate := make(chan struct{})
	r.hold(gate)
	ctx, cancel := context.WithTimeout(t.Context(), f.Patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f.Engine.Pull(ctx, from, r.login, nil) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !r.wasAsked(c.id) && ctx.Err() == nil {
		<-tick.C
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Pull = %v after its context ended, want context.Canceled", err)
	}
	close(gate)
	if err := f.Engine.Pull(t.Context(), from, r.login, nil); err != nil {
		t.Errorf("Pull after one that broke = %v", err)
	}
	f.found(t, from)
}
