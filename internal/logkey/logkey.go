// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package logkey fixes the keys of structured log lines, so that one grep finds
// everything about one thing. It holds constants only and refuses to log.
package logkey

// The keys.
const (
	Peer     = "peer"
	Service  = "service"
	Slot     = "slot"
	Replica  = "replica"
	Revision = "revision"
	Phase    = "phase"
	Claim    = "claim"
	Image    = "image"
	Took     = "took"
	Reason   = "reason"
	Err      = "err"
)
