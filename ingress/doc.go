// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package ingress is how services are reached on one peer: it answers on the ports that
// services publish on every peer, carries each connection to a ready replica, here or at
// its holder, and serves other peers that carry connections to replicas of this one.
//
//	r, err := ingress.New(cfg, ingress.Deps{...})
//	err = r.Run(ctx)
//
// Room follows the view: plan says what to answer on and whom to let through, balance
// which replica serves a connection, carry moves the bytes. Room implements shoal.Reach,
// by which users list ports, ask how a service is reached, and forward ports.
//
// It decides nothing for other peers and writes no record: what answers where follows
// from what the peer knows, also when it is cut off.
package ingress
