// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/shoalnet/shoal"
)

// autoscale reads x-shoal.autoscale over what is usual.
func (c *converter) autoscale() {
	const field = "x-shoal.autoscale"
	m, ok := c.mapping(field, c.extensions()["autoscale"])
	if !ok {
		return
	}
	a, found := shoal.DefaultAutoscale(), len(c.found)
	for _, n := range []struct {
		name string
		to   *int
	}{{"min", &a.Min}, {"max", &a.Max}, {"connections", &a.Connections}, {"requests", &a.Requests}} {
		c.judged(field+"."+n.name, m[n.name], isNumber, func(text string) { *n.to, _ = strconv.Atoi(text) })
	}
	for _, n := range []struct {
		name string
		to   *int
	}{{"cpu", &a.CPU}, {"memory", &a.Memory}, {"tolerance", &a.Tolerance}} {
		c.judged(field+"."+n.name, m[n.name], isPercent, func(text string) { *n.to, _ = strconv.Atoi(strings.TrimSuffix(text, "%")) })
	}
	if _, ok := m["max"]; !ok {
		c.bad(field, "says no max; how many replicas may there be at most?")
	}
	c.span(field+".idle", m["idle"], &a.Idle)
	c.span(field+".manual", m["manual"], &a.Manual)
	if up, ok := c.mapping(field+".up", m["up"]); ok {
		c.span(field+".up.window", up["window"], &a.UpWindow)
		if v, ok := up["step"]; ok {
			a.UpStep = c.share(field+".up.step", v)
		}
	}
	if down, ok := c.mapping(field+".down", m["down"]); ok {
		c.span(field+".down.window", down["window"], &a.DownWindow)
		if v, ok := down["step"]; ok {
			a.DownStep = c.share(field+".down.step", v)
		}
	}
	if len(c.found) == found { // else what is wrong with it follows from that
		c.out.Autoscale = &a
	}
}

// judged takes the text of a value, if there is one and nothing is wrong with it.
func (c *converter) judged(field string, v any, judge form, take func(text string)) {
	if v == nil {
		return
	}
	text := fmt.Sprint(v)
	if why := judge(text); why != "" {
		c.bad(field, "%s", why)
		return
	}
	take(text)
}

// isNumber takes what [shoal.Spec.Validate] then bounds.
func isNumber(text string) string {
	if _, err := strconv.ParseUint(text, 10, 24); err != nil {
		return fmt.Sprintf("must be a whole number, got %s", text)
	}
	return ""
}

// isPercent takes 60% and 60.
func isPercent(text string) string {
	if isNumber(strings.TrimSuffix(text, "%")) != "" {
		return fmt.Sprintf("must be a share like 60%%, got %s", text)
	}
	return ""
}

// autoscaleOf renders how a service is scaled; nil if users do that. What is usual is not
// said.
func autoscaleOf(a *shoal.Autoscale) map[string]any {
	if a == nil {
		return nil
	}
	usual := shoal.DefaultAutoscale()
	m := map[string]any{"min": a.Min, "max": a.Max}
	percent := func(n int) string { return unless(fmt.Sprintf("%d%%", n), "0%") }
	put(m, "cpu", percent(a.CPU))
	put(m, "memory", percent(a.Memory))
	put(m, "connections", a.Connections)
	put(m, "requests", a.Requests)
	if a.Tolerance != usual.Tolerance {
		m["tolerance"] = fmt.Sprintf("%d%%", a.Tolerance)
	}
	if a.Idle != usual.Idle {
		m["idle"] = a.Idle.String()
	}
	if a.Manual != usual.Manual {
		m["manual"] = a.Manual.String()
	}
	up, down := map[string]any{}, map[string]any{}
	put(up, "window", period(a.UpWindow))
	if a.DownWindow != usual.DownWindow {
		down["window"] = a.DownWindow.String()
	}
	for _, x := range []struct {
		in    map[string]any
		name  string
		share shoal.Share
	}{{up, "up", a.UpStep}, {down, "down", a.DownStep}} {
		if x.share != (shoal.Share{}) {
			x.in["step"] = shareOf(x.share)
		}
		if len(x.in) > 0 {
			m[x.name] = x.in
		}
	}
	return m
}
