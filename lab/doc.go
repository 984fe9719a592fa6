// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package lab is a whole cluster on one Linux machine: hosts of their own in network,
// mount, pid, uts and ipc namespaces (lab/host), each with a Docker engine, a shoald,
// two disks and a control group, joined by a switch with distance, loss and cuts
// (lab/wire) as a topology says (lab/topology).
//
//	l, err := lab.Start(ctx, lab.Config{Name: "mine", Topology: &topo})
//	out, err := l.Shoal(ctx, "h1", "ps")
//	err = l.Split("h1 h2 | h3", false)
//	err = l.Close(ctx)
//
// A lab lives as long as the process that started it: when that ends, however, hosts and
// containers end with it, and what stays are files and empty control groups, which
// [Sweep] removes, or the next lab of the name. Tests use [Up].
//
// The package refuses to look inside a daemon: it drives shoald and shoal as a user
// would. It needs root, and touches nothing of the machine but the lab's own directory,
// /run/shoal-lab, the group shoal-lab among the control groups, and the empty
// directories /var/lib/shoal and /var/lib/docker, over which the hosts mount their disks.
package lab
