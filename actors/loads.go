// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// loads are what the replicas here of services that are autoscaled by what they use were
// measured at. It belongs to one goroutine.
type loads struct {
	last map[shoal.ReplicaID]reading
	told map[shoal.ReplicaID]shoal.ReplicaLoad
}

// reading is one measurement.
type reading struct {
	at      time.Duration
	cpuTime time.Duration // since the container started; 0: the engine does not say
}

// measureLoads measures replicas of autoscaled services periodically, and nothing where
// there are none: it costs the engine a second for each.
func (r *run) measureLoads(ctx context.Context) {
	l := loads{last: map[shoal.ReplicaID]reading{}, told: map[shoal.ReplicaID]shoal.ReplicaLoad{}}
	for sleep(ctx, r.cfg.Measure) {
		running := r.board.running()
		v := r.deps.Views.View()
		running = slices.DeleteFunc(running, func(st shoal.ReplicaStatus) bool { return st.Phase != shoal.PhaseReady || !weighed(v, st.Service) })
		at := r.now()
		r.board.setLoads(l.take(at, r.measureEach(ctx, running)))
	}
}

// weighed reports whether what replicas of a service use decides how many there are.
func weighed(v *shoal.View, service string) bool {
	if v == nil {
		return false
	}
	s, ok := v.Service(service)
	return ok && s.Spec.Autoscale != nil && (s.Spec.Autoscale.CPU > 0 || s.Spec.Autoscale.Memory > 0)
}

// measureEach measures replicas. What cannot be measured is left out: others then know
// nothing of it, and count it against any change.
func (r *run) measureEach(ctx context.Context, running []shoal.ReplicaStatus) []shoal.Usage {
	if len(running) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Measure)
	defer cancel()
	all, _ := measureAll(ctx, r.deps.Console, running, func(st *shoal.ReplicaStatus, err error) error {
		r.log.Debug("load not measured", logkey.Service, st.Service, logkey.Replica, st.ID.Short(), logkey.Err, err)
		return nil // so that it returns no error at all
	})
	return all
}

// take takes the measurements of one round and returns what is to be told, by replica. The
// first of a replica is not: it is of its start. CPU is the mean since the one before.
func (l *loads) take(at time.Duration, all []shoal.Usage) []shoal.ReplicaLoad {
	last, told := make(map[shoal.ReplicaID]reading, len(all)), make(map[shoal.ReplicaID]shoal.ReplicaLoad, len(all))
	var out []shoal.ReplicaLoad
	for _, u := range all {
		now := reading{at, u.CPUTime}
		last[u.Replica] = now
		was, known := l.last[u.Replica]
		if !known || now.cpuTime < was.cpuTime || at <= was.at { // it is new, or was started again
			continue
		}
		cpu := u.CPUMilli
		if now.cpuTime > 0 {
			cpu = int64(now.cpuTime-was.cpuTime) * 1000 / int64(at-was.at)
		}
		load := shoal.ReplicaLoad{Replica: u.Replica, CPUMilli: cpu, MemBytes: u.MemBytes}
		if old, ok := l.told[u.Replica]; ok {
			load.CPUMilli = steady(old.CPUMilli, load.CPUMilli, 5)
			load.MemBytes = steady(old.MemBytes, load.MemBytes, 1<<20)
		}
		told[u.Replica] = load
		out = append(out, load)
	}
	l.last, l.told = last, told
	slices.SortFunc(out, func(a, b shoal.ReplicaLoad) int { return slices.Compare(a.Replica[:], b.Replica[:]) })
	return out
}

// steady returns what was told before if what is measured now differs by no more than a
// sixteenth and a bit, so that an idle cluster has nothing to tell. That is less than the
// usual tolerance of the decision, which is a tenth.
func steady(told, now, bit int64) int64 {
	if d := now - told; max(d, -d) <= max(told/16, bit) {
		return told
	}
	return now
}

// setLoads takes what is told of loads.
func (b *board) setLoads(all []shoal.ReplicaLoad) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.loads, all) {
		b.loads = all
		b.touch()
	}
}
