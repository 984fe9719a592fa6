// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
)

const (
	completed = "completed"
	vanished  = "container vanished"
)

// ranJob ends a run of a job.
func (p *step) ranJob(failed bool, why string) {
	if p.Since != 0 && failed { // else it ended while nobody watched: the machine's matter
		p.Broke++
	}
	p.Since, p.Health, p.Quiet = 0, "", true
	p.attempted(failed, why)
	if !p.Outcome.Over() {
		p.Restarts++
	}
}

// attempted counts a run that ended, or a launch that failed, and begins another attempt
// if there is one left.
func (p *step) attempted(failed bool, why string) {
	p.count(failed, why)
	if p.Outcome.Over() {
		p.rest()
		return
	}
	d := p.backoff(p.Outcome.Attempts)
	p.Last = why
	p.Phase, p.Reason = shoal.PhasePending, p.nextText(d)
	p.Attempt++
	p.wait(d)
}

// count adds an attempt to what the runs came to. Once that is over nothing is added: it
// was somebody else who started the container.
func (p *step) count(failed bool, why string) {
	o := &p.Outcome
	if o.Over() {
		return
	}
	o.Attempts++
	o.Code, o.At = p.ExitCode, p.wall
	switch {
	case !failed:
		o.Completed, o.Why = true, ""
	default:
		o.Failed, o.Why = p.Late || o.Attempts >= p.Rules.Attempts, why
	}
}

// rest is where a job's life comes to when its runs are over. The container stays, for its
// logs.
func (p *step) rest() {
	p.NextAt, p.Last = 0, ""
	if p.Outcome.Completed {
		p.Phase, p.Reason = shoal.PhaseStopped, completed
		return
	}
	p.Phase, p.Reason = shoal.PhaseFailed, p.Outcome.Why
	if n := p.Outcome.Attempts; n > 1 {
		p.Reason = fmt.Sprintf("%s; given up after %d attempts", p.Outcome.Why, n)
	}
}

func (p *step) nextText(d time.Duration) string {
	return fmt.Sprintf("%s; attempt %d of %d after %s", p.Last, p.Outcome.Attempts+1, p.Rules.Attempts, d.Round(100*time.Millisecond))
}

// counted reports whether the end of a container's last run was recorded before this watch
// over it began; the next attempt then begins after a pause. It began before that was
// written down, both by this machine's wall clock.
func (p *step) counted(c *shoal.Container) bool {
	o := &p.Outcome
	if !p.Rules.Job || o.Attempts == 0 || o.Over() || c.Started.IsZero() || c.Started.Unix() > o.At || c.ExitCode == 0 && !c.OOM {
		return false
	}
	d := p.backoff(o.Attempts)
	p.Last = o.Why
	p.Reason = p.nextText(d)
	p.wait(d)
	return true
}

// begun begins to count the deadline of a job when its container is first seen, from its
// making on: that is known after a restart of the daemon, too.
func (p *step) begun(c *shoal.Container) {
	if p.Rules.Deadline == 0 || p.Begun {
		return
	}
	age := time.Duration(0)
	if !c.Created.IsZero() && p.wall > c.Created.Unix() {
		age = time.Duration(p.wall-c.Created.Unix()) * time.Second
	}
	p.Begun, p.DueAt = true, p.now+p.Rules.Deadline-age
}

// expire ends a job that has taken too long: what runs is stopped first, an operation in
// flight is waited for.
func (p *step) expire() {
	if !p.Begun || p.Late || p.Halted || p.Outcome.Over() || p.now < p.DueAt || p.Op != 0 {
		return
	}
	p.Late, p.NextAt = true, 0
	why := fmt.Sprintf("took longer than %s", p.Rules.Deadline)
	if !p.Quiet && p.Container != "" {
		p.Last = why
		p.operate(shoal.PhaseStopping, EffectStop)
		return
	}
	if p.Last != "" {
		why += "; before that: " + p.Last
	}
	p.Outcome.Failed, p.Outcome.Why, p.Outcome.At = true, why, p.wall
	p.rest()
}

// wakeLate asks for a tick at the deadline, unless one comes earlier: of several that are
// asked for, the last counts.
func (p *step) wakeLate() {
	if !p.Begun || p.Late || p.Halted || p.Outcome.Over() || p.now >= p.DueAt {
		return
	}
	asked := false
	for i := range p.effects {
		if e := &p.effects[i]; e.Kind == EffectWake {
			e.At, asked = min(e.At, p.DueAt), true
		}
	}
	switch {
	case asked:
	case p.NextAt > p.now:
		p.ask(Effect{Kind: EffectWake, At: min(p.NextAt, p.DueAt)})
	default:
		p.ask(Effect{Kind: EffectWake, At: p.DueAt})
	}
}
