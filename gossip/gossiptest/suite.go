// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package gossiptest is the contract of shoal.Store as tests: every implementation
// runs the same ones. Call [Run] from a test with a function that makes a fresh
// [Fixture]. It refuses to know how records travel or where they are kept.
package gossiptest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// patience is how long anything may take that should happen soon, in real time.
const patience = 20 * time.Second

// Fixture is what one test works on: two stores of one cluster, each of another
// operator, both admitted in both stores, running and not connected. The maker
// ends everything with t.Cleanup.
type Fixture struct {
	Store shoal.Store
	Other shoal.Store
	// Connect makes records travel both ways between the stores, those written
	// before too, from now on.
	Connect func(t testing.TB)
	// Reopen stops Store and starts it again on what it kept. nil: it keeps nothing.
	Reopen func(t testing.TB) shoal.Store
}

// Run runs the contract. Each part has a fixture of its own.
func Run(t *testing.T, fresh func(t testing.TB) Fixture) {
	t.Helper()
	for _, part := range []struct {
		name string
		run  func(t *testing.T, f Fixture)
	}{
		{"ReadsItsWrites", readsItsWrites},
		{"ShowsFnTheState", showsFnTheState},
		{"WritesAllOrNothing", writesAllOrNothing},
		{"OrdersUpdates", ordersUpdates},
		{"ErrorWritesNothing", errorWritesNothing},
		{"EmptyWritesNothing", emptyWritesNothing},
		{"InvalidWritesNothing", invalidWritesNothing},
		{"EndedContextWritesNothing", endedContextWritesNothing},
		{"TellsOfChanges", tellsOfChanges},
		{"TimeOnlyGrows", timeOnlyGrows},
		{"StampsClaims", stampsClaims},
		{"SaysTooFewAcks", saysTooFewAcks},
		{"ConnectedStoresConverge", connectedStoresConverge},
		{"ConcurrentWishesBothStand", concurrentWishesBothStand},
		{"ConcurrentPushesAreRivals", concurrentPushesAreRivals},
		{"ReopenKeepsEverything", reopenKeepsEverything},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, fresh(t)) })
	}
}

// write updates the store with what fn returns and fails the test on an error.
func write(t testing.TB, s shoal.Store, fn func(*shoal.Desired, shoal.Stamp) []shoal.Body) shoal.Ack {
	t.Helper()
	ack, err := s.Update(t.Context(), func(d *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		return fn(d, as), nil
	}, shoal.UpdateOptions{})
	if err != nil {
		t.Fatalf("Update = %v, want nil", err)
	}
	return ack
}

// named writes the peer's own name into its facts.
func named(t testing.TB, s shoal.Store, name string) shoal.Ack {
	t.Helper()
	return write(t, s, func(_ *shoal.Desired, as shoal.Stamp) []shoal.Body { return []shoal.Body{facts(as, name)} })
}

func facts(as shoal.Stamp, name string) shoal.Body {
	return &shoal.PeerBody{Peer: as.Author, Facts: shoal.PeerFacts{Name: name}}
}

// deploy writes the next revision of a service.
func deploy(t testing.TB, s shoal.Store, service, image string) shoal.RevisionID {
	t.Helper()
	var id shoal.RevisionID
	write(t, s, func(d *shoal.Desired, as shoal.Stamp) []shoal.Body {
		id = shoal.RevisionID{Seq: 1, Author: as.Author}
		body := &shoal.RevisionBody{Spec: shoal.Spec{Name: service, Image: image, Mode: shoal.ModeReplicated, Replicas: 1}}
		if old, ok := d.Service(service); ok {
			body.Replaces = old.Heads
			id.Seq = old.Revision.Seq + 1
		}
		body.Revision = id
		return []shoal.Body{body}
	})
	return id
}

// self returns whose store it is, writing nothing.
func self(t testing.TB, s shoal.Store) shoal.PeerID {
	t.Helper()
	var id shoal.PeerID
	write(t, s, func(_ *shoal.Desired, as shoal.Stamp) []shoal.Body {
		id = as.Author
		return nil
	})
	return id
}

// nameOf returns the name a store knows of a peer.
func nameOf(t testing.TB, d *shoal.Desired, id shoal.PeerID) string {
	t.Helper()
	p, ok := d.Peer(id)
	if !ok {
		t.Fatalf("the fixture's operator %s is no member", id.Short())
	}
	return p.Facts.Name
}

// await waits until what holds of the stores, looking at every change.
func await(t testing.TB, what string, holds func() bool, stores ...shoal.Store) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		first, second := stores[0].Changed(), stores[len(stores)-1].Changed()
		if holds() {
			return
		}
		select {
		case <-first:
		case <-second:
		case <-deadline.C:
			t.Fatalf("waited %v in vain until %s", patience, what)
		}
	}
}

// same fails the test if the store's state is not the one it was.
func same(t testing.TB, s shoal.Store, before *shoal.Desired) {
	t.Helper()
	after := s.Desired()
	if after.Digest != before.Digest || after.Version != before.Version || after.Live != before.Live {
		t.Errorf("the state changed: digest %s, version %d, %d live; was %s, %d, %d",
			after.Digest, after.Version, after.Live, before.Digest, before.Version, before.Live)
	}
}

func readsItsWrites(t *testing.T, f Fixture) {
	me := self(t, f.Store)
	for i := range 20 {
		before := f.Store.Desired()
		want := "name-" + strconv.Itoa(i)
		if ack := named(t, f.Store, want); !ack.Wrote || ack.HLC.IsZero() {
			t.Fatalf("Update = %+v, want it written and stamped", ack)
		}
		after := f.Store.Desired()
		if got := nameOf(t, after, me); got != want {
			t.Fatalf("after Update returned the name is %q, want %q", got, want)
		}
		if after.Version <= before.Version || after.Digest == before.Digest {
			t.Fatalf("Version, Digest = %d, %s after %d, %s", after.Version, after.Digest, before.Version, before.Digest)
		}
	}
}

func showsFnTheState(t *testing.T, f Fixture) {
	me := self(t, f.Store)
	named(t, f.Store, "first")
	write(t, f.Store, func(d *shoal.Desired, as shoal.Stamp) []shoal.Body {
		if got := nameOf(t, d, me); got != "first" || as.Author != me || as.HLC.IsZero() {
			t.Errorf("fn got name %q, stamp %+v, want what was written before", got, as)
		}
		return nil
	})
}

// writesAllOrNothing: nobody ever sees a part of an update.
func writesAllOrNothing(t *testing.T, f Fixture) {
	me := self(t, f.Store)
	ctx, stop := context.WithCancel(t.Context())
	var reader sync.WaitGroup
	reader.Go(func() {
		for ctx.Err() == nil {
			changed := f.Store.Changed()
			d := f.Store.Desired()
			p, ok := d.Peer(me)
			if n := len(d.Claims); ok && n > 0 && p.Facts.Name != strconv.Itoa(n) {
				t.Errorf("saw %d claims and the name %q of one update", n, p.Facts.Name)
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	})
	for n := 1; n <= 50; n++ {
		write(t, f.Store, func(_ *shoal.Desired, as shoal.Stamp) []shoal.Body {
			claim := &shoal.ClaimBody{Peer: as.Author, Service: "web"}
			for slot := range n {
				claim.Holds = append(claim.Holds, shoal.Holding{Slot: slot, Replica: shoal.ReplicaID{byte(slot + 1)}})
			}
			return []shoal.Body{claim, facts(as, strconv.Itoa(n))}
		})
	}
	stop()
	reader.Wait()
}

// ordersUpdates: every fn sees the one before it, so no count is lost.
func ordersUpdates(t *testing.T, f Fixture) {
	const writers, each = 8, 25
	me := self(t, f.Store)
	named(t, f.Store, "0")
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				_, err := f.Store.Update(t.Context(), func(d *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
					p, _ := d.Peer(as.Author)
					n, err := strconv.Atoi(p.Facts.Name)
					return []shoal.Body{facts(as, strconv.Itoa(n+1))}, err
				}, shoal.UpdateOptions{})
				if err != nil {
					t.Errorf("Update = %v, want nil", err)
				}
			}
		})
	}
	wg.Wait()
	if got := nameOf(t, f.Store.Desired(), me); got != strconv.Itoa(writers*each) {
		t.Errorf("counted to %s, want %d", got, writers*each)
	}
}

func errorWritesNothing(t *testing.T, f Fixture) {
	before, cause := f.Store.Desired(), errors.New("no such wish")
	ack, err := f.Store.Update(t.Context(), func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{facts(as, "never")}, cause
	}, shoal.UpdateOptions{})
	if err != cause || ack.Wrote { //nolint:errorlint // returned as it is, the contract says
		t.Errorf("Update = %+v, %v, want nothing written and fn's own error", ack, err)
	}
	same(t, f.Store, before)
}

func emptyWritesNothing(t *testing.T, f Fixture) {
	before, changed := f.Store.Desired(), f.Store.Changed()
	if ack := write(t, f.Store, func(*shoal.Desired, shoal.Stamp) []shoal.Body { return nil }); ack.Wrote {
		t.Errorf("Update = %+v, want nothing written", ack)
	}
	same(t, f.Store, before)
	select {
	case <-changed:
		t.Error("Changed told of an update that changed nothing")
	default:
	}
}

// invalidWritesNothing: one body out of bounds refuses all of the update.
func invalidWritesNothing(t *testing.T, f Fixture) {
	before := f.Store.Desired()
	var invalid *shoal.InvalidError
	ack, err := f.Store.Update(t.Context(), func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{facts(as, "good"), &shoal.ClaimBody{Peer: as.Author, Service: "Not A Name"}}, nil
	}, shoal.UpdateOptions{})
	if !errors.As(err, &invalid) || ack.Wrote {
		t.Errorf("Update = %+v, %v, want nothing written and an InvalidError", ack, err)
	}
	same(t, f.Store, before)
}

func endedContextWritesNothing(t *testing.T, f Fixture) {
	before := f.Store.Desired()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ack, err := f.Store.Update(ctx, func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{facts(as, "never")}, nil
	}, shoal.UpdateOptions{})
	if !errors.Is(err, context.Canceled) || ack.Wrote {
		t.Errorf("Update = %+v, %v, want nothing written and context.Canceled", ack, err)
	}
	same(t, f.Store, before)
}

func tellsOfChanges(t *testing.T, f Fixture) {
	for i := range 3 {
		first, second := f.Store.Changed(), f.Store.Changed()
		named(t, f.Store, strconv.Itoa(i))
		for _, ch := range []<-chan struct{}{first, second} {
			select {
			case <-ch:
			case <-time.After(patience):
				t.Fatalf("Changed did not close after update %d", i)
			}
		}
	}
}

func timeOnlyGrows(t *testing.T, f Fixture) {
	var last shoal.HLC
	for i := range 50 {
		ack := named(t, f.Store, strconv.Itoa(i))
		if ack.HLC.Compare(last) <= 0 {
			t.Fatalf("HLC %+v after %+v", ack.HLC, last)
		}
		last = ack.HLC
	}
}

// stampsClaims: a holding drafted without a Since gets the record's time.
func stampsClaims(t *testing.T, f Fixture) {
	since := shoal.HLC{WallMilli: 7}
	ack := write(t, f.Store, func(_ *shoal.Desired, as shoal.Stamp) []shoal.Body {
		return []shoal.Body{&shoal.ClaimBody{Peer: as.Author, Service: "web", Holds: []shoal.Holding{{Slot: 0}, {Slot: 1, Since: since}}}}
	})
	claims := f.Store.Desired().Claims
	if len(claims) != 2 || claims[0].Since != ack.HLC || claims[1].Since != since {
		t.Errorf("Claims = %+v, want Since %+v and %+v", claims, ack.HLC, since)
	}
}

// saysTooFewAcks: alone, the record stands and the caller is told that nobody has it.
func saysTooFewAcks(t *testing.T, f Fixture) {
	me := self(t, f.Store)
	ack, err := f.Store.Update(t.Context(), func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{facts(as, "alone")}, nil
	}, shoal.UpdateOptions{Acks: 1, Timeout: 50 * time.Millisecond})
	if !errors.Is(err, shoal.ErrTooFewAcks) || !ack.Wrote || ack.Acks != 0 {
		t.Errorf("Update = %+v, %v, want it written and ErrTooFewAcks", ack, err)
	}
	if got := nameOf(t, f.Store.Desired(), me); got != "alone" {
		t.Errorf("name = %q, want the record to stand", got)
	}
}

// converge waits until both stores have one digest, and checks that they then say
// the same.
func converge(t *testing.T, one, other shoal.Store) {
	t.Helper()
	await(t, "both stores have one digest", func() bool { return one.Desired().Digest == other.Desired().Digest }, one, other)
	a, b := one.Desired(), other.Desired()
	if a.Live != b.Live || a.Void != b.Void || fmt.Sprint(a.Peers, a.Claims, a.Conflicts) != fmt.Sprint(b.Peers, b.Claims, b.Conflicts) {
		t.Errorf("equal digests, different states: %d, %d live", a.Live, b.Live)
	}
}

func connectedStoresConverge(t *testing.T, f Fixture) {
	one, two := self(t, f.Store), self(t, f.Other)
	for i := range 20 { // before they meet
		deploy(t, f.Store, "one-"+strconv.Itoa(i), "image")
		deploy(t, f.Other, "two-"+strconv.Itoa(i), "image")
	}
	f.Connect(t)
	converge(t, f.Store, f.Other)
	for i := range 20 { // and while they talk
		named(t, f.Store, "one-"+strconv.Itoa(i))
		named(t, f.Other, "two-"+strconv.Itoa(i))
	}
	await(t, "both know both names", func() bool {
		a, b := f.Store.Desired(), f.Other.Desired()
		return nameOf(t, a, two) == "two-19" && nameOf(t, b, one) == "one-19"
	}, f.Store, f.Other)
	converge(t, f.Store, f.Other)
	if n := len(f.Store.Desired().Services); n != 40 {
		t.Errorf("%d services, want 40", n)
	}
}

// concurrentWishesBothStand: of two revisions that did not see each other one is
// current, the same on both, and the other is shown.
func concurrentWishesBothStand(t *testing.T, f Fixture) {
	a, b := deploy(t, f.Store, "web", "a"), deploy(t, f.Other, "web", "b")
	f.Connect(t)
	converge(t, f.Store, f.Other)
	winner, loser := a, b
	if b.Compare(a) > 0 {
		winner, loser = b, a
	}
	for _, s := range []shoal.Store{f.Store, f.Other} {
		d := s.Desired()
		web, ok := d.Service("web")
		if !ok || web.Revision != winner || len(web.Heads) != 2 {
			t.Errorf("web = %+v, want %s current of two heads", web, winner)
		}
		if len(d.Conflicts) != 1 || d.Conflicts[0].Loser != loser || d.Conflicts[0].Winner != winner {
			t.Errorf("Conflicts = %+v, want %s lost to %s", d.Conflicts, loser, winner)
		}
	}
	next := deploy(t, f.Store, "web", "c")
	await(t, "the next revision ended the conflict on both", func() bool {
		web, ok := f.Other.Desired().Service("web")
		return ok && web.Revision == next && len(f.Other.Desired().Conflicts) == 0
	}, f.Other)
}

// push gives an image's name a digest, as who saw all that the store holds of it.
func push(t testing.TB, s shoal.Store, image, digest string) shoal.RevisionID {
	t.Helper()
	var id shoal.RevisionID
	write(t, s, func(d *shoal.Desired, as shoal.Stamp) []shoal.Body {
		b := &shoal.ImageBody{
			Image: image, Digest: digest, MediaType: "application/vnd.oci.image.manifest.v1+json", Platforms: []string{"linux/amd64"},
			Blobs: []shoal.BlobRef{{Digest: digest, Size: 500, Chunks: digest}},
		}
		if old, ok := d.Image(image); ok {
			b.Replaces = old.Heads
		}
		id = shoal.RevisionID{Seq: 1, Author: as.Author}
		for _, r := range b.Replaces {
			id.Seq = max(id.Seq, r.Seq+1)
		}
		b.ID = id
		return []shoal.Body{b}
	})
	return id
}

// concurrentPushesAreRivals: of two digests that one name was given at once none
// counts, on both stores, until somebody who saw both gives it one.
func concurrentPushesAreRivals(t *testing.T, f Fixture) {
	const image = "127.0.0.1:5050/team_a/app:v1" // its key is written otherwise
	one, other := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	push(t, f.Store, image, one)
	push(t, f.Other, image, other)
	f.Connect(t)
	converge(t, f.Store, f.Other)
	for _, s := range []shoal.Store{f.Store, f.Other} {
		d := s.Desired()
		i, ok := d.Image(image)
		if !ok || i.Digest != "" || len(i.Rivals) != 2 || len(i.Heads) != 2 {
			t.Errorf("image = %+v, want two rivals", i)
		}
		if len(d.Conflicts) != 1 || d.Conflicts[0].Image != image {
			t.Errorf("Conflicts = %+v, want one of %s", d.Conflicts, image)
		}
	}
	next := push(t, f.Other, image, one)
	await(t, "the next push ended the conflict on both", func() bool {
		d := f.Store.Desired()
		i, ok := d.Image(image)
		return ok && i.ID == next && i.Digest == one && len(i.Blobs) == 1 && len(d.Conflicts) == 0
	}, f.Store)
}

func reopenKeepsEverything(t *testing.T, f Fixture) {
	if f.Reopen == nil {
		t.Log("this store keeps nothing across a restart: nothing to check")
		return
	}
	me := self(t, f.Store)
	var last shoal.Ack
	for i := range 20 {
		deploy(t, f.Store, "svc-"+strconv.Itoa(i), "image")
		last = named(t, f.Store, strconv.Itoa(i))
	}
	before := f.Store.Desired()
	s := f.Reopen(t)
	await(t, "the records are read again", func() bool { return s.Desired().Digest == before.Digest }, s)
	if got := s.Desired(); got.Live != before.Live || nameOf(t, got, me) != "19" {
		t.Errorf("%d live, name %q, want %d and 19", got.Live, nameOf(t, got, me), before.Live)
	}
	ack := named(t, s, "again")
	if ack.HLC.Compare(last.HLC) <= 0 {
		t.Errorf("HLC %+v after the restart, was %+v", ack.HLC, last.HLC)
	}
	if got := nameOf(t, s.Desired(), me); got != "again" {
		t.Errorf("name = %q after a write, want it to count (a number used twice?)", got)
	}
}
