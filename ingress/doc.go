// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package ingress is how services are reached on one peer: it answers on the ports that
// services publish on every peer and, inside containers, on their names; it carries each
// connection to a ready replica, here or at its holder, and serves other peers that carry
// connections to replicas of this one.
//
//	r, err := ingress.New(cfg, ingress.Deps{...})
//	err = r.Run(ctx)
//
// Room follows the view: plan says what to answer on and whom to let through, balance
// which replica serves a connection, carry moves the bytes. Room implements shoal.Reach,
// by which users list ports, ask how a service is reached, and forward ports.
//
// Where the engine makes networks, Room has those of this peer: it implements
// shoal.Attacher, and runs a lane for each, which is names.Zone behind a resolver and a
// bridge of virtual addresses. A lane that fails is tried again and told by NameChecks; a
// network that nobody wants any more is removed. Networks stay when the daemon ends, for
// containers run on, and are taken up by the next.
//
// It decides nothing for other peers and writes no record: what answers where follows
// from what the peer knows, also when it is cut off.
package ingress
