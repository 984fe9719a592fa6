// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// running returns how many ready containers of a service run on these machines,
// whatever anybody thinks of them.
func running(service string, peers []*peer) int {
	n := 0
	for _, p := range peers {
		if p.twin != nil {
			_, ready := p.twin.Running(service)
			n += ready
		}
	}
	return n
}

// exact checks that a service has exactly n ready containers on these peers, that
// each of them agrees on who holds what, and that no claim of theirs is left over.
func exact(service string, n int, peers []*peer) error {
	if got := running(service, peers); got != n {
		return fmt.Errorf("%d containers of %s run, want %d", got, service, n)
	}
	for _, p := range peers {
		v := p.view()
		slots := map[int]int{}
		for _, c := range v.ClaimsOf(service) {
			if !slices.ContainsFunc(peers, func(o *peer) bool { return o.id.Self() == c.Holder }) {
				continue // somebody on the other side or without power
			}
			slots[c.Slot]++
			r, ok := v.Replica(c.Replica)
			if !ok || r.Phase != shoal.PhaseReady {
				return fmt.Errorf("peer %d does not see %s/%d ready", p.index, service, c.Slot)
			}
		}
		for slot := range n {
			if slots[slot] != 1 {
				return fmt.Errorf("peer %d sees %d claims of %s/%d", p.index, slots[slot], service, slot)
			}
		}
		if len(slots) != n {
			return fmt.Errorf("peer %d sees claims of %d slots of %s, want %d", p.index, len(slots), service, n)
		}
	}
	return nil
}

// settled waits until services have exactly these numbers on these peers.
func (w *world) settled(within time.Duration, peers []*peer, want map[string]int) time.Duration {
	w.t.Helper()
	return w.until(within, fmt.Sprintf("exactly %v on %d peers", want, len(peers)), func() error {
		for service, n := range want {
			if err := exact(service, n, peers); err != nil {
				return err
			}
		}
		return nil
	})
}

// agreed is G3: connected peers converge to byte-equal folded state.
func (w *world) agreed(peers []*peer) {
	w.t.Helper()
	w.until(15*time.Second, "G3: equal digests", func() error {
		want := peers[0].view().Desired().Digest
		for _, p := range peers[1:] {
			if got := p.view().Desired().Digest; got != want {
				return fmt.Errorf("peer %d has %s, peer %d has %s", p.index, got.String()[:8], peers[0].index, want.String()[:8])
			}
		}
		return nil
	})
}

// quiet is G9: in steady state there is no container action and no record. It looks
// for 2 minutes, less in large clusters, whose beats take time to simulate.
func (w *world) quiet(peers []*peer) {
	w.t.Helper()
	type mark struct{ history, records int }
	look := func() []mark {
		var out []mark
		for _, p := range peers {
			stats, err := p.node.Stats()
			if err != nil {
				w.t.Fatal(err)
			}
			out = append(out, mark{len(p.twin.History()), stats.Records})
		}
		return out
	}
	time.Sleep(15 * time.Second) // stopped containers are removed
	before := look()
	time.Sleep(2 * time.Minute / time.Duration(1+len(peers)/10))
	after := look()
	if slices.Equal(before, after) {
		return
	}
	w.t.Errorf("G9: a quiet while changed (container events, records) from %v to %v", before, after)
	for i, p := range peers {
		for _, e := range p.twin.History()[before[i].history:] {
			w.t.Logf("peer %d at %v: %s of %s (%s)", p.index, e.At, e.Kind, e.Service, e.Replica.Short())
		}
	}
}

// containers returns the replicas that run on a machine.
func (p *peer) containers() []shoal.ReplicaID {
	var out []shoal.ReplicaID
	alive := map[shoal.ReplicaID]bool{}
	for _, e := range p.twin.History() {
		switch e.Kind {
		case "start":
			alive[e.Replica] = true
		case "exit", "remove", "power-cut":
			delete(alive, e.Replica)
		}
	}
	for id := range alive {
		out = append(out, id)
	}
	slices.SortFunc(out, func(a, b shoal.ReplicaID) int { return slices.Compare(a[:], b[:]) })
	return out
}

// unbroken is G8 and the half of G7 that is about survivors: no container that runs
// was started twice.
func (w *world) unbroken(peers []*peer) {
	w.t.Helper()
	for _, p := range peers {
		for _, id := range p.containers() {
			if c := p.twin.Counts(id); c.Starts != 1 {
				w.t.Errorf("G7, G8: replica %s on peer %d was started %d times", id.Short(), p.index, c.Starts)
			}
		}
	}
}

// floor samples, while do runs, how many replicas run, and fails below n (G6, G7).
func (w *world) floor(service string, n int, peers []*peer, do func()) {
	w.t.Helper()
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		lowest := running(service, peers)
		for {
			select {
			case <-stop:
				done <- lowest
				return
			case <-time.After(20 * time.Millisecond):
				lowest = min(lowest, running(service, peers))
			}
		}
	}()
	do()
	close(stop)
	if lowest := <-done; lowest < n {
		w.t.Errorf("G7: %s went down to %d replicas, want at least %d all the time", service, lowest, n)
	}
}
