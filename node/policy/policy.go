// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package policy reads policy.yaml, in which the owner of a machine says what
// containers may do to it, into the rules that shoal.Forbidden takes:
//
//	rules, err := policy.Parse("policy.yaml", raw)
//
// docs/policy.md is its reference. The package refuses what it does not understand to
// the letter: a key it does not know, a value of another type, a path that is not
// clean. It reads no file and judges no container.
package policy

import (
	"bytes"
	"errors"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal"
)

// The bounds of a policy: its rules travel with the peer's facts.
const (
	MaxBytes = 64 << 10 // of the file
	maxRules = 64
	maxRule  = 256 // bytes of one
)

// keys are what stands under allow, in the order of the reference.
var keys = []struct {
	name string
	read func(p *parser, key string, n *yaml.Node) error
}{
	{"privileged", readPrivileged},
	{"host", words("host", oneOf("network", "pid", "ipc", "uts", "user"))},
	{"capabilities", words("cap", matches(`^[A-Z_]{1,40}$`, "a capability in capital letters, without CAP_, or ALL"))},
	{"devices", words("device", cleanPath)},
	{"mounts", readMounts},
	{"sysctls", words("sysctl", matches(`^([a-z0-9_-]+(\.[a-zA-Z0-9_-]+)+|([a-z0-9_-]+\.)+\*)$`, "a name like net.core.somaxconn, or net.core.*"))},
	{"security", words("security", matches(`^[a-z-]+=[^\s]+$`, "an option like seccomp=unconfined"))},
	{"logging", words("logging", matches(`^[a-z0-9][a-z0-9._/:-]*$`, "the name of a logging driver"))},
	{"volumes", words("volume", matches(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`, "the name of a volume"))},
	{"groups", words("group", matches(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]*$`, "a group's name or number"))},
}

// parser collects the rules of one file.
type parser struct {
	file  string
	rules []string
}

// Parse returns the rules of a policy file in the order of the reference, each once;
// none if it is empty. Errors are *shoal.InvalidError and name FILE:LINE.
func Parse(file string, raw []byte) ([]string, error) {
	p := &parser{file: file}
	if len(raw) > MaxBytes {
		return nil, p.fail(1, "has %d bytes, at most %d are allowed", len(raw), MaxBytes)
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, p.syntax(err)
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		return nil, p.fail(more.Line, "begins a second document; one is all a policy has")
	case !errors.Is(err, io.EOF):
		return nil, p.syntax(err)
	}
	root := doc.Content[0]
	if isNull(root) {
		return nil, nil
	}
	err := p.mapping("the file", root, func(key string, k, v *yaml.Node) error {
		if key != "allow" {
			return p.fail(k.Line, "unknown key %q; a policy has only allow", key)
		}
		return p.allow(v)
	})
	if err != nil {
		return nil, err
	}
	return p.rules, nil
}

// allow reads what stands under allow.
func (p *parser) allow(n *yaml.Node) error {
	if isNull(n) {
		return nil
	}
	found := map[string]*yaml.Node{}
	err := p.mapping("allow", n, func(key string, k, v *yaml.Node) error {
		for _, known := range keys {
			if known.name == key {
				found[key] = v
				return nil
			}
		}
		var names []string
		for _, known := range keys {
			names = append(names, known.name)
		}
		return p.fail(k.Line, "unknown key %q; allow has %s", key, strings.Join(names, ", "))
	})
	if err != nil {
		return err
	}
	for _, known := range keys {
		if n := found[known.name]; n != nil && !isNull(n) {
			if err := known.read(p, known.name, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// add adds a rule that stands at a line.
func (p *parser) add(n *yaml.Node, rule string) error {
	switch {
	case slices.Contains(p.rules, rule):
		return nil
	case len(rule) > maxRule:
		return p.fail(n.Line, "is a rule of %d bytes, at most %d are allowed", len(rule), maxRule)
	case len(p.rules) == maxRules:
		return p.fail(n.Line, "is one rule too many: %d are allowed; a rule for a directory allows what lies in it", maxRules)
	}
	p.rules = append(p.rules, rule)
	return nil
}

func readPrivileged(p *parser, key string, n *yaml.Node) error {
	on, err := p.flag(key, n)
	if err != nil || !on {
		return err
	}
	return p.add(n, "privileged")
}

// words reads a list of words, each a rule of one kind.
func words(kind string, check func(string) string) func(*parser, string, *yaml.Node) error {
	return func(p *parser, key string, n *yaml.Node) error {
		return p.list(key, n, func(one *yaml.Node) error {
			text, err := p.text(key, one)
			if err != nil {
				return err
			}
			if want := check(text); want != "" {
				return p.fail(one.Line, "%s: must be %s, got %q", key, want, text)
			}
			if kind == "device" {
				text = shoal.CleanPath(text)
			}
			return p.add(one, kind+":"+text)
		})
	}
}

// readMounts reads {path: P, read_only: BOOL, shared: BOOL}.
func readMounts(p *parser, key string, n *yaml.Node) error {
	return p.list(key, n, func(one *yaml.Node) error {
		var where string
		var readOnly, shared bool
		err := p.mapping("a mount", one, func(name string, k, v *yaml.Node) (err error) {
			switch name {
			case "path":
				if where, err = p.text("path", v); err == nil {
					if want := cleanPath(where); want != "" {
						err = p.fail(v.Line, "path: must be %s, got %q", want, where)
					}
				}
			case "read_only":
				readOnly, err = p.flag(name, v)
			case "shared":
				shared, err = p.flag(name, v)
			default:
				err = p.fail(k.Line, "unknown key %q; a mount has path, read_only, shared", name)
			}
			return err
		})
		switch {
		case err != nil:
			return err
		case where == "":
			return p.fail(one.Line, "a mount must have a path")
		case readOnly && shared:
			return p.fail(one.Line, "a mount is read_only or shared, not both")
		case readOnly:
			return p.add(one, "mount-ro:"+shoal.CleanPath(where))
		case shared:
			return p.add(one, "mount-shared:"+shoal.CleanPath(where))
		}
		return p.add(one, "mount:"+shoal.CleanPath(where))
	})
}

// What the checks return is what a value must be; "" if it is.

func oneOf(all ...string) func(string) string {
	return func(text string) string {
		if slices.Contains(all, text) {
			return ""
		}
		return strings.Join(all, ", ")
	}
}

func matches(pattern, want string) func(string) string {
	re := regexp.MustCompile(pattern)
	return func(text string) string {
		if re.MatchString(text) {
			return ""
		}
		return want
	}
}

func cleanPath(text string) string {
	if path.IsAbs(text) && path.Clean(text) == text && !strings.ContainsFunc(text, isControl) {
		return ""
	}
	return "an absolute path without . and .. and without / at its end"
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }
