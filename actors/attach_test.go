// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// fakeAttacher makes networks on a peer's engine.
type fakeAttacher struct {
	p *tank

	mu    sync.Mutex // guards what follows
	err   error
	calls int
	nets  []shoal.Network
}

// Attach implements shoal.Attacher.
func (f *fakeAttacher) Attach(ctx context.Context, spec *shoal.Spec) ([]shoal.Network, netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.err != nil {
		return nil, netip.Addr{}, f.err
	}
	var out []shoal.Network
	for _, a := range spec.Attachments() {
		n, err := f.p.engine.EnsureNetwork(ctx, a.Network, nil)
		if err != nil {
			return nil, netip.Addr{}, err
		}
		out = append(out, n)
	}
	f.nets = out
	return out, out[0].Gateway, nil
}

func (f *fakeAttacher) say(err error) (calls int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, calls, f.calls = err, f.calls, 0
	return calls
}

// TestCreateAttaches: a container is made on the networks of its service, on each start of
// its life; what is in the way is shown, and tried again.
func TestCreateAttaches(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		f := &fakeAttacher{p: p, err: errors.New("make network shop_front: no subnet is free")}
		p.deps.Attacher = f
		p.start()
		s.wish(shoal.Spec{Name: "web", Image: "hello:1", Project: "shop", Networks: []shoal.Attachment{{Network: "shop_front"}, {Network: "shop_back"}}}, 1, 1)
		s.until(5*time.Second, "it is told", func() bool {
			return says(p, "no subnet is free")
		})
		if n := p.containers(); n != 0 {
			t.Errorf("%d containers without a network, want none", n)
		}
		f.say(nil)
		s.until(30*time.Second, "ready", func() bool { return p.ready("web") == 1 })
		if a, err := netip.ParseAddr(p.replica("web", 0).Addr); err != nil || !f.nets[0].Containers.Contains(a) {
			t.Errorf("address = %s, %v, want one of %s", a, err, f.nets[0].Containers)
		}
		for _, n := range f.nets {
			if err := p.engine.RemoveNetwork(s.t.Context(), n.ID); !errors.Is(err, shoal.ErrConflict) {
				t.Errorf("remove %s = %v: the container is not on it", n.Name, err)
			}
		}
		if n := f.say(shoal.ErrEngineDown); n != 1 {
			t.Errorf("attached %d times for one container", n)
		}
		s.wish(shoal.Spec{Name: "web", Image: "hello:2", Project: "shop"}, 2, 1)
		s.until(5*time.Second, "it is told", func() bool {
			return says(p, "container engine does not answer")
		})
		f.say(nil)
		s.until(30*time.Second, "ready", func() bool { return p.ready("web") == 1 })
		if len(f.nets) != 1 || f.nets[0].Name != "shop_default" {
			t.Errorf("networks = %+v, want the default one of its project", f.nets)
		}
	})
}

// says reports whether a peer tells something of one of its replicas.
func says(p *tank, what string) bool {
	st := p.state()
	return slices.ContainsFunc(st.Replicas, func(r shoal.ReplicaStatus) bool { return strings.Contains(r.Reason, what) })
}
