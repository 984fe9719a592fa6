// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/shoalnet/shoal"
)

// deploy reads the deploy section.
func (c *converter) deploy() {
	d := c.service.Deploy
	if d == nil {
		return
	}
	switch d.Mode {
	case "", "replicated":
	case "global", "replicated-job", "global-job":
		c.out.Mode = shoal.Mode(d.Mode)
	default:
		c.bad("deploy.mode", "must be replicated, global, replicated-job or global-job, got %q", d.Mode)
	}
	if why := isEndpoint(d.EndpointMode); why != "" {
		c.bad("deploy.endpoint_mode", "%s", why)
	}
	if d.Replicas != nil {
		if scale := c.service.Scale; scale != nil && *scale != *d.Replicas {
			c.bad("scale", "is %d, and deploy.replicas is %d; keep one of them", *scale, *d.Replicas)
		}
		c.out.Replicas = *d.Replicas
	}
	if l := d.Resources.Limits; l != nil {
		c.override("deploy.resources.limits", &c.out.Limits, l)
		if l.Pids > 0 {
			c.out.PidsLimit = l.Pids
		}
	}
	if r := d.Resources.Reservations; r != nil {
		c.override("deploy.resources.reservations", &c.out.Reservations, r)
	}
	c.placement(&d.Placement)
	c.restartPolicy(d.RestartPolicy)
}

func (c *converter) override(field string, r *shoal.Resources, with *types.Resource) {
	if cpu := c.cores(field+".cpus", float64(with.NanoCPUs)); cpu != 0 {
		r.CPUMilli = cpu
	}
	if mem := c.bytes(field+".memory", with.MemoryBytes); mem != 0 {
		r.MemBytes = mem
	}
}

func (c *converter) placement(p *types.Placement) {
	if p.MaxReplicas > shoal.MaxReplicas {
		c.bad("deploy.placement.max_replicas_per_node", "must be 0-%d, got %d", shoal.MaxReplicas, p.MaxReplicas)
	}
	c.out.MaxPerPeer = int(min(p.MaxReplicas, shoal.MaxReplicas)) //nolint:gosec // bounded
	for i, text := range p.Constraints {
		sel, err := constraint(text)
		if err != nil {
			c.bad(fmt.Sprintf("deploy.placement.constraints[%d]", i), "%s", err)
		}
		c.out.Constraints = append(c.out.Constraints, sel)
	}
	if len(p.Preferences) > 1 {
		c.bad("deploy.placement.preferences", "there are %d; slots are spread over one label, and then over peers; keep the first", len(p.Preferences))
	} else if len(p.Preferences) == 1 {
		c.out.SpreadBy = c.label("deploy.placement.preferences[0]", p.Preferences[0].Spread)
	}
}

// label reads the label that slots are spread over; "": zone, as where nothing is said.
func (c *converter) label(field, text string) string {
	key, err := peerLabel(text)
	if err != nil || key == "" {
		c.bad(field, "must be a label like node.labels.rack or rack, got %q", text)
	}
	if key == "zone" {
		return ""
	}
	return key
}

func (c *converter) restartPolicy(p *types.RestartPolicy) {
	if p == nil {
		return
	}
	r := &c.out.Restart
	switch p.Condition {
	case "", "any":
		r.Condition = shoal.RestartAny
	case "on-failure":
		r.Condition = shoal.RestartOnFailure
	case "none":
		r.Condition = shoal.RestartNone
	default:
		c.bad("deploy.restart_policy.condition", "must be any, on-failure or none, got %q", p.Condition)
	}
	if p.Delay != nil {
		r.Delay = time.Duration(*p.Delay)
	}
	if p.Window != nil {
		r.Window = time.Duration(*p.Window)
	}
	if p.MaxAttempts != nil {
		r.MaxAttempts = int(min(*p.MaxAttempts, math.MaxInt32)) //nolint:gosec // bounded
	}
}

// extension reads x-shoal; the walk has judged its keys.
func (c *converter) extension() {
	x := c.service.Extensions["x-shoal"]
	m, ok := x.(map[string]any)
	if !ok {
		if x != nil {
			c.bad("x-shoal", "must be a mapping")
		}
		return
	}
	if v, ok := m["on_partition"]; ok {
		c.out.OnPartition = shoal.OnPartition(fmt.Sprint(v))
	}
	if v, ok := m["strategy"]; ok {
		c.out.Strategy = shoal.Strategy(fmt.Sprint(v))
	}
	if v, ok := m["lb"]; ok {
		c.out.LB = shoal.LB(fmt.Sprint(v))
	}
	if v, ok := m["prefer"]; ok {
		c.out.Prefer = shoal.Prefer(fmt.Sprint(v))
	}
	if v, ok := m["proxy_protocol"]; ok {
		is, ok := v.(bool)
		if !ok {
			c.bad("x-shoal.proxy_protocol", "must be true or false, got %v", v)
		}
		c.out.ProxyProtocol = is
	}
	if v, ok := m["priority"]; ok {
		n, ok := v.(int)
		if !ok {
			c.bad("x-shoal.priority", "must be a whole number, got %v", v)
		}
		c.out.Priority = n
	}
	if v, ok := m["volumes"]; ok {
		if v != "anywhere" {
			c.bad("x-shoal.volumes", "must be anywhere, got %v; without it slots with data stay where it is", v)
		}
		c.out.VolumesAnywhere = true
	}
	if v, ok := m["spread"]; ok {
		c.spread(v)
	}
}

// spread reads "rack" or "[rack, peer]": after the label always comes the peer.
func (c *converter) spread(v any) {
	const field = "x-shoal.spread"
	if text, ok := v.(string); ok {
		v = []any{text}
	}
	list, ok := v.([]any)
	if !ok || len(list) == 0 || len(list) > 2 || len(list) == 2 && list[1] != "peer" {
		c.bad(field, "must be a label, or a label and peer, like [zone, peer], got %v", v)
		return
	}
	key := c.label(field, fmt.Sprint(list[0]))
	if d := c.service.Deploy; d != nil && len(d.Placement.Preferences) > 0 && key != c.out.SpreadBy {
		c.bad(field, "says something else than deploy.placement.preferences; keep one of them")
	}
	c.out.SpreadBy = key
}

// constraint reads Compose's "node.labels.zone == eu" and "node.hostname != a",
// and any of the six selector forms.
func constraint(text string) (shoal.Selector, error) {
	sel, err := shoal.ParseSelector(strings.ReplaceAll(text, "==", "="))
	if err != nil {
		return sel, err
	}
	sel.Key, err = peerLabel(sel.Key)
	return sel, err
}

// peerLabel writes what Compose calls a node's label as the key that peers have.
func peerLabel(key string) (string, error) {
	switch {
	case strings.HasPrefix(key, "node.labels."):
		return strings.TrimPrefix(key, "node.labels."), nil
	case key == "node.hostname":
		return "peer", nil
	case key == "node.id":
		return "peer.id", nil
	case strings.HasPrefix(key, "node."), strings.HasPrefix(key, "engine.labels."):
		return key, &shoal.InvalidError{Field: key, Why: "is not known here; use a label of peers, or platform=linux/amd64"}
	}
	return key, nil
}
