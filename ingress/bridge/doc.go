// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package bridge makes the virtual addresses of one network of services answer on this
// machine, and hands out what containers send there. It works on Linux and needs
// CAP_NET_ADMIN.
//
//	b, err := bridge.New(bridge.Config{}, bridge.Deps{Network: n, Stream: carry, Packets: serve, Log: log})
//	b.SetEndpoints(declared) // whenever something changed
//	err = b.Run(ctx)         // until ctx ends; then nothing of it is left on the machine
//
// A local route makes every address of the network's upper half this machine's own, so
// that the kernel answers ARP for it on the bridge; no address is ever added to an
// interface. A rule of nftables then sends TCP to any port there to one listener, which
// learns from the kernel where the connection was meant to go. UDP, and TCP where the
// kernel cannot do that, have a socket for each [Endpoint]; what is not declared is
// refused by the kernel.
//
// All sockets are bound to the bridge, a second rule turns away what comes from elsewhere,
// and who is not a container of the network is refused here, and counted. So a service
// reaches only services that share a network with it, also by address.
//
// [Probe] says in words what of this works on a machine, and [Taken] which ranges it uses.
// DESIGN.md of ingress has the addressing, and what was tried.
//
// The package refuses to touch routes and tables that are not its own, to know what a
// virtual address stands for, and to run a connection: it hands them out.
package bridge
