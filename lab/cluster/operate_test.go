// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

func (p *peer) operate(op shoal.Operation, name string) {
	p.w.t.Helper()
	p.ask(shoal.Wish{Operate: &shoal.OperateWish{Services: []string{name}, Op: op}})
}

// renewed checks that n claims of a service are at its current revision, and ready.
func (w *world) renewed(service string, n int) error {
	v := w.peers[0].view()
	s, _ := v.Service(service)
	current := 0
	for _, c := range v.ClaimsOf(service) {
		if r, ok := v.Replica(c.Replica); ok && c.Revision == s.Revision && r.Phase == shoal.PhaseReady {
			current++
		}
	}
	if current != n || s.Spec.Restarts != 1 {
		return fmt.Errorf("%d of %d replicas are renewed, after %d restarts", current, n, s.Spec.Restarts)
	}
	return nil
}

// TestStopStartRestart: a stop ends every replica and a start brings back as many; a
// restart replaces them in waves. Across a split a stop counts everywhere, unless the
// other side deployed something newer (docs/adr/0005).
func TestStopStartRestart(t *testing.T) {
	t.Parallel()
	play(t, 4004, 4, func(w *world) {
		a, b := w.peers[0], w.peers[3]
		a.deploy("web", 6)
		a.deploy("api", 3)
		w.settled(10*time.Second, w.peers, map[string]int{"web": 6, "api": 3})
		a.operate(shoal.OpStop, "web")
		w.settled(15*time.Second, w.peers, map[string]int{"web": 0, "api": 3})
		w.quiet(w.peers)
		b.operate(shoal.OpStart, "web")
		w.settled(10*time.Second, w.peers, map[string]int{"web": 6})
		w.floor("web", 5, w.peers, func() { // one at a time is replaced
			b.operate(shoal.OpRestart, "web")
			w.until(90*time.Second, "every replica of web is of the new revision", func() error {
				return w.renewed("web", 6)
			})
		})
		w.settled(20*time.Second, w.peers, map[string]int{"web": 6, "api": 3})

		left, right := w.peers[:2], w.peers[2:]
		w.split(left, right)
		left[0].operate(shoal.OpStop, "web")
		left[0].operate(shoal.OpStop, "api")
		changed := spec("web", 6)
		changed.Env = map[string]string{"SIDE": "right"}
		right[0].ask(shoal.Wish{Deploy: &shoal.DeployWish{Specs: []shoal.Spec{changed}}})
		w.settled(15*time.Second, left, map[string]int{"web": 0, "api": 0})
		w.settled(90*time.Second, right, map[string]int{"web": 6, "api": 3})
		w.heal()
		w.settled(90*time.Second, w.peers, map[string]int{"web": 6, "api": 0})
		w.agreed(w.peers)
		for _, p := range w.peers {
			web, _ := p.view().Service("web")
			api, _ := p.view().Service("api")
			if web.Stopped || web.Spec.Env["SIDE"] != "right" || !api.Stopped {
				t.Errorf("peer %d: web %+v, api stopped %v, want the newer web running and api stopped", p.index, web, api.Stopped)
			}
		}
		w.quiet(w.peers)
	})
}
