// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package names decides what the names that containers ask for mean, as pure values.
//
// A network of containers on one peer has a range of addresses that no container gets:
// the upper half of its subnet. [Allocate] gives every service of the network and every
// slot an address there, derived from the name; [NewZone] makes of services and addresses
// what [Zone.Answer] answers from. Both happen anew whenever something changes:
//
//	held, err := names.Allocate(upper, names.Wanted(services), held, now, quarantine)
//	zone := names.NewZone(names.Network{Range: upper, Services: services, Addresses: held})
//	answer, ours := zone.Answer(question) // not ours: ask the machine's resolvers
//
// The addresses are this peer's own. Nothing about them is agreed on in the cluster, so
// none can collide in a split; another peer gives the same name another address.
//
// # Names
//
// For a service web of project shop, in the networks that it is in:
//
//	web, web.shop           the service: one address, whoever is ready behind it
//	tasks.web               an address of each ready replica
//	3.web                   the address of the replica in slot 3
//	_80._tcp.web            SRV: the declared port 80/tcp of what the rest of the name means
//	_tcp.web                SRV: all its declared TCP ports
//	db                      an alias; a single label that stands for the service
//
// These combine (_80._tcp.tasks.web.shop), and each may end in the suffix .shoal. A name
// under the suffix is always ours: an unknown one does not exist and is not asked for
// elsewhere. Without the suffix only names that mean something here are ours; so a
// service called google in a project called com hides google.com, in its own networks.
// The name of a service or of a service and its project goes before the other forms: if
// project web has a service tasks, tasks.web is that. A name before an alias; of several
// services with one alias the first by name has it, and [Zone.Clashes] tells.
//
// SRV records name a port number, as there are no names for ports in a spec. Those of web
// lead to its one address and those of tasks.web to each ready replica, so SRV never says
// anything else than A does.
//
// A service without a ready replica keeps its address, and so does a slot: the connection
// is refused with a reason, which tells more than a name that is gone, and peers of a
// database find each other before they are ready. tasks.web is then empty (NODATA).
//
// Addresses are IPv4; AAAA and all other types are NODATA for names that are ours. PTR of
// an address in the range gives the full name. ANY gets one HINFO record (RFC 8482), a
// zone transfer or a class other than IN is refused.
//
// The package refuses to ask anybody anything, to know the time, and to know which client
// asks: all containers of a network get the same answer. [resolver] is its shell.
package names
