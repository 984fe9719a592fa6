// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seeded returns the same bytes for the same seed.
func seeded(seed byte) io.Reader {
	var s [32]byte
	s[0] = seed
	return rand.NewChaCha8(s)
}

// memory opens an identity in memory.
func memory(t testing.TB, seed byte) *Identity {
	t.Helper()
	id, err := OpenIdentity("", seeded(seed))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// founder opens an identity in memory and makes it the first member of a cluster.
func founder(t testing.TB, seed byte) *Identity {
	t.Helper()
	id := memory(t, seed)
	if _, err := InitCluster(id, time.Unix(1000, 0)); err != nil {
		t.Fatal(err)
	}
	return id
}

// admitBy returns id's admission of peer, signed for id's cluster.
func admitBy(t testing.TB, id *Identity, body *shoal.MemberBody) []byte {
	t.Helper()
	return admitIn(t, id.Cluster(), id, body)
}

// admitIn is admitBy for a cluster that id need not belong to.
func admitIn(t testing.TB, cluster shoal.PeerID, id *Identity, body *shoal.MemberBody) []byte {
	t.Helper()
	seq, err := id.Sequence().Next()
	if err != nil {
		t.Fatal(err)
	}
	env, err := signMember(cluster, id.key, id.Self(), seq, shoal.HLC{WallMilli: 1}, body)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// testStore is a store of one peer, of member and invite records only.
type testStore struct {
	id      *Identity
	mu      sync.Mutex
	records map[string]*shoal.Record
	facts   map[shoal.PeerID]shoal.PeerFacts
	removed map[shoal.PeerID]bool
	desired *shoal.Desired
	changed chan struct{}
	fail    error
	writes  int
}

func newTestStore(t testing.TB, id *Identity) *testStore {
	t.Helper()
	s := &testStore{
		id: id, records: map[string]*shoal.Record{}, facts: map[shoal.PeerID]shoal.PeerFacts{},
		removed: map[shoal.PeerID]bool{}, desired: &shoal.Desired{}, changed: make(chan struct{}),
	}
	for _, env := range id.Chain() {
		s.take(t, env)
	}
	return s
}

// take adds a record by its envelope.
func (s *testStore) take(t testing.TB, env []byte) {
	t.Helper()
	rec, err := proto.DecodeRecord(env)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[rec.Logical()] = rec
	s.fold()
}

func (s *testStore) Update(_ context.Context, fn func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error), _ shoal.UpdateOptions) (shoal.Ack, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bodies, err := fn(s.desired, shoal.Stamp{Author: s.id.Self()})
	if err == nil {
		err = s.fail
	}
	if err != nil || len(bodies) == 0 {
		return shoal.Ack{}, err
	}
	for _, b := range bodies {
		raw, err := proto.EncodeBody(b)
		if err != nil {
			return shoal.Ack{}, err
		}
		seq, err := s.id.Sequence().Next()
		if err != nil {
			return shoal.Ack{}, err
		}
		rec := &shoal.Record{Schema: shoal.Schema, Kind: b.Kind(), Name: b.About(), Author: s.id.Self(), AuthorSeq: seq, Raw: raw, Body: b}
		rec.Signature = s.id.Sign(proto.SigningBytes(s.id.Cluster(), rec))
		s.records[rec.Logical()] = rec
	}
	s.writes++
	s.fold()
	return shoal.Ack{Wrote: true}, nil
}

func (s *testStore) fold() {
	d := &shoal.Desired{Version: s.desired.Version + 1}
	invites := map[string]*shoal.Invite{}
	for _, rec := range s.records {
		switch b := rec.Body.(type) {
		case *shoal.MemberBody:
			d.Peers = append(d.Peers, shoal.Peer{ID: b.Peer, Role: b.Role, Facts: s.facts[b.Peer], Removed: s.removed[b.Peer]})
		case *shoal.InviteBody:
			inv := invites[b.ID]
			if inv == nil {
				inv = &shoal.Invite{ID: b.ID}
				invites[b.ID] = inv
			}
			if b.Role != "" {
				inv.Issuer, inv.Role, inv.PublicKey, inv.ExpiresAt, inv.Uses = rec.Author, b.Role, b.PublicKey, b.ExpiresAt, b.Uses
			}
			inv.Revoked = inv.Revoked || b.Revoked
			inv.RedeemedBy = append(inv.RedeemedBy, b.RedeemedBy...)
		}
	}
	for _, inv := range invites {
		slices.Sort(inv.RedeemedBy)
		inv.RedeemedBy = slices.Compact(inv.RedeemedBy)
		d.Invites = append(d.Invites, *inv)
	}
	slices.SortFunc(d.Invites, func(a, b shoal.Invite) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(d.Peers, func(a, b shoal.Peer) int { return strings.Compare(string(a.ID), string(b.ID)) })
	s.desired = d
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *testStore) Desired() *shoal.Desired {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.desired
}

func (s *testStore) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *testStore) Chain(p shoal.PeerID) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chain(p, 0)
}

func (s *testStore) chain(p shoal.PeerID, depth int) [][]byte {
	for _, rec := range s.records {
		if b, ok := rec.Body.(*shoal.MemberBody); ok && b.Peer == p && depth < 10 {
			return append(s.chain(rec.Author, depth+1), proto.EncodeRecord(rec))
		}
	}
	return nil
}

func (s *testStore) setRemoved(p shoal.PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed[p] = true
	s.fold()
}

func (s *testStore) setAddrs(p shoal.PeerID, addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.facts[p] = shoal.PeerFacts{Addrs: addrs}
	s.fold()
}

// fixedClock is a clock whose wall stands still until it is set; mono runs.
type fixedClock struct {
	shoal.SystemClock
	mu   sync.Mutex
	wall time.Time
}

func newFixedClock() *fixedClock {
	return &fixedClock{SystemClock: shoal.NewSystemClock(), wall: time.Unix(1_700_000_000, 0)}
}

func (c *fixedClock) Wall() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall
}

func (c *fixedClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(d)
}

// quiet is fast enough for tests on a busy machine.
func quiet() Config {
	c := LAN()
	c.Listen = []string{"127.0.0.1:0"}
	c.DialMin, c.DialMax = 20*time.Millisecond, 200*time.Millisecond
	return c
}

// logBuffer is a concurrent log sink that ends up in the test's log on failure.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// testPeer is one peer with real links on loopback.
type testPeer struct {
	*Links
	clock *fixedClock
	logs  *logBuffer
	stop  func()
}

// up runs links for id until the test ends or stop is called.
func up(t testing.TB, cfg Config, id *Identity) *testPeer {
	t.Helper()
	p := &testPeer{clock: newFixedClock(), logs: &logBuffer{}}
	log := slog.New(slog.NewTextHandler(p.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if p.Links, err = New(cfg, id, p.clock, log); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", id.Self().Short(), p.logs)
		}
	})
	t.Cleanup(p.stop)
	if cfg.Host == nil {
		eventually(t, "listen", func() bool { return len(p.Addrs()) > 0 })
	}
	return p
}

// eventually waits for a condition outside of a bubble, by asking it.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: did not happen within 20s", what)
		}
	}
}

func linked(p *testPeer, others ...shoal.PeerID) func() bool {
	return func() bool {
		got := p.Connected()
		slices.Sort(others)
		return slices.Equal(got, others)
	}
}

func mustBe(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", what, err))
	}
}
