// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
)

func isNotFound(err error) bool { return errors.Is(err, shoal.ErrNotFound) }

// short cuts a container's ID for people.
func short(id string) string { return id[:min(len(id), 12)] }

// enter is the beginning of every call: it takes the time that the engine takes,
// and fails as the engine fails.
func (t *Twin) enter(ctx context.Context, what string, takes func(Latency) time.Duration) error {
	deadline := time.NewTimer(t.cfg.Deadline)
	defer deadline.Stop()
	t.mu.Lock()
	wait := takes(t.latency)
	t.mu.Unlock()
	answer := time.NewTimer(wait)
	defer answer.Stop()
	for waited := wait <= 0; ; {
		t.mu.Lock()
		down, hang := t.down, t.hang
		t.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case down:
			return fmt.Errorf("%s: %w", what, shoal.ErrEngineDown)
		case hang == nil && waited:
			return nil
		}
		ready := answer.C
		if waited {
			ready = nil
		}
		select {
		case <-ready:
			waited = true
		case <-hang:
		case <-ctx.Done():
		case <-deadline.C:
			return fmt.Errorf("%s: no answer within %s: %w", what, t.cfg.Deadline, shoal.ErrEngineDown)
		}
	}
}

// own returns one of our containers. Callers hold t.mu.
func (t *Twin) own(id string) (*twinContainer, error) {
	c, ok := t.containers[id]
	if !ok {
		return nil, shoal.ErrNotFound
	}
	if c.foreign {
		return nil, fmt.Errorf("not a container of this peer: %w", shoal.ErrRefused)
	}
	return c, nil
}

// bind gives a container its address and its ports. Callers hold t.mu.
func (t *Twin) bind(c *twinContainer) error {
	if !networkOf(&c.spec.Spec.Setup).IsBridge() {
		return nil
	}
	var ports []shoal.PortBinding
	for _, p := range c.spec.Spec.Ports {
		if p.IsIngress() {
			continue
		}
		b := shoal.PortBinding{Container: p.Container, Protocol: p.Protocol, HostIP: c.spec.Publish, HostPort: p.Published}
		if b.Protocol == "" {
			b.Protocol = "tcp"
		}
		if b.HostPort == 0 {
			b.HostPort = t.nextPort
			t.nextPort = 32768 + (t.nextPort-32767)%28000
		}
		for _, o := range t.containers {
			if o.State != shoal.ContainerRunning {
				continue
			}
			for _, taken := range o.Ports {
				if taken.HostIP == b.HostIP && taken.HostPort == b.HostPort && taken.Protocol == b.Protocol {
					return fmt.Errorf("bind %s:%d: port is already allocated", b.HostIP, b.HostPort)
				}
			}
		}
		ports = append(ports, b)
	}
	addr := fmt.Sprintf("172.17.%d.%d", c.number>>8&255, c.number&255)
	if len(c.spec.Networks) > 0 {
		addrs, err := t.address(c.spec.Networks)
		if err != nil {
			return err
		}
		c.addrs, addr = addrs, addrs[0].String()
	}
	c.Ports, c.Addr = ports, addr
	return nil
}

// begin starts a life. Callers hold t.mu.
func (t *Twin) begin(c *twinContainer) {
	c.life++
	c.ended = make(chan struct{})
	c.State, c.ExitCode, c.OOM = shoal.ContainerRunning, 0, false
	c.Started = t.clock.Wall()
	c.Health = shoal.HealthNone
	t.note(c, "start", "start")
	for _, line := range c.program.Lines {
		t.print(c, line)
	}
	id, life, p := c.ID, c.life, c.program
	if t.checked(c) {
		c.Health = shoal.HealthStarting
		if p.HealthyAfter <= 0 {
			t.judge(c, !p.NeverHealthy)
		} else {
			time.AfterFunc(p.HealthyAfter, func() { t.judgeLife(id, life, !p.NeverHealthy) })
		}
	}
	if p.Exits {
		time.AfterFunc(max(p.ExitAfter, 0), func() { t.endLife(id, life, p.ExitCode, p.OOM) })
	}
}

// checked reports whether a health check runs in a container.
func (t *Twin) checked(c *twinContainer) bool {
	h := c.spec.Spec.Health
	switch {
	case h == nil:
		return c.program.HealthCheck
	case h.Disable:
		return false
	}
	return c.program.HealthCheck || len(h.Test) > 0
}

// judge sets a running container's health. Callers hold t.mu.
func (t *Twin) judge(c *twinContainer, healthy bool) {
	c.Health = shoal.HealthUnhealthy
	if healthy {
		c.Health = shoal.HealthHealthy
	}
	t.note(c, c.Health, "health_status: "+c.Health)
}

func (t *Twin) judgeLife(id string, life int, healthy bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.containers[id]; c != nil && c.life == life && c.State == shoal.ContainerRunning {
		t.judge(c, healthy)
	}
}

// end ends a life. Callers hold t.mu.
func (t *Twin) end(c *twinContainer, code int, oom bool) {
	if oom {
		t.publish(c, "oom")
	}
	c.OOM, c.ExitCode = oom, code
	t.settle(c)
	t.note(c, "exit", "die")
}

// settle leaves a container as one that has run. Callers hold t.mu.
func (t *Twin) settle(c *twinContainer) {
	c.State, c.Health, c.Addr, c.Ports, c.addrs = shoal.ContainerExited, shoal.HealthNone, "", nil, nil
	close(c.ended)
	t.wake(c)
}

func (t *Twin) endLife(id string, life, code int, oom bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.containers[id]; c != nil && c.life == life && c.State == shoal.ContainerRunning {
		t.end(c, code, oom)
	}
}

// drop removes a container, killing it first if it runs. Callers hold t.mu.
func (t *Twin) drop(c *twinContainer) {
	if c.State == shoal.ContainerRunning {
		t.end(c, 137, false)
	}
	delete(t.containers, c.ID)
	t.note(c, "remove", "destroy")
	t.wake(c)
}

// print adds a line to a container's output. Callers hold t.mu.
func (t *Twin) print(c *twinContainer, text string) {
	c.lines = append(c.lines, shoal.LogLine{
		Peer: c.Peer, Service: c.Service, Slot: -1, Replica: c.Replica, Time: t.clock.Wall(), Text: text,
	})
	t.wake(c)
}

// wake tells followers of a container's output to look. Callers hold t.mu.
func (t *Twin) wake(c *twinContainer) {
	close(c.printed)
	c.printed = make(chan struct{})
}
