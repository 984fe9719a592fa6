// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal"
)

// fail is an error about a line.
func (p *parser) fail(line int, format string, args ...any) error {
	return &shoal.InvalidError{Field: fmt.Sprintf("%s:%d:", p.file, max(line, 1)), Why: fmt.Sprintf(format, args...)}
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// syntax puts the library's error into our form.
func (p *parser) syntax(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		text = strings.Replace(text, m[0], "", 1)
		_, _ = fmt.Sscan(m[1], &line) // digits, or too many of them
	}
	text, _, _ = strings.Cut(text, "\n")
	return p.fail(line, "is not YAML: %s", text)
}

// plain refuses what makes a file say other than what stands there.
func (p *parser) plain(n *yaml.Node) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return p.fail(n.Line, "anchors and aliases are not allowed in a policy")
	}
	return nil
}

// mapping calls fn for every key of a mapping, in the file's order.
func (p *parser) mapping(what string, n *yaml.Node, fn func(key string, k, v *yaml.Node) error) error {
	if err := p.plain(n); err != nil {
		return err
	}
	if n.Kind != yaml.MappingNode {
		return p.fail(n.Line, "%s must be of the form KEY: VALUE, got %s", what, describe(n))
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key, err := p.text(what, k)
		if err != nil {
			return err
		}
		if seen[key] {
			return p.fail(k.Line, "key %q stands there twice", key)
		}
		seen[key] = true
		if err := p.plain(v); err != nil {
			return err
		}
		if err := fn(key, k, v); err != nil {
			return err
		}
	}
	return nil
}

// list calls fn for every entry of a list.
func (p *parser) list(key string, n *yaml.Node, fn func(*yaml.Node) error) error {
	if n.Kind != yaml.SequenceNode {
		return p.fail(n.Line, "%s must be a list, got %s", key, describe(n))
	}
	for _, one := range n.Content {
		if err := p.plain(one); err != nil {
			return err
		}
		if err := fn(one); err != nil {
			return err
		}
	}
	return nil
}

// text reads a word. A number is one, too: groups have numbers.
func (p *parser) text(what string, n *yaml.Node) (string, error) {
	if err := p.plain(n); err != nil {
		return "", err
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" && n.ShortTag() != "!!int" {
		return "", p.fail(n.Line, "%s: must be text, got %s", what, describe(n))
	}
	return n.Value, nil
}

func (p *parser) flag(key string, n *yaml.Node) (bool, error) {
	var on bool
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Decode(&on) != nil {
		return false, p.fail(n.Line, "%s: must be true or false, got %s", key, describe(n))
	}
	return on, nil
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" && n.Anchor == ""
}

// describe names what stands there in a few words.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "keys and values"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Value == "":
		return "nothing"
	}
	return fmt.Sprintf("%.60q", n.Value)
}
