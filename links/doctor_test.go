// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/shoalnet/shoal"
)

// examined collects what fn reports, by name.
func examined(t *testing.T, look func(func(shoal.Check) error) error) (map[string]shoal.Check, error) {
	t.Helper()
	out := map[string]shoal.Check{}
	err := look(func(c shoal.Check) error {
		out[c.Name] = c
		if (c.Remedy != "") != (c.State == shoal.CheckFail || c.State == shoal.CheckWarn) && c.Area != "token" {
			t.Errorf("check %q is %s with the remedy %q", c.Name, c.State, c.Remedy)
		}
		return nil
	})
	return out, err
}

// TestWays looks at a member over loopback: both ways work, the clocks stand a minute
// and more apart, and one address more, where nobody listens, is only a warning.
func TestWays(t *testing.T) {
	a, b := pair(t)
	dead := "/ip4/127.0.0.1/tcp/1"
	a.store.setAddrs(b.id.Self(), append(b.Addrs(), dead)...)
	a.SetMembers(a.store.Desired())
	b.clock.add(90 * time.Second)
	got, err := examined(t, func(fn func(shoal.Check) error) error { return a.Ways(t.Context(), b.id.Self(), fn) })
	mustBe(t, "ways", err)
	for _, addr := range b.Addrs() {
		where, _ := wayOf(ma.StringCast(addr))
		if c := got["dial "+where]; c.State != shoal.CheckOK || !strings.HasPrefix(c.Detail, "handshake in ") || c.Peer != b.id.Self() {
			t.Errorf("dial %s = %+v, want ok", where, c)
		}
	}
	if c := got["dial 127.0.0.1:1 by tcp"]; c.State != shoal.CheckWarn || !strings.Contains(c.Detail, "refused") {
		t.Errorf("dial where nobody listens = %+v, want a warning", c)
	}
	if c := got["link"]; c.State != shoal.CheckOK || !strings.HasPrefix(c.Detail, "5 of 5 pings") {
		t.Errorf("link = %+v", c)
	}
	if c := got["offset"]; c.State != shoal.CheckFail || !strings.HasPrefix(c.Detail, "its clock is 1m30s ahead of ours") {
		t.Errorf("offset = %+v, want a minute and a half", c)
	}
	if c := got["address translation"]; c.State != shoal.CheckOK || !strings.Contains(c.Detail, "127.0.0.1") {
		t.Errorf("address translation = %+v, want none", c)
	}
	if c := got["packet size"]; c.State != shoal.CheckOK {
		t.Errorf("packet size = %+v", c)
	}
}

// TestWaysToTheDead fails for a member that is gone, and says what to do.
func TestWaysToTheDead(t *testing.T) {
	a, b := pair(t)
	a.store.setAddrs(b.id.Self(), b.Addrs()...)
	a.SetMembers(a.store.Desired())
	addrs := b.Addrs()
	b.stop()
	eventually(t, "a saw b go", linked(a.testPeer))
	got, err := examined(t, func(fn func(shoal.Check) error) error { return a.Ways(t.Context(), b.id.Self(), fn) })
	mustBe(t, "ways", err)
	for _, addr := range addrs {
		where, _ := wayOf(ma.StringCast(addr))
		if c := got["dial "+where]; c.State != shoal.CheckFail {
			t.Errorf("dial %s = %+v, want a failure", where, c)
		}
	}
	if c := got["link"]; c.State != shoal.CheckFail {
		t.Errorf("link = %+v, want a failure", c)
	}
	if _, err := examined(t, func(fn func(shoal.Check) error) error { return a.Ways(t.Context(), "nobody", fn) }); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Ways(nobody) = %v, want ErrNotFound", err)
	}
	if err := a.AskDoctor(t.Context(), b.id.Self(), nil); !errors.Is(err, shoal.ErrUnreachable) {
		t.Errorf("AskDoctor(dead) = %v, want ErrUnreachable", err)
	}
}

// TestAskDoctor carries checks over; nobody speaks for another, and a word of a later
// version is no verdict.
func TestAskDoctor(t *testing.T) {
	a, b := pair(t)
	var asker shoal.PeerID
	fail := errors.New("the engine ate it")
	b.ServeDoctor(func(_ context.Context, who shoal.PeerID, fn func(shoal.Check) error) error {
		asker = who
		for _, c := range []shoal.Check{
			{Peer: a.id.Self(), Area: "disk", Name: "room", State: shoal.CheckWarn, Detail: "little", Remedy: "free some"},
			{Area: "disk", Name: "later", State: "superb"},
		} {
			if err := fn(c); err != nil {
				return err
			}
		}
		return fail
	})
	got, err := examined(t, func(fn func(shoal.Check) error) error { return a.AskDoctor(t.Context(), b.id.Self(), fn) })
	if err == nil || !strings.Contains(err.Error(), fail.Error()) || asker != a.id.Self() {
		t.Errorf("AskDoctor = %v of %s, want its error", err, asker.Short())
	}
	want := shoal.Check{Peer: b.id.Self(), Area: "disk", Name: "room", State: shoal.CheckWarn, Detail: "little", Remedy: "free some"}
	if got["room"] != want || got["later"].State != shoal.CheckSkip {
		t.Errorf("AskDoctor = %+v", got)
	}
}

// TestTokenWays checks a token without redeeming it.
func TestTokenWays(t *testing.T) {
	a := newCluster(t, 1)
	b := newcomer(t, 2)
	token := a.invite(t, shoal.TokenOptions{})
	writes := a.store.writes
	got, err := examined(t, func(fn func(shoal.Check) error) error { return b.TokenWays(t.Context(), token, fn) })
	mustBe(t, "token", err)
	if c := got["admission"]; c.State != shoal.CheckOK || a.store.writes != writes || b.id.Cluster() != "" {
		t.Errorf("admission = %+v after %d writes, want ok and nothing done", c, a.store.writes-writes)
	}
	dials := 0
	for name, c := range got {
		if strings.HasPrefix(name, "dial ") && c.State == shoal.CheckOK && c.Peer == a.id.Self() {
			dials++
		}
	}
	if dials == 0 {
		t.Errorf("no way of the token was dialled: %+v", got)
	}
	a.stop()
	got, err = examined(t, func(fn func(shoal.Check) error) error { return b.TokenWays(t.Context(), token, fn) })
	mustBe(t, "token of a dead peer", err)
	if c := got["admission"]; c.State != shoal.CheckFail {
		t.Errorf("admission by a dead peer = %+v, want a failure", c)
	}
	var bad *TokenError
	if err := b.TokenWays(t.Context(), "shoal1-AAAA", nil); !errors.As(err, &bad) {
		t.Errorf("TokenWays(no token) = %v, want a TokenError", err)
	}
}

func TestClockCheck(t *testing.T) {
	for _, c := range []struct {
		offset, rtt time.Duration
		want        shoal.CheckState
	}{
		{0, 0, shoal.CheckOK},
		{900 * time.Millisecond, 0, shoal.CheckOK},
		{-2 * time.Second, 0, shoal.CheckWarn},
		{2 * time.Second, 3 * time.Second, shoal.CheckOK}, // it may be the way
		{-2 * time.Minute, time.Second, shoal.CheckFail},
	} {
		if got := clockCheck(c.offset, c.rtt); got.State != c.want {
			t.Errorf("clockCheck(%s, %s) = %+v, want %s", c.offset, c.rtt, got, c.want)
		}
	}
}
