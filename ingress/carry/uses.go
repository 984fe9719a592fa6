// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"sync"
	"time"

	"github.com/shoalnet/shoal"
)

// usedFor is how long a replica counts as used after its last connection: clients that
// open one for each request come again within it.
const usedFor = 10 * time.Second

// uses says when replicas of this peer were last connected.
type uses struct {
	clock shoal.Clock

	mu sync.Mutex // guards what follows
	of map[shoal.ReplicaID]*use
}

type use struct {
	open int
	last time.Duration // when one began or ended
}

// begin notes a connection; the function returned notes its end.
func (u *uses) begin(replica shoal.ReplicaID, now time.Duration) (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	x := u.of[replica]
	if x == nil {
		u.forget(now)
		x = &use{}
		u.of[replica] = x
	}
	x.open++
	x.last = now
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		x.open--
		x.last = u.clock.Mono()
	}
}

// forget drops those that nobody asks about any more: there are as many as this peer had
// replicas lately. The caller holds mu.
func (u *uses) forget(now time.Duration) {
	for id, x := range u.of {
		if !x.isUsed(now) {
			delete(u.of, id)
		}
	}
}

func (x *use) isUsed(now time.Duration) bool { return x.open > 0 || now-x.last <= usedFor }

func (u *uses) lately(replica shoal.ReplicaID) bool {
	now := u.clock.Mono()
	u.mu.Lock()
	defer u.mu.Unlock()
	x := u.of[replica]
	return x != nil && x.isUsed(now)
}
