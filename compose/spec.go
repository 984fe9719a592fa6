// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/shoalnet/shoal"
)

// toSpec translates one service. compose-go has checked the file's form; what is
// checked here is meaning. Ranges that do not depend on Compose are Spec.Validate's.
func toSpec(project string, c *types.ServiceConfig) (shoal.Spec, error) {
	s := shoal.Spec{
		Name: c.Name, Project: project, Image: c.Image,
		Entrypoint: c.Entrypoint, Command: c.Command,
		Labels: c.Labels, StopSignal: c.StopSignal,
		Mode: shoal.ModeReplicated, Replicas: 1,
		Strategy: shoal.StrategySpread, OnPartition: shoal.PartitionAvailable,
		Restart: shoal.Restart{Condition: shoal.RestartAny},
	}
	if len(s.Labels) == 0 {
		s.Labels = nil
	}
	if c.StopGracePeriod != nil {
		s.StopGrace = time.Duration(*c.StopGracePeriod)
	}
	s.Env = environment(c.Environment)
	var err error
	if s.Ports, err = ports(c.Ports); err != nil {
		return s, err
	}
	if err := restart(&s, c.Restart); err != nil {
		return s, err
	}
	s.Health = health(c.HealthCheck)
	limits(&s, c)
	if c.Scale != nil {
		s.Replicas = *c.Scale
	}
	if err := deploy(&s, c.Deploy); err != nil {
		return s, err
	}
	if err := extension(&s, c.Extensions["x-shoal"]); err != nil {
		return s, err
	}
	return s, s.Validate()
}

func environment(env types.MappingWithEquals) map[string]string {
	if len(env) == 0 {
		return nil
	}
	out := make(map[string]string, len(env))
	for k, v := range env {
		if v != nil { // "KEY" alone and not set here: not passed on, as docker does
			out[k] = *v
		}
	}
	return out
}

func ports(in []types.ServicePortConfig) ([]shoal.Port, error) {
	var out []shoal.Port
	for i, p := range in {
		field := fmt.Sprintf("ports[%d]", i)
		if p.HostIP != "" {
			return nil, &shoal.InvalidError{Field: field, Why: fmt.Sprintf("names the host address %s; each peer publishes on its own address", p.HostIP)}
		}
		if p.Target == 0 || p.Target > math.MaxUint16 {
			return nil, &shoal.InvalidError{Field: field, Why: fmt.Sprintf("must be 1-65535, got %d", p.Target)}
		}
		port := shoal.Port{Container: uint16(p.Target), Protocol: p.Protocol}
		if port.Protocol == "" {
			port.Protocol = "tcp"
		}
		if p.Published != "" {
			n, err := strconv.ParseUint(p.Published, 10, 16)
			if err != nil || n == 0 {
				return nil, &shoal.InvalidError{Field: field, Why: fmt.Sprintf("published port must be one of 1-65535, got %q", p.Published)}
			}
			port.Published = uint16(n)
		}
		out = append(out, port)
	}
	return out, nil
}

// restart reads the service's short restart key; deploy.restart_policy overrides it.
func restart(s *shoal.Spec, text string) error {
	policy, attempts, _ := strings.Cut(text, ":")
	switch policy {
	case "", "always", "unless-stopped":
	case "no":
		s.Restart.Condition = shoal.RestartNone
	case "on-failure":
		s.Restart.Condition = shoal.RestartOnFailure
		if attempts != "" {
			n, err := strconv.Atoi(attempts)
			if err != nil || n < 0 {
				return &shoal.InvalidError{Field: "restart", Why: fmt.Sprintf("has attempts %q, want a whole number", attempts)}
			}
			s.Restart.MaxAttempts = n
		}
	default:
		return &shoal.InvalidError{Field: "restart", Why: fmt.Sprintf("must be no, always, on-failure[:N] or unless-stopped, got %q", text)}
	}
	return nil
}

func health(h *types.HealthCheckConfig) *shoal.Health {
	if h == nil {
		return nil
	}
	out := &shoal.Health{Disable: h.Disable, Test: h.Test}
	if len(h.Test) == 1 && h.Test[0] == "NONE" {
		out.Disable, out.Test = true, nil
	}
	for _, d := range []struct {
		from *types.Duration
		to   *time.Duration
	}{{h.Interval, &out.Interval}, {h.Timeout, &out.Timeout}, {h.StartPeriod, &out.StartPeriod}} {
		if d.from != nil {
			*d.to = time.Duration(*d.from)
		}
	}
	if h.Retries != nil {
		out.Retries = int(min(*h.Retries, math.MaxInt32))
	}
	return out
}

// limits reads the service-level limits; deploy.resources overrides them.
func limits(s *shoal.Spec, c *types.ServiceConfig) {
	s.Limits = shoal.Resources{CPUMilli: milli(c.CPUS), MemBytes: int64(c.MemLimit)}
	s.Reservations.MemBytes = int64(c.MemReservation)
	s.PidsLimit = c.PidsLimit
}

func milli[F ~float32](cpus F) int64 { return int64(math.Round(float64(cpus) * 1000)) }

func deploy(s *shoal.Spec, d *types.DeployConfig) error {
	if d == nil {
		return nil
	}
	switch d.Mode {
	case "", "replicated":
	case "global":
		s.Mode = shoal.ModeGlobal
	default:
		return &shoal.InvalidError{Field: "deploy.mode", Why: fmt.Sprintf("must be replicated or global, got %q", d.Mode)}
	}
	if d.Replicas != nil {
		s.Replicas = *d.Replicas
	}
	if l := d.Resources.Limits; l != nil {
		override(&s.Limits, l)
		if l.Pids != 0 {
			s.PidsLimit = l.Pids
		}
	}
	if r := d.Resources.Reservations; r != nil {
		override(&s.Reservations, r)
	}
	if d.Placement.MaxReplicas > math.MaxInt32 {
		return &shoal.InvalidError{Field: "deploy.placement.max_replicas_per_node", Why: "is too large"}
	}
	s.MaxPerPeer = int(d.Placement.MaxReplicas)
	for i, text := range d.Placement.Constraints {
		sel, err := constraint(text)
		if err != nil {
			return &shoal.InvalidError{Field: fmt.Sprintf("deploy.placement.constraints[%d]", i), Why: err.Error()}
		}
		s.Constraints = append(s.Constraints, sel)
	}
	if err := restartPolicy(s, d.RestartPolicy); err != nil {
		return err
	}
	return update(s, d.UpdateConfig)
}

func override(r *shoal.Resources, with *types.Resource) {
	if with.NanoCPUs != 0 {
		r.CPUMilli = milli(with.NanoCPUs)
	}
	if with.MemoryBytes != 0 {
		r.MemBytes = int64(with.MemoryBytes)
	}
}

func restartPolicy(s *shoal.Spec, p *types.RestartPolicy) error {
	if p == nil {
		return nil
	}
	switch p.Condition {
	case "", "any":
		s.Restart.Condition = shoal.RestartAny
	case "on-failure":
		s.Restart.Condition = shoal.RestartOnFailure
	case "none":
		s.Restart.Condition = shoal.RestartNone
	default:
		return &shoal.InvalidError{Field: "deploy.restart_policy.condition", Why: fmt.Sprintf("must be any, on-failure or none, got %q", p.Condition)}
	}
	if p.Delay != nil {
		s.Restart.Delay = time.Duration(*p.Delay)
	}
	if p.Window != nil {
		s.Restart.Window = time.Duration(*p.Window)
	}
	if p.MaxAttempts != nil {
		s.Restart.MaxAttempts = int(min(*p.MaxAttempts, math.MaxInt32))
	}
	return nil
}

func update(s *shoal.Spec, u *types.UpdateConfig) error {
	if u == nil {
		return nil
	}
	if u.Parallelism != nil {
		if *u.Parallelism == 0 || *u.Parallelism > shoal.MaxReplicas {
			return &shoal.InvalidError{Field: "deploy.update_config.parallelism", Why: fmt.Sprintf("must be 1-%d, got %d", shoal.MaxReplicas, *u.Parallelism)}
		}
		s.Rollout.Parallelism = int(*u.Parallelism)
	}
	switch u.Order {
	case "", "stop-first":
	case "start-first":
		s.Rollout.StartFirst = true
	default:
		return &shoal.InvalidError{Field: "deploy.update_config.order", Why: fmt.Sprintf("must be start-first or stop-first, got %q", u.Order)}
	}
	return nil
}

// extension reads x-shoal.
func extension(s *shoal.Spec, x any) error {
	m, ok := x.(map[string]any)
	if !ok {
		if x != nil {
			return &shoal.InvalidError{Field: "x-shoal", Why: "must be a mapping"}
		}
		return nil
	}
	if v, ok := m["on_partition"]; ok {
		s.OnPartition = shoal.OnPartition(fmt.Sprint(v))
	}
	if v, ok := m["strategy"]; ok {
		s.Strategy = shoal.Strategy(fmt.Sprint(v))
	}
	if v, ok := m["priority"]; ok {
		n, ok := v.(int)
		if !ok {
			return &shoal.InvalidError{Field: "x-shoal.priority", Why: fmt.Sprintf("must be a whole number, got %v", v)}
		}
		s.Priority = n
	}
	return nil
}

// constraint reads Compose's "node.labels.zone == eu" and "node.hostname != a",
// and any of the six selector forms.
func constraint(text string) (shoal.Selector, error) {
	sel, err := shoal.ParseSelector(strings.ReplaceAll(text, "==", "="))
	if err != nil {
		return sel, err
	}
	switch key := sel.Key; {
	case strings.HasPrefix(key, "node.labels."):
		sel.Key = strings.TrimPrefix(key, "node.labels.")
	case key == "node.hostname":
		sel.Key = "peer"
	case key == "node.id":
		sel.Key = "peer.id"
	case key == "node.platform.os", key == "node.platform.arch", key == "node.role", strings.HasPrefix(key, "engine.labels."):
		return sel, &shoal.InvalidError{Field: key, Why: "is not known here; use a peer label or platform=linux/amd64"}
	}
	return sel, nil
}
