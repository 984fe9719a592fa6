// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"net/netip"

	"github.com/shoalnet/shoal"
)

// Via says by which way somebody comes to a replica.
type Via int

// The ways.
const (
	ViaPublished Via = iota + 1 // a published port of some peer
	ViaForward                  // a user's port-forward
	ViaName                     // a name, from a container that shares a network with the service
)

// Question asks for a replica that this peer holds.
type Question struct {
	Asker    shoal.PeerID
	Via      Via
	Service  string
	Replica  shoal.ReplicaID
	Port     uint16 // in its container
	Protocol string // "tcp" or "udp"
}

// Answer is where the replica is.
type Answer struct {
	Addr  netip.AddrPort
	Proxy bool // a connection begins with a PROXY protocol header
}

// Target decides whether a replica may be reached. shoal.ErrNotFound: it is not here, or
// takes no connection now; another may. shoal.ErrRefused: the asker may not come to it
// this way; no other replica lets it either.
func Target(v *shoal.View, q Question) (Answer, error) {
	s, ok := v.Service(q.Service)
	if !ok {
		return Answer{}, fmt.Errorf("service %q: %w", q.Service, shoal.ErrNotFound)
	}
	if err := may(v, s, q); err != nil {
		return Answer{}, err
	}
	r, ok := v.Replica(q.Replica)
	switch {
	case !ok || r.Service != q.Service || !holds(v, q):
		return Answer{}, fmt.Errorf("replica %s of %s is not here: %w", q.Replica, q.Service, shoal.ErrNotFound)
	case r.Phase == shoal.PhaseStopping, q.Via == ViaPublished && r.Phase != shoal.PhaseReady:
		return Answer{}, fmt.Errorf("%s/%d is %s: %w", q.Service, r.Slot, r.Phase, shoal.ErrNotFound)
	}
	addr, ok := addressOf(r, q)
	if !ok {
		return Answer{}, fmt.Errorf("%s/%d has no address: %w", q.Service, r.Slot, shoal.ErrNotFound)
	}
	return Answer{Addr: addr, Proxy: q.Via == ViaPublished && q.Protocol == "tcp" && s.Spec.ProxyProtocol}, nil
}

// may refuses who may not come this way to any replica of a service.
func may(v *shoal.View, s *shoal.Service, q Question) error {
	switch q.Via {
	case ViaPublished:
		for _, p := range s.Spec.Ports {
			if p.IsIngress() && p.Container == q.Port && p.Protocol == q.Protocol {
				return nil
			}
		}
		return fmt.Errorf("%s publishes no port %d/%s: %w", q.Service, q.Port, q.Protocol, shoal.ErrRefused)
	case ViaForward:
		if p, ok := v.Peer(q.Asker); !ok || p.Removed || p.Role != shoal.RoleOperator {
			return fmt.Errorf("only operators forward ports: %w", shoal.ErrRefused)
		}
		return nil
	case ViaName:
		if p, ok := v.Peer(q.Asker); !ok || p.Removed || p.Left() || !neighbours(v, q.Asker, s) {
			return fmt.Errorf("peer %s holds no replica that shares a network with %s: %w", q.Asker.Short(), q.Service, shoal.ErrRefused)
		}
		return nil
	}
	return fmt.Errorf("no way to come is named: %w", shoal.ErrRefused)
}

// neighbours reports whether a peer claims a replica that may reach a service by name, the
// service's own included. Whether the peer is heard does not matter: it has just asked, and
// after a start this peer has heard nobody yet.
func neighbours(v *shoal.View, asker shoal.PeerID, s *shoal.Service) bool {
	for _, c := range v.ClaimsBy(asker) {
		if its, ok := v.Service(c.Service); ok && its.Spec.SharesNetwork(&s.Spec) {
			return true
		}
	}
	return false
}

// holds reports whether this peer claims the replica.
func holds(v *shoal.View, q Question) bool {
	for _, c := range v.ClaimsBy(v.Self()) {
		if c.Replica == q.Replica && c.Service == q.Service {
			return true
		}
	}
	return false
}

// addressOf returns where a port of a replica is: where its engine published it on
// loopback, if it did, for it does so where the container's own address is not reached.
func addressOf(r *shoal.ReplicaStatus, q Question) (netip.AddrPort, bool) {
	for _, b := range r.Ports {
		host, err := netip.ParseAddr(b.HostIP)
		if err == nil && host.IsLoopback() && b.HostPort != 0 && b.Container == q.Port && b.Protocol == q.Protocol {
			return netip.AddrPortFrom(host, b.HostPort), true
		}
	}
	addr, err := netip.ParseAddr(r.Addr)
	return netip.AddrPortFrom(addr, q.Port), err == nil
}
