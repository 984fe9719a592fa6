// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"cmp"
	"time"

	"github.com/shoalnet/shoal"
)

// Defaults of a restart policy. The cap and the window are the lengths after which
// dockerd's own policy stops doubling and forgets (1 min; it forgets after 10 s,
// which lets a replica that dies every 30 s restart at full speed for ever).
const (
	DefaultDelay  = time.Second
	DefaultCap    = time.Minute
	DefaultWindow = time.Minute
	DefaultGrace  = 10 * time.Second // Compose's stop_grace_period
	// DownRetry is how long a replica waits before it asks an engine again that
	// did not answer. The peer's periodic list usually wakes it sooner.
	DownRetry = 5 * time.Second
	// RefuseAfter is how many failed launches in a row make the peer refuse the
	// service, so that the slot may move. One that fails on other peers, too, stays.
	RefuseAfter = 3
)

// waitsForTurn is the reason of a replica that the plan does not let start yet.
const waitsForTurn = "waits for its turn"

// Rules are the terms of a replica's life, fixed by its revision.
type Rules struct {
	Image       string // what is made available; "": not known, nothing is
	Condition   shoal.RestartCondition
	Delay       time.Duration // first back-off, doubling
	Cap         time.Duration // longest back-off
	Window      time.Duration // running this long forgives earlier failures
	MaxAttempts int           // restarts without forgiveness; 0: without end
	Signal      string        // "": the container's own
	Grace       time.Duration
	MemBytes    int64         // limit, for the reason of an OOM kill; 0: none
	Job         bool          // it runs until it has ended well
	Attempts    int           // of a job, before it is given up
	Deadline    time.Duration // of a job, from its container's making on; 0: none
}

// RulesOf returns the rules of a spec, defaults filled in.
func RulesOf(s *shoal.Spec) Rules {
	r := Rules{
		Image:       s.ImageRef(),
		Condition:   cmp.Or(s.Restart.Condition, shoal.RestartAny),
		Delay:       cmp.Or(s.Restart.Delay, DefaultDelay),
		Cap:         max(DefaultCap, s.Restart.Delay),
		Window:      cmp.Or(s.Restart.Window, DefaultWindow),
		MaxAttempts: s.Restart.MaxAttempts,
		Signal:      s.StopSignal,
		Grace:       cmp.Or(s.StopGrace, DefaultGrace),
		MemBytes:    s.Limits.MemBytes,
	}
	if s.Mode.IsJob() && s.Job != nil {
		r.Job, r.Attempts, r.Deadline = true, s.Job.Attempts, s.Job.Deadline
	}
	return r
}

// Brake slows the restarts of a revision down that fails on other peers, too. The zero
// value does not.
type Brake struct {
	Delay time.Duration // first back-off, at least
	Cap   time.Duration // longest back-off, at least
}

// State is everything a replica's life depends on. It is a plain value: compare
// with ==, copy freely. Make one with [New]; only [Step] changes it, but for Rules,
// which may be replaced when more is learned about the revision, and Broke, which a new
// revision with the same container begins anew.
type State struct {
	Rules Rules
	Brake Brake
	Seed  uint64 // of the back-off's jitter

	Phase    shoal.Phase
	Attempt  int // 1 for the first try; a phase goes backwards only when it grows
	Restarts int // times a container that had run was started again
	Failures int // exits since the last forgiveness
	Broke    int // runs that ended by themselves where they should not, and launches that failed, at this revision
	Tries    int // failed launches in a row

	Outcome shoal.JobOutcome // what the runs of a job came to, those that were recorded before included
	Begun   bool             // of a job with a deadline: its container was seen
	Late    bool             // and that has passed
	DueAt   time.Duration    // when it passes

	Pulled bool   // the image was made available in this attempt
	Image  string // its ID in the engine, "" if that is not known

	Container string // engine's ID, "" while there is none
	Health    string
	ExitCode  int
	Reason    string        // why it is not ready, one line
	Last      string        // how the last attempt ended
	Since     time.Duration // when the container was first seen running in this attempt
	NextAt    time.Duration // nothing is asked for before; 0: no wait

	Allowed bool       // the plan lets it start
	Halted  bool       // it must stop and go
	Known   bool       // Container is what the engine holds; otherwise look first
	Quiet   bool       // the container does not run
	Down    bool       // the engine did not answer the last operation
	Op      EffectKind // operation in flight, 0: none
	Ended   bool       // after EffectEnd
}

// New returns the state of a replica that nothing has happened to. fresh says that
// its identity was minted just now, so that no container of it can exist;
// otherwise it looks at the engine before it does anything. restarts continues the
// count of an earlier watch over the same container, so what the runs of a job came to
// before: once that is over, nothing is started.
func New(rules Rules, seed uint64, fresh bool, restarts int, so shoal.JobOutcome) State {
	s := State{
		Rules: rules, Seed: seed, Phase: shoal.PhasePending, Attempt: 1,
		Restarts: restarts, Known: fresh, Reason: waitsForTurn, Outcome: so,
	}
	switch {
	case so.Completed:
		s.Phase, s.Reason = shoal.PhaseStopped, completed
	case so.Failed:
		s.Phase, s.Reason = shoal.PhaseFailed, so.Why
	case !fresh:
		s.Reason = "waits for the container engine"
	}
	return s
}

// HasImage reports whether a replica's container can be created now, or has been.
func (s *State) HasImage() bool {
	return s.Pulled || s.Container != "" || Rank(s.Phase) > Rank(shoal.PhasePulling)
}

// Rank orders phases within one attempt: it never falls while Attempt stays.
func Rank(p shoal.Phase) int {
	switch p {
	case shoal.PhaseUnknown:
		return -1
	case shoal.PhasePending:
		return 0
	case shoal.PhasePulling:
		return 1
	case shoal.PhaseCreating:
		return 2
	case shoal.PhaseStarting:
		return 3
	case shoal.PhaseRunning:
		return 4
	case shoal.PhaseReady:
		return 5
	case shoal.PhaseStopping:
		return 6
	case shoal.PhaseFailed, shoal.PhaseLost:
		return 7
	case shoal.PhaseStopped:
		return 8
	}
	return -1
}

// EventKind says what happened.
type EventKind int

// The events.
const (
	EventAllow EventKind = iota + 1 // the plan lets it start
	EventHold                       // the plan makes it wait; what runs, runs on
	EventHalt                       // it must stop, its container must go
	EventSeen                       // Container is what the engine holds, nil: nothing
	EventDone                       // the operation in flight ended well
	EventFail                       // the operation in flight failed
	EventTick                       // time passed
	EventBrake                      // its revision's restarts go at another pace
)

// Fault sorts the failures of an operation.
type Fault int

// The faults.
const (
	FaultOther    Fault = iota
	FaultDown           // the engine does not answer: keep everything, ask again
	FaultMissing        // the image (pull, create) or the container (start) is not there
	FaultRefused        // this engine will never do it
	FaultCanceled       // it was given up before it was tried
)

// Event is one thing that happened to a replica.
type Event struct {
	Kind      EventKind
	Now       time.Duration    // monotonic
	Container *shoal.Container // EventSeen
	ID        string           // EventDone of a create: the container's; of a pull: the image's
	Fault     Fault            // EventFail
	Why       string           // EventFail, one line
	Wall      int64            // Unix seconds by the wall clock: to be written down, and compared with what was
	Brake     Brake            // EventBrake
}

// EffectKind says what is asked for.
type EffectKind int

// The effects. The first five are operations: one at a time, each answered by
// exactly one EventDone or EventFail.
const (
	EffectPull   EffectKind = iota + 1 // make Rules.Image available
	EffectCreate                       // make the container
	EffectStart                        // start container ID
	EffectStop                         // stop container ID with Signal and Grace
	EffectRemove                       // remove container ID
	EffectCancel                       // give up the operation in flight if it has not begun
	EffectLook                         // tell what the engine holds (EventSeen)
	EffectWake                         // EventTick at At
	EffectRefuse                       // this peer declines the service for a while: Why
	EffectEnd                          // the life is over, the container is gone
)

// Effect is one thing asked for.
type Effect struct {
	Kind   EffectKind
	ID     string
	Signal string
	Grace  time.Duration
	At     time.Duration
	Why    string
	Image  string // EffectRefuse: the image that is missing, if that is why
}
