// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip/fold"
	"github.com/shoalnet/shoal/links"
	codec "github.com/shoalnet/shoal/proto"
)

// author is a key that writes records.
type author struct {
	id   shoal.PeerID
	priv ed25519.PrivateKey
	key  crypto.PrivKey
	seq  *countingSequence
}

func newAuthor(t testing.TB, name string) *author {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	priv := ed25519.NewKeyFromSeed(seed[:])
	key, err := crypto.UnmarshalEd25519PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &author{id: shoal.PeerID(id.String()), priv: priv, key: key, seq: &countingSequence{}}
}

func (a *author) PeerID() shoal.PeerID { return a.id }

func (a *author) Sign(message []byte) ([]byte, error) { return ed25519.Sign(a.priv, message), nil }

// record returns a signed envelope of body with this sequence number.
func (a *author) record(t testing.TB, seq uint64, body shoal.Body) (*shoal.Record, []byte) {
	t.Helper()
	raw, err := codec.EncodeBody(body)
	if err != nil {
		t.Fatal(err)
	}
	r := &shoal.Record{
		Schema: shoal.Schema, Kind: body.Kind(), Name: body.About(), Author: a.id, AuthorSeq: seq,
		HLC: shoal.HLC{WallMilli: 1}, Raw: raw, Body: body,
	}
	r.Signature, _ = a.Sign(codec.SigningBytes(newAuthor(t, "cluster").id, r))
	return r, codec.EncodeRecord(r)
}

// countingSequence is the links room's, without its disk.
type countingSequence struct {
	mu   sync.Mutex
	last uint64
}

func (s *countingSequence) Next() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return s.last, nil
}

func (s *countingSequence) Skip(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, n)
	return nil
}

// cluster is a cluster key and the members it and they admitted.
type cluster struct {
	key     *author
	members []*author
	chains  map[shoal.PeerID][][]byte
}

// newCluster has n operators: the first admitted by the cluster key, the others by
// the first.
func newCluster(t testing.TB, n int) *cluster {
	t.Helper()
	c := &cluster{key: newAuthor(t, "cluster"), chains: map[shoal.PeerID][][]byte{}}
	for i := range n {
		c.admit(t, fmt.Sprintf("peer %d", i), shoal.RoleOperator)
	}
	return c
}

func (c *cluster) admit(t testing.TB, name string, role shoal.Role) *author {
	t.Helper()
	a := newAuthor(t, name)
	by := c.key
	if len(c.members) > 0 {
		by = c.members[0]
	}
	seq, _ := by.seq.Next()
	_, env := by.record(t, seq, &shoal.MemberBody{Peer: a.id, Role: role})
	c.chains[a.id] = append(append([][]byte(nil), c.chains[by.id]...), env)
	c.members = append(c.members, a)
	return a
}

// admissions returns all member records.
func (c *cluster) admissions() [][]byte {
	var out [][]byte
	for _, m := range c.members {
		chain := c.chains[m.id]
		out = append(out, chain[len(chain)-1])
	}
	return out
}

// config returns the settings of a simulated store of this cluster.
func (c *cluster) config() Config {
	cfg := Sim()
	cfg.Cluster = c.key.id
	return cfg
}

func (c *cluster) deps(t testing.TB, a *author) Deps {
	return Deps{
		Signer: a, Sequence: a.seq, Clock: shoal.NewSystemClock(), Log: testLog(t),
		Chain:       func() [][]byte { return c.chains[a.id] },
		VerifyChain: links.VerifyChain,
	}
}

// testLog writes warnings to the test's log.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// running is a store whose Run runs.
type running struct {
	*Store
	stop func()
}

// start runs a store until the test ends or stop is called.
func start(t testing.TB, cfg Config, deps Deps) *running {
	t.Helper()
	return startWith(t, cfg, deps, allChecks())
}

// startWith runs a store that stands on these checks.
func startWith(t testing.TB, cfg Config, deps Deps, on checks) *running {
	t.Helper()
	s, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	s.checks = on
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-s.Ready():
	case <-s.stopped:
		t.Fatal("store stopped before it was ready")
	case <-time.After(time.Minute):
		t.Fatal("store is not ready after a minute")
	}
	return &running{s, stop}
}

// mark is a small body about a peer: any number of them, all kept.
func (r *running) mark(t testing.TB, about shoal.PeerID, id string) {
	t.Helper()
	_, err := r.Update(context.Background(), func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{&shoal.MarkBody{Peer: about, Laid: []shoal.Mark{{ID: id}}}}, nil
	}, shoal.UpdateOptions{})
	if err != nil {
		t.Fatalf("Update = %v", err)
	}
}

// service returns the body of a first revision.
func service(name string, as shoal.Stamp) shoal.Body {
	return &shoal.RevisionBody{
		Revision: shoal.RevisionID{Seq: 1, Author: as.Author},
		Spec:     shoal.Spec{Name: name, Image: "hello:1", Mode: shoal.ModeReplicated, Replicas: 1, Strategy: shoal.StrategySpread, OnPartition: shoal.PartitionAvailable},
	}
}

func (r *running) deploy(t testing.TB, name string) shoal.Ack {
	t.Helper()
	ack, err := r.Update(context.Background(), func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{service(name, as)}, nil
	}, shoal.UpdateOptions{})
	if err != nil {
		t.Fatalf("Update = %v", err)
	}
	return ack
}

// foldOf folds a store's blocks anew, for comparison.
func foldOf(t testing.TB, s *Store) fold.State {
	t.Helper()
	ctx := context.Background()
	all, err := s.rows.all(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var st fold.State
	for _, c := range all {
		b, err := s.rows.block(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, el := range b.delta.Elements {
			rec, err := codec.DecodeRecord(el.Value)
			if err != nil {
				t.Fatal(err)
			}
			st, _ = st.Add(fold.Entry{Record: rec, Envelope: el.Value})
		}
	}
	return st
}
