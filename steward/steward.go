// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package steward

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/placement/autoscale"
	"github.com/shoalnet/shoal/placement/brake"
)

// Config are the times of a [Steward]. Zero means the default.
type Config struct {
	Step   time.Duration // between two peers that could act, in their order; 2s
	Again  time.Duration // until what had no effect is asked for again; 10s
	Gather time.Duration // changes of the view come in bursts; 50ms
	// Grace passes after Run begins before anything is asked for: a peer that hears nobody
	// yet would think that it is first. 10s
	Grace   time.Duration
	Silence time.Duration // a load that nobody reports for so long is said in the log; 45s
}

func (c *Config) defaults() {
	c.Step = cmp.Or(c.Step, 2*time.Second)
	c.Again = cmp.Or(c.Again, 10*time.Second)
	c.Gather = cmp.Or(c.Gather, 50*time.Millisecond)
	c.Grace = cmp.Or(c.Grace, 10*time.Second)
	c.Silence = cmp.Or(c.Silence, 45*time.Second)
}

// Deps are what a [Steward] works with. All are needed.
type Deps struct {
	Views  shoal.Views
	Wishes shoal.Wishes
	Clock  shoal.Clock
	Log    *slog.Logger
}

// Steward watches the rollouts of this peer's view. It is safe for concurrent use.
type Steward struct {
	cfg  Config
	deps Deps

	mu       sync.Mutex // guards all below
	memory   memory
	scales   scales
	begins   begins
	brake    brake.Memory
	verdicts brake.Verdicts // of the last look
	held     string         // why remedies wait, as logged last; "": they do not
}

// New returns a Steward that does nothing before Run.
func New(cfg Config, deps Deps) *Steward {
	cfg.defaults()
	return &Steward{cfg: cfg, deps: deps, memory: memory{}}
}

// Run watches and acts until ctx ends.
func (s *Steward) Run(ctx context.Context) error {
	from := s.deps.Clock.Mono() + s.cfg.Grace
	for {
		changed := s.deps.Views.Changed()
		wake := s.look(ctx, from)
		var timer <-chan time.Time
		if wake > 0 {
			timer = time.After(max(wake-s.deps.Clock.Mono(), time.Millisecond))
		}
		select {
		case <-changed:
			select {
			case <-time.After(s.cfg.Gather):
			case <-ctx.Done():
				return nil
			}
		case <-timer:
		case <-ctx.Done():
			return nil
		}
	}
}

// submitTime bounds one wish: it is written here, and waits for nobody.
const submitTime = 10 * time.Second

// look looks once, does what this peer is to do, and returns when to look again.
func (s *Steward) look(ctx context.Context, from time.Duration) time.Duration {
	v := s.deps.Views.View()
	if v == nil {
		return 0
	}
	now := s.deps.Clock.Mono()
	s.mu.Lock()
	verdicts, seen, again := brake.Look(v, s.brake, now)
	next, acts, wake := look(v, s.memory, verdicts, now, from, &s.cfg)
	s.memory, s.brake, s.verdicts = next, seen, verdicts
	loads, targets, later := lookLoads(v, s.scales, s.memory, now, from, &s.cfg)
	s.tellSilent(s.scales, loads)
	s.scales = loads
	due, runs, then := lookSchedules(v, s.begins, now, from, s.deps.Clock.Wall(), &s.cfg)
	s.begins = due
	s.tell(verdicts)
	s.mu.Unlock()
	for _, t := range targets {
		s.askScale(ctx, t)
	}
	for i := range acts {
		s.ask(ctx, &acts[i])
	}
	for i := range runs {
		s.askRun(ctx, &runs[i])
	}
	return soonest(wake, again, later, then)
}

// soonest returns the earliest of some times, of which 0 is none.
func soonest(at ...time.Duration) time.Duration {
	var out time.Duration
	for _, t := range at {
		if t > 0 && (out == 0 || t < out) {
			out = t
		}
	}
	return out
}

// tell says when remedies begin to wait, and when they do no more. The caller holds mu.
func (s *Steward) tell(verdicts brake.Verdicts) {
	why := ""
	if v, shared := verdicts.Shared(); shared {
		why = v.String()
	}
	switch {
	case why != "" && s.held == "":
		s.deps.Log.Info("nothing is paused or undone for now", logkey.Reason, why)
	case why == "" && s.held != "":
		s.deps.Log.Info("what has failed is paused or undone again")
	}
	s.held = why
}

// tellSilent says when a service's load has not been reported for long, and when it is
// again. The caller holds mu.
func (s *Steward) tellSilent(old, now scales) {
	for name, sc := range now {
		switch was := old[name].isSilent; {
		case sc.isSilent && !was:
			s.deps.Log.Warn("service is not scaled down: nobody reports its load", logkey.Service, name, logkey.Reason, sc.says)
		case was && !sc.isSilent:
			s.deps.Log.Info("the load of a service is reported again", logkey.Service, name)
		}
	}
}

// ask submits what is to be done. That another revision is current by now is no error.
func (s *Steward) ask(ctx context.Context, w *shoal.RolloutWish) {
	ctx, cancel := context.WithTimeout(ctx, submitTime)
	defer cancel()
	out, err := s.deps.Wishes.Submit(ctx, shoal.Wish{Rollout: w}, shoal.UpdateOptions{})
	switch {
	case errors.Is(err, shoal.ErrConflict), errors.Is(err, shoal.ErrNotFound):
		return
	case err != nil:
		s.deps.Log.Warn("rollout is left as it is", logkey.Service, w.Service, "change", string(w.Change), logkey.Err, err)
		return
	case len(out.Changes) == 0 || out.Changes[0].Kind == shoal.ChangeNone:
		return
	}
	s.deps.Log.Info("rollout "+out.Changes[0].Details[0], logkey.Service, w.Service, "revision", w.Of.Seq, logkey.Reason, w.Why)
}

// askScale submits the number that a load calls for. That the service was changed meanwhile
// is no error.
func (s *Steward) askScale(ctx context.Context, t shoal.ScaleTarget) {
	ctx, cancel := context.WithTimeout(ctx, submitTime)
	defer cancel()
	_, err := s.deps.Wishes.Submit(ctx, shoal.Wish{Scale: &shoal.ScaleWish{Targets: []shoal.ScaleTarget{t}}}, shoal.UpdateOptions{})
	switch {
	case errors.Is(err, shoal.ErrConflict), errors.Is(err, shoal.ErrNotFound):
	case err != nil:
		s.deps.Log.Warn("service is not scaled", logkey.Service, t.Service, logkey.Reason, t.Why, logkey.Err, err)
	default:
		s.deps.Log.Info("service is scaled", logkey.Service, t.Service, "replicas", t.N, logkey.Reason, t.Why)
	}
}

// Scaling returns how many replicas this peer would have an autoscaled service have now,
// what it measures and what holds it. false: there is none to be scaled, or nothing has
// been looked at yet.
func (s *Steward) Scaling(service string) (out shoal.Scaling, ok bool) {
	v := s.deps.Views.View()
	if v == nil {
		return out, false
	}
	svc, known := v.Service(service)
	if !known || svc.Spec.Autoscale == nil || svc.Stopped {
		return out, false
	}
	s.mu.Lock()
	sc, known := s.scales[service]
	st := s.memory[service].status
	s.mu.Unlock()
	if !known {
		return out, false
	}
	_, d := autoscale.Decide(svc.Spec.Autoscale, sc.Memory, hear(v).input(v, svc, s.deps.Clock.Mono(), st))
	return shoal.Scaling{Want: d.Want, Says: d.Why, Metrics: d.Metrics}, true
}
