// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/blocks"
)

func TestBucket(t *testing.T) {
	f := flow{rate: 2, burst: 10}
	var b bucket
	for i, c := range []struct {
		at   time.Duration
		n    float64
		want bool
	}{
		{0, 10, true},
		{0, 1, false},
		{time.Second, 3, false},
		{time.Second, 2, true},
		{time.Second, 0.1, false},
		{6 * time.Second, 1000, true}, // empty again: even what is larger than a burst
		{100 * time.Second, 1, false},
	} {
		if got := b.take(c.at, f, c.n); got != c.want {
			t.Errorf("%d: take(%v, %v) = %t, want %t", i, c.at, c.n, got, c.want)
		}
	}
	b = bucket{}
	if d := b.owe(0, f, 10); d != 0 {
		t.Errorf("owe of a burst = %v, want 0", d)
	}
	if d := b.owe(0, f, 4); d != 2*time.Second {
		t.Errorf("owe of 4 above a burst = %v, want 2s", d)
	}
}

func TestConductMutesAndForgives(t *testing.T) {
	c := newConduct()
	var now time.Duration
	offend := func() (muted time.Duration, after int) {
		for after = 1; after < 1000; after++ {
			if d := c.fault(now, "evil"); d > 0 {
				return d, after
			}
		}
		return 0, after
	}
	want := muteFirst
	for range 10 {
		d, n := offend()
		if d != want || n != int(faultFlow.burst)+1 {
			t.Fatalf("muted for %v after %d faults, want %v after %v", d, n, want, faultFlow.burst+1)
		}
		if !c.isMuted(now, "evil") || c.isMuted(now, "good") || c.muted(now)["evil"] != d {
			t.Error("muted says otherwise")
		}
		if again := c.fault(now, "evil"); again != 0 {
			t.Error("a fault while muted makes it longer")
		}
		now += d
		if c.isMuted(now, "evil") {
			t.Error("still muted when the time has passed")
		}
		want = min(2*want, muteMost)
	}
	now += muteForget*muteMost + 1
	if d, _ := offend(); d != muteFirst {
		t.Errorf("muted for %v after long good behaviour, want %v", d, muteFirst)
	}
	// One fault now and then never mutes.
	for range 1000 {
		now += time.Duration(float64(time.Second) / faultFlow.rate)
		if c.fault(now, "clumsy") > 0 {
			t.Fatal("muted for a fault every ten seconds")
		}
	}
}

func TestConductIsBounded(t *testing.T) {
	c := newConduct()
	for range int(faultFlow.burst) + 1 {
		c.fault(0, "evil")
	}
	for i := range 2 * maxConduct {
		c.mayPush(time.Duration(i), shoal.PeerID(fmt.Sprint(i)), 1)
	}
	if n := len(c.peers); n != maxConduct {
		t.Errorf("%d peers are known, want %d", n, maxConduct)
	}
	if !c.isMuted(1, "evil") {
		t.Error("who is muted was forgotten while others could go")
	}
}

func TestConductSlowsWhoHoldsMuch(t *testing.T) {
	c := newConduct()
	count := func() int {
		n := 0
		for c.mayWrite(0, "busy", written{1, 100}) {
			n++
		}
		delete(c.peers, "busy")
		return n
	}
	if n := count(); n != int(writeFlow.burst) {
		t.Errorf("%d records at once, want %v", n, writeFlow.burst)
	}
	c.weigh(0, "busy", true)
	if n := count(); n != int(writeFlow.burst)/heavyFactor {
		t.Errorf("%d records at once of who holds much, want %v", n, writeFlow.burst/heavyFactor)
	}
	if (written{heavyRecords, heavyBytes}).heavy() || !(written{heavyRecords + 1, 0}).heavy() || !(written{0, heavyBytes + 1}).heavy() {
		t.Error("heavy is wrong at its limits")
	}
}

func TestOrphansOfOneLeaveRoomForOthers(t *testing.T) {
	o := newOrphans()
	block := func(i int) *block {
		c, err := blockPrefix.Sum(fmt.Append(nil, i))
		if err != nil {
			t.Fatal(err)
		}
		return &block{cid: c, data: make([]byte, 10)}
	}
	n := 0
	for o.add(incoming{block(n), "evil", true}, cid.Undef, 0) {
		n++
	}
	if n != maxOrphans/senderShare {
		t.Errorf("%d blocks of one sender wait, want %d", n, maxOrphans/senderShare)
	}
	if !o.add(incoming{block(1 << 20), "good", true}, cid.Undef, 0) {
		t.Error("no room for another's block")
	}
	if !o.remove(block(0).cid) || !o.add(incoming{block(0), "evil", true}, cid.Undef, 0) {
		t.Error("no room after one went")
	}
	big := block(1 << 21)
	big.data = make([]byte, maxOrphanBytes/senderShare)
	if o.add(incoming{big, "evil", true}, cid.Undef, 0) {
		t.Error("more bytes of one sender wait than its share")
	}
}

// A member that keeps pushing bad blocks is not listened to for a while, and then it is.
func TestSimMuted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := besiege(t)
		for i := range int(faultFlow.burst) + 10 {
			s.push(fmt.Append(nil, "garbage ", i))
		}
		time.Sleep(3 * oneWay)
		st := s.victim.Stats()
		if got := st.Refused[Refusal{reasonForm, s.evil.id}]; got != uint64(faultFlow.burst)+1 || st.Muted[s.evil.id] <= 0 {
			t.Errorf("%d refused and muted: %v; want it muted after %v", got, st.Muted, faultFlow.burst+1)
		}
		if len(st.Muted) != 1 || len(s.stores[2].Stats().Muted) != 1 {
			t.Errorf("muted: %v and %v, want the sender alone", st.Muted, s.stores[2].Stats().Muted)
		}
		f := &forger{t: t, c: s.c, evil: s.evil, other: s.c.members[1], seq: 1}
		push := func() {
			list := []blocks.Block{f.block(nil)}
			s.push(blocks.Marshal(&blocks.Push{Blocks: list, Chains: []blocks.Chain{{Peer: s.evil.id, Envelopes: s.c.chains[s.evil.id]}}}))
			time.Sleep(3 * oneWay)
		}
		push()
		if got := s.victim.Stats(); got.Blocks != st.Blocks {
			t.Error("a block of a muted peer was taken")
		}
		if !s.good() {
			t.Error("a good block of another does not arrive")
		}
		time.Sleep(muteFirst)
		before := s.victim.Stats().Blocks
		push()
		if got := s.victim.Stats(); got.Blocks != before+1 || len(got.Muted) > 0 {
			t.Errorf("%d blocks more and muted %v after the time has passed, want 1 and nobody", got.Blocks-before, got.Muted)
		}
	})
}

// Who passes on what it could not know to be bad is not muted, and cannot be made to
// pass on anything else.
func TestSimRelayIsNotBlamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := besiege(t)
		if err := s.host.Network().ClosePeer(s.hosts[1].ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		f := &forger{t: t, c: s.c, evil: s.evil, other: s.c.members[1], seq: 1}
		chain := []blocks.Chain{{Peer: s.evil.id, Envelopes: s.c.chains[s.evil.id]}}
		for i := range 3 * int(faultFlow.burst) {
			for _, p := range []blocks.Push{
				{Blocks: []blocks.Block{forge(t, []cid.Cid{s.base}, f.delta(uint64(100+i)))}, Chains: chain}, // wrong height
				{Blocks: []blocks.Block{f.block(nil)}},                                                       // its chain stripped, which the relay knows
				{Blocks: []blocks.Block{f.block(nil)}, Chains: []blocks.Chain{{Peer: s.evil.id, Envelopes: [][]byte{{1}}}}},
				{Blocks: []blocks.Block{{CID: s.base.Bytes(), Data: fmt.Append(nil, i)}}, Chains: chain}, // a name it knows
			} {
				s.push(blocks.Marshal(&p))
				time.Sleep(forgiven) // else the relay soon takes nothing more
			}
		}
		for r, n := range s.victim.Stats().Refused {
			if r.Reason != reasonHeight {
				t.Errorf("%d refused for %s of %s, want heights alone to get through the relay", n, r.Reason, r.From.Short())
			}
		}
		if got := s.victim.Stats().Refused[Refusal{reasonHeight, s.c.members[2].id}]; got < uint64(3*faultFlow.burst) {
			t.Errorf("%d heights were passed on, want all: the test shows nothing", got)
		}
		if got := s.victim.Stats().Muted; len(got) > 0 {
			t.Errorf("muted: %v, want nobody", got)
		}
	})
}

// peerNamed is something of the form of a peer ID, each another.
func peerNamed(i int) shoal.PeerID {
	return shoal.PeerID("peer" + strings.ReplaceAll(fmt.Sprint(i), "0", "z"))
}

// flood is n valid blocks of the evil member with so many records each, in a row or side
// by side.
func (s *siege) flood(n, each int, inRow bool) []blocks.Block {
	s.t.Helper()
	f := &forger{t: s.t, c: s.c, evil: s.evil, other: s.c.members[1], seq: 1}
	out := make([]blocks.Block, n)
	var links []cid.Cid
	for i := range out {
		height := uint64(1)
		if inRow {
			height += uint64(i)
		}
		envelopes := make([][]byte, each)
		for k := range envelopes {
			f.seq++
			_, envelopes[k] = s.evil.record(s.t, f.seq, &shoal.MarkBody{Peer: peerNamed(i), Laid: []shoal.Mark{{ID: fmt.Sprint(k)}}})
		}
		out[i] = forge(s.t, links, delta(s.t, height, envelopes...))
		if inRow {
			c, err := readCID(out[i].CID)
			if err != nil {
				s.t.Fatal(err)
			}
			links = []cid.Cid{c}
		}
	}
	return out
}

// offers answers syncs with all of these blocks.
func (s *siege) offers(list []blocks.Block) {
	chain := []blocks.Chain{{Peer: s.evil.id, Envelopes: s.c.chains[s.evil.id]}}
	s.answers(func(st network.Stream) {
		_ = blocks.Read(st, &blocks.Request{}, maxAsk)
		_ = blocks.Write(st, &blocks.Reply{State: blocks.StateFollows, Heads: [][]byte{list[len(list)-1].CID}}, maxFrame)
		for at := 0; at < len(list); at += batchBlocks {
			end := min(at+batchBlocks, len(list))
			if blocks.Write(st, &blocks.Batch{Blocks: list[at:end], Chains: chain, End: end == len(list)}, maxFrame) != nil {
				return
			}
		}
	})
}

// A member that floods valid records is slowed; others' blocks come through meanwhile;
// and in the end everybody has everything.
func TestSimFloodIsSlowedNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := besiege(t)
		const each, above = 20, 100
		n := int(writeFlow.burst)/each + above
		list := s.flood(n, each, true)
		s.offers(list)
		chain := []blocks.Chain{{Peer: s.evil.id, Envelopes: s.c.chains[s.evil.id]}}
		before, begin := s.victim.Stats().Blocks, time.Now()
		late := 0
		for i, b := range list {
			s.push(blocks.Marshal(&blocks.Push{Blocks: []blocks.Block{b}, Chains: chain}))
			if i%10 == 0 {
				time.Sleep(time.Millisecond) // 10,000 blocks a second
			}
			if i%50 == 49 && !s.good() {
				late++
			}
		}
		slowed := s.victim.Stats().Slowed
		if slowed == 0 || late > 0 {
			t.Errorf("%d pushes put off, want some; %d good blocks came late, want none", slowed, late)
		}
		for s.victim.Stats().Blocks < before+n && time.Since(begin) < time.Minute {
			time.Sleep(10 * time.Millisecond)
		}
		took := time.Since(begin)
		s.converged(time.Minute)
		if got := s.victim.Stats(); got.Blocks < before+n || len(got.Refused) > 0 || len(got.Muted) > 0 {
			t.Errorf("%+v, want %d blocks more, and nothing refused", got, n)
		}
		if took < paceWait {
			t.Errorf("all came in %v: it was not slowed", took)
		}
		t.Logf("%d blocks in %v, %d pushes put off", n, took, slowed)
	})
}

// More heads than a block may link, and than a message names, keep nobody from writing
// nor from being told.
func TestSimManyHeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := besiege(t)
		n := blocks.MaxHeads + 200
		s.stores[2].stop()
		s.offers(s.flood(n, 1, false))
		if err := s.victim.SyncWith(t.Context(), s.evil.id); err != nil {
			t.Fatal(err)
		}
		if got := s.victim.Stats().Heads; got <= blocks.MaxHeads {
			t.Fatalf("%d heads: the test shows nothing", got)
		}
		s.stores[2] = s.start(2, false, nil) // a newcomer
		if err := s.stores[2].SyncWith(t.Context(), s.c.members[1].id); err != nil {
			t.Errorf("SyncWith a store of many heads = %v", err)
		}
		s.converged(0)
		for i := range 3 {
			if !s.good() {
				t.Errorf("write %d on many heads does not arrive", i)
			}
		}
		if got := s.victim.Stats().Heads; got > maxLinks {
			t.Errorf("%d heads after three writes, want them gathered", got)
		}
	})
}

// Streams that say nothing, or a byte a second, take no place of others.
func TestSimSilentStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := besiege(t)
		for range 3 * syncSlots {
			st, err := s.host.NewStream(t.Context(), s.hosts[1].ID(), SyncProtocol)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = st.Write([]byte{0})
		}
		s.answers(func(st network.Stream) {
			for {
				if _, err := st.Write([]byte{0}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		s.victim.wantSync(s.evil.id)
		time.Sleep(100 * time.Millisecond)
		begin := time.Now()
		if err := s.stores[2].SyncWith(t.Context(), s.c.members[1].id); err != nil {
			t.Errorf("another's sync beside them = %v", err)
		}
		if err := s.victim.SyncWith(t.Context(), s.c.members[2].id); err != nil {
			t.Errorf("our sync beside them = %v", err)
		}
		if took := time.Since(begin); took > 2*turnWait {
			t.Errorf("syncs beside them took %v", took)
		}
		if !s.good() {
			t.Error("a good block does not arrive beside them")
		}
		time.Sleep(time.Minute)
	})
}

// Records that are odd but signed are taken, the same everywhere, and harm nobody.
func TestSimOddRecordsAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := besiege(t)
		chain := []blocks.Chain{{Peer: s.evil.id, Envelopes: s.c.chains[s.evil.id]}}
		for i, change := range []func(*shoal.Record){
			func(r *shoal.Record) { r.HLC = shoal.HLC{} },
			func(r *shoal.Record) { r.HLC = shoal.HLC{WallMilli: math.MinInt64, Counter: math.MaxUint32} },
			func(r *shoal.Record) { r.HLC = shoal.HLC{WallMilli: math.MaxInt64, Counter: math.MaxUint32} },
			func(r *shoal.Record) { r.HLC = shoal.HLC{WallMilli: 16_725_225_600_000} }, // the year 2500
			func(r *shoal.Record) { r.AuthorSeq = math.MaxUint64 },
			func(r *shoal.Record) { r.Kind = "nobody-knows"; r.Name = "x" },
			func(r *shoal.Record) { r.Schema = math.MaxUint32; r.Raw = []byte("later") },
		} {
			f := &forger{t: t, c: s.c, evil: s.evil, other: s.c.members[1], seq: uint64(10 * (i + 1))}
			b := f.envelope(func(r *shoal.Record) {
				change(r)
				resign(t, s.c, s.evil, r)
			})
			before := s.victim.Stats().Blocks
			s.push(blocks.Marshal(&blocks.Push{Blocks: []blocks.Block{b}, Chains: chain}))
			time.Sleep(3 * oneWay)
			if got := s.victim.Stats(); got.Blocks != before+1 || len(got.Refused) > 0 {
				t.Errorf("%d: %+v, want one block more and nothing refused", i, got)
			}
			if !s.good() {
				t.Errorf("%d: a good block does not arrive after it", i)
			}
		}
		ack := s.victim.deploy(t, "web")
		if ahead := time.Until(time.UnixMilli(ack.HLC.WallMilli)); ahead < 0 || ahead > maxAhead {
			t.Errorf("our time is %v ahead, want at most %v", ahead, maxAhead)
		}
		time.Sleep(time.Second)
		s.converged(0)
	})
}
