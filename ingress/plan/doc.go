// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package plan says what a peer answers on and where it may carry connections to, as a
// pure function of its view: no clock, no goroutine, no I/O.
//
// [Listeners] are the published ports, each with the service that has it; [Backends] the
// replicas of a service as ingress/balance takes them; [Target] whether a replica that
// this peer holds may be reached by somebody who asks for it, and where it is.
//
// It does not choose a replica, and it opens nothing.
package plan
