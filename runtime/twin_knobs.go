// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"maps"
	"slices"

	"github.com/shoalnet/shoal"
)

// SetRules makes the machine's owner allow exactly this. Running containers stay.
func (t *Twin) SetRules(rules ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rules = slices.Clone(rules)
}

// AddVolume makes a named volume that is not ours.
func (t *Twin) AddVolume(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.volumes[name] = false
}

// Volumes returns the names of all volumes, sorted.
func (t *Twin) Volumes() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.volumes))
}

// SetProgram says how containers of an image behave that are created from now on.
func (t *Twin) SetProgram(image string, p Program) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.programs[shoal.NormalizeRef(image)] = p
}

// SetLatency says how long calls take that begin from now on.
func (t *Twin) SetLatency(l Latency) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.latency = l
}

// SetDown makes every call fail at once, as if nothing listened; containers run on.
func (t *Twin) SetDown(down bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.down = down
	if down {
		t.breakStreams()
	}
}

// SetHang makes every call wait, its deadline long at most, and holds events back;
// containers run on. What waited when the hang ends is answered.
func (t *Twin) SetHang(hang bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case hang && t.hang == nil:
		t.hang = make(chan struct{})
	case !hang && t.hang != nil:
		close(t.hang)
		t.hang = nil
	}
}

// FailCreates makes the next creates fail with these errors, one each.
func (t *Twin) FailCreates(errs ...error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.createErrs = append(t.createErrs, errs...)
}

// Exit ends a replica's container as if its process ended. It reports whether one ran.
func (t *Twin) Exit(replica shoal.ReplicaID, code int, oom bool) bool {
	return t.with(replica, func(c *twinContainer) { t.end(c, code, oom) })
}

// SetHealthy passes or fails the health check of a replica's container from now on.
// It reports whether one ran.
func (t *Twin) SetHealthy(replica shoal.ReplicaID, healthy bool) bool {
	return t.with(replica, func(c *twinContainer) { t.judge(c, healthy) })
}

// Print adds a line to the output of a replica's container. It reports whether one ran.
func (t *Twin) Print(replica shoal.ReplicaID, text string) bool {
	return t.with(replica, func(c *twinContainer) { t.print(c, text) })
}

// with runs fn on a replica's running container.
func (t *Twin) with(replica shoal.ReplicaID, fn func(*twinContainer)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.containers {
		if c.Replica == replica && !c.foreign && c.State == shoal.ContainerRunning {
			fn(c)
			return true
		}
	}
	return false
}

// RemoveByHand removes a replica's container as "docker rm -f" would. It reports
// whether there was one.
func (t *Twin) RemoveByHand(replica shoal.ReplicaID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.containers {
		if c.Replica == replica && !c.foreign {
			t.drop(c)
			return true
		}
	}
	return false
}

// KillAll is a power cut: every container stops at once, no event tells of it, and
// all event streams break. The containers are still there, exited, afterwards.
func (t *Twin) KillAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.breakStreams()
	for _, id := range t.sorted() {
		if c := t.containers[id]; c.State == shoal.ContainerRunning {
			c.ExitCode, c.OOM = 137, false
			t.settle(c)
			t.note(c, "exit", "")
		}
	}
	t.history = append(t.history, TwinEvent{At: t.clock.Mono(), Kind: "power-cut"})
}

// AddForeign runs a container that is not ours and returns its ID.
func (t *Twin) AddForeign(name string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &twinContainer{foreign: true, printed: make(chan struct{}), ended: make(chan struct{})}
	c.ID, c.Name, c.State = t.newID(), name, shoal.ContainerRunning
	t.containers[c.ID] = c
	return c.ID
}

// ForeignRuns reports whether a container made by AddForeign still runs.
func (t *Twin) ForeignRuns(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.containers[id]
	return c != nil && c.foreign && c.State == shoal.ContainerRunning
}

// Running returns how many of a service's containers run; ready counts only those
// that are healthy or have no health check. Service "" is all services.
func (t *Twin) Running(service string) (running, ready int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.containers {
		if c.foreign || c.State != shoal.ContainerRunning || service != "" && c.Service != service {
			continue
		}
		running++
		if c.Health == shoal.HealthNone || c.Health == shoal.HealthHealthy {
			ready++
		}
	}
	return running, ready
}

// History returns what happened so far, oldest first.
func (t *Twin) History() []TwinEvent {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.history)
}

// Counts returns what happened to a replica's container; the zero replica sums over
// all.
func (t *Twin) Counts(replica shoal.ReplicaID) TwinCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !replica.IsZero() {
		return t.counts[replica]
	}
	var sum TwinCounts
	for _, n := range t.counts {
		sum.Creates += n.Creates
		sum.Starts += n.Starts
		sum.Stops += n.Stops
		sum.Exits += n.Exits
		sum.Removes += n.Removes
	}
	return sum
}

// sorted returns the IDs of all containers in order. Callers hold t.mu.
func (t *Twin) sorted() []string {
	ids := make([]string, 0, len(t.containers))
	for id := range t.containers {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
