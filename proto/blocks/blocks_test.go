// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blocks_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-ds-crdt/pb"
	googleproto "google.golang.org/protobuf/proto"

	"github.com/shoalnet/shoal/proto/blocks"
	"github.com/shoalnet/shoal/proto/frame"
)

func TestMessagesRoundTrip(t *testing.T) {
	chain := blocks.Chain{Peer: "12D3KooA", Envelopes: [][]byte{{1}, {2, 3}}}
	block := blocks.Block{CID: []byte{1, 2}, Data: []byte("data")}
	for _, c := range []struct{ in, out blocks.Message }{
		{&blocks.Delta{Elements: []blocks.Element{{Key: "/a", Value: []byte("v")}}, Priority: 7}, &blocks.Delta{}},
		{&blocks.Heads{CIDs: [][]byte{{1}, {2}}}, &blocks.Heads{}},
		{&chain, &blocks.Chain{}},
		{&blocks.Push{Blocks: []blocks.Block{block}, Chains: []blocks.Chain{chain}}, &blocks.Push{}},
		{&blocks.Request{Cluster: "12D3KooC", Epoch: 1, Heads: [][]byte{{1}}, Samples: [][]byte{{2}}}, &blocks.Request{}},
		{&blocks.Reply{State: blocks.StateEqual, Heads: [][]byte{{1}}}, &blocks.Reply{}},
		{&blocks.Reply{State: blocks.StateSamples}, &blocks.Reply{}},
		{&blocks.Reply{State: blocks.StateFollows}, &blocks.Reply{}},
		{&blocks.Reply{State: blocks.StateRefused}, &blocks.Reply{}},
		{&blocks.Batch{Blocks: []blocks.Block{block}, Chains: []blocks.Chain{chain}, End: true, More: true}, &blocks.Batch{}},
		{&blocks.AckRequest{Cluster: "12D3KooC", CID: []byte{9}, WaitMillis: 100}, &blocks.AckRequest{}},
		{&blocks.AckReply{Durable: true}, &blocks.AckReply{}},
	} {
		var stream bytes.Buffer
		if err := blocks.Write(&stream, c.in, 1024); err != nil {
			t.Fatalf("Write(%T) = %v", c.in, err)
		}
		if err := blocks.Read(&stream, c.out, 1024); err != nil {
			t.Fatalf("Read(%T) = %v", c.out, err)
		}
		if diff := cmp.Diff(c.in, c.out); diff != "" {
			t.Errorf("%T after a round trip (-in +out):\n%s", c.in, diff)
		}
	}
}

// The delta must be read exactly as go-ds-crdt reads it.
func TestDeltaIsGoDsCrdts(t *testing.T) {
	raw, err := googleproto.Marshal(&pb.Delta{Elements: []*pb.Element{{Key: "/k", Value: []byte("v")}}, Priority: 3})
	if err != nil {
		t.Fatal(err)
	}
	want := blocks.Delta{Elements: []blocks.Element{{Key: "/k", Value: []byte("v")}}, Priority: 3}
	var got blocks.Delta
	if err := blocks.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("delta (-want +got):\n%s", diff)
	}
	heads, err := googleproto.Marshal(&pb.CRDTBroadcast{Heads: []*pb.Head{{Cid: []byte{1}}}})
	if err != nil {
		t.Fatal(err)
	}
	if mine := blocks.Marshal(&blocks.Heads{CIDs: [][]byte{{1}}}); !bytes.Equal(heads, mine) {
		t.Errorf("Heads = %x, want %x", mine, heads)
	}
}

func TestDeltaRefusesWhatHides(t *testing.T) {
	elem := func(e *pb.Element) *pb.Delta { return &pb.Delta{Elements: []*pb.Element{e}, Priority: 1} }
	many := &pb.Delta{}
	for range blocks.MaxElements + 1 {
		many.Elements = append(many.Elements, &pb.Element{Key: "/k"})
	}
	unknown := elem(&pb.Element{Key: "/k"})
	unknown.ProtoReflect().SetUnknown([]byte{0x7a, 0x01, 0x00}) // field 15
	for name, d := range map[string]*pb.Delta{
		"tombstone":     {Tombstones: []*pb.Element{{Key: "/a/../../b"}}},
		"unknown field": unknown,
		"element id":    elem(&pb.Element{Key: "/k", Id: "x"}),
		"too many":      many,
	} {
		raw, err := googleproto.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		err = blocks.Unmarshal(raw, &blocks.Delta{})
		if err == nil {
			t.Errorf("%s: Unmarshal = nil, want an error", name)
		}
		if name == "tombstone" && !errors.Is(err, blocks.ErrTombstone) {
			t.Errorf("tombstone: Unmarshal = %v, want ErrTombstone", err)
		}
	}
}

func TestBounds(t *testing.T) {
	long := make([][]byte, blocks.MaxHeads+1)
	for _, m := range []blocks.Message{
		&blocks.Request{Heads: long},
		&blocks.Reply{Heads: long},
		&blocks.Chain{Envelopes: long[:blocks.MaxChain+1]},
		&blocks.Push{Blocks: make([]blocks.Block, blocks.MaxBlocks+1)},
		&blocks.Batch{Chains: make([]blocks.Chain, blocks.MaxChains+1)},
	} {
		raw := blocks.Marshal(m)
		if err := blocks.Unmarshal(raw, m); err == nil || !strings.Contains(err.Error(), "limit") {
			t.Errorf("Unmarshal(%T) = %v, want a limit", m, err)
		}
	}
	var stream bytes.Buffer
	if err := blocks.Write(&stream, &blocks.AckRequest{CID: make([]byte, 100)}, 1000); err != nil {
		t.Fatal(err)
	}
	if err := blocks.Read(&stream, &blocks.AckRequest{}, 50); !errors.Is(err, frame.ErrTooLarge) {
		t.Errorf("Read of a long frame = %v, want ErrTooLarge", err)
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add(blocks.Marshal(&blocks.Delta{Elements: []blocks.Element{{Key: "/k", Value: []byte("v")}}, Priority: 1}))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		for _, m := range []blocks.Message{
			&blocks.Delta{}, &blocks.Push{}, &blocks.Request{}, &blocks.Reply{},
			&blocks.Batch{}, &blocks.AckRequest{}, &blocks.AckReply{}, &blocks.Chain{}, &blocks.Heads{},
		} {
			_ = blocks.Unmarshal(raw, m) // must not panic; an error is as good
		}
	})
}
