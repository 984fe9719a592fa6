// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal"
)

// dependenciesOf returns what the services of a file depend on, before some are selected:
// the reader forgets dependencies on those that are not.
func dependenciesOf(p *types.Project) map[string]types.DependsOnConfig {
	out := map[string]types.DependsOnConfig{}
	for _, services := range []types.Services{p.Services, p.DisabledServices} {
		for name, s := range services {
			out[name] = s.DependsOn
		}
	}
	return out
}

// dependencies reads depends_on. Whether the cluster has a service that the file does not
// have, or that is not deployed with this one, is not to be seen here.
func (c *converter) dependencies() {
	for _, name := range slices.Sorted(maps.Keys(c.needs)) {
		d := c.needs[name]
		switch _, said := c.where.dependency(name); {
		case !said: // the reader concludes it from a key that is refused
			continue
		case name == c.service.Name:
			c.badOrder(name, "is the service itself")
			continue
		case d.Restart:
			c.badOrder(name, "restart: true is not supported: replicas are not restarted with what they need; let them connect again")
			continue
		}
		out := shoal.Dependency{Service: name, Condition: shoal.Condition(d.Condition), Optional: !d.Required}
		if d.Condition == "" {
			out.Condition = shoal.ConditionStarted
		}
		c.out.DependsOn = append(c.out.DependsOn, out)
	}
}

// badOrder adds a problem with one entry of depends_on.
func (c *converter) badOrder(name, format string, args ...any) {
	p, _ := c.where.dependency(name)
	p.Why = fmt.Sprintf(format, args...)
	c.found = append(c.found, p)
}

// dependency returns the place where the service names another one that it depends on, as
// an item of a list or as a key; false if it does not.
func (w *where) dependency(name string) (p Problem, is bool) {
	for _, o := range w.chain(w.service) {
		n := said(o, "depends_on")
		if n == nil {
			continue
		}
		p = Problem{File: o.file.name, Key: "services." + w.service + ".depends_on." + name}
		for _, item := range n.Content {
			if n.Kind == yaml.SequenceNode && follow(item).Value == name {
				p.Line = item.Line
				return p, true
			}
		}
		if key, _ := child(n, name); key != nil {
			p.Line = key.Line
			return p, true
		}
	}
	return w.at("depends_on"), false
}

// circles refuses services that wait for each other.
func (l *load) circles() {
	needs := map[string][]shoal.Dependency{}
	for name, of := range l.needs {
		for _, on := range slices.Sorted(maps.Keys(of)) {
			if on != name { // that is refused by itself
				needs[name] = append(needs[name], shoal.Dependency{Service: on})
			}
		}
	}
	circle := shoal.DependencyCycle(needs)
	if circle == nil {
		return
	}
	at, _ := (&where{walker: l.walker, service: circle[0]}).dependency(circle[1])
	at.Why = "goes in a circle: " + strings.Join(circle, " -> ") + "; each would wait for the other"
	l.add(at)
}
