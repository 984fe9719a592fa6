// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"math"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

// rollouts tells how far services have come, by the view alone: for how long a replica has
// been ready it does not know, and takes each for ready long enough.
type rollouts struct{ views shoal.Views }

// Rollout returns how far a service has come; ErrNotFound if there is none.
func (r rollouts) Rollout(service string) (shoal.RolloutReport, error) {
	return placement.Report(r.views.View(), service, func(shoal.ReplicaID) time.Duration { return math.MaxInt64 })
}
