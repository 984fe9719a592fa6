// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip_test

import (
	"errors"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip"
)

// setClock stands where it is put.
type setClock struct{ wall time.Time }

func (c *setClock) Wall() time.Time     { return c.wall }
func (c *setClock) Mono() time.Duration { return 0 }

// counter is a Sequence.
type counter struct {
	last    uint64
	trouble error
}

func (c *counter) Next() (uint64, error) {
	c.last++
	return c.last, c.trouble
}

func (c *counter) Skip(n uint64) error {
	c.last = max(c.last, n)
	return c.trouble
}

func TestStamper(t *testing.T) {
	me, other := newKey(t), newKey(t)
	clock, seq := &setClock{wall: time.UnixMilli(1_000_000)}, &counter{}
	s := gossip.NewStamper(other.id, clock, me, seq)
	step := func(why string, want shoal.HLC) {
		t.Helper()
		if got := s.Stamp(); got.HLC != want || got.Author != me.id {
			t.Errorf("%s: Stamp = %+v, want %+v", why, got, want)
		}
	}
	observe := func(author shoal.PeerID, wall int64, counter uint32, aseq uint64) {
		t.Helper()
		if err := s.Observe(&shoal.Record{Author: author, AuthorSeq: aseq, HLC: shoal.HLC{WallMilli: wall, Counter: counter}}); err != nil {
			t.Errorf("Observe = %v, want nil", err)
		}
	}
	step("at first", shoal.HLC{WallMilli: 1_000_000})
	step("the clock stands", shoal.HLC{WallMilli: 1_000_000, Counter: 1})
	clock.wall = time.UnixMilli(999_000)
	step("the clock steps back", shoal.HLC{WallMilli: 1_000_000, Counter: 2})
	observe(other.id, 1_000_500, 7, 3)
	step("after a later one", shoal.HLC{WallMilli: 1_000_500, Counter: 8})
	observe(other.id, 900_000, 0, 4)
	step("after an older one", shoal.HLC{WallMilli: 1_000_500, Counter: 9})
	observe(other.id, 5_000_000, 0, 5)
	step("nobody pushes it more than 60 s ahead", shoal.HLC{WallMilli: 1_059_000, Counter: 1})
	if seq.last != 0 {
		t.Errorf("another's records moved our sequence to %d", seq.last)
	}
	observe(me.id, 5_000_000, 0xffffffff, 41)
	step("but our own records do", shoal.HLC{WallMilli: 5_000_001})
	if seq.last != 41 {
		t.Errorf("sequence = %d, want our own record's 41 skipped", seq.last)
	}
}

func TestSealAndVerify(t *testing.T) {
	me, cluster := newKey(t), newKey(t).id
	seq := &counter{}
	s := gossip.NewStamper(cluster, &setClock{wall: time.UnixMilli(5)}, me, seq)
	asIs := func(b shoal.Body, _ shoal.Stamp, _ uint64) shoal.Body { return b }
	as := s.Stamp()
	entries, err := s.Seal(as, []shoal.Body{&shoal.PeerBody{Peer: me.id}, &shoal.GoneBody{Service: "web"}}, asIs)
	if err != nil || len(entries) != 2 {
		t.Fatalf("Seal = %d entries, %v", len(entries), err)
	}
	for i, e := range entries {
		r := e.Record
		if r.Author != me.id || r.AuthorSeq != uint64(i+1) || r.HLC != as.HLC || !e.Pushed || len(e.Envelope) == 0 {
			t.Errorf("entry %d = %+v", i, r)
		}
		if err := gossip.VerifyRecord(cluster, r); err != nil {
			t.Errorf("VerifyRecord = %v, want nil", err)
		}
		if err := gossip.VerifyRecord(newKey(t).id, r); err == nil {
			t.Error("VerifyRecord in another cluster = nil, want an error")
		}
		for name, change := range map[string]func(*shoal.Record){
			"sequence":  func(r *shoal.Record) { r.AuthorSeq++ },
			"time":      func(r *shoal.Record) { r.HLC.Counter++ },
			"name":      func(r *shoal.Record) { r.Name = "x" },
			"kind":      func(r *shoal.Record) { r.Kind = "x" },
			"schema":    func(r *shoal.Record) { r.Schema++ },
			"body":      func(r *shoal.Record) { r.Raw = append([]byte{1}, r.Raw...) },
			"author":    func(r *shoal.Record) { r.Author = newKey(t).id },
			"no author": func(r *shoal.Record) { r.Author = "A" },
			"signature": func(r *shoal.Record) { r.Signature = nil },
		} {
			bad := *r
			change(&bad)
			if err := gossip.VerifyRecord(cluster, &bad); err == nil {
				t.Errorf("VerifyRecord of a record with another %s = nil, want an error", name)
			}
		}
	}
	var invalid *shoal.InvalidError
	if _, err := s.Seal(as, []shoal.Body{&shoal.GoneBody{Service: "Not A Name"}}, asIs); !errors.As(err, &invalid) {
		t.Errorf("Seal of a body out of bounds = %v, want an InvalidError", err)
	}
	seq.trouble = errors.New("disk gone")
	if _, err := s.Seal(as, []shoal.Body{&shoal.PeerBody{Peer: me.id}}, asIs); !errors.Is(err, seq.trouble) {
		t.Errorf("Seal without a number = %v, want %v", err, seq.trouble)
	}
}
