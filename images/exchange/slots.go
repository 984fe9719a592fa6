// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"sync"
	"time"
)

// slowFactor is how many times the slots may be in use when most of them are slow.
const slowFactor = 4

// slots bound the uploads of all blobs. Who waits is served in turn, so that blobs share
// them. An upload that takes longer than the patience of its caller gives its slot back
// and goes on, up to slowFactor times as many: slow receivers do not stop the others.
type slots struct {
	quick, all chan struct{}
}

func newSlots(n int) *slots {
	return &slots{quick: make(chan struct{}, n), all: make(chan struct{}, slowFactor*n)}
}

// take waits for a slot until ctx ends or stop is closed; false: there is none.
func (s *slots) take(ctx context.Context, stop <-chan struct{}, patience time.Duration) (release func(), ok bool) {
	if !enter(ctx, stop, s.all) {
		return nil, false
	}
	if !enter(ctx, stop, s.quick) {
		<-s.all
		return nil, false
	}
	back := sync.OnceFunc(func() { <-s.quick })
	slow := time.AfterFunc(patience, back)
	return func() {
		slow.Stop()
		back()
		<-s.all
	}, true
}

// enter puts something into c, unless ctx ends or stop is closed first.
func enter(ctx context.Context, stop <-chan struct{}, c chan<- struct{}) bool {
	select {
	case c <- struct{}{}:
		return true
	case <-stop:
	case <-ctx.Done():
	}
	return false
}
