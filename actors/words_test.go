// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// memoryShelf is a Shelf in memory.
type memoryShelf struct {
	mu   sync.Mutex
	kept []shoal.LastWords
}

func (m *memoryShelf) Load() ([]shoal.LastWords, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.kept), nil
}

func (m *memoryShelf) Save(all []shoal.LastWords) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept = all
	return nil
}

// said returns the last words of web, each as "SLOT REASON | CHECK | LINES | MISSING".
func (p *tank) said() []string {
	p.sea.t.Helper()
	all, err := p.system.LastWords(p.sea.t.Context(), "web")
	if err != nil {
		p.sea.t.Fatal(err)
	}
	var out []string
	for _, w := range all {
		out = append(out, fmt.Sprintf("%d %s | %s | %s | %s", w.Slot, w.Reason, w.Check, strings.Join(w.Lines, "; "), w.Missing))
	}
	return out
}

func (p *tank) wantSaid(what string, want ...string) {
	p.sea.t.Helper()
	if got := p.said(); !slices.Equal(got, want) {
		p.sea.t.Errorf("%s: last words %q, want %q", what, got, want)
	}
}

func TestLastWordsOfFirstFailure(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		shelf := &memoryShelf{}
		s.first().deps.Shelf = shelf
		p := oneWeb(s, 2)
		p.wantSaid("nothing failed")
		id := p.replica("web", 1).ID
		for i := range 12 {
			p.engine.Print(id, fmt.Sprintf("line %d", i))
		}
		p.engine.Print(id, "\x1b[31mpanic: boom")
		p.engine.Exit(id, 3, false)
		s.wait(300 * time.Millisecond)
		first := "1 exited with code 3 |  | line 3; line 4; line 5; line 6; line 7; line 8; line 9; line 10; line 11;  [31mpanic: boom | "
		p.wantSaid("exited", first)
		s.until(5*time.Second, "ready again", func() bool { return p.ready("web") == 2 })
		p.engine.Print(id, "something else")
		p.engine.Exit(id, 4, false)
		s.wait(300 * time.Millisecond)
		p.wantSaid("failed again", first)

		p.stop()
		p.start()
		s.wait(time.Second)
		p.wantSaid("another process", first)

		s.remove("web")
		s.until(10*time.Second, "gone", func() bool { return len(p.said()) == 0 })
		if kept, _ := shelf.Load(); len(kept) != 0 {
			t.Errorf("the shelf has %v of a service that is gone", kept)
		}
	})
}

// TestLastWordsOutliveContainer: a replica that is replaced, or taken down, is read before.
func TestLastWordsOutliveContainer(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := oneWeb(s, 1)
		p.engine.SetLatency(runtime.Latency{Call: time.Second}) // reading takes longer than to decide
		id := p.replica("web", 0).ID
		p.engine.Print(id, "good bye")
		p.engine.Exit(id, 1, false)
		s.wait(2100 * time.Millisecond) // it was listed; it is being read
		s.wish(shoal.Spec{Name: "web"}, 1, 0)
		s.until(20*time.Second, "gone", func() bool { return p.engine.Counts(id).Removes == 1 })
		p.wantSaid("of a container that is gone", "0 exited with code 1 |  | good bye | ")
	})
}

func TestLastWordsOfTheSick(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		s.first().engine.SetProgram("hello:1", runtime.Program{HealthCheck: true, CheckSays: "usage: check URL\nGET /: 500\n", Lines: []string{"begins"}})
		p := oneWeb(s, 1)
		p.engine.SetHealthy(p.replica("web", 0).ID, false)
		s.wait(500 * time.Millisecond)
		p.wantSaid("unhealthy", "0 unhealthy | GET /: 500 | begins | ")
		s.wait(10 * time.Second)
		p.wantSaid("it was stopped for that", "0 unhealthy | GET /: 500 | begins | ")
	})
}

func TestLastWordsOfLaunches(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		p.engine.SetProgram("hello:1", runtime.Program{StartErr: fmt.Errorf("exec: \"hello\": not found"), Lines: []string{"never"}})
		p.start()
		s.wait(time.Second)
		s.wish(shoal.Spec{Name: "web"}, 1, 1, p.id)
		s.wait(2 * time.Second)
		if got := p.said(); len(got) != 1 || !strings.Contains(got[0], `exec: "hello": not found`) || !strings.HasSuffix(got[0], "|  |  | ") {
			t.Errorf("last words of what cannot be started: %q", got)
		}
	})
}

func TestLastWordsAreFew(t *testing.T) {
	w := newWords(nil, nil)
	word := func(service string, i int) shoal.LastWords {
		return shoal.LastWords{Service: service, Replica: shoal.ReplicaID{byte(i), byte(i >> 8)}, Revision: shoal.RevisionID{Seq: 1, Author: "a"}}
	}
	reads := 0
	for i := range 100 {
		for _, service := range []string{"web", fmt.Sprintf("s%d", i)} {
			if w.begin(word(service, i), true) {
				reads++
			}
		}
	}
	if got := len(w.of("web")); reads != maxReading || len(w.kept) != maxWords || got > maxOfOne {
		t.Errorf("%d are read at once, %d are kept, %d of one service; want %d, %d and at most %d", reads, len(w.kept), got, maxReading, maxWords, maxOfOne)
	}
	if got := w.of("s99"); len(got) != 1 || got[0].Missing != tooMany {
		t.Errorf("one too many: %+v", got)
	}
}
