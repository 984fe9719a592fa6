// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// TestTakeLoads: the first measurement of a start is not told, CPU is the mean of the time
// between two, and what hardly differs is told as before.
func TestTakeLoads(t *testing.T) {
	id := shoal.ReplicaID{1}
	use := func(cpu time.Duration, mem int64) shoal.Usage {
		return shoal.Usage{Replica: id, CPUMilli: 990, CPUTime: cpu, MemBytes: mem << 20}
	}
	load := func(cpu, mem int64) []shoal.ReplicaLoad {
		return []shoal.ReplicaLoad{{Replica: id, CPUMilli: cpu, MemBytes: mem << 20}}
	}
	l := loads{}
	at := time.Minute
	for _, step := range []struct {
		name string
		in   []shoal.Usage
		want []shoal.ReplicaLoad
	}{
		{"first", []shoal.Usage{use(40*time.Second, 50)}, nil},
		{"half a core", []shoal.Usage{use(47500*time.Millisecond, 50)}, load(500, 50)},
		{"a little more", []shoal.Usage{use(55400*time.Millisecond, 52)}, load(500, 50)},
		{"more", []shoal.Usage{use(64400*time.Millisecond, 60)}, load(600, 60)},
		{"started again", []shoal.Usage{use(time.Second, 60)}, nil},
		{"after that", []shoal.Usage{use(4*time.Second, 60)}, load(200, 60)},
		{"not measured", nil, nil},
		{"again", []shoal.Usage{use(10*time.Second, 60)}, nil},
		{"idle", []shoal.Usage{use(10050*time.Millisecond, 60)}, load(3, 60)},
		{"idle still", []shoal.Usage{use(10051*time.Millisecond, 60)}, load(3, 60)},
	} {
		if got := l.take(at, step.in); !slices.Equal(got, step.want) {
			t.Errorf("%s: take = %+v, want %+v", step.name, got, step.want)
		}
		at += 15 * time.Second
	}
	if l = (loads{}); l.take(0, []shoal.Usage{use(0, 5)}) != nil || l.take(time.Second, []shoal.Usage{use(0, 5)})[0].CPUMilli != 990 {
		t.Error("of an engine that does not tell the time used, what it measured in a second counts")
	}
}

// TestLoads: what replicas use is told of services that are autoscaled by it, and measured
// of no others.
func TestLoads(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := oneWeb(s, 2)
		p.engine.SetUse("web", shoal.Usage{CPUMilli: 700, MemBytes: 9 << 20})
		s.wait(time.Minute)
		if got := p.View().State(p.id).Loads; len(got) != 0 {
			t.Fatalf("loads %+v of a service that is not autoscaled", got)
		}
		s.wish(shoal.Spec{Name: "web", Autoscale: &shoal.Autoscale{Min: 1, Max: 5, CPU: 60}}, 2, 2, p.id, p.id)
		s.until(40*time.Second, "loads told", func() bool { return len(p.View().State(p.id).Loads) == 2 })
		for _, l := range p.View().State(p.id).Loads {
			if l.CPUMilli != 700 || l.MemBytes != 9<<20 {
				t.Errorf("load %+v, want 700 and 9 MiB", l)
			}
			if r, ok := p.View().Replica(l.Replica); !ok || r.Service != "web" {
				t.Errorf("load of %+v", r)
			}
		}
		p.engine.SetHang(true)
		s.until(time.Minute, "what is not measured is not told", func() bool { return len(p.View().State(p.id).Loads) == 0 })
		p.engine.SetHang(false)
	})
}
