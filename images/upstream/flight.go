// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"sync"
)

// flights let callers that ask the same at the same time share one question. It ends when
// the last of them leaves: nothing outlives who asked.
type flights struct {
	mu sync.Mutex
	by map[string]*flight
}

type flight struct {
	callers int // guarded by flights.mu
	cancel  context.CancelFunc
	done    chan struct{} // closed when found and err are there
	found   Found
	err     error
}

// share returns what ask returns, of a call for the same key that runs or of a new one.
// An error of ctx: the caller gave up.
func (f *flights) share(ctx context.Context, key string, ask func(context.Context) (Found, error)) (Found, error) {
	f.mu.Lock()
	fl := f.by[key]
	if fl == nil {
		run, cancel := context.WithCancel(context.WithoutCancel(ctx))
		fl = &flight{cancel: cancel, done: make(chan struct{})}
		f.by[key] = fl
		go func() {
			defer close(fl.done)
			defer cancel()
			fl.found, fl.err = ask(run)
			f.forget(key, fl)
		}()
	}
	fl.callers++
	f.mu.Unlock()
	select {
	case <-fl.done:
		return fl.found, fl.err
	case <-ctx.Done():
		f.leave(key, fl)
		return Found{}, context.Cause(ctx)
	}
}

// forget makes the next caller ask anew.
func (f *flights) forget(key string, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by[key] == fl {
		delete(f.by, key)
	}
}

func (f *flights) leave(key string, fl *flight) {
	f.mu.Lock()
	fl.callers--
	last := fl.callers == 0
	if last && f.by[key] == fl {
		delete(f.by, key) // under the same lock: nobody joins what is being ended
	}
	f.mu.Unlock()
	if last {
		fl.cancel()
		<-fl.done
	}
}
