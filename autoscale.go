// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"strings"
	"time"
)

// Autoscale says how many replicas a service has by what they have to do. At least one of
// the targets is named; of several the one that asks for most counts. Zero means zero:
// [DefaultAutoscale] is where users start who say nothing.
type Autoscale struct {
	Min, Max int // replicas, both included; Min 0: none while nobody comes

	CPU         int // percent of what a replica is sized at (Spec.Size); 0: not looked at
	Memory      int // the same of memory
	Connections int // open ones for each replica, as ingress carries them; 0: not looked at
	Requests    int // new connections a second for each replica; 0: not looked at

	Tolerance  int           // percent: a load this near to its target changes nothing
	UpWindow   time.Duration // the fewest replicas that were called for in this time count when there are to be more
	DownWindow time.Duration // the most that were, when there are to be fewer
	UpStep     Share         // at most so many replicas more at once; not stated: twice as many, or 4 more
	DownStep   Share         // at most so many fewer at once; not stated: as many as it takes
	Idle       time.Duration // of Min 0: without a connection for this long the last replica goes
	Manual     time.Duration // a number that a user asked for stands for this long
}

// DefaultAutoscale is the shape of autoscaling for which a user names bounds and targets
// only. Tolerance and windows are those of the HorizontalPodAutoscaler of Kubernetes: too
// few replicas hurt at once, one too many costs little for five minutes.
func DefaultAutoscale() Autoscale {
	return Autoscale{Min: 1, Tolerance: 10, DownWindow: 5 * time.Minute, Idle: 5 * time.Minute, Manual: 10 * time.Minute}
}

// Clamp returns n, or the bound that is nearest to it.
func (a *Autoscale) Clamp(n int) int { return min(max(n, a.Min), a.Max) }

// String returns "2-10 at cpu 60%, connections 100".
func (a *Autoscale) String() string { return fmt.Sprintf("%d-%d at %s", a.Min, a.Max, a.Targets()) }

// Targets returns "cpu 60%, connections 100".
func (a *Autoscale) Targets() string {
	var targets []string
	for _, t := range []struct {
		name, unit string
		at         int
	}{{"cpu", "%", a.CPU}, {"memory", "%", a.Memory}, {"connections", "", a.Connections}, {"requests", "/s", a.Requests}} {
		if t.at != 0 {
			targets = append(targets, fmt.Sprintf("%s %d%s", t.name, t.at, t.unit))
		}
	}
	return strings.Join(targets, ", ")
}

// Scaling is how many replicas one peer would have an autoscaled service have now, and why.
type Scaling struct {
	Want    int
	Says    string     // one line: what is measured, and what holds a change
	Metrics []Measured // each target of the service
}

// Measured is a target of an autoscaled service, and what a replica has of it.
type Measured struct {
	Metric   string  // "cpu", "memory", "connections", "requests"
	Unit     string  // of both numbers: "%", "", "/s"
	Target   float64 // what a replica should have
	Observed float64 // what those that report have in the mean; without replicas what there is in all
	Known    bool    // somebody reports it; else Observed says nothing
	Missing  int     // wanted replicas of which nothing is reported
}

// Limits of what may be asked.
const (
	maxUtilisation = 1000 // percent
	maxTarget      = 1_000_000
	maxTolerance   = 50
	maxWindow      = time.Hour
	maxManual      = 7 * 24 * time.Hour
)

// checkAutoscale checks that the load can be measured, and that the bounds make sense.
func (s *Spec) checkAutoscale() error {
	a := s.Autoscale
	if a == nil {
		return nil
	}
	switch {
	case s.Mode != ModeReplicated:
		return invalid("autoscale", "is for replicated services; mode %s has as many replicas as there are places or runs for it", s.Mode)
	case a.Min < 0 || a.Min > MaxReplicas:
		return invalid("autoscale.min", "must be 0-%d, got %d", MaxReplicas, a.Min)
	case a.Max < 1 || a.Max > MaxReplicas:
		return invalid("autoscale.max", "must be 1-%d, got %d", MaxReplicas, a.Max)
	case a.Min > a.Max:
		return invalid("autoscale.min", "%d is more than max, which is %d", a.Min, a.Max)
	case a.CPU == 0 && a.Memory == 0 && a.Connections == 0 && a.Requests == 0:
		return invalid("autoscale", "names no target; name cpu, memory, connections or requests")
	case a.Min == 0 && a.Connections == 0 && a.Requests == 0:
		return invalid("autoscale.min", "0 needs connections or requests as a target: only a connection can call for the first replica")
	}
	for _, check := range []func() error{s.checkUtilisation, s.checkCarried, a.checkPace} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// checkUtilisation refuses targets of CPU and memory that nobody measures or that cannot
// be passed, because the engine does not let replicas use so much.
func (s *Spec) checkUtilisation() error {
	a, size := s.Autoscale, s.Size()
	for _, t := range []struct {
		name, of    string
		percent     int
		size, limit int64
	}{
		{"cpu", "cpus", a.CPU, size.CPUMilli, s.Limits.CPUMilli},
		{"memory", "memory", a.Memory, size.MemBytes, s.Limits.MemBytes},
	} {
		field := "autoscale." + t.name
		switch {
		case t.percent < 0 || t.percent > maxUtilisation:
			return invalid(field, "must be 1%%-%d%%, got %d%%", maxUtilisation, t.percent)
		case t.percent == 0:
		case t.size == 0:
			return invalid(field, "is a share of what a replica has, and nothing says what that is; give deploy.resources.reservations.%s or limits.%[1]s", t.of)
		case t.limit != 0 && float64(t.size)*float64(t.percent)*float64(100+a.Tolerance) >= float64(t.limit)*100*100:
			return invalid(field, "%d%% with %d%% of tolerance is never passed: a replica cannot use more than its limit; lower it, or the reservation", t.percent, a.Tolerance)
		}
	}
	return nil
}

func (s *Spec) checkCarried() error {
	a := s.Autoscale
	for _, t := range []struct {
		name string
		at   int
	}{{"connections", a.Connections}, {"requests", a.Requests}} {
		switch {
		case t.at < 0 || t.at > maxTarget:
			return invalid("autoscale."+t.name, "must be 1-%d for each replica, got %d", maxTarget, t.at)
		case t.at > 0 && (s.Setup.HostNetwork || s.Setup.NoNetwork):
			return invalid("autoscale."+t.name, "is not known of a service on the machine's network or on none: Shoal does not carry its connections")
		}
	}
	return nil
}

func (a *Autoscale) checkPace() error {
	if a.Tolerance < 0 || a.Tolerance > maxTolerance {
		return invalid("autoscale.tolerance", "must be 0%%-%d%%, got %d%%", maxTolerance, a.Tolerance)
	}
	for _, x := range []struct {
		name  string
		share Share
	}{{"up.step", a.UpStep}, {"down.step", a.DownStep}} {
		if x.share.N < 0 || x.share.N > MaxReplicas || x.share.Percent < 0 || x.share.Percent > 100 || x.share.N != 0 && x.share.Percent != 0 {
			return invalid("autoscale."+x.name, "must be a number of replicas or 1%%-100%%, got %d and %d%%", x.share.N, x.share.Percent)
		}
	}
	for _, x := range []struct {
		name string
		d    time.Duration
		most time.Duration
	}{{"up.window", a.UpWindow, maxWindow}, {"down.window", a.DownWindow, maxWindow}, {"idle", a.Idle, maxManual}, {"manual", a.Manual, maxManual}} {
		if x.d < 0 || x.d > x.most {
			return invalid("autoscale."+x.name, "must be 0-%s, got %s", x.most, x.d)
		}
	}
	if a.Min == 0 && a.Idle < 10*time.Second {
		return invalid("autoscale.idle", "must be at least 10s, got %s: a replica would go before it is known that nobody comes", a.Idle)
	}
	return nil
}
