// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pubsubpb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// nowhere is a host without links, for what needs none.
type nowhere struct {
	host.Host
	id peer.ID
}

func (n nowhere) ID() peer.ID              { return n.id }
func (n nowhere) Network() network.Network { return noLinks{} }

type noLinks struct{ network.Network }

func (noLinks) Connectedness(peer.ID) network.Connectedness { return network.NotConnected }

// alone returns a Tracker of identity 0 that does not run, in a cluster of n.
func alone(tb testing.TB, n int) *Tracker {
	tb.Helper()
	var ids []shoal.PeerID
	for i := range n {
		ids = append(ids, newKey(tb, i).id)
	}
	r := &records{}
	r.set(1, ids...)
	id, err := peer.Decode(string(ids[0]))
	if err != nil {
		tb.Fatal(err)
	}
	tr, err := New(LAN(), Deps{
		Cluster: testCluster, Boot: shoal.Boot{Counter: 5, Nonce: 1}, Signer: newKey(tb, 0), Host: nowhere{id: id}, PubSub: &pubsub.PubSub{},
		Records: r, Pinger: refusal{}, Clock: shoal.NewSystemClock(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}
	tr.follow()
	return tr
}

// says hands a Tracker a message of the topic.
func says(tb testing.TB, tr *Tracker, via testKey, raw []byte) pubsub.ValidationResult {
	tb.Helper()
	pid, err := peer.Decode(string(via.id))
	if err != nil {
		tb.Fatal(err)
	}
	return tr.validate(context.Background(), pid, &pubsub.Message{Message: &pubsubpb.Message{Data: raw}, ReceivedFrom: pid})
}

func signedBeat(tb testing.TB, k testKey, change func(*beat)) []byte {
	tb.Helper()
	b := beat{peer: k.id, sighting: sighting{boot: shoal.Boot{Counter: 1, Nonce: 9}, seq: 1, interval: time.Second}}
	change(&b)
	out, err := encode(b, testCluster, k)
	if err != nil {
		tb.Fatal(err)
	}
	return out.raw
}

func TestValidate(t *testing.T) {
	tr := alone(t, 3)
	self, b, c, stranger := newKey(t, 0), newKey(t, 1), newKey(t, 2), newKey(t, 7)
	at := func(boot shoal.Boot, seq uint64) func(*beat) {
		return func(b *beat) { b.boot, b.seq = boot, seq }
	}
	one, two := shoal.Boot{Counter: 1, Nonce: 9}, shoal.Boot{Counter: 2, Nonce: 9}
	forged := signedBeat(t, b, at(two, 90))
	forged[len(forged)-1] ^= 1
	for _, l := range []struct {
		what string
		via  testKey
		raw  []byte
		want pubsub.ValidationResult
	}{
		{"news", b, signedBeat(t, b, at(one, 5)), pubsub.ValidationAccept},
		{"news relayed by another", c, signedBeat(t, b, at(one, 6)), pubsub.ValidationAccept},
		{"the same again", b, signedBeat(t, b, at(one, 6)), pubsub.ValidationIgnore},
		{"an older one", b, signedBeat(t, b, at(one, 2)), pubsub.ValidationIgnore},
		{"a newer boot", b, signedBeat(t, b, at(two, 1)), pubsub.ValidationAccept},
		{"a replay of the older boot", b, signedBeat(t, b, at(one, 7)), pubsub.ValidationIgnore},
		{"another nonce", b, signedBeat(t, b, at(shoal.Boot{Counter: 2, Nonce: 1}, 3)), pubsub.ValidationAccept},
		{"no member", b, signedBeat(t, stranger, at(one, 1)), pubsub.ValidationIgnore},
		{"forged", c, forged, pubsub.ValidationReject},
		{"garbage", c, []byte("garbage"), pubsub.ValidationReject},
		{"too large", c, make([]byte, maxGossip+1), pubsub.ValidationReject},
		{"our own voice", c, signedBeat(t, self, at(shoal.Boot{Counter: 5, Nonce: 1}, 99)), pubsub.ValidationIgnore},
		{"our own earlier life", c, signedBeat(t, self, at(shoal.Boot{Counter: 4, Nonce: 1}, 99)), pubsub.ValidationIgnore},
	} {
		if got := says(t, tr, l.via, l.raw); got != l.want {
			t.Errorf("%s: %d, want %d", l.what, got, l.want)
		}
	}
	if tr.Trouble() != "" {
		t.Errorf("trouble without a copy: %s", tr.Trouble())
	}
	says(t, tr, c, signedBeat(t, self, at(shoal.Boot{Counter: 5, Nonce: 2}, 1)))
	if tr.Trouble() == "" {
		t.Error("no trouble though somebody else speaks with our key")
	}
	for _, s := range tr.Sights(0) {
		if s.Double != (s.Peer == b.id) {
			t.Errorf("%s double: %v", s.Peer.Short(), s.Double)
		}
	}
}

// TestNewsFor: who asks gets what it lacks, and is shown another life of its identity.
func TestNewsFor(t *testing.T) {
	tr := alone(t, 3)
	b, c := newKey(t, 1), newKey(t, 2)
	say := func(nonce, seq uint64) {
		if got := says(t, tr, b, signedBeat(t, b, func(b *beat) { b.boot, b.seq = shoal.Boot{Counter: 4, Nonce: nonce}, seq })); got != pubsub.ValidationAccept {
			t.Fatalf("beat %d of nonce %d: %d, want accepted", seq, nonce, got)
		}
	}
	say(9, 20) // first heard, so the one we believe
	say(8, 30) // its double
	type packet struct{ nonce, seq uint64 }
	for _, l := range []struct {
		what  string
		asker testKey
		mark  *shoalv1.BeatMark // what the asker knows of b
		want  []packet
	}{
		{"knows nothing", c, nil, []packet{{9, 20}}},
		{"knows an older boot", c, &shoalv1.BeatMark{BootCounter: 3, BootNonce: 1, Seq: 99}, []packet{{9, 20}}},
		{"is behind", c, &shoalv1.BeatMark{BootCounter: 4, BootNonce: 9, Seq: 19}, []packet{{9, 20}}},
		{"knows as much", c, &shoalv1.BeatMark{BootCounter: 4, BootNonce: 9, Seq: 20}, nil},
		{"knows a newer boot", c, &shoalv1.BeatMark{BootCounter: 5, BootNonce: 1, Seq: 1}, nil},
		{"believes the other life", c, &shoalv1.BeatMark{BootCounter: 4, BootNonce: 8, Seq: 30}, []packet{{9, 20}}},
		{"is the life we believe", b, &shoalv1.BeatMark{BootCounter: 4, BootNonce: 9, Seq: 21}, []packet{{8, 30}}},
		{"is its double", b, &shoalv1.BeatMark{BootCounter: 4, BootNonce: 8, Seq: 31}, []packet{{9, 20}}},
	} {
		have := map[shoal.PeerID]*shoalv1.BeatMark{}
		if l.mark != nil {
			have[b.id] = l.mark
		}
		var got []packet
		for _, n := range tr.newsFor(l.asker.id, have) {
			got = append(got, packet{n.boot.Nonce, n.seq})
		}
		if !slices.Equal(got, l.want) {
			t.Errorf("who %s gets %v, want %v", l.what, got, l.want)
		}
	}
}

// TestFloods: a member's own beats are limited, and nobody can use up another's credit
// with forgeries; the forger uses up its own.
func TestFloods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := alone(t, 4)
		b, c, d := newKey(t, 1), newKey(t, 2), newKey(t, 3)
		seq := func(n int) func(*beat) { return func(b *beat) { b.seq = uint64(n) } }
		accepted := 0
		for i := range 500 {
			if says(t, tr, b, signedBeat(t, b, seq(i+1))) == pubsub.ValidationAccept {
				accepted++
			}
		}
		if accepted < 30 || accepted > 40 {
			t.Errorf("accepted %d of 500 beats at once, want about 32", accepted)
		}
		rejected := 0
		for i := range 100 {
			raw := signedBeat(t, d, seq(i+1))
			raw[len(raw)-1] ^= 1
			if says(t, tr, c, raw) == pubsub.ValidationReject {
				rejected++
			}
		}
		if rejected != 20 {
			t.Errorf("looked at %d of 100 forgeries, want 20", rejected)
		}
		if got := says(t, tr, d, signedBeat(t, d, seq(1))); got != pubsub.ValidationAccept {
			t.Errorf("the forged one's own beat: %d, want accepted", got)
		}
		time.Sleep(10 * time.Second)
		if got := says(t, tr, c, signedBeat(t, c, seq(1))); got != pubsub.ValidationAccept {
			t.Errorf("the forger's own beat later: %d, want accepted", got)
		}
	})
}

// TestBadStreams opens pull streams that break the rules: each is ended soon, and the
// peer goes on answering.
func TestBadStreams(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		a, b := w.peers[0], w.peers[1]
		pid, err := peer.Decode(string(a.key.id))
		if err != nil {
			t.Fatal(err)
		}
		for name, raw := range map[string][]byte{
			"huge length": binary.BigEndian.AppendUint32(nil, 1<<31),
			"garbage":     {0, 0, 0, 3, 0xff, 0xff, 0xff},
			"cut":         {0, 0, 0, 9, 1},
			"silence":     {},
		} {
			s, err := b.host.NewStream(context.Background(), pid, Protocol)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(raw); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if n, err := io.Copy(io.Discard, s); n > 0 || err == nil {
				t.Errorf("%s: answered %d bytes, %v", name, n, err)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("%s: ended after %v", name, took)
			}
		}
		time.Sleep(5 * time.Second)
		refused := 0
		for range 40 {
			if b.pull(context.Background(), a.key.id) != nil {
				refused++
			}
		}
		if refused < 15 || refused > 30 {
			t.Errorf("refused %d of 40 pulls in a burst, want about 24", refused)
		}
		time.Sleep(5 * time.Second)
		if err := b.pull(context.Background(), a.key.id); err != nil {
			t.Errorf("pull after all that = %v", err)
		}
	})
}

func TestPublishLeavesOutWhatNobodyAccepts(t *testing.T) {
	tr := alone(t, 2)
	tr.Publish(shoal.PeerState{
		Replicas: []shoal.ReplicaStatus{
			{ID: shoal.ReplicaID{1}, Service: "web", Phase: shoal.PhaseReady},
			{ID: shoal.ReplicaID{2}, Service: "NOT A NAME", Phase: shoal.PhaseReady},
		},
		Refusals: []shoal.Refusal{{Service: "web", Reason: string(make([]byte, 10000))}},
	})
	b, err := tr.compose()
	if err != nil || !b.full {
		t.Fatalf("compose = %v, %v, want a full beat", b, err)
	}
	if got := tr.View().State(tr.self); len(got.Replicas) != 1 || len(got.Refusals) != 1 || len(got.Refusals[0].Reason) > maxText {
		t.Errorf("published %d replicas, %d refusals", len(got.Replicas), len(got.Refusals))
	}
}

func TestConfigAndDepsValidate(t *testing.T) {
	for name, c := range map[string]Config{"LAN": LAN(), "WAN": WAN(), "Sim": Sim()} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for field, change := range map[string]func(*Config){
		"Interval":    func(c *Config) { c.Interval = 0 },
		"MaxInterval": func(c *Config) { c.MaxInterval = time.Millisecond },
		"Dead":        func(c *Config) { c.Dead = 2 },
		"FullEvery":   func(c *Config) { c.FullEvery = 0 },
	} {
		c := LAN()
		change(&c)
		if err := c.Validate(); err == nil {
			t.Errorf("bad %s is accepted", field)
		}
	}
	if _, err := New(LAN(), Deps{}); err == nil {
		t.Error("New without deps is no error")
	}
}

// BenchmarkHear is what one beat that brings nothing new costs its hearer: decoding,
// the signature, the step.
func BenchmarkHear(b *testing.B) {
	tr := alone(b, 3)
	k := newKey(b, 1)
	packets := make([][]byte, b.N)
	for i := range packets {
		packets[i] = signedBeat(b, k, func(b *beat) { b.seq = uint64(i + 1) })
	}
	tr.contacts[k.id].good.SetLimit(1e9)
	tr.contacts[k.id].good.SetBurst(1e9)
	b.ReportAllocs()
	b.ResetTimer()
	for _, raw := range packets {
		if says(b, tr, k, raw) != pubsub.ValidationAccept {
			b.Fatal("not accepted")
		}
	}
}
