// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// owner is a service as one file describes it; the zero service is the file's top.
type owner struct {
	file    *file
	service string
}

// finding is a key that is not simply supported.
type finding struct {
	Problem
	owner
	pattern  string
	harmless bool
	formal   bool // the value has not the form of its key
}

// walker finds out what the keys of some files are, and what services extend.
type walker struct {
	substitute func(string) (string, error)
	main       []*file
	others     map[string]*file // files that services extend from, by path
	done       map[owner]bool
	extends    map[owner]owner
	findings   []finding
	problems   []Problem
}

// maxOthers bounds the files that services extend from.
const maxOthers = 100

// walkFiles judges the keys of all files, and of what their services extend.
func walkFiles(main []*file, text func(string) (string, error)) *walker {
	w := &walker{substitute: text, main: main, others: map[string]*file{}, done: map[owner]bool{}, extends: map[owner]owner{}}
	for _, f := range main {
		w.level(owner{file: f}, f.root, "", "")
	}
	w.weigh()
	return w
}

// weigh refuses services that are more, once what they extend is written out, than
// may stand in a file.
func (w *walker) weigh() {
	weights := map[owner]int{}
	var weight func(o owner, depth int) int
	weight = func(o owner, depth int) int {
		if n, ok := weights[o]; ok || depth > len(w.extends) { // a circle is the reader's to refuse
			return n
		}
		n := 0
		if _, services := child(o.file.root, "services"); services != nil {
			if _, v := child(services, o.service); v != nil {
				n = (&measure{sizes: map[*yaml.Node]size{}}).of(v, 1).values
			}
		}
		if to, ok := w.extends[o]; ok {
			n += weight(to, depth+1)
		}
		weights[o] = min(n, maxValues+1)
		return weights[o]
	}
	total := 0
	for o := range w.extends {
		total += weight(o, 0)
	}
	if total > maxValues {
		w.problems = append(w.problems, Problem{File: w.main[0].name, Why: fmt.Sprintf("its services are more than %d values once what they extend is written out; use fewer", maxValues)})
	}
}

// level visits the keys of a mapping that stands at a pattern of the table, and at
// a path as the user wrote it.
func (w *walker) level(o owner, n *yaml.Node, pattern, path string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	pairs(n, func(key, value *yaml.Node) {
		name := key.Value
		switch {
		case pattern == "" && (name == "services" || name == "volumes" || name == "networks"):
			pairs(value, func(k, v *yaml.Node) {
				inner := o
				if name == "services" {
					inner.service = k.Value
					w.done[inner] = true
				}
				w.value(inner, v, name+".*", name+"."+k.Value)
			})
		case pattern == "services.*.networks" || pattern == "services.*.depends_on":
			w.value(o, value, pattern+".*", join(path, name))
		case strings.HasPrefix(name, "x-") && name != "x-shoal":
			// an extension of somebody else: Compose says to ignore it
		default:
			w.key(o, key, value, join(pattern, name), join(path, name))
		}
	})
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// value visits what stands behind a key: a mapping, or a list of them.
func (w *walker) value(o owner, n *yaml.Node, pattern, path string) {
	n = follow(n)
	w.level(o, n, pattern, path)
	if n.Kind == yaml.SequenceNode {
		for i, c := range n.Content {
			w.value(o, c, pattern, fmt.Sprintf("%s[%d]", path, i))
		}
	}
}

func (w *walker) key(o owner, key, value *yaml.Node, pattern, path string) {
	r := table[pattern]
	f := finding{Problem: Problem{File: o.file.name, Line: key.Line, Key: path}, owner: o, pattern: pattern}
	switch {
	case r == nil:
		f.Why = "is no key that Shoal knows; is it misspelt, or does it belong elsewhere?"
	case r.verdict == refused:
		f.Why = "is not supported: " + r.why
	case r.verdict == harmless:
		f.Why, f.harmless = "changes nothing here: "+r.why, true
	case w.formless(f, value):
		return
	case pattern == "services.*.extends":
		w.follow(o, value, key.Line)
		return
	case r.verdict == supported:
		w.value(o, value, pattern, path)
		return
	default:
		return
	}
	if f.harmless || !empty(value) {
		w.findings = append(w.findings, f)
	}
}

// formless names values that have not the form of their key.
func (w *walker) formless(f finding, value *yaml.Node) bool {
	judge := forms[f.pattern]
	if judge == nil {
		return false
	}
	found := false
	for i, why := range judgeForm(judge, value) {
		if why == "" {
			continue
		}
		found = true
		item := f
		item.Why, item.formal = why, true
		if list := follow(value); list.Kind == yaml.SequenceNode {
			item.Key, item.Line = fmt.Sprintf("%s[%d]", f.Key, i), list.Content[i].Line
		}
		w.findings = append(w.findings, item)
	}
	return found
}

// follow visits the service that another one extends.
func (w *walker) follow(o owner, value *yaml.Node, line int) {
	value = follow(value)
	to := owner{file: o.file, service: value.Value}
	if value.Kind == yaml.MappingNode {
		var name string
		if _, v := child(value, "service"); v != nil {
			to.service = w.text(follow(v).Value)
		}
		if _, v := child(value, "file"); v != nil {
			name = w.text(follow(v).Value)
		}
		if name != "" {
			if to.file = w.other(o, name, line); to.file == nil {
				return
			}
		}
	}
	w.extends[o] = to
	if w.done[to] || slices.Contains(w.main, to.file) {
		return // the file is visited whole
	}
	w.done[to] = true
	if _, services := child(to.file.root, "services"); services != nil {
		if _, v := child(services, to.service); v != nil {
			w.value(to, v, "services.*", "services."+to.service)
		}
	}
}

// text is what a scalar says once its variables are filled in.
func (w *walker) text(s string) string {
	out, err := w.substitute(s)
	if err != nil {
		return s // the reader says so
	}
	return out
}

// other reads a file that a service extends from; nil if that is a problem.
func (w *walker) other(o owner, name string, line int) *file {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(o.file.dir, name)
	}
	if f := w.others[path]; f != nil {
		return f
	}
	at := Problem{File: o.file.name, Line: line, Key: "services." + o.service + ".extends"}
	if len(w.others) >= maxOthers {
		at.Why = fmt.Sprintf("services extend from more than %d files; put what they share into fewer", maxOthers)
		w.problems = append(w.problems, at)
		return nil
	}
	text, err := readFile(path, nil)
	if err != nil {
		at.Why = err.Error()
		w.problems = append(w.problems, at)
		return nil
	}
	f, found := parseFile(name, filepath.Dir(path), text)
	w.problems = append(w.problems, found...)
	if f.root == nil {
		return nil
	}
	w.others[path] = f
	return f
}

// chain returns a service as all files describe it: the later main files first, and
// what each extends after it.
func (w *walker) chain(service string) []owner {
	var out []owner
	for i := range w.main {
		o := owner{file: w.main[len(w.main)-1-i], service: service}
		for range len(w.done) + 1 { // a circle is the reader's to refuse
			out = append(out, o)
			next, ok := w.extends[o]
			if !ok {
				break
			}
			o = next
		}
	}
	return out
}
