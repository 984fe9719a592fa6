// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/shoalnet/shoal"
)

// Orders of a rollout.
const (
	startFirst = "start-first"
	stopFirst  = "stop-first"
)

// rollouts reads how a revision takes the place of another: update_config as Compose means
// it, rollback_config, and over both what x-shoal.rollout and x-shoal.canary say. A service
// that says nothing gets the usual shape; one with update_config keeps of it how long a
// replica has to be healthy, and the deadline.
func (c *converter) rollouts() {
	var up, back *types.UpdateConfig
	if d := c.service.Deploy; d != nil {
		up, back = d.UpdateConfig, d.RollbackConfig
	}
	usual := shoal.DefaultRollout()
	c.out.Rollout = usual
	if up != nil {
		c.out.Rollout = shoal.Rollout{MinHealthy: usual.MinHealthy, Deadline: usual.Deadline, OnFailure: shoal.FailurePause}
		c.config("deploy.update_config", up, &c.out.Rollout)
	}
	c.shape(up)
	if back != nil {
		c.rollback(back)
	}
	c.canary()
}

// rollback reads rollback_config, over the same shares, time to be healthy and deadline. Its
// parallelism counts more than what is only usual.
func (c *converter) rollback(u *types.UpdateConfig) {
	r, usual := c.out.Rollout, shoal.DefaultRollout()
	back := &shoal.Rollout{
		MaxUnavailable: r.MaxUnavailable, MaxSurge: r.MaxSurge, MinHealthy: r.MinHealthy, Deadline: r.Deadline, OnFailure: shoal.FailurePause,
	}
	c.config("deploy.rollback_config", u, back)
	if back.Parallelism > 0 && back.MaxUnavailable == usual.MaxUnavailable {
		back.MaxUnavailable = shoal.Share{}
	}
	if back.Parallelism > 0 && back.MaxSurge == usual.MaxSurge {
		back.MaxSurge = shoal.Share{}
	}
	c.out.Rollback = back
}

// config reads update_config or rollback_config.
func (c *converter) config(field string, u *types.UpdateConfig, r *shoal.Rollout) {
	if u.Parallelism != nil {
		if *u.Parallelism == 0 || *u.Parallelism > shoal.MaxReplicas {
			c.bad(field+".parallelism", "%s", isBatch(strconv.FormatUint(*u.Parallelism, 10)))
			return
		}
		r.Parallelism = int(*u.Parallelism) //nolint:gosec // bounded
	}
	r.Delay, r.Monitor = time.Duration(u.Delay), time.Duration(u.Monitor)
	ratio := float64(u.MaxFailureRatio)
	if why := isRatio(strconv.FormatFloat(ratio, 'g', -1, 32)); why != "" {
		c.bad(field+".max_failure_ratio", "%s", why)
		return
	}
	r.MaxFailureRatio = int(math.Round(ratio * 1000))
	r.StartFirst = c.order(field+".order", u.Order)
	if u.FailureAction != "" {
		r.OnFailure = shoal.FailureAction(u.FailureAction)
	}
}

// order reports whether the new replica starts first.
func (c *converter) order(field, text string) bool {
	if why := oneOf(startFirst, stopFirst)(text); text != "" && why != "" {
		c.bad(field, "%s", why)
	}
	return text == startFirst
}

// shape reads x-shoal.rollout over what is there.
func (c *converter) shape(up *types.UpdateConfig) {
	const field = "x-shoal.rollout"
	m, ok := c.mapping(field, c.extensions()["rollout"])
	if !ok {
		return
	}
	r := &c.out.Rollout
	unavailable, hasUnavailable := m["max_unavailable"]
	if hasUnavailable {
		r.MaxUnavailable = c.share(field+".max_unavailable", unavailable)
	}
	surge, hasSurge := m["max_surge"]
	if hasSurge {
		r.MaxSurge = c.share(field+".max_surge", surge)
	}
	c.span(field+".min_healthy", m["min_healthy"], &r.MinHealthy)
	c.span(field+".deadline", m["deadline"], &r.Deadline)
	none := shoal.Share{}
	order, hasOrder := m["order"]
	inConfig := up != nil && up.Order != ""
	switch {
	case hasOrder && inConfig && order != up.Order:
		c.bad(field+".order", "says something else than deploy.update_config.order; keep one of them")
	case hasOrder:
		r.StartFirst = c.order(field+".order", fmt.Sprint(order))
	case !inConfig && hasSurge && r.MaxSurge != none: // who says how many more may be means that they start first
		r.StartFirst = true
	}
	switch {
	case r.StartFirst && hasSurge && r.MaxSurge == none:
		c.bad(field+".max_surge", "is 0, and with start-first a new replica starts beside the old one; say at least 1, or order: stop-first")
	case !r.StartFirst && hasUnavailable && r.MaxUnavailable == none:
		c.bad(field+".max_unavailable", "is 0, and with stop-first an old replica stops before the new one starts; say at least 1, or max_surge: 1")
	}
}

// canary reads x-shoal.canary: a share, or a mapping with terms.
func (c *converter) canary() {
	const field = "x-shoal.canary"
	v, ok := c.extensions()["canary"]
	if !ok || v == nil {
		return
	}
	out, where := &c.out.Rollout.Canary, field
	if m, is := v.(map[string]any); is {
		where = field + ".replicas"
		if v, ok = m["replicas"]; !ok {
			c.bad(field, "says no replicas; how many try a revision first, like 1 or 10%%?")
			return
		}
		c.span(field+".promote_after", m["promote_after"], &out.PromoteAfter)
		if v, ok := m["max_restarts"]; ok {
			text := fmt.Sprint(v)
			if why := isCount(text); why != "" {
				c.bad(field+".max_restarts", "%s", why)
				return
			}
			out.MaxRestarts, _ = strconv.Atoi(text) // isCount read it
		}
		if w, ok := m["weight"]; ok {
			text := fmt.Sprint(w)
			if why := isWeight(text); why != "" {
				c.bad(field+".weight", "%s", why)
				return
			}
			out.Weight, _ = strconv.Atoi(strings.TrimSuffix(text, "%")) // isWeight read it
		}
	}
	out.Slots = c.share(where, v)
	if (out.Slots == shoal.Share{}) {
		c.bad(where, "must be at least 1, got %v; without a canary leave it out", v)
	}
}

// extensions are what x-shoal says; nil if that is nothing.
func (c *converter) extensions() map[string]any {
	m, _ := c.service.Extensions["x-shoal"].(map[string]any) // extension says what else it is
	return m
}

// mapping takes a value that has keys; false if there is none.
func (c *converter) mapping(field string, v any) (map[string]any, bool) {
	m, ok := v.(map[string]any)
	if !ok && v != nil {
		c.bad(field, "must be a mapping, got %v", v)
	}
	return m, ok
}

// share reads a number of replicas, or a percentage.
func (c *converter) share(field string, v any) shoal.Share {
	share, err := shoal.ParseShare(fmt.Sprint(v))
	if err != nil {
		c.bad(field, "%s", err)
	}
	return share
}

// span reads a time into d, if something is said.
func (c *converter) span(field string, v any, d *time.Duration) {
	if v == nil {
		return
	}
	text := fmt.Sprint(v)
	if why := isSpan(text); why != "" {
		c.bad(field, "%s", why)
		return
	}
	*d, _ = time.ParseDuration(text) // isSpan read it
}

func isShare(text string) string {
	if _, err := shoal.ParseShare(text); err != nil {
		return err.Error()
	}
	return ""
}

// isWeight takes 5% and 5.
func isWeight(text string) string {
	if isShare(strings.TrimSuffix(text, "%")+"%") != "" {
		return fmt.Sprintf("must be a part of the traffic like 5%%, got %s", text)
	}
	return ""
}

func isRatio(text string) string {
	if v, err := strconv.ParseFloat(text, 64); err != nil || math.IsNaN(v) || v < 0 || v > 1 {
		return fmt.Sprintf("must be 0-1, got %s", text)
	}
	return ""
}

// isSpan is isTime for keys of ours, which know no days.
func isSpan(text string) string {
	if why := isTime(text); why != "" {
		return why
	}
	if d, err := time.ParseDuration(text); err != nil || d < 0 {
		return fmt.Sprintf("must be a time like 30s or 1m30s, got %q", text)
	}
	return ""
}

// rolloutOf renders how a service is changed: into update_config and rollback_config of
// Compose, and into x-shoal.rollout. What is usual is not said.
func rolloutOf(s *shoal.Spec) (up, back, shape map[string]any) {
	r, usual, none := &s.Rollout, shoal.DefaultRollout(), shoal.Share{}
	shape = map[string]any{}
	beyond := *r // what x-shoal.rollout has no word for
	beyond.StartFirst, beyond.MaxUnavailable, beyond.MaxSurge, beyond.MinHealthy, beyond.Deadline, beyond.Canary = false, usual.MaxUnavailable, usual.MaxSurge, usual.MinHealthy, usual.Deadline, shoal.Canary{}
	order, said := "", shoal.Rollout{}
	if beyond != usual || r.MaxUnavailable == none || r.MaxSurge == none {
		up = configOf(r)
	} else {
		said.MaxUnavailable, said.MaxSurge = usual.MaxUnavailable, usual.MaxSurge
		if r.StartFirst {
			order = startFirst
		}
	}
	if r.MaxUnavailable != said.MaxUnavailable {
		shape["max_unavailable"] = shareOf(r.MaxUnavailable)
	}
	if r.MaxSurge != said.MaxSurge {
		shape["max_surge"] = shareOf(r.MaxSurge)
		if !r.StartFirst {
			order = stopFirst // else it would be taken for start-first
		}
	}
	if up != nil && order != "" {
		up["order"], order = order, ""
	}
	put(shape, "order", order)
	if r.MinHealthy != usual.MinHealthy {
		shape["min_healthy"] = r.MinHealthy.String()
	}
	if r.Deadline != usual.Deadline {
		shape["deadline"] = r.Deadline.String()
	}
	if s.Rollback != nil {
		back = configOf(s.Rollback)
	}
	return up, back, shape
}

// configOf renders what update_config and rollback_config have words for. It always says
// something, so that the key is there.
func configOf(r *shoal.Rollout) map[string]any {
	m := map[string]any{"failure_action": string(cmp.Or(r.OnFailure, shoal.FailureContinue))}
	put(m, "parallelism", r.Parallelism)
	put(m, "delay", period(r.Delay))
	put(m, "monitor", period(r.Monitor))
	put(m, "max_failure_ratio", float64(r.MaxFailureRatio)/1000)
	if r.StartFirst {
		m["order"] = startFirst
	}
	return m
}

// shareOf renders a share as a number where it is one.
func shareOf(s shoal.Share) any {
	if s.Percent > 0 {
		return s.String()
	}
	return s.N
}

// canaryOf renders who tries a revision first; nil if nobody does.
func canaryOf(c shoal.Canary) any {
	if c == (shoal.Canary{}) {
		return nil
	}
	if c.PromoteAfter == 0 && c.Weight == 0 && c.MaxRestarts == 0 {
		return shareOf(c.Slots)
	}
	m := map[string]any{"replicas": shareOf(c.Slots)}
	put(m, "promote_after", period(c.PromoteAfter))
	put(m, "max_restarts", c.MaxRestarts)
	if c.Weight > 0 {
		m["weight"] = fmt.Sprintf("%d%%", c.Weight)
	}
	return m
}
