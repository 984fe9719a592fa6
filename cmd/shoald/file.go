// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal"
)

const (
	defaultFile = "/etc/shoal/shoald.yaml"
	maxFile     = 1 << 20 // bytes of a configuration file
)

// loadFile reads the configuration file into c; read says whether there was one.
// Only the default one may be absent.
func loadFile(name string, isNamed bool, c *config) (read bool, err error) {
	f, err := os.Open(name) //nolint:gosec // the owner names the file
	if errors.Is(err, fs.ErrNotExist) && !isNamed {
		return false, nil
	}
	if err != nil {
		return false, usageError{fmt.Errorf("read configuration: %w", err)}
	}
	defer f.Close() //nolint:errcheck // only read
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return false, usageError{fmt.Errorf("read configuration: %w", err)}
	}
	if err := parseFile(raw, c); err != nil {
		return false, usageError{fmt.Errorf("%s: %w", name, err)}
	}
	return true, nil
}

// parseFile reads YAML into c, which holds the defaults before. The first thing that
// is wrong is returned as "line 7: KEY: WHY".
func parseFile(raw []byte, c *config) error {
	if len(raw) > maxFile {
		return fmt.Errorf("is larger than %d KiB", maxFile>>10)
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // nothing but comments
	case err != nil:
		return badYAML(err)
	}
	switch err := dec.Decode(&more); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return badYAML(err)
	default:
		return fmt.Errorf("line %d: a second document; the file holds one", more.Line)
	}
	top := doc.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return nil
	}
	return (&reader{c: c}).group("", top)
}

var yamlLine = regexp.MustCompile(`^yaml: (?:unmarshal errors:\s*)?line (\d+): (?s:(.*))$`)

// badYAML puts the parser's errors into our form.
func badYAML(err error) error {
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf("line %s: not YAML: %s", m[1], m[2])
	}
	return fmt.Errorf("not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
}

// reader walks the file and fills c.
type reader struct{ c *config }

// group reads a map whose keys are settings or groups of them; at is its own key with
// a dot, "" at the top.
func (r *reader) group(at string, n *yaml.Node) error {
	if at != "" && n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil // all of its keys are commented
	}
	if n.Kind != yaml.MappingNode || n.Tag != "!!map" {
		if at == "" {
			return fmt.Errorf("line %d: must be keys and values, like \"name: osaka\", got %s", n.Line, kindOf(n))
		}
		return wrong(n, strings.TrimSuffix(at, "."), "must be keys and values, got "+kindOf(n))
	}
	return each(n, at, func(key, value *yaml.Node) error {
		name := at + key.Value
		for i := range settings {
			if settings[i].key == name {
				return r.setting(&settings[i], key, value)
			}
			if strings.HasPrefix(settings[i].key, name+".") {
				return r.group(name+".", value)
			}
		}
		return fmt.Errorf("line %d: unknown key %s%s", key.Line, clip(name), meant(name))
	})
}

// each calls fn with every key of a map and its value; what is no text or there twice
// is no key.
func each(n *yaml.Node, at string, fn func(key, value *yaml.Node) error) error {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Tag != "!!str" || key.Anchor != "" {
			return fmt.Errorf("line %d: a key must be plain text, got %s", key.Line, kindOf(key))
		}
		if first, twice := seen[key.Value]; twice {
			return wrong(key, at+key.Value, fmt.Sprintf("is there twice, first in line %d", first))
		}
		seen[key.Value] = key.Line
		if err := fn(key, value); err != nil {
			return err
		}
	}
	return nil
}

// setting reads one value. Everything is judged as soon as it is set: the defaults
// are right, so what is wrong now is wrong by this line.
func (r *reader) setting(s *setting, key, n *yaml.Node) error {
	switch {
	case s.form == list && n.Kind == yaml.SequenceNode && n.Tag == "!!seq":
		for _, item := range n.Content {
			if err := r.scalar(s, s.key, item, ""); err != nil {
				return err
			}
		}
		return nil
	case s.form == pairs:
		if n.Kind != yaml.MappingNode || n.Tag != "!!map" {
			return wrong(n, s.key, "must be keys and values, like "+s.example+", got "+kindOf(n))
		}
		return each(n, s.key+".", func(k, v *yaml.Node) error {
			return r.scalar(s, s.key+"."+k.Value, v, k.Value+"=")
		})
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		n.Line = key.Line // an empty value is told where the key is
	}
	return r.scalar(s, s.key, n, "")
}

// scalar sets one value, after prefix.
func (r *reader) scalar(s *setting, key string, n *yaml.Node, prefix string) error {
	if n.Kind != yaml.ScalarNode || n.Anchor != "" || !fits(s.form, n.Tag) {
		return wrong(n, key, "must be "+wants(s.form)+", got "+kindOf(n))
	}
	err := s.set(r.c, prefix+n.Value)
	if err == nil {
		err = r.c.Validate()
	}
	if invalid, ok := errors.AsType[*shoal.InvalidError](err); ok {
		return wrong(n, key, invalid.Why)
	}
	if err != nil {
		return wrong(n, key, err.Error())
	}
	return nil
}

// fits reports whether a scalar of this YAML type may be written for a form. Numbers
// and sizes are read from the text, so "0.5" in quotes is as good; so is a label's
// value 12.
func fits(f form, tag string) bool {
	switch f {
	case truth:
		return tag == "!!bool" || tag == "!!str" // the error says what is there
	case number, size, period:
		return tag == "!!str" || tag == "!!int" || tag == "!!float"
	case pairs:
		return tag == "!!str" || tag == "!!int" || tag == "!!float" || tag == "!!bool"
	default:
		return tag == "!!str"
	}
}

func wants(f form) string {
	switch f {
	case truth:
		return "true or false"
	case number:
		return "a number"
	case size:
		return "a size like 512MiB"
	case period:
		return "a duration like 30s"
	case list:
		return "text or a list of texts"
	default:
		return "text"
	}
}

// kindOf names what a node is.
func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return "an anchor or alias"
	case n.Kind == yaml.MappingNode:
		return "keys and values"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + clip(n.Value) + " (text goes in quotes)"
	case "!!bool":
		return clip(n.Value)
	case "!!str":
		return clip(n.Value)
	}
	return "a value of type " + clip(n.Tag)
}

func wrong(n *yaml.Node, key, why string) error {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" && strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
		key = clip(key)
	}
	return fmt.Errorf("line %d: %s: %s", n.Line, key, why)
}

// clip quotes what somebody wrote, and not all of it if it is long.
func clip(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return fmt.Sprintf("%q...", string(r[:most]))
	}
	return fmt.Sprintf("%q", s)
}

// meant returns what was probably meant by an unknown key: the key of a flag, or one
// that is near.
func meant(name string) string {
	var names []string
	for i := range settings {
		s := &settings[i]
		if s.flag == name {
			return fmt.Sprintf("; did you mean %q?", s.key)
		}
		names = append(names, s.key)
		if group, _, ok := strings.Cut(s.key, "."); ok {
			names = append(names, group)
		}
	}
	if near := nearest(names, name); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; see shoald --help"
}
