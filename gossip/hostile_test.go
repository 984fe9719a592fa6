// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/blocks"
)

// forgiven is how long a peer must behave for one fault of it to be forgotten.
var forgiven = time.Duration(float64(time.Second)/faultFlow.rate) + time.Second

// siege is two stores and a member that speaks the protocols as it likes: host 0.
// Stores 1 and 2 are honest, 1 is the victim.
type siege struct {
	*sim
	evil   *author
	host   host.Host
	topic  *pubsub.Topic
	victim *running
	base   cid.Cid // a block of the victim, of height 1, that is not a head

	mu     sync.Mutex
	answer func(network.Stream) // guarded by mu; to a sync; nil: refused
	n      int                  // good blocks written
}

func besiege(t *testing.T) *siege {
	t.Helper()
	s := &siege{sim: newSim(t, 3)}
	s.evil, s.host = s.c.members[0], s.hosts[0]
	s.host.SetStreamHandler(SyncProtocol, func(st network.Stream) {
		defer func() { _ = st.Close() }()
		s.mu.Lock()
		answer := s.answer
		s.mu.Unlock()
		if answer == nil {
			answer = func(st network.Stream) { _ = blocks.Write(st, &blocks.Reply{State: blocks.StateRefused}, maxFrame) }
		}
		answer(st)
	})
	s.connectAll()
	rarely := func(c *Config) { c.SyncInterval = 1000 * time.Hour }
	s.victim = s.start(1, false, rarely)
	s.start(2, false, rarely)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ps, err := NewPubSub(ctx, s.host)
	if err != nil {
		t.Fatal(err)
	}
	if s.topic, err = ps.Join(TopicName(s.c.key.id), pubsub.WithTopicMessageIdFn(contentID)); err != nil {
		t.Fatal(err)
	}
	if err := s.victim.Inject(t.Context(), s.c.admissions()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
	if !s.good() {
		t.Fatal("a good block does not arrive before there is any trouble")
	}
	at, err := s.victim.rows.at(t.Context(), 1, 1)
	if err != nil || len(at) != 1 {
		t.Fatalf("blocks of height 1: %v, %v", at, err)
	}
	s.base = at[0]
	return s
}

// good writes a block at store 2 and reports whether the victim has it within a second.
func (s *siege) good() bool {
	s.t.Helper()
	s.n++
	s.stores[2].mark(s.t, s.c.members[2].id, fmt.Sprintf("good %d", s.n))
	for begin := time.Now(); s.victim.Digest() != s.stores[2].Digest(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Second {
			return false
		}
	}
	return true
}

// answers is how the evil member answers syncs from now on; nil: by refusing.
func (s *siege) answers(f func(network.Stream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// sends answers a sync with a batch.
func sends(heads [][]byte, batch blocks.Batch) func(network.Stream) {
	return func(st network.Stream) {
		_ = blocks.Read(st, &blocks.Request{}, maxAsk)
		_ = blocks.Write(st, &blocks.Reply{State: blocks.StateFollows, Heads: heads}, maxFrame)
		_ = blocks.Write(st, &batch, maxFrame)
	}
}

// stream opens one to the victim and runs f on it.
func (s *siege) stream(p protocol.ID, f func(network.Stream)) {
	s.t.Helper()
	st, err := s.host.NewStream(s.t.Context(), s.hosts[1].ID(), p)
	if err != nil {
		s.t.Fatalf("open %s: %v", p, err)
	}
	f(st)
	_ = st.Reset()
}

func (s *siege) push(raw []byte) {
	s.t.Helper()
	if err := s.topic.Publish(s.t.Context(), raw); err != nil {
		s.t.Fatal(err)
	}
}

// try does something hostile and checks what must hold: nothing changes, it is counted
// for this reason ("": not at all) against its sender, and a good block that is sent
// right after arrives.
func (s *siege) try(name, reason string, do func()) {
	s.t.Helper()
	before, digest := s.victim.Stats(), s.victim.Digest()
	do()
	synctest.Wait()
	after := s.victim.Stats()
	if after.Blocks != before.Blocks || s.victim.Digest() != digest {
		s.t.Errorf("%s: had an effect, %d blocks more", name, after.Blocks-before.Blocks)
	}
	if !s.good() {
		s.t.Errorf("%s: a good block does not arrive within a second after it", name)
	}
	time.Sleep(time.Second)
	after = s.victim.Stats()
	for r, n := range after.Refused {
		if more := n - before.Refused[r]; more > 0 && (r.Reason != reason || r.From != s.evil.id) {
			s.t.Errorf("%s: %d counted for %q against %s, want only %q against the sender", name, more, r.Reason, r.From.Short(), reason)
		}
	}
	key := Refusal{reason, s.evil.id}
	if reason != "" && after.Refused[key] == before.Refused[key] {
		s.t.Errorf("%s: not counted for %q", name, reason)
	}
	s.answers(nil)
	time.Sleep(time.Duration(2+after.Refused[key]-before.Refused[key]) * forgiven)
	if len(s.victim.Stats().Muted) > 0 {
		s.t.Errorf("%s: sender is muted for a single one", name)
	}
}

// wholeCorpus runs a way in over the whole corpus.
func wholeCorpus(t *testing.T, way func(s *siege, h hostile)) {
	synctest.Test(t, func(t *testing.T) {
		s := besiege(t)
		list := corpus(t, s.c, s.base, 1)
		for _, h := range list {
			way(s, h)
		}
		s.converged(0)
		t.Logf("%d hostile blocks", len(list))
	})
}

func TestSimHostilePush(t *testing.T) {
	wholeCorpus(t, func(s *siege, h hostile) {
		s.try("pushed: "+h.name, h.reason, func() {
			s.push(blocks.Marshal(&blocks.Push{Blocks: []blocks.Block{h.block}, Chains: h.chains}))
			time.Sleep(3 * oneWay)
		})
	})
}

// headsOf names a hostile block as a head where it has a name.
func headsOf(h hostile) [][]byte {
	if _, err := readCID(h.block.CID); err != nil {
		return nil
	}
	return [][]byte{h.block.CID}
}

func TestSimHostileSync(t *testing.T) {
	wholeCorpus(t, func(s *siege, h hostile) {
		s.try("in a sync: "+h.name, h.reason, func() {
			s.answers(sends(headsOf(h), blocks.Batch{Blocks: []blocks.Block{h.block}, Chains: h.chains, End: true}))
			if err := s.victim.SyncWith(s.t.Context(), s.evil.id); err == nil && headsOf(h) != nil {
				s.t.Errorf("%s: SyncWith = nil", h.name)
			}
		})
	})
}

// A peer that is asked to confirm a block pulls it from who asks.
func TestSimHostileAck(t *testing.T) {
	wholeCorpus(t, func(s *siege, h hostile) {
		reason := h.reason
		if headsOf(h) == nil {
			reason = reasonForm // the question is refused
		}
		s.try("to be confirmed: "+h.name, reason, func() {
			s.answers(sends(headsOf(h), blocks.Batch{Blocks: []blocks.Block{h.block}, Chains: h.chains, End: true}))
			s.stream(AckProtocol, func(st network.Stream) {
				var reply blocks.AckReply
				_ = blocks.Write(st, &blocks.AckRequest{Cluster: s.c.key.id, CID: h.block.CID, WaitMillis: 500}, maxAsk)
				if err := blocks.Read(st, &reply, maxAsk); reply.Durable || err != nil && headsOf(h) != nil {
					s.t.Errorf("%s: confirmed = %v, %v", h.name, reply.Durable, err)
				}
			})
		})
	})
}

// What builds on a refused block does not come in either, whatever it says itself.
func TestSimHostileChain(t *testing.T) {
	wholeCorpus(t, func(s *siege, h hostile) {
		parent := named(s.t, h.block.Data)
		c, err := readCID(parent.CID)
		if err != nil {
			s.t.Fatal(err)
		}
		f := &forger{t: s.t, c: s.c, evil: s.c.members[0], other: s.c.members[1], seq: 1<<30 + uint64(s.n)*10}
		list := []blocks.Block{h.block}
		for height := uint64(2); height < 5; height++ {
			b := forge(s.t, []cid.Cid{c}, f.delta(height))
			list = append(list, b)
			if c, err = readCID(b.CID); err != nil {
				s.t.Fatal(err)
			}
		}
		s.try("under good ones: "+h.name, h.reason, func() {
			s.answers(sends([][]byte{c.Bytes()}, blocks.Batch{Blocks: list, Chains: h.chains, End: true}))
			if err := s.victim.SyncWith(s.t.Context(), s.evil.id); err == nil {
				s.t.Errorf("%s: SyncWith = nil", h.name)
			}
		})
	})
}

// message is something hostile that is no block.
type message struct {
	name   string
	reason string
	do     func(*siege)
}

// framed puts a length before bytes, its own or any.
func framed(n int, raw []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(n)), raw...)
}

// asks sends bytes on a stream to the victim and waits for its end.
func asks(p protocol.ID, raw []byte) func(*siege) {
	return func(s *siege) {
		s.stream(p, func(st network.Stream) {
			_, _ = st.Write(raw)
			_ = st.CloseWrite()
			_, _ = io.Copy(io.Discard, st)
		})
	}
}

// answered lets the victim sync with what answers so.
func answered(f func(network.Stream)) func(*siege) {
	return func(s *siege) {
		s.answers(func(st network.Stream) {
			_ = blocks.Read(st, &blocks.Request{}, maxAsk)
			f(st)
		})
		_ = s.victim.SyncWith(s.t.Context(), s.evil.id)
	}
}

func write(m blocks.Message) func(network.Stream) {
	return func(st network.Stream) { _ = blocks.Write(st, m, 64<<20) }
}

// messages are what a member may send that is no block at all. Items 42, 43, 48, 51
// and 52 of the list of bad inputs.
func messages(cluster shoal.PeerID) []message {
	random := []byte("\xff\xff\xff\xff\x0f random")
	request := func(r blocks.Request) []byte {
		raw := blocks.Marshal(&r)
		return framed(len(raw), raw)
	}
	ack := func(r blocks.AckRequest) []byte {
		raw := blocks.Marshal(&r)
		return framed(len(raw), raw)
	}
	unknown := func(n int) (out [][]byte) {
		for i := range n {
			c, err := blockPrefix.Sum(fmt.Append(nil, "unknown", i))
			if err == nil {
				out = append(out, c.Bytes())
			}
		}
		return out
	}
	v0, _ := cid.NewPrefixV0(0x12).Sum([]byte("x"))
	whole, _ := cid.NewPrefixV1(cid.Raw, 0).Sum(make([]byte, 100<<10))
	push := func(raw []byte) func(*siege) {
		return func(s *siege) { s.push(raw); time.Sleep(3 * oneWay) }
	}
	list := []message{
		{"an empty push", reasonForm, push(nil)},
		{"a push of noise", reasonForm, push(random)},
		{"a push with chains only", reasonForm, push(blocks.Marshal(&blocks.Push{Chains: []blocks.Chain{{Peer: cluster}}}))},
		{"a push of 513 blocks", reasonForm, push(blocks.Marshal(&blocks.Push{Blocks: make([]blocks.Block, blocks.MaxBlocks+1)}))},
		{"a push of 513 chains", reasonForm, push(blocks.Marshal(&blocks.Push{Chains: make([]blocks.Chain, blocks.MaxChains+1)}))},
		{"a push whose length is 2^63", reasonForm, push([]byte{0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01})},
		{"answers without a question", "", answered(func(network.Stream) {})},
		{"noise for an answer", reasonForm, answered(func(st network.Stream) { _, _ = st.Write(framed(len(random), random)) })},
		{"an answer that says 4 GiB", reasonForm, answered(func(st network.Stream) { _, _ = st.Write(framed(1<<32-1, nil)) })},
		{"an answer cut off", "", answered(func(st network.Stream) { _, _ = st.Write(framed(100, []byte("x"))) })},
		{"an answer in a state nobody knows", "", answered(func(st network.Stream) { _, _ = st.Write(framed(2, []byte{0x08, 0x63})) })},
		{"4,097 heads in an answer", reasonForm, answered(write(&blocks.Reply{State: blocks.StateFollows, Heads: unknown(blocks.MaxHeads + 1)}))},
		{"heads that are no names", reasonForm, answered(write(&blocks.Reply{State: blocks.StateFollows, Heads: [][]byte{{1}}}))},
		{"heads that are CIDv0", reasonForm, answered(write(&blocks.Reply{State: blocks.StateFollows, Heads: [][]byte{v0.Bytes()}}))},
		{"heads that are their own content", reasonForm, answered(write(&blocks.Reply{State: blocks.StateFollows, Heads: [][]byte{whole.Bytes()}}))},
		{"heads that nobody has", "", answered(func(st network.Stream) {
			write(&blocks.Reply{State: blocks.StateFollows, Heads: unknown(100)})(st)
			write(&blocks.Batch{End: true})(st)
		})},
		{"asks for samples again and again", "", answered(func(st network.Stream) {
			for range 10 {
				write(&blocks.Reply{State: blocks.StateSamples, Heads: unknown(1)})(st)
			}
		})},
		{"empty batches without end", reasonForm, answered(func(st network.Stream) {
			write(&blocks.Reply{State: blocks.StateFollows})(st)
			for range 10 {
				write(&blocks.Batch{})(st)
			}
		})},
		{"an answer cut at its limit, with nothing in it", "", answered(func(st network.Stream) {
			write(&blocks.Reply{State: blocks.StateFollows})(st)
			write(&blocks.Batch{End: true, More: true})(st)
		})},
		{"a batch above the limit", reasonForm, answered(func(st network.Stream) {
			write(&blocks.Reply{State: blocks.StateFollows})(st)
			write(&blocks.Batch{Blocks: []blocks.Block{{Data: make([]byte, maxFrame)}}})(st)
		})},
		{"a batch of 513 blocks", reasonForm, answered(func(st network.Stream) {
			write(&blocks.Reply{State: blocks.StateFollows})(st)
			write(&blocks.Batch{Blocks: make([]blocks.Block, blocks.MaxBlocks+1)})(st)
		})},
	}
	for _, p := range []protocol.ID{SyncProtocol, AckProtocol} {
		list = append(
			list,
			message{"nothing on " + string(p), "", asks(p, nil)},
			message{"noise on " + string(p), reasonForm, asks(p, framed(len(random), random))},
			message{"4 GiB announced on " + string(p), reasonForm, asks(p, framed(1<<32-1, nil))},
			message{"a length of 512 KiB and no data on " + string(p), "", asks(p, framed(maxAsk, nil))},
		)
	}
	return append(
		list,
		message{"a sync of another cluster", "", asks(SyncProtocol, request(blocks.Request{Cluster: "other"}))},
		message{"a sync of another epoch", "", asks(SyncProtocol, request(blocks.Request{Cluster: cluster, Epoch: 1 << 31}))},
		message{"4,097 heads in a question", reasonForm, asks(SyncProtocol, request(blocks.Request{Cluster: cluster, Heads: unknown(blocks.MaxHeads + 1)}))},
		message{"4,096 unknown heads and no samples", "", asks(SyncProtocol, request(blocks.Request{Cluster: cluster, Heads: unknown(blocks.MaxHeads)}))},
		message{"a question about CIDv0", reasonForm, asks(SyncProtocol, request(blocks.Request{Cluster: cluster, Heads: [][]byte{v0.Bytes()}}))},
		message{"a question about nothing", reasonForm, asks(SyncProtocol, request(blocks.Request{Cluster: cluster, Heads: [][]byte{nil}}))},
		message{"to be confirmed: CIDv0", reasonForm, asks(AckProtocol, ack(blocks.AckRequest{Cluster: cluster, CID: v0.Bytes(), WaitMillis: 10}))},
		message{"to be confirmed: 100 KiB of name", reasonForm, asks(AckProtocol, ack(blocks.AckRequest{Cluster: cluster, CID: whole.Bytes(), WaitMillis: 10}))},
		message{"to be confirmed: of another cluster", "", asks(AckProtocol, ack(blocks.AckRequest{Cluster: "other", CID: unknown(1)[0], WaitMillis: 10}))},
		message{"to be confirmed: what nobody has", "", asks(AckProtocol, ack(blocks.AckRequest{Cluster: cluster, CID: unknown(1)[0], WaitMillis: 1000}))},
	)
}

func TestSimHostileMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := besiege(t)
		list := messages(s.c.key.id)
		for _, m := range list {
			s.try(m.name, m.reason, func() { m.do(s) })
		}
		t.Logf("%d hostile messages", len(list))
	})
}
