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
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

const (
	defaultContext = "default" // built in: the daemon of this machine
	maxContexts    = 1 << 20   // bytes of the file
)

// contextEntry is one context: a name for a host.
type contextEntry struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Host        string `json:"host"`
}

// contextFile is what the user named, and which of it is current.
type contextFile struct {
	current string
	entries []contextEntry // by name, without the built-in one
}

// contextPath is the file, "" if this user has no place for settings.
func (a *app) contextPath() string {
	dir := a.env["XDG_CONFIG_HOME"]
	if !filepath.IsAbs(dir) {
		var err error
		if dir, err = os.UserConfigDir(); err != nil {
			return ""
		}
	}
	return filepath.Join(dir, "shoal", "contexts.yaml")
}

// contexts reads the file; none is none but the built-in one.
func (a *app) contexts() (*contextFile, error) {
	path := a.contextPath()
	f, err := os.Open(path)
	if path == "" || errors.Is(err, fs.ErrNotExist) {
		return &contextFile{current: defaultContext}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read contexts: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	raw, err := io.ReadAll(io.LimitReader(f, maxContexts+1))
	if err != nil {
		return nil, fmt.Errorf("read contexts: %w", err)
	}
	if len(raw) > maxContexts {
		return nil, usage("%s is larger than 1 MiB; correct or remove it", path)
	}
	all, err := parseContexts(raw)
	if err != nil {
		return nil, usage("%s: %w; correct it, or name a --host", path, err)
	}
	return all, nil
}

// changeContexts reads the file, lets fn change what it says, and puts the new one in
// its place, while no other shoal does the same.
func (a *app) changeContexts(fn func(*contextFile) error) error {
	path := a.contextPath()
	if path == "" {
		return errors.New("there is no place for contexts; neither XDG_CONFIG_HOME nor HOME is set; set one")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	defer func() { _ = dir.Close() }() // the lock ends with it
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock contexts: %w", err)
	}
	all, err := a.contexts()
	if err != nil {
		return err
	}
	if err := fn(all); err != nil {
		return err
	}
	if err := replace(dir, path, all.encode()); err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	return nil
}

// replace writes a file of dir whole or not at all.
func replace(dir *os.File, path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".contexts-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return dir.Sync()
}

func (f *contextFile) encode() []byte {
	body := struct {
		Current  string                       `yaml:"current"`
		Contexts map[string]map[string]string `yaml:"contexts,omitempty"`
	}{f.current, map[string]map[string]string{}}
	for _, c := range f.entries {
		body.Contexts[c.Name] = map[string]string{"host": c.Host}
		if c.Description != "" {
			body.Contexts[c.Name]["description"] = c.Description
		}
	}
	raw, err := yaml.Marshal(body)
	if err != nil { // it is made of strings
		panic(err)
	}
	return raw
}

// list returns all contexts, the built-in one first.
func (f *contextFile) list() []contextEntry {
	return append([]contextEntry{{defaultContext, "the daemon of this machine", defaultHost}}, f.entries...)
}

func (f *contextFile) find(name string) (contextEntry, error) {
	var names []string
	for _, c := range f.list() {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return contextEntry{}, &api.Error{Code: api.CodeNotFound, What: fmt.Sprintf("no context %q%s", name, didYouMean(name, names, "")), Todo: "shoal context ls lists them"}
}

// yamlLine is how the YAML library says where something is wrong.
var yamlLine = regexp.MustCompile(`^yaml: line (\d+): (?s:(.*))$`)

// parseContexts reads the file strictly: what it does not know is an error.
func parseContexts(raw []byte) (*contextFile, error) {
	out := &contextFile{current: defaultContext}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return out, nil
	} else if err != nil {
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			return nil, fmt.Errorf("line %s: not YAML: %s", m[1], m[2])
		}
		return nil, fmt.Errorf("not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("holds more than one document")
	}
	top, err := fieldsOf(doc.Content[0], "current", "contexts")
	if err != nil {
		return nil, err
	}
	if out.current, err = textOf(top["current"], defaultContext); err != nil {
		return nil, err
	}
	if named := top["contexts"]; named != nil {
		if out.entries, err = entriesOf(named); err != nil {
			return nil, err
		}
	}
	if _, err := out.find(out.current); err != nil {
		return nil, fmt.Errorf("line %d: current: there is no context %q", top["current"].Line, out.current)
	}
	return out, nil
}

func entriesOf(named *yaml.Node) ([]contextEntry, error) {
	bodies, err := fieldsOf(named)
	if err != nil {
		return nil, err
	}
	var out []contextEntry
	for name, body := range bodies {
		if err := checkContext(name); err != nil {
			return nil, fmt.Errorf("line %d: %w", body.Line, err)
		}
		parts, err := fieldsOf(body, "host", "description")
		if err != nil {
			return nil, err
		}
		c := contextEntry{Name: name}
		if c.Host, err = textOf(parts["host"], ""); err != nil {
			return nil, err
		}
		if c.Description, err = textOf(parts["description"], ""); err != nil {
			return nil, err
		}
		if c.Host == "" {
			return nil, fmt.Errorf("line %d: context %q has no host", body.Line, name)
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(x, y contextEntry) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

func checkContext(name string) error {
	if name == defaultContext {
		return usage("context %q is built in; choose another name", name)
	}
	return shoal.CheckName("context", name)
}

// fieldsOf reads a mapping of keys that are known, or of any, each there once.
func fieldsOf(n *yaml.Node, known ...string) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: must be keys and values", n.Line)
	}
	out := map[string]*yaml.Node{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch name := key.Value; {
		case key.Kind != yaml.ScalarNode:
			return nil, fmt.Errorf("line %d: a key must be plain text", key.Line)
		case out[name] != nil:
			return nil, fmt.Errorf("line %d: %s is there twice, first in line %d", key.Line, name, out[name].Line)
		case len(known) > 0 && !slices.Contains(known, name):
			return nil, fmt.Errorf("line %d: unknown key %q%s", key.Line, name, didYouMean(name, known, ""))
		default:
			out[name] = value
		}
	}
	return out, nil
}

func textOf(n *yaml.Node, otherwise string) (string, error) {
	switch {
	case n == nil:
		return otherwise, nil
	case n.Kind != yaml.ScalarNode || n.Tag != "!!str":
		return "", fmt.Errorf("line %d: must be text", n.Line)
	}
	return n.Value, nil
}
