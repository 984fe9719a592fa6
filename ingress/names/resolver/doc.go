// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package resolver answers the DNS questions of one peer's containers.
//
// A [Server] serves one network: it listens on the network's gateway address, answers
// from a [names.Zone] that is swapped as a whole, and hands the rest to a [Forwarder],
// which all networks of the peer share and which asks the machine's resolvers.
//
//	forward, err := resolver.NewForwarder(resolver.Defaults(), resolver.Outside{...})
//	server, err := resolver.New(resolver.Defaults(), resolver.Deps{Forward: forward, ...})
//	server.SetZone(zone) // whenever something changed
//	go forward.Run(ctx)
//	err = server.Run(ctx)
//
// What a container can do to it is bounded, and counted in [Stats] by [Reason]: questions a
// second and questions under way per client, questions under way in all, connections per
// client and in all, the time a message may take to arrive, the clients that are
// remembered. A datagram of one who asks too much is dropped rather than refused: a client
// that only had a burst asks again a little later, where REFUSED would be its answer.
//
// # Loops
//
// The machine's resolvers may lead back here: they may be us, or ask us, or be a container
// of ours that asks us. Our own addresses are never asked. A foreign question from one of
// our own addresses came from this machine and gets SERVFAIL. A question that comes back
// from a container is known by the mix of upper and lower case that we gave it, which
// most resolvers pass on; it gets SERVFAIL, so that the resolver in the middle gives up and
// the next is asked. Where the mix got lost the
// question meets itself under way and waits for its own answer, which ends with the time
// limit: a loop never grows.
//
// # No cache
//
// The machine's resolvers have one. A second would keep what they have forgotten, and
// save about one round trip on the machine itself; equal questions at one time are asked
// once as it is.
//
// The package refuses to serve anybody but the clients that its caller lets in, to open
// the sockets that it listens on, and to decide what a name means. A machine without
// resolvers gives SERVFAIL: no public resolver is asked that the owner has not named.
package resolver
