// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/wish"
)

// digest returns a digest of one digit.
func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

// push gives a name a digest, as the registry of p does.
func (p *place) push(t *testing.T, image, digest string, platforms ...string) {
	t.Helper()
	b := &shoal.ImageBody{Image: image, ID: shoal.RevisionID{Seq: 1, Author: p.self}, Digest: digest, Platforms: platforms}
	if old, ok := p.store.Desired().Image(image); ok {
		b.Replaces = old.Heads
		b.ID.Seq = old.ID.Seq + 1
	}
	write(t, p.store, b)
}

// engines says what the engines of all peers hold.
func (p *place) engines(peers []*place, images ...[]string) {
	p.states = map[shoal.PeerID]*shoal.PeerState{}
	for i, q := range peers {
		p.states[q.self] = &shoal.PeerState{}
		if i < len(images) {
			p.states[q.self].Images = images[i]
		}
	}
}

func of(image string) shoal.Spec {
	s := spec("web", 1)
	s.Image = image
	return s
}

func TestDeployResolvesOnce(t *testing.T) {
	p := cluster(t, 1)[0]
	p.push(t, "app:v1", digest("a"), "linux/amd64")
	got := p.must(t, deploy(of("app:v1")))
	s, _ := p.store.Desired().Service("web")
	if s.Spec.Digest != digest("a") || !slices.Equal(s.Spec.Platforms, []string{"linux/amd64"}) || !slices.Equal(got.Details, []string{"image app:v1 (sha256:aaaaaaaaaaaa)"}) {
		t.Fatalf("deploy = %+v, spec %s %v, want the digest in the spec", got, s.Spec.Digest, s.Spec.Platforms)
	}
	p.push(t, "app:v1", digest("a"), "linux/amd64", "linux/arm64")
	if got := p.must(t, deploy(of("app:v1"))); got.Kind != shoal.ChangeNone {
		t.Errorf("the same image, better known: %+v, want no change", got)
	}
	read := s.Spec // as inspect gives it to "shoal update"
	p.push(t, "app:v1", digest("b"), "linux/amd64")
	read.StopSignal = "INT"
	w := deploy(read)
	w.Deploy.KeepScale = true
	if got := p.must(t, w); !slices.Equal(got.Details, []string{"stop signal  -> INT"}) {
		t.Errorf("an update of what was read, after the tag moved: %+v, want nothing of the image", got)
	}
	p.must(t, operate(shoal.OpRestart, "web"))
	if s, _ := p.store.Desired().Service("web"); s.Spec.Digest != digest("a") {
		t.Errorf("after update and restart the digest is %s, want that of before", s.Spec.Digest)
	}
	moved := of("app:v1")
	moved.StopSignal = "INT"
	plan, err := p.Plan(t.Context(), deploy(moved))
	if want := []string{"image app:v1 (sha256:aaaaaaaaaaaa -> sha256:bbbbbbbbbbbb)"}; err != nil || !slices.Equal(plan.Changes[0].Details, want) {
		t.Errorf("Plan after the tag moved = %+v, %v, want %q", plan, err, want)
	}
	p.must(t, deploy(moved))
	if s, _ := p.store.Desired().Service("web"); s.Spec.Digest != digest("b") {
		t.Errorf("after a deploy the digest is %s, want the new one", s.Spec.Digest)
	}
}

// TestDigestIsNotForUsers: what a file or a client says the digest is does not count.
func TestDigestIsNotForUsers(t *testing.T) {
	p := cluster(t, 1)[0]
	p.push(t, "app:v1", digest("a"))
	lie := of("app:v1")
	lie.Digest, lie.Platforms = digest("c"), []string{"plan9/mips"}
	p.must(t, deploy(lie))
	if s, _ := p.store.Desired().Service("web"); s.Spec.Digest != digest("a") || len(s.Spec.Platforms) != 0 {
		t.Errorf("digest %s, platforms %v, want what the name stands for", s.Spec.Digest, s.Spec.Platforms)
	}
}

func TestDeployOfADigest(t *testing.T) {
	p := cluster(t, 1)[0]
	p.push(t, "app:v1", digest("a"), "linux/amd64")
	p.push(t, "app:v1", digest("b"), "linux/amd64")
	p.push(t, "app:old", digest("a"), "linux/amd64")
	for image, want := range map[string]string{
		"app@" + digest("a"):    digest("a"), // under any name
		"app:v1@" + digest("b"): digest("b"),
		"app@" + digest("c"):    "", // nobody has it
	} {
		p.must(t, deploy(of(image)))
		if s, _ := p.store.Desired().Service("web"); s.Spec.Digest != want || s.Spec.Image != image {
			t.Errorf("%s: digest %q, image %s, want %q", image, s.Spec.Digest, s.Spec.Image, want)
		}
	}
}

func TestRivalsAreRefused(t *testing.T) {
	peers := cluster(t, 2)
	peers[0].push(t, "app:v1", digest("b"))
	peers[1].push(t, "app:v1", digest("a"))
	exchange(peers)
	p := peers[0]
	before := p.store.Desired().Digest
	_, err := p.Submit(t.Context(), deploy(of("app:v1")), shoal.UpdateOptions{})
	want := fmt.Sprintf("image app:v1 was pushed as %s and as %s: conflict; name one (app@%s), or push or tag it again", digest("a"), digest("b"), digest("a"))
	if !errors.Is(err, shoal.ErrConflict) || !strings.Contains(err.Error(), want) || p.store.Desired().Digest != before {
		t.Errorf("Submit = %v, want %s", err, want)
	}
	if _, err := p.Plan(t.Context(), deploy(of("app:v1"))); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Plan = %v, want the same", err)
	}
	p.must(t, deploy(of("app@"+digest("b"))))
	if s, _ := p.store.Desired().Service("web"); s.Spec.Digest != digest("b") {
		t.Errorf("digest %s, want the one named", s.Spec.Digest)
	}
}

func TestNotesOnImages(t *testing.T) {
	for name, c := range map[string]struct {
		engines [][]string
		image   string
		want    []string
	}{
		"nobody":   {nil, "app:v1", []string{`no peer has app:v1; "shoal image push app:v1" on one that has it gives it to all`}},
		"a digest": {nil, "app@" + digest("c"), []string{fmt.Sprintf(`no peer has app@%[1]s; "shoal image push app@%[1]s" on one that has it gives it to all`, digest("c"))}},
		"one":      {[][]string{{"app:v1"}}, "docker.io/library/app:v1", []string{`docker.io/library/app:v1 is only in the engine of a; "shoal image push docker.io/library/app:v1" there gives it to all`}},
		"two":      {[][]string{{"app:v1"}, nil, {"app:v1", "b:1"}}, "app:v1", []string{`app:v1 is only in the engines of a, c; "shoal image push app:v1" there gives it to all`}},
		"all":      {[][]string{{"app:v1"}, {"app:v1"}, {"app:v1"}}, "app:v1", nil},
	} {
		t.Run(name, func(t *testing.T) {
			peers := cluster(t, 3)
			p := peers[0]
			p.engines(peers, c.engines...)
			got := p.must(t, deploy(of(c.image)))
			if !slices.Equal(got.Notes, c.want) {
				t.Errorf("Notes = %q, want %q", got.Notes, c.want)
			}
			if again := p.must(t, deploy(of(c.image))); len(again.Notes) != 0 || again.Kind != shoal.ChangeNone {
				t.Errorf("again: %+v, want no change and no notes", again)
			}
		})
	}
}

// TestNameThatLostItsDigest: a deploy of what runs goes on with what it has.
func TestNameThatLostItsDigest(t *testing.T) {
	p := cluster(t, 1)[0]
	p.push(t, "app:v1", digest("a"), "linux/amd64")
	p.must(t, deploy(of("app:v1")))
	p.push(t, "app:v1", "")
	p.engines([]*place{p}, []string{"app:v1"})
	changed := of("app:v1")
	changed.StopSignal = "INT"
	got := p.must(t, deploy(changed))
	if want := "app:v1 stands for nothing now; it keeps sha256:aaaaaaaaaaaa"; !slices.Contains(got.Notes, want) || len(got.Details) != 1 {
		t.Errorf("deploy = %+v, want the note %q and no other image", got, want)
	}
	if s, _ := p.store.Desired().Service("web"); s.Spec.Digest != digest("a") || len(s.Spec.Platforms) != 1 {
		t.Errorf("digest %q %v, want what it had", s.Spec.Digest, s.Spec.Platforms)
	}
}

// slow is a resolver that a registry keeps waiting.
type slow struct {
	mu    sync.Mutex // guards asked
	asked []string
}

func (s *slow) Resolve(ctx context.Context, ref string) (shoal.ResolvedImage, error) {
	s.mu.Lock()
	s.asked = append(s.asked, ref)
	s.mu.Unlock()
	<-ctx.Done()
	return shoal.ResolvedImage{}, ctx.Err()
}

// TestResolvingHasADeadline: each distinct image is asked for once, all of them within
// one deadline, and what is not known then does not stop the deploy; a user who went
// away does.
func TestResolvingHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := cluster(t, 1)[0]
		asks := &slow{}
		desk := wish.New(p.self, p.store, p, asks, nil)
		a, b, c := of("a:1"), of("b:1"), of("a:1")
		b.Name, c.Name = "b", "c"
		start := time.Now()
		out, err := desk.Submit(t.Context(), deploy(a, b, c), shoal.UpdateOptions{})
		if err != nil || time.Since(start) != 15*time.Second {
			t.Fatalf("Submit = %v after %v, want nil after 15s", err, time.Since(start))
		}
		if slices.Sort(asks.asked); !slices.Equal(asks.asked, []string{"a:1", "b:1"}) {
			t.Errorf("asked for %v, want each once", asks.asked)
		}
		if want := "what a:1 stands for is not known: context deadline exceeded"; !slices.Contains(out.Changes[0].Notes, want) {
			t.Errorf("Notes = %q, want %q", out.Changes[0].Notes, want)
		}
		gone, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a.Name = "d"
		if _, err := desk.Submit(gone, deploy(a), shoal.UpdateOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Submit of who went away = %v, want that", err)
		}
		if _, ok := p.store.Desired().Service("d"); ok {
			t.Error("it was written all the same")
		}
	})
}
