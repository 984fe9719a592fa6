// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip/fold"
)

// checks are what intake and fold stand on. They are values so that this package's
// tests can take one away and see the properties that it keeps break; nothing outside
// the package can. The fourth thing that a store stands on, the disk's sync, is taken
// away with hooks.
type checks struct {
	// signed: the author a record names signed it, for this cluster.
	signed func(cluster shoal.PeerID, r *shoal.Record) error
	// placed: a block of this height may lie on parents the highest of which is above.
	placed func(height, above uint64) bool
	// merge adds records to a state; which of two counts depends on nothing but them.
	merge func(fold.State, ...fold.Entry) (fold.State, bool)
}

func allChecks() checks {
	return checks{
		signed: VerifyRecord,
		placed: func(height, above uint64) bool { return height == above+1 },
		merge:  fold.State.Add,
	}
}
