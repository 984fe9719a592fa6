// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package carry takes connections to a service and carries each to one of its replicas:
// here by the container's own address, elsewhere by a libp2p stream to the replica's
// holder, which connects the container and passes the bytes on.
//
//	c, err := carry.New(carry.Defaults(), carry.Deps{...})
//	web := carry.NewService("web", seed)
//	web.Update(snapshot) // again whenever the view changes
//	l, err := carry.Listen(ctx, addr, "tcp")
//	err = l.Serve(ctx, c, carry.Dest{Service: web, Port: 80, Via: carry.ViaPublished})
//
// and on the holder, for streams of members only:
//
//	host.SetStreamHandler(carry.Protocol, func(s network.Stream) { c.Serve(ctx, s) })
//
// Which replica is package balance's choice. While nothing of the client was read, one
// that does not take the connection is passed over for the next; after that a broken
// connection is the client's to repeat. What breaks on one side breaks on the other: an
// answer that was cut short never looks whole, for a reset is passed on as a reset and
// only an end as an end, each way by itself.
//
// A waiting connection costs its goroutines and no buffer, or a small one; between two
// local sockets bulk moves inside the kernel. Everything that others can make grow is
// bounded by [Config], and what is over is refused and counted ([Service.Stats],
// [Carrier.Served]).
//
// The package refuses to know what a view, a record or a container is, who is a member,
// and which ports are published: it asks [Targets], also for replicas of this peer. It
// sees no names, ends no connection because a replica is to go (the container's stop does),
// and repeats nothing that a client has sent.
package carry
