// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"

	"github.com/shoalnet/shoal"
)

// passwordLen is the length of a password: 128 bits in hex digits.
const passwordLen = 32

func newPassword() string {
	var raw [passwordLen / 2]byte
	_, _ = rand.Read(raw[:]) // it never fails
	return hex.EncodeToString(raw[:])
}

// flights lets callers that want the same wait for one of them to get it. The work goes
// on while any of them waits. The zero value is ready.
type flights[K comparable, V any] struct {
	mu sync.Mutex // guards what follows, and what flights say
	by map[K]*flight[V]
}

type flight[V any] struct {
	waiters int
	cancel  context.CancelFunc
	done    chan struct{}
	value   V // like err, written before done is closed
	err     error
	tell    map[*func(shoal.ImageProgress)]bool
	last    shoal.ImageProgress
}

// do returns what work returns, which is called once for all who ask at a time. Each
// caller's progress is told what work tells.
func (f *flights[K, V]) do(ctx context.Context, key K, progress func(shoal.ImageProgress), work func(context.Context, func(shoal.ImageProgress)) (V, error)) (V, error) {
	f.mu.Lock()
	if f.by == nil {
		f.by = map[K]*flight[V]{}
	}
	one := f.by[key]
	if one == nil {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		one = &flight[V]{cancel: cancel, done: make(chan struct{}), tell: map[*func(shoal.ImageProgress)]bool{}}
		f.by[key] = one
		go func() {
			defer cancel()
			value, err := work(own, func(p shoal.ImageProgress) { f.told(one, p) })
			f.mu.Lock()
			if f.by[key] == one {
				delete(f.by, key)
			}
			f.mu.Unlock()
			one.value, one.err = value, err
			close(one.done)
		}()
	}
	one.waiters++
	if progress != nil {
		one.tell[&progress] = true
	}
	f.mu.Unlock()
	defer f.leave(key, one, &progress)
	select {
	case <-one.done:
		return one.value, one.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

// leave ends the work when the last of its callers goes, and then waits for its end: who
// starts a goroutine sees it end.
func (f *flights[K, V]) leave(key K, one *flight[V], progress *func(shoal.ImageProgress)) {
	f.mu.Lock()
	one.waiters--
	delete(one.tell, progress)
	isLast := one.waiters == 0
	if isLast && f.by[key] == one {
		delete(f.by, key) // who comes now begins anew
	}
	f.mu.Unlock()
	if isLast {
		one.cancel()
		<-one.done
	}
}

func (f *flights[K, V]) told(one *flight[V], p shoal.ImageProgress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p == one.last {
		return
	}
	one.last = p
	for tell := range one.tell {
		(*tell)(p)
	}
}
