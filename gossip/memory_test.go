// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip_test

import (
	"context"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/gossip/gossiptest"
)

// key is a Signer made of a libp2p key, as links.Identity is.
type key struct {
	id   shoal.PeerID
	priv crypto.PrivKey
}

func newKey(t testing.TB) key {
	t.Helper()
	priv, pub, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return key{shoal.PeerID(id.String()), priv}
}

func (k key) PeerID() shoal.PeerID                { return k.id }
func (k key) Sign(message []byte) ([]byte, error) { return k.priv.Sign(message) }

// record signs a body as k.
func (k key) record(t testing.TB, cluster shoal.PeerID, seq uint64, b shoal.Body) *shoal.Record {
	t.Helper()
	r, err := gossip.NewRecord(cluster, k, seq, shoal.HLC{WallMilli: 1}, b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// twins returns the twins of a new cluster's first n operators, each of which knows
// all of them.
func twins(t testing.TB, n int) []*gossip.Memory {
	t.Helper()
	cluster := newKey(t)
	var out []*gossip.Memory
	var admissions []*shoal.Record
	for i := range n {
		k := newKey(t)
		admissions = append(admissions, cluster.record(t, cluster.id, uint64(i+1), &shoal.MemberBody{Peer: k.id, Role: shoal.RoleOperator}))
		out = append(out, gossip.NewMemory(cluster.id, shoal.NewSystemClock(), k))
	}
	for _, m := range out {
		m.Deliver(admissions)
	}
	return out
}

// carry brings one twin's records to another as they come, until ctx ends.
func carry(ctx context.Context, from, to *gossip.Memory) {
	for n := 0; ctx.Err() == nil; {
		changed := from.Changed()
		var records []*shoal.Record
		records, n = from.Since(n)
		to.Deliver(records)
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func TestMemoryContract(t *testing.T) {
	gossiptest.Run(t, func(t testing.TB) gossiptest.Fixture {
		ms := twins(t, 2)
		return gossiptest.Fixture{
			Store: ms[0], Other: ms[1],
			Connect: func(t testing.TB) {
				ctx, cancel := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				wg.Go(func() { carry(ctx, ms[0], ms[1]) })
				wg.Go(func() { carry(ctx, ms[1], ms[0]) })
				t.Cleanup(func() {
					cancel()
					wg.Wait()
				})
			},
			Reopen: func(testing.TB) shoal.Store { return ms[0].Restart() },
		}
	})
}

// TestMemoryRefuses: what nobody signed, or somebody else did, has no effect and
// stops nothing good.
func TestMemoryRefuses(t *testing.T) {
	ms := twins(t, 2)
	stranger := newKey(t)
	good, err := signedBy(t, ms[0])
	if err != nil {
		t.Fatal(err)
	}
	forged := *good
	forged.Raw = stranger.record(t, stranger.id, 1, &shoal.PeerBody{Peer: good.Author, Facts: shoal.PeerFacts{Name: "forged"}}).Raw
	moved := *good
	moved.AuthorSeq++
	huge := *good
	huge.Raw = make([]byte, 1<<20)
	fake := stranger.record(t, stranger.id, 1, &shoal.PeerBody{Peer: stranger.id})
	fake.Author = good.Author
	ms[1].Deliver([]*shoal.Record{&forged, &moved, &huge, fake, good})
	if n := ms[1].Refused(); n != 4 {
		t.Errorf("Refused = %d, want 4", n)
	}
	if p, ok := ms[1].Desired().Peer(good.Author); !ok || p.Facts.Name != "good" {
		t.Errorf("peer = %+v, want the good record to count", p)
	}
	if ms[1].Desired().Digest != ms[0].Desired().Digest {
		t.Error("digests differ")
	}
}

// signedBy writes a record with the twin and returns it.
func signedBy(t testing.TB, m *gossip.Memory) (*shoal.Record, error) {
	t.Helper()
	_, n := m.Since(0)
	_, err := m.Update(t.Context(), func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{&shoal.PeerBody{Peer: as.Author, Facts: shoal.PeerFacts{Name: "good"}}}, nil
	}, shoal.UpdateOptions{})
	records, _ := m.Since(n)
	if err != nil || len(records) != 1 {
		return nil, err
	}
	return records[0], nil
}

// TestMemoryFresh: only what came over a live link is fresh.
func TestMemoryFresh(t *testing.T) {
	ms := twins(t, 3)
	_, err := ms[0].Update(t.Context(), func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{&shoal.RevisionBody{Revision: shoal.RevisionID{Seq: 1, Author: as.Author}, Spec: shoal.Spec{Name: "web", Image: "i"}}}, nil
	}, shoal.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	records, _ := ms[0].Since(0)
	ms[1].Deliver(records)
	ms[2].Backfill(records)
	for i, want := range []bool{true, true, false} {
		if s, ok := ms[i].Desired().Service("web"); !ok || s.Fresh != want || len(s.Record) == 0 {
			t.Errorf("twin %d: web = %+v, want Fresh %v", i, s, want)
		}
	}
}
