// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-ds-crdt/pb"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/network"
	googleproto "google.golang.org/protobuf/proto"

	pubsub "github.com/libp2p/go-libp2p-pubsub"

	"github.com/shoalnet/shoal"
	codec "github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/proto/blocks"
)

// forge makes a block as go-ds-crdt would, of whatever delta.
func forge(t testing.TB, links []cid.Cid, delta *pb.Delta) blocks.Block {
	t.Helper()
	raw, err := googleproto.Marshal(delta)
	if err != nil {
		t.Fatal(err)
	}
	nd := merkledag.NodeWithData(raw)
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

// badBlock is a block that every peer must refuse for the same reason.
type badBlock struct {
	name   string
	reason string
	block  blocks.Block
}

// badBlocks are blocks a member could make that intake refuses without knowing
// anything but the cluster's key; good is one it takes.
func badBlocks(t testing.TB, c *cluster) (bad []badBlock, good blocks.Block) {
	t.Helper()
	evil, other := c.members[0], c.members[1]
	seq := uint64(1000)
	env := func(a *author) []byte {
		seq++
		_, e := a.record(t, seq, &shoal.MarkBody{Peer: other.id, Laid: []shoal.Mark{{ID: "m"}}})
		return e
	}
	add := func(name, reason string, b blocks.Block) { bad = append(bad, badBlock{name, reason, b}) }
	one := func(d *pb.Delta) blocks.Block { return forge(t, nil, d) }
	good = one(delta(t, 1, env(evil)))

	flipped := one(delta(t, 1, env(evil)))
	flipped.Data = append([]byte(nil), flipped.Data...)
	flipped.Data[len(flipped.Data)/2] ^= 1
	add("a byte flipped on the way", reasonCID, flipped)

	renamed := flipped
	if c, err := merkledag.V1CidPrefix().Sum(renamed.Data); err == nil {
		renamed.CID = c.Bytes()
	}
	bad = append(bad, badBlock{"a byte flipped and the name made to fit", "", renamed})

	add("not a block", reasonForm, blocks.Block{CID: good.CID, Data: []byte("garbage")})
	add("no data", reasonCID, blocks.Block{CID: good.CID})
	add("too large", reasonForm, blocks.Block{CID: good.CID, Data: make([]byte, maxBlockBytes+1)})
	add("no records", reasonForm, one(&pb.Delta{Priority: 1}))

	tomb := delta(t, 1, env(evil))
	tomb.Tombstones = []*pb.Element{{Key: "/../../../h", Id: "x"}}
	add("a tombstone that leaves the namespace", reasonTombstone, one(tomb))

	unknown := delta(t, 1, env(evil))
	unknown.ProtoReflect().SetUnknown([]byte{0x7a, 0x01, 0x00})
	add("an unknown field", reasonForm, one(unknown))

	for _, key := range []string{"", "/", "/mark", "/../../h/x", "/mark/" + string(other.id) + "/" + string(evil.id) + "/1/../2", "/mark//" + string(evil.id) + "/1"} {
		d := delta(t, 1, env(evil))
		d.Elements[0].Key = key
		add(fmt.Sprintf("key %q", key), reasonKey, one(d))
	}
	twice := delta(t, 1, env(evil))
	twice.Elements = append(twice.Elements, twice.Elements[0])
	add("a key twice", reasonKey, one(twice))

	foreign := delta(t, 1, env(evil))
	foreign.Elements[0].Key = fmt.Sprintf("/mark/%s/%s/7", other.id, other.id)
	add("another's key", reasonRecord, one(foreign))

	garbage := delta(t, 1, env(evil))
	garbage.Elements[0].Value = []byte("garbage")
	add("a value that is no record", reasonRecord, one(garbage))

	claimed := delta(t, 1, env(evil))
	rec, err := codec.DecodeRecord(claimed.Elements[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	rec.Author = other.id // signed by evil
	claimed.Elements[0] = &pb.Element{Key: rec.Key(), Value: codec.EncodeRecord(rec)}
	add("a forged author", reasonSignature, one(claimed))

	add("an author who was never admitted", reasonChain, one(delta(t, 1, env(newAuthor(t, "stranger")))))
	add("one good and one bad record", reasonChain, one(delta(t, 1, env(evil), env(newAuthor(t, "stranger")))))
	return bad, good
}

func TestJudge(t *testing.T) {
	c := newCluster(t, 2)
	cfg, deps := c.config(), c.deps(t, c.members[0])
	known := newChains(&cfg, &deps)
	for _, m := range c.members {
		if err := known.learn(blocks.Chain{Peer: m.id, Envelopes: c.chains[m.id]}); err != nil {
			t.Fatal(err)
		}
	}
	bad, good := badBlocks(t, c)
	if b, no := known.judge(good, nil); no != nil || len(b.records) != 1 {
		t.Fatalf("judge of a good block = %v", no)
	}
	for _, c := range bad {
		_, no := known.judge(c.block, nil)
		if no == nil || c.reason != "" && no.reason != c.reason {
			t.Errorf("%s: judge = %v, want refused for %q", c.name, no, c.reason)
		}
	}
}

func TestChains(t *testing.T) {
	c := newCluster(t, 2)
	mallory := c.admit(t, "only a peer", shoal.RolePeer)
	cfg, deps := c.config(), c.deps(t, c.members[0])
	known := newChains(&cfg, &deps)
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

// A member that pushes bad blocks changes nothing, delays nobody, and is named.
func TestSimBadPushesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 3)
		s.connectAll()
		s.start(1, false, nil)
		s.start(2, false, nil)
		if err := s.stores[1].Inject(t.Context(), s.c.admissions()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ps, err := NewPubSub(ctx, s.hosts[0])
		if err != nil {
			t.Fatal(err)
		}
		topic, err := ps.Join(TopicName(s.c.key.id), pubsub.WithTopicMessageIdFn(contentID))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		s.converged(0)
		digest, before := s.stores[1].Digest(), s.stores[1].Stats()
		bad, good := badBlocks(t, s.c)
		chain := []blocks.Chain{{Peer: s.c.members[0].id, Envelopes: s.c.chains[s.c.members[0].id]}}
		wrong := chain[0]
		wrong.Peer = newAuthor(t, "stranger").id
		want := map[Refusal]uint64{}
		for _, b := range bad {
			msg := blocks.Push{Blocks: []blocks.Block{b.block}, Chains: append(chain, wrong)}
			if err := topic.Publish(ctx, blocks.Marshal(&msg)); err != nil {
				t.Fatal(err)
			}
			want[Refusal{b.reason, s.c.members[0].id}]++
		}
		_, env := s.c.members[0].record(t, 5000, &shoal.MarkBody{Peer: s.c.members[1].id})
		heads := s.stores[1].committed().heads
		for _, height := range []uint64{0, 1, 7, math.MaxUint64 - 1} {
			b := forge(t, heads, delta(t, height, env))
			if err := topic.Publish(ctx, blocks.Marshal(&blocks.Push{Blocks: []blocks.Block{b}, Chains: chain})); err != nil {
				t.Fatal(err)
			}
			want[Refusal{reasonHeight, s.c.members[0].id}]++
		}
		if err := topic.Publish(ctx, []byte("no message")); err != nil {
			t.Fatal(err)
		}
		want[Refusal{reasonForm, s.c.members[0].id}]++
		time.Sleep(time.Second)
		if got := s.stores[1].Stats(); s.stores[1].Digest() != digest || got.Blocks != before.Blocks {
			t.Errorf("bad blocks had an effect: %+v", got)
		}
		got := s.stores[1].Stats().Refused
		for r, n := range want {
			if r.Reason != "" && got[r] < n {
				t.Errorf("refused %q by the sender %d times, want %d", r.Reason, got[r], n)
			}
		}
		total := uint64(0)
		for _, n := range got {
			total += n
		}
		if int(total) != len(bad)+5 {
			t.Errorf("%d blocks refused, want %d: %v", total, len(bad)+5, got)
		}
		// Good ones still come at once, also from the same sender.
		if err := topic.Publish(ctx, blocks.Marshal(&blocks.Push{Blocks: []blocks.Block{good}, Chains: chain})); err != nil {
			t.Fatal(err)
		}
		s.stores[1].deploy(t, "web")
		time.Sleep(5 * oneWay)
		s.converged(0)
		if got := s.stores[2].Stats(); got.Blocks != before.Blocks+2 {
			t.Errorf("%d blocks, want the good ones too: %d", got.Blocks, before.Blocks+2)
		}
	})
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
