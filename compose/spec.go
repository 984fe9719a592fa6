// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/shoalnet/shoal"
)

// converter translates one service. compose-go has checked the file's form; what is
// checked here is meaning. Ranges that do not depend on Compose are Spec.Validate's.
type converter struct {
	project  *types.Project
	service  *types.ServiceConfig
	needs    types.DependsOnConfig
	where    *where
	out      shoal.Spec
	keys     []string // of out.Networks in the file
	found    []Problem
	warnings []Problem
}

// bad adds a problem with a field of the service.
func (c *converter) bad(field, format string, args ...any) {
	p := c.where.at(field)
	p.Why = fmt.Sprintf(format, args...)
	c.found = append(c.found, p)
}

// spec returns the service as a spec, which is to be used if nothing was found.
func (c *converter) spec() shoal.Spec {
	in := c.service
	c.where.lengths = map[string]int{"ports": len(in.Ports), "volumes": len(in.Volumes), "tmpfs": len(in.Tmpfs), "devices": len(in.Devices)}
	c.out = shoal.Spec{
		Name: in.Name, Project: c.project.Name, Image: in.Image,
		Entrypoint: in.Entrypoint, Command: in.Command, StopSignal: in.StopSignal,
		Mode: shoal.ModeReplicated, Replicas: 1,
		Strategy: shoal.StrategySpread, OnPartition: shoal.PartitionAvailable,
		Restart: shoal.Restart{Condition: shoal.RestartAny},
	}
	if in.StopGracePeriod != nil {
		c.out.StopGrace = time.Duration(*in.StopGracePeriod)
	}
	if in.Scale != nil {
		c.out.Replicas = *in.Scale
	}
	for _, list := range []struct {
		field string
		of    []string
	}{{"entrypoint", in.Entrypoint}, {"command", in.Command}} {
		if list.of != nil && len(list.of) == 0 {
			c.bad(list.field, "is empty, and the image's cannot be taken away; name one, or leave the key out")
		}
	}
	c.environment()
	c.labels()
	c.ports()
	c.restart()
	c.health()
	c.limits()
	c.platform()
	c.setup()
	c.networks()
	c.deploy()
	c.extension()
	c.rollouts()
	c.autoscale()
	c.dependencies()
	c.job()
	c.schedule()
	c.preDeploy()
	c.validate()
	return c.out
}

// validate adds what the spec itself finds wrong, unless it follows from what was.
func (c *converter) validate() {
	err := c.out.Validate()
	if d := c.service.Deploy; err == nil && (c.service.Scale != nil || d != nil && d.Replicas != nil) {
		err = c.out.CheckRollouts(0) // else the number is not the file's, and whoever takes the wish checks it
	}
	if err == nil {
		return
	}
	field, why := "", err.Error()
	if invalid, ok := errors.AsType[*shoal.InvalidError](err); ok {
		field, why = invalid.Field, invalid.Why
	}
	at := c.place(field)
	if !slices.ContainsFunc(c.found, func(p Problem) bool { return p.Key == at.Key }) {
		at.Why = why
		c.found = append(c.found, at)
	}
}

// environment takes the variables that have a value. A name alone that is not set
// here is not passed on, as docker does.
func (c *converter) environment() {
	for k, v := range c.service.Environment {
		if v == nil {
			continue
		}
		if c.out.Env == nil {
			c.out.Env = map[string]string{}
		}
		c.out.Env[k] = *v
	}
}

// labels joins the labels of the container and those of the service: here they are
// the same.
func (c *converter) labels() {
	join := func(field string, in types.Labels) {
		for _, k := range slices.Sorted(maps.Keys(in)) {
			v := in[k]
			if c.out.Labels == nil {
				c.out.Labels = map[string]string{}
			}
			if old, ok := c.out.Labels[k]; ok && old != v {
				c.bad(field, "%s is %q there and %q in labels; containers and their service have the same labels here", k, v, old)
			}
			c.out.Labels[k] = v
		}
	}
	join("labels", c.service.Labels)
	if c.service.Deploy != nil {
		join("deploy.labels", c.service.Deploy.Labels)
	}
}

func (c *converter) ports() {
	for i, p := range c.service.Ports {
		field := fmt.Sprintf("ports[%d]", i)
		port := shoal.Port{Protocol: p.Protocol}
		if port.Protocol == "" {
			port.Protocol = "tcp"
		}
		switch {
		case p.HostIP != "":
			c.bad(field, "names the host address %s; each peer publishes on its own (shoald --publish)", p.HostIP)
		case p.Target == 0 || p.Target > math.MaxUint16:
			c.bad(field, "must be 1-65535, got %d", p.Target)
		}
		switch p.Mode {
		case "", "ingress":
		case "host":
			port.Host = true
		default:
			c.bad(field+".mode", "must be ingress or host, got %q", p.Mode)
		}
		port.Container = uint16(p.Target) //nolint:gosec // checked
		if p.Published != "" {
			n, err := strconv.ParseUint(p.Published, 10, 16)
			if err != nil || n == 0 {
				c.bad(field, "published port must be one of 1-65535, got %q", p.Published)
			}
			port.Published = uint16(n) //nolint:gosec // ParseUint has 16 bits
		}
		c.out.Ports = append(c.out.Ports, port)
	}
}

// restart reads the service's short restart key; deploy.restart_policy counts more.
func (c *converter) restart() {
	if why := isRestart(c.service.Restart); why != "" {
		c.bad("restart", "%s", why)
		return
	}
	switch policy, attempts, _ := strings.Cut(c.service.Restart, ":"); policy {
	case "no":
		c.out.Restart.Condition = shoal.RestartNone
	case "on-failure":
		c.out.Restart.Condition = shoal.RestartOnFailure
		c.out.Restart.MaxAttempts, _ = strconv.Atoi(attempts) // none: without end
	}
}

func (c *converter) health() {
	h := c.service.HealthCheck
	if h == nil {
		return
	}
	out := &shoal.Health{Disable: h.Disable, Test: h.Test}
	if len(h.Test) == 1 && h.Test[0] == "NONE" {
		out.Disable, out.Test = true, nil
	}
	for _, d := range []struct {
		name string
		from *types.Duration
		to   *time.Duration
	}{{"interval", h.Interval, &out.Interval}, {"timeout", h.Timeout, &out.Timeout}, {"start_period", h.StartPeriod, &out.StartPeriod}} {
		if d.from == nil {
			continue
		}
		if *d.to = time.Duration(*d.from); *d.to == 0 && d.name != "start_period" {
			c.bad("healthcheck."+d.name, "must be at least 1ms, got 0; leave it out for the usual 30s")
		}
	}
	if h.Retries != nil {
		out.Retries = int(min(*h.Retries, math.MaxInt32)) //nolint:gosec // bounded
	}
	if len(h.Test) == 0 && c.where.has("healthcheck.test") {
		c.bad("healthcheck.test", "is empty; name a command, or say disable: true")
	}
	c.out.Health = out
}

// limits reads the service's own limits; deploy.resources counts more.
func (c *converter) limits() {
	in := c.service
	c.out.Limits = shoal.Resources{CPUMilli: c.cores("cpus", float64(in.CPUS)), MemBytes: c.bytes("mem_limit", in.MemLimit)}
	c.out.Reservations.MemBytes = c.bytes("mem_reservation", in.MemReservation)
	c.out.PidsLimit = max(0, in.PidsLimit) // -1: no limit of its own
}

// What a replica may be given of processors.
const (
	minCores = 0.001
	maxCores = 4096
)

// cores turns cores into thousandths; 0 where the file says nothing.
func (c *converter) cores(field string, cpus float64) int64 {
	if cpus == 0 && !c.where.has(field) {
		return 0
	}
	if math.IsNaN(cpus) || cpus < minCores || cpus > maxCores {
		c.bad(field, "must be %v-%v cores, got %v", minCores, maxCores, cpus)
		return 0
	}
	return int64(math.Round(cpus * 1000))
}

// bytes takes a size that is more than nothing where the file says one.
func (c *converter) bytes(field string, n types.UnitBytes) int64 {
	if n < 0 || n == 0 && c.where.has(field) {
		c.bad(field, "must be a size like 64m, got %d", int64(n))
	}
	return int64(n)
}

// platform is a constraint here: there is an image for each platform or there is not.
func (c *converter) platform() {
	if c.service.Platform == "" {
		return
	}
	sel, err := shoal.ParseSelector("platform=" + c.service.Platform)
	if err != nil {
		c.bad("platform", "must be like linux/amd64, got %q", c.service.Platform)
	}
	c.out.Constraints = append(c.out.Constraints, sel)
}
