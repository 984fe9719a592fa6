// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoalnet/shoal/ingress/balance"
)

// TestWaitsForWhatWakes: a connection to a service that sleeps waits for the first replica,
// or until its budget is used up; both are seen as open meanwhile.
func TestWaitsForWhatWakes(t *testing.T) {
	cfg := Defaults()
	cfg.Budget = 300 * time.Millisecond
	m := alone(t, cfg)
	var woken atomic.Int32
	m.deps.Wake = func(name string) bool {
		woken.Add(1)
		return name == "web"
	}
	s := service()
	if err := knock(t, m.door(t, s, TCP)); !errors.Is(err, syscall.ECONNRESET) || woken.Load() != 1 || s.Stats().Errors[NoReplica] != 1 {
		t.Errorf("no replica came: the client saw %v, woken %d times, %+v", err, woken.Load(), s.Stats().Errors)
	}

	cfg.Budget = 10 * time.Second
	m = alone(t, cfg)
	m.deps.Wake = func(string) bool { return true }
	s = service()
	got := make(chan string, 1)
	at := m.door(t, s, TCP)
	go func() {
		text, err := ask(t, at, "hello")
		if err != nil {
			text = err.Error()
		}
		got <- text
	}()
	until(t, "it waits", func() bool { return s.Stats().Open == 1 })
	s.Update(balance.Snapshot{}) // nothing that helps
	s.Update(balance.Snapshot{Backends: []balance.Backend{m.has(1, listen(t, says("one")))}})
	if text := <-got; text != "one" {
		t.Errorf("the client saw %q", text)
	}
}
