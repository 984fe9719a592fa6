// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
)

// step is one call of Step under way.
type step struct {
	State
	now     time.Duration
	wall    int64
	effects []Effect
}

// Step returns the state after e and what it asks for. It never fails: an event
// that does not fit is ignored.
func Step(s State, e Event) (State, []Effect) {
	if s.Ended {
		return s, nil
	}
	p := step{State: s, now: e.Now, wall: e.Wall}
	switch e.Kind {
	case EventAllow:
		p.Allowed = true
		p.resume()
	case EventHold:
		p.Allowed = false
	case EventHalt:
		p.halt()
	case EventSeen:
		p.seen(e.Container)
	case EventDone:
		p.done(e.ID)
	case EventFail:
		p.fail(e.Fault, e.Why)
	case EventTick:
		p.expire()
		p.resume()
	case EventBrake:
		p.brake(e.Brake)
	}
	p.expire()
	p.wakeLate()
	return p.State, p.effects
}

func (p *step) ask(e Effect) { p.effects = append(p.effects, e) }

// operate moves to a phase and begins the operation that belongs to it.
func (p *step) operate(phase shoal.Phase, op EffectKind) {
	p.Phase, p.Op, p.NextAt = phase, op, 0
	if !p.Halted && !p.Down {
		p.Reason = p.Last
	}
	e := Effect{Kind: op, ID: p.Container}
	if op == EffectStop {
		e.Signal, e.Grace = p.Rules.Signal, p.Rules.Grace
	}
	if op == EffectStart {
		p.Quiet = false
	}
	if op == EffectPull {
		p.Pulled, p.Image = false, ""
	}
	p.ask(e)
}

// wait lets d pass before anything is asked for.
func (p *step) wait(d time.Duration) {
	p.NextAt = p.now + d
	p.ask(Effect{Kind: EffectWake, At: p.NextAt})
}

// halt is the order to stop; it is never taken back.
func (p *step) halt() {
	if p.Halted {
		return
	}
	p.Halted, p.NextAt = true, 0
	if Rank(p.Phase) < Rank(shoal.PhaseStopping) {
		p.Phase, p.Reason, p.Last = shoal.PhaseStopping, "", ""
	}
	if p.Op != 0 {
		if p.Op != EffectStop {
			p.ask(Effect{Kind: EffectCancel})
		}
		return
	}
	p.teardown()
}

// teardown takes the next step towards the end of a halted replica.
func (p *step) teardown() {
	switch {
	case p.now < p.NextAt:
		p.ask(Effect{Kind: EffectWake, At: p.NextAt})
	case !p.Known:
		p.ask(Effect{Kind: EffectLook})
	case p.Container == "":
		p.Phase, p.Reason, p.Ended = shoal.PhaseStopped, "", true
		p.ask(Effect{Kind: EffectEnd})
	case p.Quiet:
		p.operate(p.Phase, EffectRemove)
	default:
		p.operate(p.Phase, EffectStop)
	}
}

// resume asks for what the phase is waiting for, if its time has come.
func (p *step) resume() {
	if p.Op != 0 {
		return
	}
	if p.Halted {
		p.teardown()
		return
	}
	if p.now < p.NextAt {
		p.ask(Effect{Kind: EffectWake, At: p.NextAt})
		return
	}
	switch p.Phase {
	case shoal.PhasePending:
		switch {
		case !p.Known:
			p.ask(Effect{Kind: EffectLook})
		case p.Allowed:
			p.launch()
		case p.Container == "" && p.Rules.Image != "": // what takes longest need not wait for its turn
			p.operate(shoal.PhasePulling, EffectPull)
		}
	case shoal.PhasePulling:
		p.pulling()
	case shoal.PhaseCreating:
		p.operate(p.Phase, EffectCreate)
	case shoal.PhaseStarting:
		p.operate(p.Phase, EffectStart)
	case shoal.PhaseStopping: // unhealthy, to be started again
		p.operate(p.Phase, EffectStop)
	case shoal.PhaseLost:
		if p.Allowed {
			p.Attempt++
			p.Restarts++
			p.launch()
		}
	case shoal.PhaseRunning, shoal.PhaseReady, shoal.PhaseStopped, shoal.PhaseFailed, shoal.PhaseUnknown:
	}
}

// pulling goes on from an image: make it available, then wait for the turn, then create.
func (p *step) pulling() {
	switch {
	case !p.Pulled:
		p.operate(p.Phase, EffectPull)
	case p.Allowed:
		p.operate(shoal.PhaseCreating, EffectCreate)
	default:
		p.Reason = "its image is here; " + waitsForTurn
	}
}

// launch begins an attempt: with the container it has, else with a new one.
func (p *step) launch() {
	p.Health, p.Since = "", 0
	if p.Container != "" {
		p.operate(shoal.PhaseStarting, EffectStart)
		return
	}
	p.operate(shoal.PhasePulling, EffectPull)
}

// done takes the good end of the operation in flight.
func (p *step) done(id string) {
	op := p.Op
	p.Op, p.Down = 0, false
	if op == EffectCreate {
		p.Container, p.Known = id, true
	}
	if op == EffectCreate || op == EffectStop {
		p.Quiet = true
	}
	if op == EffectRemove {
		p.Container = ""
	}
	if p.Halted {
		p.teardown()
		return
	}
	switch op {
	case EffectPull:
		p.Pulled, p.Image = true, id
		p.pulling()
	case EffectCreate:
		p.operate(shoal.PhaseStarting, EffectStart)
	case EffectStart:
		p.Phase, p.Since, p.Tries = shoal.PhaseRunning, p.now, 0
		p.ask(Effect{Kind: EffectLook})
	case EffectStop:
		p.again(true, p.Last)
	case EffectRemove, EffectCancel, EffectLook, EffectWake, EffectRefuse, EffectEnd: // halted, or no operation
	}
}

// fail takes the bad end of the operation in flight.
func (p *step) fail(f Fault, why string) {
	op := p.Op
	p.Op = 0
	if op == EffectCreate && (f == FaultDown || f == FaultOther) {
		p.Known = false // it may exist all the same
	}
	switch {
	case op == 0:
	case f == FaultDown:
		p.Down = true
		p.Reason = "container engine does not answer"
		p.wait(DownRetry)
	case op == EffectStop || op == EffectRemove:
		p.Tries++
		if p.Halted {
			p.Reason = why
		}
		p.wait(p.backoff(p.Tries))
	case p.Halted:
		p.teardown()
	case f == FaultMissing && op == EffectStart:
		p.lost()
		p.Known = false // somebody else's word: look before the end
	case f == FaultMissing && op == EffectPull && why != "":
		p.refuse(why, p.Rules.Image) // who makes images available knows best why not
	case f == FaultMissing:
		p.refuse(fmt.Sprintf("image %s is not there (shoal image push it where docker has it)", p.Rules.Image), p.Rules.Image)
	case f == FaultRefused && (!p.Rules.Job || op != EffectStart): // what a run's command lacks is the job's own fault
		p.refuse(why, "")
	default:
		p.Tries++
		p.Broke++
		if p.Rules.Job && op != EffectPull {
			p.attempted(true, why)
			return
		}
		if p.Tries >= RefuseAfter && p.Brake == (Brake{}) {
			p.ask(Effect{Kind: EffectRefuse, Why: why})
		}
		p.relaunch(p.Tries, why)
	}
}

// refuse declines the service for this peer and tries again later, in case the
// slot stays here all the same.
func (p *step) refuse(why, image string) {
	p.ask(Effect{Kind: EffectRefuse, Why: why, Image: image})
	p.Tries++
	p.relaunch(p.Tries, why)
}

// relaunch begins a new attempt after a launch that failed n times in a row.
func (p *step) relaunch(n int, why string) {
	p.Phase, p.Reason, p.Last = shoal.PhasePending, why, why
	p.Attempt++
	p.wait(p.backoff(n))
}

// again ends a run, and begins a new attempt if the restart policy says so, or the job.
func (p *step) again(failed bool, why string) {
	if p.Rules.Job {
		p.ranJob(failed, why)
		return
	}
	if p.Since != 0 && p.now-p.Since >= p.Rules.Window {
		p.Failures = 0
	}
	p.Failures++
	if p.Since != 0 && (failed || p.Rules.Condition == shoal.RestartAny) { // else it ended while nobody watched: the machine's matter
		p.Broke++
	}
	p.Since, p.Health, p.Quiet, p.Last = 0, "", true, why
	restart := p.Rules.Condition == shoal.RestartAny || failed && p.Rules.Condition == shoal.RestartOnFailure
	if restart && p.Rules.MaxAttempts > 0 && p.Failures > p.Rules.MaxAttempts {
		restart, failed = false, true
		why = fmt.Sprintf("%s; gave up after %d restarts", why, p.Rules.MaxAttempts)
	}
	switch {
	case restart:
		d := p.backoff(p.Failures)
		p.Phase, p.Reason = shoal.PhasePending, againText(why, d)
		p.Attempt++
		p.Restarts++
		p.wait(d)
	case failed:
		p.Phase, p.Reason = shoal.PhaseFailed, why
	default:
		p.Phase, p.Reason = shoal.PhaseStopped, why
	}
}

// lost notes that the engine no longer knows the container. Whoever removed it, a
// claimed slot gets a new one, whatever the restart policy says.
func (p *step) lost() {
	if p.Since != 0 && p.now-p.Since >= p.Rules.Window {
		p.Failures = 0
	}
	p.Failures++
	p.Container, p.Health, p.Known, p.Quiet = "", "", true, true
	if p.Rules.Job {
		p.count(true, vanished)
	}
	if p.Outcome.Over() {
		p.rest()
		return
	}
	p.Phase, p.Reason, p.Last = shoal.PhaseLost, vanished, vanished
	p.wait(p.backoff(p.Failures))
}

func againText(why string, d time.Duration) string {
	return fmt.Sprintf("%s; starts again after %s", why, d.Round(100*time.Millisecond))
}

// brake takes another pace. A slower one begins with the next back-off; with a faster one
// what is left of this one is no longer than it would be then.
func (p *step) brake(b Brake) {
	eased := b.Delay < p.Brake.Delay || b.Cap < p.Brake.Cap
	p.Brake = b
	if !eased || p.Op != 0 || p.Halted || p.Down || p.NextAt == 0 {
		return
	}
	d := p.backoff(max(p.Failures, p.Tries, p.Outcome.Attempts))
	if p.now+d >= p.NextAt {
		return
	}
	switch {
	case p.Phase != shoal.PhasePending:
	case p.Outcome.Attempts > 0:
		p.Reason = p.nextText(d)
	case p.Tries == 0:
		p.Reason = againText(p.Last, d)
	}
	p.wait(d)
}

// backoff returns Delay doubled n-1 times up to Cap, and up to a fifth more, so
// that replicas which died together do not come back together.
func (p *step) backoff(n int) time.Duration {
	d, most := max(p.Rules.Delay, p.Brake.Delay), max(p.Rules.Cap, p.Brake.Cap)
	for i := 1; i < n && d < most; i++ {
		d *= 2
	}
	d = min(d, most)
	return d + time.Duration(mix(p.Seed+uint64(n))%1024)*(d/5)/1024
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
