// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// findPeer resolves a name, an ID, or the end of an ID; "" is this peer.
func (p *pane) findPeer(text string) (*shoal.Peer, error) {
	if text == "" {
		text = string(p.view.Self())
	}
	var found, named []*shoal.Peer
	var known []string
	for i := range p.view.Peers() {
		m := &p.view.Peers()[i]
		if string(m.ID) == text {
			return m, nil
		}
		if m.Facts.Name == text && !m.Removed && !m.Left() {
			named = append(named, m)
		}
		if len(text) >= 4 && strings.HasSuffix(string(m.ID), text) {
			found = append(found, m)
		}
		if !m.Removed && !m.Left() {
			known = append(known, m.Name())
		}
	}
	if len(named) > 1 {
		return nil, &Error{Code: CodeConflict, What: fmt.Sprintf("%d peers are named %q", len(named), text), Todo: "write the end of an ID: shoal peer ls -o wide"}
	}
	if len(named) == 1 {
		return named[0], nil
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, &Error{Code: CodeNotFound, What: fmt.Sprintf("no peer %q (known here: %s)", text, listed(known)), Why: p.synced()}
	}
	return nil, &Error{Code: CodeConflict, What: fmt.Sprintf("%q is the end of %d peers' IDs", text, len(found)), Todo: "write more of it"}
}

// noService is the error about a service that this view does not know.
func (p *pane) noService(name string) *Error {
	var known []string
	for i := range p.view.Services() {
		known = append(known, p.view.Services()[i].Spec.Name)
	}
	return &Error{Code: CodeNotFound, What: fmt.Sprintf("no service %q (known here: %s)", name, listed(known)), Why: p.synced()}
}

// synced says how old the newest word from others is.
func (p *pane) synced() string {
	f := p.freshness("")
	switch {
	case f.Members < 2:
		return "this peer is the only member"
	case f.NewestSeconds < 0:
		return "this peer has not heard another since its start"
	}
	return fmt.Sprintf("this peer last synced %d s ago", int(f.NewestSeconds))
}

// listed joins names for a person: sorted, at most ten of them.
func listed(names []string) string {
	const most = 10
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
