// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/shoalnet/shoal"
)

// preDeploy reads x-shoal.pre_deploy: the command alone, or a mapping.
func (c *converter) preDeploy() {
	const field = "x-shoal.pre_deploy"
	v, said := c.extensions()["pre_deploy"]
	if !said {
		return
	}
	m, long := v.(map[string]any)
	if !long {
		m = map[string]any{"command": v}
	}
	p := shoal.DefaultPreDeploy()
	if image, said := m["image"]; said {
		p.Image = fmt.Sprint(image)
	}
	if v := m["command"]; v != nil {
		at := field
		if long {
			at += ".command"
		}
		p.Command = c.commandLine(at, v)
	}
	p.Env = c.preEnvironment(field+".environment", m["environment"])
	c.judged(field+".attempts", m["attempts"], isNumber, func(text string) { p.Attempts, _ = strconv.Atoi(text) })
	c.span(field+".deadline", m["deadline"], &p.Deadline)
	c.out.PreDeploy = &p
}

// commandLine reads a command as Compose does: a line is split as a shell would, a list is
// taken as it is.
func (c *converter) commandLine(field string, v any) []string {
	switch list := v.(type) {
	case string:
	case []any:
		for _, x := range list {
			switch x.(type) {
			case map[string]any, []any, nil:
				c.bad(field, "must be a line or a list of words, got %v", v)
				return nil
			}
		}
		out := make([]string, len(list)) // empty is refused, not left out
		for i, x := range list {
			out[i] = fmt.Sprint(x)
		}
		return out
	default:
		c.bad(field, "must be a line or a list of words, got %v", v)
		return nil
	}
	var line types.ShellCommand
	if err := line.DecodeMapstructure(v); err != nil {
		c.bad(field, "cannot be split into words: %v", err)
		return nil
	}
	return append([]string{}, line...)
}

// preEnvironment reads variables as Compose does. A name alone takes the value that it has
// here, and is left out if it has none.
func (c *converter) preEnvironment(field string, v any) map[string]string {
	if v == nil {
		return nil
	}
	var said types.MappingWithEquals
	switch v.(type) {
	case map[string]any, []any:
		if err := said.DecodeMapstructure(v); err != nil {
			c.bad(field, "must be a mapping or a list of NAME=VALUE: %v", err)
			return nil
		}
	default:
		c.bad(field, "must be a mapping or a list of NAME=VALUE, got %v", v)
		return nil
	}
	out := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(said)) {
		value := said[k]
		if value == nil {
			here, is := c.project.Environment[k]
			if !is {
				continue
			}
			value = &here
		}
		out[k] = *value
	}
	return out
}

// preDeployOf renders what is run before the first wave; nil if nothing is. What is usual is
// not said.
func preDeployOf(p *shoal.PreDeploy, mask bool) map[string]any {
	if p == nil {
		return nil
	}
	usual := shoal.DefaultPreDeploy()
	m := map[string]any{}
	put(m, "image", p.Image)
	if p.Command != nil {
		m["command"] = p.Command
	}
	if len(p.Env) > 0 {
		m["environment"] = environmentOf(p.Env, mask)
	}
	if p.Attempts != usual.Attempts {
		m["attempts"] = p.Attempts
	}
	if p.Deadline != usual.Deadline {
		m["deadline"] = p.Deadline.String()
	}
	return m
}
