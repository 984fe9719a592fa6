// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// where finds the line of what is said about one service.
type where struct {
	*walker
	section string         // "": services
	service string         // or volume, or network
	lengths map[string]int // of lists as they were read: where a file's own differ, an index says nothing
}

// fields are the names that specs have for what Compose calls otherwise.
var fields = map[string][]string{
	"name":                      {""},
	"replicas":                  {"deploy.replicas", "scale"},
	"mode":                      {"deploy.mode"},
	"limits":                    {"deploy.resources.limits", "mem_limit", "cpus"},
	"limits.memory":             {"deploy.resources.limits.memory", "mem_limit"},
	"limits.cpus":               {"deploy.resources.limits.cpus", "cpus"},
	"reservations":              {"deploy.resources.reservations", "mem_reservation"},
	"reservations.memory":       {"deploy.resources.reservations.memory", "mem_reservation"},
	"reservations.cpus":         {"deploy.resources.reservations.cpus"},
	"pids_limit":                {"deploy.resources.limits.pids", "pids_limit"},
	"max_replicas_per_node":     {"deploy.placement.max_replicas_per_node"},
	"restart":                   {"restart", "deploy.restart_policy"},
	"update_config":             {"deploy.update_config"},
	"update_config.parallelism": {"deploy.update_config.parallelism"},
	"update_config.delay":       {"deploy.update_config.delay"},
	"update_config.monitor":     {"deploy.update_config.monitor"},
	"update_config.min_healthy": {"x-shoal.rollout.min_healthy"},
	// What is not longer than another is as much about the other.
	"update_config.deadline":             {"x-shoal.rollout.deadline", "x-shoal.rollout.min_healthy", "deploy.update_config.delay"},
	"update_config.max_unavailable":      {"x-shoal.rollout.max_unavailable"},
	"update_config.canary":               {"x-shoal.canary.replicas", "x-shoal.canary"},
	"update_config.canary.promote_after": {"x-shoal.canary.promote_after"},
	"update_config.canary.max_restarts":  {"x-shoal.canary.max_restarts"},
	"update_config.failure_action":       {"deploy.update_config.failure_action"},
	"rollback_config.failure_action":     {"deploy.rollback_config.failure_action"},
	"rollback_config.delay":              {"deploy.rollback_config.delay"},
	"rollback_config.monitor":            {"deploy.rollback_config.monitor"},
	"rollback_config.deadline":           {"deploy.rollback_config.delay"},
	"job":                                {"x-shoal.job"},
	"job.attempts":                       {"x-shoal.job.attempts", "deploy.restart_policy", "x-shoal.job"},
	"job.parallelism":                    {"x-shoal.job.parallelism", "x-shoal.job"},
	"job.deadline":                       {"x-shoal.job.deadline", "x-shoal.job"},
	"schedule":                           {"x-shoal.schedule"},
	"schedule.cron":                      {"x-shoal.schedule.cron", "x-shoal.schedule"},
	"schedule.zone":                      {"x-shoal.schedule.zone", "x-shoal.schedule"},
	"schedule.missed":                    {"x-shoal.schedule.missed", "x-shoal.schedule"},
	"schedule.overlap":                   {"x-shoal.schedule.overlap", "x-shoal.schedule"},
	"pre_deploy":                         {"x-shoal.pre_deploy"},
	"pre_deploy.image":                   {"x-shoal.pre_deploy.image", "x-shoal.pre_deploy"},
	"pre_deploy.command":                 {"x-shoal.pre_deploy.command", "x-shoal.pre_deploy"},
	"pre_deploy.environment":             {"x-shoal.pre_deploy.environment", "x-shoal.pre_deploy"},
	"pre_deploy.attempts":                {"x-shoal.pre_deploy.attempts", "x-shoal.pre_deploy"},
	"pre_deploy.deadline":                {"x-shoal.pre_deploy.deadline", "x-shoal.pre_deploy"},
	"autoscale":                          {"x-shoal.autoscale"},
	"autoscale.min":                      {"x-shoal.autoscale.min", "x-shoal.autoscale"},
	"autoscale.max":                      {"x-shoal.autoscale.max", "x-shoal.autoscale"},
	"autoscale.cpu":                      {"x-shoal.autoscale.cpu", "x-shoal.autoscale"},
	"autoscale.memory":                   {"x-shoal.autoscale.memory", "x-shoal.autoscale"},
	"autoscale.connections":              {"x-shoal.autoscale.connections", "x-shoal.autoscale"},
	"autoscale.requests":                 {"x-shoal.autoscale.requests", "x-shoal.autoscale"},
	"autoscale.tolerance":                {"x-shoal.autoscale.tolerance", "x-shoal.autoscale"},
	"autoscale.up.step":                  {"x-shoal.autoscale.up.step", "x-shoal.autoscale"},
	"autoscale.down.step":                {"x-shoal.autoscale.down.step", "x-shoal.autoscale"},
	"autoscale.up.window":                {"x-shoal.autoscale.up.window", "x-shoal.autoscale"},
	"autoscale.down.window":              {"x-shoal.autoscale.down.window", "x-shoal.autoscale"},
	"autoscale.idle":                     {"x-shoal.autoscale.idle", "x-shoal.autoscale"},
	"autoscale.manual":                   {"x-shoal.autoscale.manual", "x-shoal.autoscale"},
	"on_partition":                       {"x-shoal.on_partition"},
	"strategy":                           {"x-shoal.strategy"},
	"lb":                                 {"x-shoal.lb"},
	"prefer":                             {"x-shoal.prefer"},
	"proxy_protocol":                     {"x-shoal.proxy_protocol"},
}

// at returns the place of a field, without a why: that of the key itself, or of the
// nearest one above it that some file has.
func (w *where) at(field string) Problem {
	section := w.section
	if section == "" {
		section = "services"
	}
	names := fields[field]
	if names == nil || w.section != "" {
		names = []string{field}
	}
	best, depth := Problem{File: w.main[len(w.main)-1].name}, -1
	for _, name := range names {
		steps := stepsOf(name)
		for _, o := range w.chain(w.service) {
			line, d := w.descend(o.file.root, append([]string{section, o.service}, steps...))
			full := d == len(steps)+2
			if d > depth || full && depth <= len(steps)+2 {
				best, depth = Problem{File: o.file.name, Line: line, Key: keyOf(section, w.service, steps)}, d
			}
			if full {
				return best
			}
		}
	}
	return best
}

// has reports whether some file says something about a field.
func (w *where) has(field string) bool {
	steps := stepsOf(field)
	for _, o := range w.chain(w.service) {
		if _, d := w.descend(o.file.root, append([]string{"services", o.service}, steps...)); d == len(steps)+2 {
			return true
		}
	}
	return false
}

func keyOf(section, name string, steps []string) string {
	key := strings.Join(append([]string{section, name}, steps...), ".")
	return strings.ReplaceAll(key, ".[", "[")
}

// stepsOf takes a field apart: "ports[0].target" is "ports", "[0]", "target".
func stepsOf(field string) []string {
	if field == "" {
		return nil
	}
	return strings.Split(strings.ReplaceAll(field, "[", ".["), ".")
}

// descend walks along steps and returns the line of the last one that is there, and
// how many are.
func (w *where) descend(n *yaml.Node, steps []string) (line, depth int) {
	line = n.Line
	for at, s := range steps {
		n = follow(n)
		if i, isIndex := index(s); isIndex {
			merged := at > 0 && w.lengths[steps[at-1]] != 0 && w.lengths[steps[at-1]] != len(n.Content)
			if n.Kind != yaml.SequenceNode || i >= len(n.Content) || merged {
				return line, depth
			}
			n = n.Content[i]
			line = n.Line
		} else {
			key, value := child(n, s)
			if key == nil {
				return line, depth
			}
			n, line = value, key.Line
		}
		depth++
	}
	return line, depth
}

func index(step string) (int, bool) {
	if !strings.HasPrefix(step, "[") {
		return 0, false
	}
	i, err := strconv.Atoi(strings.Trim(step, "[]"))
	if err != nil {
		return 1 << 30, true // an item of which compose-go does not say which
	}
	return i, true
}

// bindIsAbsolute reports whether the i-th volume names an absolute path in its file,
// or none that can be found there.
func (w *where) bindIsAbsolute(i int) bool {
	for _, o := range w.chain(w.service) {
		n := said(o, "volumes")
		if n == nil {
			continue
		}
		if n.Kind != yaml.SequenceNode || w.lengths["volumes"] != len(n.Content) {
			return true
		}
		item := follow(n.Content[i])
		if _, source := child(item, "source"); source != nil {
			item = follow(source)
		}
		return !strings.HasPrefix(item.Value, ".")
	}
	return true
}

// said is what one file says of a key of a service; nil if nothing.
func said(o owner, key string) *yaml.Node {
	n := o.file.root
	for _, s := range []string{"services", o.service, key} {
		if _, n = child(n, s); n == nil {
			return nil
		}
	}
	return follow(n)
}

// network returns the place where the service names a network, as an item of a list or
// as a key, or that of a field below the key.
func (w *where) network(name string, below ...string) Problem {
	for _, o := range w.chain(w.service) {
		n := said(o, "networks")
		if n == nil {
			continue
		}
		p := Problem{File: o.file.name, Key: "services." + w.service + ".networks"}
		for i, item := range n.Content {
			if n.Kind == yaml.SequenceNode && follow(item).Value == name {
				p.Line, p.Key = item.Line, fmt.Sprintf("%s[%d]", p.Key, i)
				return p
			}
		}
		if key, value := child(n, name); key != nil {
			p.Line, p.Key = key.Line, p.Key+"."+name
			for _, field := range below {
				p.Key = strings.TrimSuffix(p.Key+"."+field, ".")
				if line, depth := w.descend(value, stepsOf(field)); depth > 0 {
					p.Line = line
				}
			}
			return p
		}
	}
	return w.at("networks")
}
