// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/actors"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/gossip/beats"
	"github.com/shoalnet/shoal/links"
	"github.com/shoalnet/shoal/runtime"
)

// partsOn returns those of a daemon on loopback, with the store in dir and the twin
// for an engine.
func partsOn(id *links.Identity, dir string) Parts {
	clock := shoal.NewSystemClock()
	p := Parts{
		Identity: id, Links: links.LAN(), Store: gossip.LAN(), Beats: beats.LAN(), Actors: actors.LAN(),
		HostName: "one", Clock: clock, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	}
	p.Links.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	p.Store.Dir = dir
	p.Engine = func(cluster, self shoal.PeerID) (Engines, error) {
		t := runtime.NewTwin(runtime.TwinConfig{Cluster: cluster, Peer: self}, clock)
		return Engines{Engine: t, Machine: t, Console: t, Puller: t}, nil
	}
	return p
}

// runPeer runs a peer until the returned call, which returns Run's error.
func runPeer(t *testing.T, parts Parts) (*Peer, func() error) {
	t.Helper()
	p, err := NewPeer(parts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return p, func() error { cancel(); return <-done }
}

// A disk without room makes a peer refuse records, not stop: its containers, its
// beats and its reads go on.
func TestFullDiskAtStart(t *testing.T) {
	id, err := links.OpenIdentity("", nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, stop := runPeer(t, partsOn(id, dir))
	if _, err := p.Init(t.Context(), shoal.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	parts := partsOn(id, dir)
	parts.Store.Reserve = 1 << 60
	p, stop = runPeer(t, parts)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := p.awaitStack(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // the peer's own first writes fail before or between these
		if _, err := p.CreateToken(ctx, shoal.TokenOptions{}); !errors.Is(err, shoal.ErrNoSpace) {
			t.Errorf("CreateToken = %v, want ErrNoSpace", err)
		}
	}
	if _, ok := s.store.Desired().Peer(id.Self()); !ok {
		t.Error("the peer does not know itself")
	}
	if err := stop(); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

// A look at the slow facts after the farewell must not take it back: a peer that left
// has no address (shoal.Peer.Left).
func TestFactsAfterFarewell(t *testing.T) {
	id, err := links.OpenIdentity("", nil)
	if err != nil {
		t.Fatal(err)
	}
	p, stop := runPeer(t, partsOn(id, t.TempDir()))
	if _, err := p.Init(t.Context(), shoal.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := p.current()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.markLeaving(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	s.farewell(t.Context())
	if _, err := s.recordFacts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if me, ok := s.store.Desired().Peer(id.Self()); !ok || !me.Left() {
		t.Errorf("after the farewell and a look at the facts: %+v, want it gone", me)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// A store that cannot be removed must not outlive the membership, or the next cluster
// would find it: the peer stays a member, and leaves when asked again.
func TestLeaveKeepsMembershipWithStore(t *testing.T) {
	id, err := links.OpenIdentity("", nil)
	if err != nil {
		t.Fatal(err)
	}
	parts := partsOn(id, t.TempDir())
	broken := errors.New("disk is read-only")
	failing := true
	parts.Forget = func() error {
		if failing {
			return broken
		}
		return nil
	}
	p, stop := runPeer(t, parts)
	if _, err := p.Init(t.Context(), shoal.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := p.Leave(t.Context(), shoal.LeaveOptions{}); !errors.Is(err, broken) || id.Cluster() == "" {
		t.Fatalf("Leave = %v, cluster %q; want that error, and still a member", err, id.Cluster())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := p.awaitStack(ctx); err != nil {
		t.Fatalf("the peer does not work on as a member: %v", err)
	}
	failing = false
	if err := p.Leave(ctx, shoal.LeaveOptions{}); err != nil || id.Cluster() != "" {
		t.Fatalf("Leave = %v, cluster %q; want it gone", err, id.Cluster())
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
