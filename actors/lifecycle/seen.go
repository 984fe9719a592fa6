// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"

	"github.com/shoalnet/shoal"
)

// seen takes what the engine holds. While an operation is in flight the sight may
// be older than its result, and is ignored.
func (p *step) seen(c *shoal.Container) {
	if p.Op != 0 {
		return
	}
	first := !p.Known
	p.Known = true
	if p.Down {
		p.Down, p.NextAt = false, 0 // it answers: no need to wait for the retry
	}
	if c == nil {
		p.absent()
		return
	}
	p.begun(c)
	p.Container, p.Quiet, p.ExitCode = c.ID, c.State != shoal.ContainerRunning, c.ExitCode
	switch {
	case p.Halted:
		p.teardown()
	case c.State == shoal.ContainerRunning:
		p.up(c.Health)
	default:
		p.notUp(c, first)
	}
}

// absent handles the sight of no container.
func (p *step) absent() {
	p.Quiet = true
	if p.Halted {
		p.Container = ""
		p.teardown()
		return
	}
	switch p.Phase {
	case shoal.PhasePending, shoal.PhasePulling, shoal.PhaseCreating:
		p.Container = ""
		p.resume()
	case shoal.PhaseStarting, shoal.PhaseRunning, shoal.PhaseReady, shoal.PhaseStopping:
		p.lost()
	case shoal.PhaseStopped, shoal.PhaseFailed:
		p.Container = ""
	case shoal.PhaseLost, shoal.PhaseUnknown:
	}
}

// up handles the sight of a running container: ready when the engine knows no
// health check, or says healthy.
func (p *step) up(health string) {
	if p.Phase == shoal.PhaseFailed && health == shoal.HealthUnhealthy && p.Health == health {
		return // it failed by that, and was left running
	}
	switch p.Phase {
	case shoal.PhaseStopping: // unhealthy, its stop failed: the wait goes on
		p.resume()
		return
	case shoal.PhaseStopped, shoal.PhaseFailed, shoal.PhaseLost: // somebody started it
		p.Attempt++
		p.Phase, p.Since = shoal.PhaseRunning, 0
	case shoal.PhasePending, shoal.PhasePulling, shoal.PhaseCreating, shoal.PhaseStarting,
		shoal.PhaseRunning, shoal.PhaseReady, shoal.PhaseUnknown:
	}
	if p.Since == 0 {
		p.Since = p.now
	}
	p.Health, p.NextAt, p.Tries = health, 0, 0
	switch health {
	case shoal.HealthUnhealthy:
		p.unhealthy()
	case shoal.HealthStarting:
		if p.Phase != shoal.PhaseReady {
			p.Phase, p.Reason = shoal.PhaseRunning, "waits for its health check"
		}
	default:
		p.Phase, p.Reason, p.Last = shoal.PhaseReady, "", ""
	}
}

// unhealthy ends the run of a container whose health check failed: stopped and
// started again, or left as it is where the policy never restarts.
func (p *step) unhealthy() {
	if p.Rules.Condition == shoal.RestartNone {
		if p.Phase != shoal.PhaseFailed {
			p.Phase, p.Reason = shoal.PhaseFailed, "unhealthy"
		}
		return
	}
	p.Last = "unhealthy"
	p.operate(shoal.PhaseStopping, EffectStop)
}

// notUp handles the sight of a container that does not run.
func (p *step) notUp(c *shoal.Container, first bool) {
	created := c.State == shoal.ContainerCreated
	switch p.Phase {
	case shoal.PhasePending:
		if first && !created { // it ended while nobody watched
			if !p.counted(c) {
				p.exited(c)
			}
			return
		}
		p.resume()
	case shoal.PhasePulling, shoal.PhaseCreating: // an earlier create came through after all
		if p.Allowed || p.Phase == shoal.PhaseCreating {
			p.operate(shoal.PhaseStarting, EffectStart)
		}
	case shoal.PhaseStarting:
		if created {
			p.resume()
			return
		}
		p.exited(c)
	case shoal.PhaseRunning, shoal.PhaseReady:
		p.exited(c)
	case shoal.PhaseStopping: // unhealthy, and now it is down
		p.again(true, p.Last)
	case shoal.PhaseLost:
		p.Attempt++
		p.Restarts++
		p.operate(shoal.PhaseStarting, EffectStart)
	case shoal.PhaseStopped, shoal.PhaseFailed, shoal.PhaseUnknown:
	}
}

// exited ends the run of a container that ended by itself.
func (p *step) exited(c *shoal.Container) {
	why := fmt.Sprintf("exited with code %d", c.ExitCode)
	if c.OOM {
		why = "OOM-killed"
		if p.Rules.MemBytes > 0 {
			why = "OOM-killed at " + bytesText(p.Rules.MemBytes)
		}
	}
	p.again(c.OOM || c.ExitCode != 0, why)
}

// bytesText writes an amount in the largest binary unit that keeps it whole.
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; i < len(units)-1 && n%1024 == 0 && n != 0; i++ {
		n /= 1024
	}
	return fmt.Sprintf("%d %s", n, units[i])
}
