// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
)

// TestDeploy: what one peer's engine had two others get by digest, under its name; the
// second time nothing moves.
func TestDeploy(t *testing.T) {
	w := newWorld(t, 3, nil)
	img := newImage(t, 3, 3<<20)
	digest := w.members[0].push("app:v1", img)
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	ref := "app:v1@" + digest
	var mu sync.Mutex
	var told []shoal.ImageProgress
	g, ctx := errgroup.WithContext(t.Context())
	for _, m := range w.members[1:] {
		for range 2 { // two replicas at once are one move
			g.Go(func() error {
				id, err := m.room.Ensure(ctx, ref, func(p shoal.ImageProgress) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, p)
				})
				if err == nil && id != config.String() {
					err = fmt.Errorf("Ensure = %q, want the configuration's digest %s", id, config)
				}
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(told) == 0 || told[0].Total < 9<<20 {
		t.Errorf("progress = %v, want some, of 9 MiB", told)
	}
	for _, m := range w.members[1:] {
		found, err := m.engine.Find(t.Context(), "app:v1")
		if err != nil || found.ID != config.String() {
			t.Errorf("engine's app:v1 = %+v, %v", found, err)
		}
		before := m.moved()
		if before < 9<<20 {
			t.Errorf("moved %d bytes, want the image's 9 MiB at least", before)
		}
		if _, err := m.room.Ensure(t.Context(), ref, nil); err != nil {
			t.Error(err)
		}
		if after := m.moved(); after != before {
			t.Errorf("a second deploy moved %d bytes", after-before)
		}
	}
	list, err := w.members[2].room.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Digest != digest || !slices.Equal(list[0].Platforms, []string{"linux/amd64"}) || list[0].Here != list[0].Size {
		t.Errorf("List = %+v, %v", list, err)
	}
	eventually(t, "three copies are told", func() bool {
		list, err := w.members[0].room.List(t.Context())
		return err == nil && list[0].Copies == 3
	})
	detail, err := w.members[0].room.Inspect(t.Context(), "app:v1")
	if err != nil || len(detail.Blobs) != 5 || len(detail.Silent) > 0 {
		t.Fatalf("Inspect = %+v, %v, want a manifest, a configuration and three layers, nobody silent", detail, err)
	}
	for _, b := range detail.Blobs {
		if len(b.Holders) != 3 || b.Chunks == "" || b.Kind == "" {
			t.Errorf("blob %+v, want three holders, its chunks bound, and a kind", b)
		}
	}
}

// TestLosesItsSource: the peer that has an image goes while two others are getting it;
// they have it all between them, or say that nobody has.
func TestLosesItsSource(t *testing.T) {
	w := newWorld(t, 3, func(i int, c *Config) {
		if i == 0 {
			c.Exchange.UpRate = 8 << 20
		}
	})
	digest := w.members[0].push("app:v1", newImage(t, 2, 4<<20))
	ref := "app:v1@" + digest
	if _, err := w.members[1].room.Ensure(t.Context(), ref, nil); err != nil {
		t.Fatal(err)
	}
	w.members[0].vanish()
	if _, err := w.members[2].room.Ensure(t.Context(), ref, nil); err != nil {
		t.Errorf("Ensure once the source is gone = %v", err)
	}
}

// TestNobodyHasIt: the error names what to do, and comes soon.
func TestNobodyHasIt(t *testing.T) {
	w := newWorld(t, 2, nil)
	digest := w.members[0].push("app:v1", newImage(t, 1, 1<<20))
	w.members[0].vanish()
	began := time.Now()
	_, err := w.members[1].room.Ensure(t.Context(), "app:v1@"+digest, nil)
	if !errors.Is(err, shoal.ErrNotFound) || !strings.Contains(err.Error(), "shoal image push") {
		t.Errorf("Ensure = %v, want not found and what to do", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

// TestWithoutRegistry: an engine that does not reach the registry gets archives.
func TestWithoutRegistry(t *testing.T) {
	w := newWorld(t, 2, func(_ int, c *Config) { c.Registry = "" })
	img := newImage(t, 2, 1<<20)
	digest := w.members[0].push("team/app:v1", img)
	id, err := w.members[1].room.Ensure(t.Context(), "team/app:v1@"+digest, nil)
	config, _ := img.ConfigName()
	if err != nil || id != config.String() {
		t.Errorf("Ensure = %q, %v, want %s", id, err, config)
	}
}

// TestNameOfItsOwner: an image of the engine that the cluster does not know keeps its name.
func TestNameOfItsOwner(t *testing.T) {
	w := newWorld(t, 2, nil)
	digest := w.members[0].push("app:v1", newImage(t, 1, 1<<20))
	own := newImage(t, 1, 1<<10)
	w.members[1].load("app:v1", own)
	id, err := w.members[1].room.Ensure(t.Context(), "app:v1@"+digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, _ := own.ConfigName()
	if found, err := w.members[1].engine.Find(t.Context(), "app:v1"); err != nil || found.ID != config.String() || id == found.ID {
		t.Errorf("app:v1 = %+v, %v after Ensure = %s; want the owner's %s", found, err, id, config)
	}
}

// TestRegistry: what docker pushes to one peer's registry can be pulled from another's;
// without the password nothing is read.
func TestRegistry(t *testing.T) {
	w := newWorld(t, 2, nil)
	img := newImage(t, 2, 1<<20)
	other := newImageFor(t, "arm64", 1, 1<<10)
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}}})
	at := func(m *member) (name.Tag, []remote.Option) {
		login, err := m.room.Login(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tag, err := name.NewTag(login.Address+"/ghcr.io/team/app:v1", name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		return tag, []remote.Option{remote.WithContext(t.Context()), remote.WithAuth(&authn.Basic{Username: login.User, Password: login.Password})}
	}
	tag, auth := at(w.members[0])
	if err := remote.WriteIndex(tag, index); err == nil {
		t.Error("a push without the password was taken")
	}
	if err := remote.WriteIndex(tag, index, auth...); err != nil {
		t.Fatal(err)
	}
	want, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	w.members[1].knows("ghcr.io/team/app:v1", want.String())
	if got, _ := w.members[1].records.Desired().Image("ghcr.io/team/app:v1"); !slices.Equal(got.Platforms, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("Platforms = %q", got.Platforms)
	}
	tag, auth = at(w.members[1])
	got, err := remote.Image(tag, append(auth, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"}))...)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := got.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		in, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, in); err != nil { // remote verifies the digest
			t.Error(err)
		}
		_ = in.Close()
	}
	tags, err := remote.List(tag.Context(), auth...)
	if err != nil || !slices.Equal(tags, []string{"v1"}) {
		t.Errorf("tags = %q, %v", tags, err)
	}
	id, err := w.members[1].room.Ensure(t.Context(), "ghcr.io/team/app:v1@"+want.String(), nil)
	if config, _ := img.ConfigName(); err != nil || id != config.String() {
		t.Errorf("Ensure = %q, %v, want the image for this machine, %s", id, err, config)
	}
}

// TestOtherPlatform: an image for other machines is refused before its layers move.
func TestOtherPlatform(t *testing.T) {
	w := newWorld(t, 2, nil)
	digest := w.members[0].push("app:arm", newImageFor(t, "arm64", 1, 4<<20))
	_, err := w.members[1].room.Ensure(t.Context(), "app:arm@"+digest, nil)
	if err == nil || !strings.Contains(err.Error(), "image is linux/arm64, this machine is linux/amd64") {
		t.Errorf("Ensure = %v", err)
	}
	if moved := w.members[1].moved(); moved > 1<<20 {
		t.Errorf("%d bytes moved", moved)
	}
}

// TestNames: names are given, moved, pinned and taken away, everywhere.
func TestNames(t *testing.T) {
	w := newWorld(t, 2, nil)
	a, b := w.members[0], w.members[1]
	one, two := a.push("app:v1", newImage(t, 1, 1<<10)), a.push("app:v2", newImage(t, 1, 1<<10))
	change := func(m *member, c shoal.ImageChange) (shoal.ImageInfo, error) { return m.room.Change(t.Context(), c) }
	if info, err := change(b, shoal.ImageChange{Name: "app:v2", To: "app:stable"}); err != nil || info.Digest != two || info.Name != "app:stable" {
		t.Errorf("tag = %+v, %v", info, err)
	}
	a.knows("app:stable", two)
	if _, err := change(a, shoal.ImageChange{Name: "app:v1", To: "app:stable"}); err != nil {
		t.Error(err)
	}
	b.knows("app:stable", one)
	pinned := true
	if info, err := change(a, shoal.ImageChange{Name: "app:v1", Pin: &pinned, MinCopies: 3}); err != nil || !info.Pinned || info.MinCopies != 3 {
		t.Errorf("pin = %+v, %v", info, err)
	}
	spec := shoal.Spec{Name: "web", Image: "app:v2", Digest: two}
	write(t, a.records, &shoal.RevisionBody{Revision: shoal.RevisionID{Seq: 1, Author: a.id}, Spec: spec})
	if _, err := change(a, shoal.ImageChange{Name: "app:v2", Remove: true}); !errors.Is(err, shoal.ErrConflict) || !strings.Contains(err.Error(), "web") {
		t.Errorf("rm of what web runs = %v, want a conflict that names it", err)
	}
	if _, err := change(b, shoal.ImageChange{Name: "app:stable", Remove: true}); err != nil {
		t.Error(err)
	}
	a.knows("app:stable", "")
	for _, c := range []struct {
		ref  string
		want error
		text string
	}{
		{"app:stable", shoal.ErrNotFound, "did you mean app:v"},
		{"nosuch", shoal.ErrNotFound, "shoal image ls"},
		{"team/app:v1", shoal.ErrNotFound, "did you mean app:v"},
	} {
		if _, err := a.room.Inspect(t.Context(), c.ref); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("Inspect(%s) = %v, want %q", c.ref, err, c.text)
		}
	}
	var invalid *shoal.InvalidError
	for _, c := range []shoal.ImageChange{
		{Name: "App:v1", Remove: true}, {Name: "app:v1", To: "app@" + one}, {Name: "app@" + one, Remove: true}, {Name: "app:v1", MinCopies: 1000}, {Name: "app:v1", To: "app:"},
	} {
		if _, err := change(a, c); !errors.As(err, &invalid) {
			t.Errorf("Change(%+v) = %v, want it refused", c, err)
		}
	}
}

// TestRivals: a name that both sides of a split gave another digest is nobody's until
// somebody decides (FAILURES 2, 41).
func TestRivals(t *testing.T) {
	w := newWorld(t, 2, nil)
	a, b := w.members[0], w.members[1]
	w.cut(true)
	for _, m := range w.members {
		m.load("app:v1", newImage(t, 1, 1<<10))
		if _, err := m.room.Push(t.Context(), "app:v1", "", nil); err != nil {
			t.Fatal(err)
		}
	}
	w.cut(false)
	var rivals []string
	eventually(t, "both digests are seen", func() bool {
		list, err := a.room.List(t.Context())
		if err == nil && len(list) == 1 {
			rivals = list[0].Rivals
		}
		return len(rivals) == 2
	})
	_, err := b.room.Resolve(t.Context(), "app:v1")
	if !errors.Is(err, shoal.ErrConflict) || !strings.Contains(err.Error(), rivals[0]) || !strings.Contains(err.Error(), rivals[1]) {
		t.Errorf("Resolve = %v, want both digests named", err)
	}
	if _, err := b.room.Ensure(t.Context(), "app:v1@"+rivals[0], nil); err != nil {
		t.Errorf("Ensure by digest = %v", err)
	}
	if _, err := a.room.Change(t.Context(), shoal.ImageChange{Name: "app@" + rivals[1], To: "app:v1"}); err != nil {
		t.Fatal(err)
	}
	b.knows("app:v1", rivals[1])
}

// TestImport: an archive is taken whole or not at all, and goes out as it came.
func TestImport(t *testing.T) {
	w := newWorld(t, 2, nil)
	a, b := w.members[0], w.members[1]
	raw, err := io.ReadAll(saved(t, "app:v1", newImage(t, 2, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	var invalid *shoal.InvalidError
	for what, r := range map[string]io.Reader{
		"truncated": bytes.NewReader(raw[:len(raw)/2]), "empty": bytes.NewReader(nil), "a zip": strings.NewReader("PK\x03\x04"),
	} {
		if _, err := a.room.Import(t.Context(), r, "", nil); !errors.As(err, &invalid) {
			t.Errorf("Import of what is %s = %v, want it refused", what, err)
		}
	}
	if list, err := a.room.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("List = %+v, %v, want nothing", list, err)
	}
	infos, err := a.room.Import(t.Context(), bytes.NewReader(raw), "team/app:v2", nil)
	if err != nil || len(infos) != 1 || infos[0].Name != "team/app:v2" {
		t.Fatalf("Import = %+v, %v", infos, err)
	}
	again, err := a.room.Import(t.Context(), bytes.NewReader(raw), "", nil)
	if err != nil || len(again) != 1 || again[0].Name != "app:v1" || again[0].Digest != infos[0].Digest {
		t.Fatalf("Import again = %+v, %v, want the same digest under its own name", again, err)
	}
	b.knows("app:v1", infos[0].Digest)
	for _, format := range []string{shoal.FormatOCI, shoal.FormatDocker} {
		var out bytes.Buffer
		if err := b.room.Export(t.Context(), "app:v1", format, "", &out, nil); err != nil {
			t.Fatal(err)
		}
		back, err := b.room.Import(t.Context(), &out, "back:"+format, nil)
		if err != nil || format == shoal.FormatOCI && back[0].Digest != infos[0].Digest {
			t.Errorf("what was exported as %s came back as %+v, %v", format, back, err)
		}
	}
	if err := b.room.Export(t.Context(), "app:v1", "zip", "", io.Discard, nil); !errors.As(err, &invalid) {
		t.Errorf("Export as zip = %v", err)
	}
}

// TestCollect: what services need, what is pinned and what too few others hold stays.
func TestCollect(t *testing.T) {
	w := newWorld(t, 3, func(_ int, c *Config) {
		c.MinCopies = 1
		c.Exchange.Linger = 100 * time.Millisecond // what was just sent is not removed
	})
	a := w.members[0]
	used, pinned, lone, spread := a.push("used:1", newImage(t, 1, 1<<20)), a.push("pinned:1", newImage(t, 1, 1<<20)), a.push("lone:1", newImage(t, 1, 1<<20)), a.push("spread:1", newImage(t, 1, 1<<20))
	for _, d := range []string{used, pinned, spread} {
		if _, err := w.members[1].room.Pull(t.Context(), "x@"+d, nil); err != nil {
			t.Fatal(err)
		}
	}
	write(t, a.records, &shoal.RevisionBody{Revision: shoal.RevisionID{Seq: 1, Author: a.id}, Spec: shoal.Spec{Name: "web", Image: "used:1", Digest: used}})
	isPinned := true
	if _, err := a.room.Change(t.Context(), shoal.ImageChange{Name: "pinned:1", Pin: &isPinned}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the copies are told", func() bool {
		list, err := a.room.List(t.Context())
		n := 0
		for _, i := range list {
			n += i.Copies
		}
		return err == nil && n == 7
	})
	var plan shoal.Collected
	eventually(t, "the three blobs of spread:1 may go", func() bool {
		var err error
		plan, err = a.room.Collect(t.Context(), shoal.CollectOptions{All: true, DryRun: true})
		return err == nil && plan.Blobs == 3
	})
	got, err := a.room.Collect(t.Context(), shoal.CollectOptions{All: true})
	if err != nil || got != plan {
		t.Errorf("Collect = %+v, %v, want what was planned, %+v", got, err, plan)
	}
	list, err := a.room.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if isHere := i.Here == i.Size; isHere != (i.Digest != spread) {
			t.Errorf("%s (%s, lone %v) is here: %v", i.Name, i.Digest, i.Digest == lone, isHere)
		}
	}
	if _, err := a.room.Ensure(t.Context(), "spread:1@"+spread, nil); err != nil {
		t.Errorf("what was collected does not come back: %v", err)
	}
}

// TestRestart: what a peer held it holds again, with the same password.
func TestRestart(t *testing.T) {
	w := newWorld(t, 1, nil)
	m := w.members[0]
	digest := m.push("app:v1", newImage(t, 1, 1<<20))
	before, err := m.room.Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.stop()
	m.engine.SetImages() // a new engine, too
	m.start()
	after, err := m.room.Login(t.Context())
	if err != nil || after.Password != before.Password || len(after.Password) != passwordLen {
		t.Errorf("the password changed: %v, %v", after, err)
	}
	if _, err := m.room.Ensure(t.Context(), "app:v1@"+digest, nil); err != nil {
		t.Error(err)
	}
}

// TestEnsureGivenUp: who gives up ends the move, if nobody else waits for it.
func TestEnsureGivenUp(t *testing.T) {
	w := newWorld(t, 2, func(i int, c *Config) { c.Exchange.UpRate = 64 << 10 })
	digest := w.members[0].push("app:v1", newImage(t, 1, 8<<20))
	ctx, cancel := context.WithCancel(t.Context())
	began := make(chan struct{})
	var once sync.Once
	done := make(chan error, 1)
	go func() {
		_, err := w.members[1].room.Ensure(ctx, "app:v1@"+digest, func(shoal.ImageProgress) { once.Do(func() { close(began) }) })
		done <- err
	}()
	<-began
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Ensure = %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Ensure did not end")
	}
}
