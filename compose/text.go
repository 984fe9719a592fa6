// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// What a file may have at most. The largest in the wild have a hundredth of it; who
// wants more than this wants to harm.
const (
	maxFile    = 4 << 20 // bytes
	maxDepth   = 32      // levels, those behind aliases too
	maxAliases = 10_000
	maxValues  = 200_000 // keys and values once every alias is written out
)

// file is one parsed Compose file.
type file struct {
	name string // as shown
	dir  string // absolute: where its relative paths start
	text []byte
	root *yaml.Node // a mapping whose aliases are finite
}

// parseFile reads a file's text as YAML that is safe to walk along its aliases. With
// a problem the root may be nil, or such that it must not be walked.
func parseFile(name, dir string, text []byte) (*file, []Problem) {
	f := &file{name: name, dir: dir, text: text}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF) || err == nil && doc.Content[0].Tag == "!!null":
		return f, []Problem{{File: name, Why: "the file is empty"}}
	case err != nil:
		return f, []Problem{f.unreadable(err)}
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return f, []Problem{{File: name, Line: second.Line, Why: "there is a second document (---); make it a file of its own and name both with -f"}}
	}
	if doc.Content[0].Kind != yaml.MappingNode {
		return f, []Problem{{File: name, Line: doc.Content[0].Line, Why: "a Compose file is a mapping with services in it"}}
	}
	m := &measure{file: name, sizes: map[*yaml.Node]size{}}
	m.of(doc.Content[0], 1)
	if len(m.found) > 0 {
		return f, m.found
	}
	f.root = doc.Content[0]
	return f, nil
}

// yamlLine is how the reader says where it stopped.
var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// unreadable puts the reader's words into ours.
func (f *file) unreadable(err error) Problem {
	for i, line := range strings.Split(string(f.text), "\n") {
		if strings.ContainsRune(line[:len(line)-len(strings.TrimLeft(line, " \t"))], '\t') {
			return Problem{File: f.name, Line: i + 1, Why: "a tab stands where the line begins; YAML wants spaces"}
		}
	}
	p := Problem{File: f.name, Why: "is not YAML: " + err.Error()}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
		p.Why = "is not YAML: " + m[2]
	}
	return p
}

// size is how much a node is once its aliases are written out.
type size struct {
	values, height int
	open           bool // its own content is being measured
}

// measure finds what makes a tree unfit to be walked, and keys that are there twice.
type measure struct {
	file    string
	aliases int
	sizes   map[*yaml.Node]size // of the nodes that aliases may name
	found   []Problem
}

func (m *measure) fault(n *yaml.Node, format string, args ...any) size {
	m.found = append(m.found, Problem{File: m.file, Line: n.Line, Why: fmt.Sprintf(format, args...)})
	return size{}
}

// of measures a node that stands at a depth. What aliases name is measured once.
func (m *measure) of(n *yaml.Node, depth int) size {
	if len(m.found) > 0 {
		return size{}
	}
	if n.Kind == yaml.AliasNode {
		if m.aliases++; m.aliases > maxAliases {
			return m.fault(n, "there are more than %d aliases (*name); write out what they stand for", maxAliases)
		}
		n = n.Alias
	}
	s, known := m.sizes[n]
	switch {
	case s.open:
		return m.fault(n, "the anchor &%s holds an alias of itself; take it out", n.Anchor)
	case depth+s.height > maxDepth:
		return m.fault(n, "is deeper than %d levels, aliases counted; make it flatter", maxDepth)
	case known:
		return s
	}
	if n.Anchor != "" {
		m.sizes[n] = size{open: true}
	}
	s = size{values: 1}
	for _, c := range n.Content {
		inner := m.of(c, depth+1)
		s.values += inner.values
		s.height = max(s.height, inner.height+1)
		if s.values > maxValues {
			return m.fault(n, "is more than %d values once its aliases are written out; use fewer", maxValues)
		}
	}
	if n.Kind == yaml.MappingNode {
		m.keys(n)
	}
	if n.Anchor != "" {
		m.sizes[n] = s
	}
	return s
}

// keys finds keys that are there twice, and those that are no text.
func (m *measure) keys(n *yaml.Node) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch first, twice := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			m.fault(key, "a key must be text")
		case twice:
			m.fault(key, "the key %q is there twice, first in line %d; remove one", key.Value, first)
		}
		seen[key.Value] = key.Line
	}
}

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// pairs calls fn for the keys of a mapping, those merged into it with << too.
func pairs(n *yaml.Node, fn func(key, value *yaml.Node)) {
	n = follow(n)
	if n.Kind == yaml.SequenceNode { // of a merge
		for _, c := range n.Content {
			pairs(c, fn)
		}
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag == "!!merge" {
			pairs(n.Content[i+1], fn)
			continue
		}
		fn(n.Content[i], n.Content[i+1])
	}
}

// child returns the key and the value of a mapping's key; a key of its own counts
// more than a merged one.
func child(n *yaml.Node, name string) (key, value *yaml.Node) {
	n = follow(n)
	pairs(n, func(k, v *yaml.Node) {
		if k.Value != name {
			return
		}
		if own := key == nil; own || isOwn(n, k) {
			key, value = k, v
		}
	})
	return key, value
}

func isOwn(n, key *yaml.Node) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i] == key {
			return true
		}
	}
	return false
}

// empty reports whether a value says nothing: null, {} or []; or undoes what an
// earlier file said.
func empty(n *yaml.Node) bool {
	n = follow(n)
	return n.Tag == "!!null" || n.Tag == "!reset" || (n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode) && len(n.Content) == 0
}
