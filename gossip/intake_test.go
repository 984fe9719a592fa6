// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-ds-crdt/pb"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/network"
	googleproto "google.golang.org/protobuf/proto"

	"github.com/shoalnet/shoal"
	codec "github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/proto/blocks"
)

// forge makes a block as go-ds-crdt would, of whatever delta.
func forge(t testing.TB, links []cid.Cid, delta *pb.Delta) blocks.Block {
	t.Helper()
	nd := merkledag.NodeWithData(marshal(t, delta))
	if err := nd.SetCidBuilder(merkledag.V1CidPrefix()); err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if err := nd.AddRawLink("", &ipld.Link{Cid: l}); err != nil {
			t.Fatal(err)
		}
	}
	return blocks.Block{CID: nd.Cid().Bytes(), Data: nd.RawData()}
}

func marshal(t testing.TB, delta *pb.Delta) []byte {
	t.Helper()
	raw, err := googleproto.Marshal(delta)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// delta holds envelopes under their own keys.
func delta(t testing.TB, height uint64, envelopes ...[]byte) *pb.Delta {
	t.Helper()
	d := &pb.Delta{Priority: height}
	for _, env := range envelopes {
		rec, err := codec.DecodeRecord(env)
		if err != nil {
			t.Fatal(err)
		}
		d.Elements = append(d.Elements, &pb.Element{Key: rec.Key(), Value: env})
	}
	return d
}

// Every hostile block is refused for its own reason, or for its place, and at once.
func TestJudge(t *testing.T) {
	c := newCluster(t, 2)
	cfg, deps, all := c.config(), c.deps(t, c.members[0]), allChecks()
	known := newChains(&cfg, &deps, &all)
	_, env := c.members[1].record(t, 9, &shoal.MarkBody{Peer: c.members[0].id})
	root := forge(t, nil, delta(t, 1, env))
	base, err := readCID(root.CID)
	if err != nil {
		t.Fatal(err)
	}
	bad := corpus(t, c, base, 1)
	t.Logf("%d hostile blocks", len(bad))
	for _, h := range bad {
		begin := time.Now()
		b, no := known.judge(h.block, offered(h.chains))
		if took := time.Since(begin); took > time.Second/2 {
			t.Errorf("%s: judged after %v", h.name, took)
		}
		switch {
		case strings.Contains(h.name, "65 links"): // refused with the message it comes in
		case h.reason == reasonHeight:
			if no != nil || len(b.links) == 0 && all.placed(b.delta.Priority, 0) || len(b.links) == 1 && all.placed(b.delta.Priority, 1) {
				t.Errorf("%s: judge = %v, or it is well placed at %d", h.name, no, b.delta.Priority)
			}
		case no == nil || no.reason != h.reason:
			t.Errorf("%s: judge = %v, want refused for %q", h.name, no, h.reason)
		}
	}
	chain := []blocks.Chain{{Peer: c.members[1].id, Envelopes: c.chains[c.members[1].id]}}
	if b, no := known.judge(root, offered(chain)); no != nil || len(b.records) != 1 {
		t.Errorf("judge of a good block = %v", no)
	}
}

func TestChains(t *testing.T) {
	c := newCluster(t, 2)
	mallory := c.admit(t, "only a peer", shoal.RolePeer)
	cfg, deps, all := c.config(), c.deps(t, c.members[0]), allChecks()
	known := newChains(&cfg, &deps, &all)
	friend := newAuthor(t, "friend")
	_, env := mallory.record(t, 1, &shoal.MemberBody{Peer: friend.id, Role: shoal.RoleOperator})
	if err := known.learn(blocks.Chain{Peer: friend.id, Envelopes: append(append([][]byte(nil), c.chains[mallory.id]...), env)}); err == nil {
		t.Error("a chain through a peer that may not admit was learned")
	}
	if err := known.learn(blocks.Chain{Peer: friend.id, Envelopes: c.chains[mallory.id]}); err == nil {
		t.Error("another's chain was learned")
	}
	if err := known.learn(blocks.Chain{Peer: mallory.id, Envelopes: c.chains[mallory.id]}); err != nil {
		t.Fatalf("learn = %v", err)
	}
	for id, want := range map[shoal.PeerID]bool{
		mallory.id: true, c.members[0].id: true, c.members[1].id: false, friend.id: false, c.key.id: true,
	} {
		if got := known.admits(id); got != want {
			t.Errorf("admits(%s) = %t, want %t", id, got, want)
		}
	}
	if got := len(known.unsaved()); got != 2 {
		t.Errorf("%d chains to save, want those of the first member and the peer", got)
	}
}

// A peer that answers syncs with a flipped byte has no effect, and is named; what
// builds on the refused block does not come in either; the truth still does.
func TestSimFlippedByteOnSyncIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 3)
		s.connectAll()
		s.start(1, true, func(c *Config) { c.SyncInterval = time.Hour })
		s.start(2, true, func(c *Config) { c.SyncInterval = time.Hour })
		if err := s.stores[1].Inject(t.Context(), s.c.admissions()); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			s.stores[1].mark(t, s.c.members[0].id, fmt.Sprintf("m%d", i))
		}
		// Host 0 relays store 1's blocks, with one bit flipped in the third.
		all, err := s.stores[1].rows.all(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var batch blocks.Batch
		sent := map[shoal.PeerID]bool{}
		for i, c := range all {
			b, err := s.stores[1].rows.block(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			data := append([]byte(nil), b.data...)
			if i == 2 {
				data[len(data)-20] ^= 4
			}
			batch.Blocks = append(batch.Blocks, blocks.Block{CID: c.Bytes(), Data: data})
			batch.Chains = append(batch.Chains, s.stores[1].chains.authors(b, sent)...)
		}
		batch.End = true
		s.hosts[0].SetStreamHandler(SyncProtocol, func(st network.Stream) {
			defer func() { _ = st.Close() }()
			var req blocks.Request
			if err := blocks.Read(st, &req, maxAsk); err != nil {
				t.Errorf("read request: %v", err)
			}
			heads := bytesOf(s.stores[1].committed().heads)
			if err := blocks.Write(st, &blocks.Reply{State: blocks.StateFollows, Heads: heads}, maxFrame); err != nil {
				t.Errorf("write reply: %v", err)
			}
			if err := blocks.Write(st, &batch, maxFrame); err != nil {
				t.Errorf("write batch: %v", err)
			}
		})
		victim := s.stores[2]
		if err := victim.SyncWith(t.Context(), s.c.members[0].id); !errors.Is(err, errSyncIncomplete) {
			t.Errorf("SyncWith a liar = %v, want errSyncIncomplete", err)
		}
		got := victim.Stats()
		if got.Refused[Refusal{reasonCID, s.c.members[0].id}] != 1 || len(got.Refused) != 1 || got.Blocks != 2 {
			t.Errorf("%+v, want one block refused and the two before it", got)
		}
		if err := victim.SyncWith(t.Context(), s.c.members[1].id); err != nil {
			t.Errorf("SyncWith the truth = %v", err)
		}
		if victim.Digest() != s.stores[1].Digest() {
			t.Error("digests differ after a sync with the truth")
		}
	})
}

// Strangers' streams are not answered, nor are those of another cluster.
func TestSimStrangersAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 2)
		s.connectAll()
		a := s.start(0, false, nil)
		other := s.c.members[1]
		b := s.start(1, false, func(c *Config) { c.Cluster = other.id })
		if err := a.Inject(t.Context(), s.c.admissions()); err != nil {
			t.Fatal(err)
		}
		if err := b.SyncWith(t.Context(), s.c.members[0].id); !errors.Is(err, errSyncRefused) {
			t.Errorf("SyncWith another cluster = %v, want errSyncRefused", err)
		}
		if b.Stats().Blocks != 0 {
			t.Error("blocks of another cluster came in")
		}
	})
}
