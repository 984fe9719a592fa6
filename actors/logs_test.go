// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// sink collects lines as "SLOT text".
type sink struct {
	mu    sync.Mutex
	lines []string
	bad   string
}

func (k *sink) take(l shoal.LogLine) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.Peer != "peer01" || l.Service != "web" || l.Replica.IsZero() {
		k.bad = fmt.Sprintf("%+v", l)
	}
	k.lines = append(k.lines, fmt.Sprintf("%d %s", l.Slot, l.Text))
	return nil
}

func (k *sink) got() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.lines)
}

func TestLogsMergeByTime(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := oneWeb(s, 3)
		for i := range 4 {
			for slot := range 3 {
				p.engine.Print(p.replica("web", slot).ID, fmt.Sprintf("line %d", i))
				s.wait(time.Millisecond)
			}
		}
		var all, one, tailed sink
		query := shoal.LogQuery{Service: "web", Slot: -1, LogOptions: shoal.LogOptions{Tail: -1}}
		if err := p.system.Logs(s.t.Context(), query, all.take); err != nil {
			t.Fatal(err)
		}
		var want []string
		for i := range 4 {
			for slot := range 3 {
				want = append(want, fmt.Sprintf("%d line %d", slot, i))
			}
		}
		if got := all.got(); !slices.Equal(got, want) || all.bad != "" {
			t.Errorf("lines = %q, want %q; unstamped %s", got, want, all.bad)
		}
		query.Slot = 1
		if err := p.system.Logs(s.t.Context(), query, one.take); err != nil || len(one.got()) != 4 || one.got()[0] != "1 line 0" {
			t.Errorf("slot 1: %q, %v", one.got(), err)
		}
		query.Slot, query.Tail = -1, 1
		if err := p.system.Logs(s.t.Context(), query, tailed.take); err != nil || !slices.Equal(tailed.got(), []string{"0 line 3", "1 line 3", "2 line 3"}) {
			t.Errorf("tail 1: %q, %v", tailed.got(), err)
		}
		full := errors.New("reader is full")
		if err := p.system.Logs(s.t.Context(), query, func(shoal.LogLine) error { return full }); !errors.Is(err, full) {
			t.Errorf("error of the reader: %v", err)
		}
		if err := p.system.Logs(s.t.Context(), shoal.LogQuery{Service: "other", Slot: -1}, all.take); err != nil {
			t.Errorf("service without replicas here: %v", err)
		}
	})
}

// TestLogsFollow: through a restart, a new container, and to replicas that come
// later, every line once.
func TestLogsFollow(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		p.engine.SetProgram("hello:1", runtime.Program{Lines: []string{"hello"}})
		oneWeb(s, 1)
		var k sink
		ctx, cancel := context.WithCancel(s.t.Context())
		done := make(chan error, 1)
		go func() {
			done <- p.system.Logs(ctx, shoal.LogQuery{Service: "web", Slot: -1, LogOptions: shoal.LogOptions{Follow: true, Tail: -1}}, k.take)
		}()
		s.wait(time.Second)
		id := p.replica("web", 0).ID
		p.engine.Print(id, "before")
		s.wait(time.Second)
		p.engine.Exit(id, 1, false)
		s.until(5*time.Second, "restarted", func() bool { return p.ready("web") == 1 && p.replica("web", 0).Restarts == 1 })
		s.wait(time.Second)
		p.engine.Print(id, "after")
		s.wait(time.Second)
		p.engine.RemoveByHand(id)
		s.until(5*time.Second, "made again", func() bool { return p.ready("web") == 1 && p.replica("web", 0).Restarts == 2 })
		s.wish(shoal.Spec{Name: "web"}, 1, 2, p.id, p.id)
		s.until(5*time.Second, "scaled", func() bool { return p.ready("web") == 2 })
		s.wait(time.Second)
		want := []string{"0 hello", "0 before", "0 hello", "0 after", "0 hello", "1 hello"}
		if got := k.got(); !slices.Equal(got, want) || k.bad != "" {
			t.Errorf("lines = %q, want %q; unstamped %s", got, want, k.bad)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("follow ended with %v, want nil", err)
		}
		full := errors.New("reader is full")
		err := p.system.Logs(s.t.Context(), shoal.LogQuery{Service: "web", Slot: -1, LogOptions: shoal.LogOptions{Follow: true, Tail: 1}}, func(shoal.LogLine) error { return full })
		if !errors.Is(err, full) {
			t.Errorf("error of the reader: %v", err)
		}
	})
}
