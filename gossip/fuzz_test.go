// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/blocks"
)

// FuzzIntake pushes anything at a store, as the topic would. The verdict is the same
// whether the authors' chains are known or not; what is refused has no effect; what is
// taken merges, and the store goes on writing.
func FuzzIntake(f *testing.F) {
	c := newCluster(f, 2)
	quiet := c.deps(f, c.members[1])
	quiet.Log = slog.New(slog.DiscardHandler) // f's must not be used while it fuzzes
	s := start(f, c.config(), quiet)
	if err := s.Inject(f.Context(), c.admissions()); err != nil {
		f.Fatal(err)
	}
	at, err := s.rows.at(f.Context(), 1, 1)
	if err != nil || len(at) != 1 {
		f.Fatalf("blocks of height 1: %v, %v", at, err)
	}
	for _, h := range corpus(f, c, at[0], 1) {
		f.Add(blocks.Marshal(&blocks.Push{Blocks: []blocks.Block{h.block}, Chains: h.chains}))
	}
	fg := &forger{t: f, c: c, evil: c.members[0], other: c.members[1], seq: 1}
	chain := []blocks.Chain{{Peer: c.members[0].id, Envelopes: c.chains[c.members[0].id]}}
	f.Add(blocks.Marshal(&blocks.Push{Blocks: []blocks.Block{fg.block(nil)}, Chains: chain}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var push blocks.Push
		if blocks.Unmarshal(raw, &push) != nil {
			return
		}
		cfg, deps, all := c.config(), c.deps(t, c.members[1]), allChecks()
		never := func(blocks.Block) bool { return false }
		_, blank := newChains(&cfg, &deps, &all).judgePush(&push, never)
		found, no := s.chains.judgePush(&push, never)
		if (blank == nil) != (no == nil) { // of several faults either may be named
			t.Fatalf("verdict = %v, of a peer that knows nobody %v", no, blank)
		}
		before, digest := s.Stats().Blocks, s.Digest()
		if no != nil {
			return
		}
		if err := s.merge(context.Background(), &arrival{blocks: found, from: c.members[0].id, pushed: true, done: make(chan error, 1)}); err != nil {
			t.Fatalf("merge of what intake took = %v", err)
		}
		if s.Stats().Blocks == before && s.Digest() != digest {
			t.Fatal("what was not taken had an effect")
		}
		s.mark(t, c.members[0].id, "m")
	})
}

// FuzzDecodeBlock: what is taken apart has plain links, and is read the same again.
func FuzzDecodeBlock(f *testing.F) {
	c := newCluster(f, 2)
	fg := &forger{t: f, c: c, evil: c.members[0], other: c.members[1], seq: 1}
	base, err := readCID(fg.block(nil).CID)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(fg.block(nil).Data)
	for _, h := range corpus(f, c, base, 1) {
		if len(h.block.Data) < 4096 {
			f.Add(h.block.Data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := decodeBlock(data)
		if err != nil {
			return
		}
		for _, l := range b.links {
			if l.Prefix() != blockPrefix {
				t.Fatalf("link to %s", l)
			}
		}
		again, err := decodeBlock(bytes.Clone(data))
		if err != nil || again.cid != b.cid || again.delta.Priority != b.delta.Priority || len(again.delta.Elements) != len(b.delta.Elements) {
			t.Fatalf("read again: %v, %v", again, err)
		}
	})
}

// FuzzLearnChain: only a chain that leads to its peer is learned, and nobody else's.
func FuzzLearnChain(f *testing.F) {
	c := newCluster(f, 2)
	for _, m := range c.members {
		f.Add(blocks.Marshal(&blocks.Chain{Peer: m.id, Envelopes: c.chains[m.id]}))
	}
	for _, h := range hostileOf(f, c, reasonChain) {
		for _, chain := range h.chains {
			f.Add(blocks.Marshal(&chain))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var chain blocks.Chain
		if blocks.Unmarshal(raw, &chain) != nil {
			return
		}
		cfg, deps, all := c.config(), c.deps(t, c.members[0]), allChecks()
		known := newChains(&cfg, &deps, &all)
		err := known.learn(chain)
		if (err == nil) != known.admits(chain.Peer) {
			t.Fatalf("learn = %v, admits = %t", err, known.admits(chain.Peer))
		}
		for id := range known.known {
			if id != c.members[0].id && id != c.members[1].id {
				t.Fatalf("a chain of %s was learned that nobody signed", id)
			}
		}
		_ = shoal.PeerID(chain.Peer).Short() // must not panic on what is no ID
	})
}
