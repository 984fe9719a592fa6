// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip"
)

// signer is a gossip.Signer made of a fresh key.
type signer struct {
	id   shoal.PeerID
	priv crypto.PrivKey
}

func newSigner(t *testing.T) signer {
	t.Helper()
	priv, pub, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return signer{shoal.PeerID(id.String()), priv}
}

func (k signer) PeerID() shoal.PeerID                { return k.id }
func (k signer) Sign(message []byte) ([]byte, error) { return k.priv.Sign(message) }

// admit gives every peer of the sea the memory twin of the real store, with real
// signatures and the real fold: a key instead of its name, and its facts on record.
func (s *sea) admit(ctx context.Context) map[shoal.PeerID]*gossip.Memory {
	s.t.Helper()
	cluster := newSigner(s.t)
	stores := map[shoal.PeerID]*gossip.Memory{}
	var admissions []*shoal.Record
	for i, old := range s.ids {
		k := newSigner(s.t)
		r, err := gossip.NewRecord(cluster.PeerID(), cluster, uint64(i+1), shoal.HLC{WallMilli: 1}, &shoal.MemberBody{Peer: k.id, Role: shoal.RoleOperator})
		if err != nil {
			s.t.Fatal(err)
		}
		admissions = append(admissions, r)
		delete(s.peers, old)
		s.ids[i] = k.id
		p := s.newTank(k.id)
		s.peers[k.id] = p
		m := gossip.NewMemory(cluster.id, s.clock, k)
		p.real, p.deps.Store = m, m
		stores[k.id] = m
	}
	for id, m := range stores {
		m.Deliver(admissions)
		s.write(m, &shoal.PeerBody{Peer: id, Facts: shoal.PeerFacts{
			Name: id.Short(), Capacity: shoal.Resources{CPUMilli: 8000, MemBytes: 16 << 30}, PublishAddr: "127.0.0.1",
		}})
	}
	for from, m := range stores {
		s.wg.Go(func() { s.carry(ctx, s.peers[from], m, stores) })
	}
	return stores
}

func (s *sea) write(m *gossip.Memory, b shoal.Body) {
	s.t.Helper()
	_, err := m.Update(context.Background(), func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{b}, nil
	}, shoal.UpdateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
}

// carry brings a store's records to the others after the delay, and tells its peer.
func (s *sea) carry(ctx context.Context, p *tank, from *gossip.Memory, stores map[shoal.PeerID]*gossip.Memory) {
	for n := 0; ctx.Err() == nil; {
		changed := from.Changed()
		s.mu.Lock()
		p.notify()
		s.mu.Unlock()
		var records []*shoal.Record
		records, n = from.Since(n)
		if len(records) > 0 && !sleep(ctx, s.delay) {
			return
		}
		for id, to := range stores {
			if id != p.id {
				to.Deliver(records)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// TestSignedRecords: three peers with signed records, the real fold and the real
// placement: deploy, scale, kill, return, remove; all stores end with one digest.
func TestSignedRecords(t *testing.T) {
	inSea(t, 3, func(s *sea) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stores := s.admit(ctx)
		s.startAll()
		s.wait(3 * time.Minute)
		first := s.first()
		rev := shoal.RevisionID{Seq: 1, Author: first.id}
		s.write(stores[first.id], &shoal.RevisionBody{
			Revision: rev, Proposal: shoal.Proposal{Peers: s.deal(6)},
			Spec: shoal.Spec{Name: "web", Image: "hello:1", Mode: shoal.ModeReplicated, Replicas: 6},
		})
		base := shoal.RevisionID{Seq: 1, Author: first.id}
		s.write(stores[first.id], &shoal.ScaleBody{Service: "web", Seq: 1, Base: &shoal.ScaleBase{ID: base, N: 6, File: -1}})
		took := s.until(5*time.Second, "deployed", func() bool { return s.exact("web", 6) })
		t.Logf("deployed in %s with %d starts", took, s.starts())
		if s.starts() != 6 {
			t.Errorf("%d starts for 6 replicas", s.starts())
		}

		victim := s.peers[s.ids[2]]
		victim.stop()
		victim.engine.KillAll()
		took = s.until(30*time.Second, "refilled", func() bool { return s.exact("web", 6) })
		t.Logf("refilled in %s", took)
		victim.start()
		s.until(60*time.Second, "exact again", func() bool { return victim.told() && s.exact("web", 6) })

		s.write(stores[s.ids[1]], &shoal.GoneBody{Service: "web", Removes: []shoal.RevisionID{rev}})
		s.until(20*time.Second, "gone", func() bool { return s.exact("web", 0) })
		s.wait(time.Minute)
		for _, id := range s.ids {
			if d := stores[id].Desired(); d.Digest != stores[first.id].Desired().Digest || len(d.Claims) != 0 || s.peers[id].containers() != 0 {
				t.Errorf("%s: digest %s, claims %v, %d containers", id.Short(), d.Digest, d.Claims, s.peers[id].containers())
			}
		}
	})
}
