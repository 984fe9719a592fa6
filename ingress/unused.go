// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"fmt"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// tidy removes the networks that nobody has wanted for a while.
func (n *networks) tidy(ctx context.Context) {
	v := n.room.deps.Views.View()
	if v == nil {
		return
	}
	needed, all := neededBy(v)
	now := n.room.deps.Clock.Mono()
	for _, l := range n.all() {
		n.mu.Lock()
		if all || needed[l.network.Name] {
			l.wanted = now
		}
		spare := now-l.wanted >= unusedFor
		n.mu.Unlock()
		if spare && ctx.Err() == nil {
			n.remove(ctx, l)
		}
	}
}

// neededBy returns the networks that this peer's replicas may be on. all: it holds one
// of a revision that is not known any more, which may be on each.
func neededBy(v *shoal.View) (needed map[string]bool, all bool) {
	needed = map[string]bool{}
	need := func(service string, revision shoal.RevisionID) {
		s, ok := v.Service(service)
		if !ok || s.Revision != revision {
			all = true
			return
		}
		for _, a := range s.Spec.Attachments() {
			needed[a.Network] = true
		}
	}
	for _, c := range v.ClaimsBy(v.Self()) {
		need(c.Service, c.Revision)
	}
	if st := v.State(v.Self()); st != nil {
		for i := range st.Replicas { // those that stop have no claim any more
			need(st.Replicas[i].Service, st.Replicas[i].Revision)
		}
	}
	return needed, all
}

// remove removes a network that seems to be spare. The lane ends first, so that nothing of
// it outlives its bridge; if a container turns out to be there, it is taken up again.
func (n *networks) remove(ctx context.Context, l *lane) {
	if n.enter(ctx) != nil {
		return
	}
	defer n.leave()
	n.mu.Lock()
	spare := n.lanes[l.network.Name] == l && n.room.deps.Clock.Mono()-l.wanted >= unusedFor
	n.mu.Unlock()
	if !spare { // somebody came meanwhile
		return
	}
	n.drop(l)
	err := n.room.deps.Networks.RemoveNetwork(ctx, l.network.ID)
	if err == nil {
		n.room.deps.Log.Info("network removed", "network", l.network.Name)
		return
	}
	if !errors.Is(err, shoal.ErrConflict) {
		n.room.deps.Log.Warn("network stays", "network", l.network.Name, logkey.Err, err)
	}
	n.put(l.network)
}

// Detach ends all names and removes all networks of this peer, which leaves its cluster:
// nothing is attached any more. Its containers must be gone.
func (r *Room) Detach(ctx context.Context) error {
	n := r.networks
	if n == nil {
		return nil
	}
	if err := n.enter(ctx); err != nil {
		return fmt.Errorf("remove networks: %w", err)
	}
	defer n.leave()
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	for _, l := range n.all() {
		n.drop(l)
	}
	there, err := r.deps.Networks.ListNetworks(ctx)
	for _, network := range there {
		err = errors.Join(err, r.deps.Networks.RemoveNetwork(ctx, network.ID))
	}
	return err
}
