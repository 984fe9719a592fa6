// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package host is one host of a lab: a process that is the first of its own network,
// mount, pid, uts and ipc namespaces, with disks of its own and whatever it was told to
// start. The driver's side is [Boot] and [Host]; the host's own side is [Init], which
// shoal-lab runs as the first process of the namespaces.
//
// Both sides talk over a socket that only they have. When the driver goes, for whatever
// reason, the first process sees the socket close and ends, and the kernel ends all the
// others of the host with it: nothing of a host outlives its driver but files and empty
// control groups, which [Sweep] removes. Killing the first process is a power cut.
//
// The package touches nothing outside the namespaces, the host's directory and its
// control group. It needs root and Linux, and knows nothing of Shoal or Docker.
package host
