// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
)

// change asks for a change of a peer and returns its plan line.
func change(t *testing.T, c *api.Client, peer string, w shoal.PeerWish) api.Change {
	t.Helper()
	out, err := c.ChangePeer(t.Context(), peer, w, api.WishOptions{})
	if err != nil {
		t.Fatalf("ChangePeer(%s, %+v): %v", peer, w, err)
	}
	return out.Changes[0]
}

// What the real desk makes of a wish about a peer is shown by the next question.
func TestChangePeerWithTheRealDesk(t *testing.T) {
	c, self := realDesk(t)
	ch := change(t, c, "tokyo", shoal.PeerWish{Change: shoal.PeerDrain})
	if ch.Kind != "~" || ch.Peer != string(self) || ch.PeerName != "tokyo" || ch.Service != "" {
		t.Errorf("drain = %+v, want a change of tokyo", ch)
	}
	d, err := c.Peer(t.Context(), "")
	if err != nil || !d.Draining || len(d.Marks) != 1 || !d.Marks[0].Drain || d.Marks[0].By.Name != "tokyo" {
		t.Errorf("Peer() = %+v, %v, want one drain by tokyo", d, err)
	}
	end := string(self)[len(self)-6:]
	if ch := change(t, c, end, shoal.PeerWish{Change: shoal.PeerDrain}); ch.Kind != "=" {
		t.Errorf("drain again = %+v, want =", ch)
	}
	change(t, c, string(self), shoal.PeerWish{Change: shoal.PeerUncordon})
	if d, err := c.Peer(t.Context(), ""); err != nil || d.Cordoned || len(d.Marks) > 0 {
		t.Errorf("Peer() = %+v, %v, want no mark", d, err)
	}
	_, err = c.ChangePeer(t.Context(), "osaka", shoal.PeerWish{Change: shoal.PeerDrain}, api.WishOptions{})
	wantError(t, err, api.CodeNotFound, `no peer "osaka" (known here: tokyo); this peer is the only member`)
	_, err = c.ChangePeer(t.Context(), "tokyo", shoal.PeerWish{Change: "paint"}, api.WishOptions{})
	wantError(t, err, api.CodeInvalid, `change "paint" is not known`)
	_, err = c.ChangePeer(t.Context(), "", shoal.PeerWish{Change: shoal.PeerDrain}, api.WishOptions{})
	wantError(t, err, api.CodeInvalid, `peer is missing`)
	many := shoal.PeerWish{Change: shoal.PeerEdit, Unset: make([]string, 257)}
	_, err = c.ChangePeer(t.Context(), "tokyo", many, api.WishOptions{})
	wantError(t, err, api.CodeInvalid, `labels must be at most 256, got 257`)
}

// watched returns what a peer holds now.
func watched(t *testing.T, c *api.Client, peer string) []api.Held {
	t.Helper()
	var out []api.Held
	enough := errors.New("enough")
	err := c.WatchPeer(t.Context(), peer, func(held []api.Held) error { out = held; return enough })
	if !errors.Is(err, enough) {
		t.Fatalf("WatchPeer(%s): %v", peer, err)
	}
	return out
}

func TestWatchPeer(t *testing.T) {
	twin := apitest.New("tokyo", "osaka")
	c := dial(t, apitest.Serve(t, twin))
	web, db := spec("web", "hello:1", 2), spec("db", "data:1", 1)
	web.Constraints, db.Constraints = nil, nil
	deploy(t, c, web, db)
	want := map[string]api.Held{
		"web": {Why: "waiting for a peer to claim it"}, "db": {Stays: true, Why: "its data is there"},
	}
	held := append(watched(t, c, "tokyo"), watched(t, c, "osaka")...)
	if len(held) != 3 {
		t.Fatalf("%d slots are held, want 3", len(held))
	}
	for _, h := range held {
		if w := want[h.Service]; h.Stays != w.Stays || h.Stuck || h.Why != w.Why {
			t.Errorf("%s/%d = %+v, want %+v", h.Service, h.Slot, h, w)
		}
	}
	change(t, c, "osaka", shoal.PeerWish{Change: shoal.PeerCordon})
	for _, h := range watched(t, c, "tokyo") {
		if h.Stuck == h.Stays || h.Stuck && h.Why != "1 peer: is cordoned" {
			t.Errorf("%s/%d with the other cordoned = %+v, want stuck unless it stays", h.Service, h.Slot, h)
		}
	}

	// a job that has ended waits for nobody
	job := spec("job", "hello:1", 2)
	job.Constraints, job.Restart.Condition = nil, shoal.RestartNone
	deploy(t, c, job)
	twin.Set("job", 0, shoal.PhaseStopped, "exited with code 0")
	twin.Set("job", 1, shoal.PhaseReady, "")
	jobs := slices.DeleteFunc(append(watched(t, c, "tokyo"), watched(t, c, "osaka")...), func(h api.Held) bool { return h.Service != "job" })
	if len(jobs) != 1 || jobs[0].Slot != 1 {
		t.Errorf("of job is held %+v, want slot 1 alone", jobs)
	}
	if _, err := c.Remove(t.Context(), shoal.RemoveWish{Services: []string{"job"}}, api.WishOptions{}); err != nil {
		t.Fatal(err)
	}

	// a watch goes on until it is ended, and says who does not exist
	ctx, cancel := context.WithCancel(t.Context())
	seen := 0
	err := c.WatchPeer(ctx, "osaka", func(held []api.Held) error {
		if seen++; seen == 1 {
			change(t, c, "osaka", shoal.PeerWish{Change: shoal.PeerDrain})
		} else if len(held) < 2 {
			cancel()
		}
		return nil
	})
	if ctx.Err() == nil || err == nil {
		t.Errorf("WatchPeer ended with %v after %d answers, want by its context", err, seen)
	}
	err = c.WatchPeer(t.Context(), "oslo", func([]api.Held) error { return nil })
	if e := asError(t, err); e.Code != api.CodeNotFound {
		t.Errorf("WatchPeer(oslo) = %v, want not found", err)
	}
}

// Two machines may call themselves the same: neither is changed by mistake.
func TestNameOfTwoPeers(t *testing.T) {
	c := dial(t, apitest.Serve(t, apitest.New("tokyo", "osaka", "osaka")))
	_, err := c.ChangePeer(t.Context(), "osaka", shoal.PeerWish{Change: shoal.PeerDrain}, api.WishOptions{})
	wantError(t, err, api.CodeConflict, `2 peers are named "osaka"; write the end of an ID: shoal peer ls -o wide`)
}
