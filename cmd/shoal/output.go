// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// column is one column of a table of T.
type column[T any] struct {
	head string
	cell func(T) string
	wide bool // only with -o wide
	some bool // only if some cell is not empty
}

// table says how a listing of T is shown.
type table[T any] struct {
	columns []column[T]
	name    func(T) string // for -o name
	id      func(T) string // for -q; nil: the name
}

const templateFormat = "template="

// outputForms are the forms of -o beside templates.
var outputForms = []string{"table", "wide", "json", "yaml", "name"}

func (a *app) checkOutput() error {
	if slices.Contains(outputForms, a.output) {
		return nil
	}
	if text, ok := strings.CutPrefix(a.output, templateFormat); ok {
		_, err := a.itemTemplate(text)
		return err
	}
	return usage("--output: must be table, wide, json, yaml, name or template=..., got %q", a.output)
}

// itemTemplate is the template that writes one item a line. It is read once: a stream
// has many items.
func (a *app) itemTemplate(text string) (*template.Template, error) {
	if a.template == nil {
		t, err := template.New("output").Parse(`{{define "one"}}` + text + "\n" + `{{end}}{{range .}}{{template "one" .}}{{end}}`)
		if err != nil {
			return nil, usage("--output: %s", err)
		}
		a.template = t
	}
	return a.template, nil
}

// unnamed refuses -o name for what has no name, before anything is asked.
func (a *app) unnamed(what string) error {
	if a.output == "name" {
		return usage("--output: %s has no name; use table, json, yaml or template=...", what)
	}
	return nil
}

// forPeople reports whether -o asks for text, not for a value.
func (a *app) forPeople() bool { return a.output == "table" || a.output == "wide" }

// show writes a listing in the asked form.
func show[T any](a *app, w io.Writer, items []T, t table[T]) error {
	switch {
	case a.quiet:
		id := t.name
		if t.id != nil {
			id = t.id
		}
		return lines(w, items, id)
	case a.output == "name":
		return lines(w, items, t.name)
	case a.forPeople():
		return tabulate(w, items, t.columns, a.output == "wide")
	}
	return a.encode(w, items)
}

// encode writes a value as JSON, YAML, or by the template (a list: item by item).
func (a *app) encode(w io.Writer, v any) error {
	if text, ok := strings.CutPrefix(a.output, templateFormat); ok {
		return a.byTemplate(w, text, v)
	}
	raw, err := plainJSON(v, "  ")
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	if a.output != "yaml" {
		_, err = w.Write(raw)
		return err
	}
	var node yaml.Node // through JSON, so that names and order are the same
	if err := yaml.Unmarshal(raw, &node); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	blockStyle(&node)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&node); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return enc.Close()
}

// plainJSON encodes a value and ends the line. What is written is read by people and grep
// too: "3 -> 5" stays what it is, for nobody puts it into HTML.
func plainJSON(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	err := enc.Encode(v)
	return b.Bytes(), err
}

// streamed writes one item of a stream, which cannot be one array: as an object on a
// line of its own, as a YAML document, or by the template.
func (a *app) streamed(v any) error {
	switch a.output {
	case "json":
		raw, err := plainJSON(v, "")
		if err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		_, err = a.out.Write(raw)
		return err
	case "yaml":
		if _, err := fmt.Fprintln(a.out, "---"); err != nil {
			return err
		}
	}
	return a.encode(a.out, v)
}

// blockStyle takes JSON's brackets and quotes away.
func blockStyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		blockStyle(c)
	}
}

func (a *app) byTemplate(w io.Writer, text string, v any) error {
	t, err := a.itemTemplate(text)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	var plain any // templates use the names of the JSON too
	if err := json.Unmarshal(raw, &plain); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	if _, list := plain.([]any); !list {
		plain = []any{plain}
	}
	if err := t.Execute(w, plain); err != nil {
		return usage("--output: %s", err)
	}
	return nil
}

// lines writes one word a line; a slot without a replica has no ID to write.
func lines[T any](w io.Writer, items []T, of func(T) string) error {
	for _, it := range items {
		if of(it) == "" {
			continue
		}
		if _, err := fmt.Fprintln(w, clean(of(it))); err != nil {
			return err
		}
	}
	return nil
}

// tabulate writes a table: upper-case heads, two spaces between, no borders.
func tabulate[T any](w io.Writer, items []T, columns []column[T], wide bool) error {
	rows := [][]string{{}}
	cells := make([][]string, len(items))
	for _, c := range columns {
		if c.wide && !wide {
			continue
		}
		col, some := make([]string, len(items)), false
		for i, it := range items {
			col[i] = clean(c.cell(it))
			some = some || col[i] != ""
		}
		if c.some && !some {
			continue
		}
		rows[0] = append(rows[0], c.head)
		for i := range items {
			cells[i] = append(cells[i], cmp.Or(col[i], "-"))
		}
	}
	return align(w, append(rows, cells...))
}

// align pads all columns but the last.
func align(w io.Writer, rows [][]string) error {
	var width []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// short cuts an ID to 12 characters, without its kind of digest.
func (a *app) short(id string) string {
	if a.noTrunc {
		return id
	}
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}

// shortPeer is the end of a peer's or a cluster's ID: all begin alike.
func (a *app) shortPeer(id string) string {
	if a.noTrunc {
		return id
	}
	return shoal.PeerID(id).Short()
}

// age says how long ago something was, relative and coarse.
func age(d time.Duration) string {
	switch d = max(0, d); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// ago is age for seconds that may matter: one decimal below ten of them.
func ago(seconds float64) string {
	if seconds < 10 {
		return fmt.Sprintf("%.1fs", max(0, seconds))
	}
	return age(time.Duration(seconds * float64(time.Second)))
}

// recent is how old news may be before a listing says so.
const recent = 5.0

// freshness ends a listing when not everything was heard recently.
func (a *app) freshness(f api.Freshness) {
	if f.Trouble != "" {
		a.say("warning: this peer: %s", clean(f.Trouble))
	}
	if len(f.Silent) == 0 && f.Oldest <= recent {
		return
	}
	parts := []string{fmt.Sprintf("view: %d/%d peers, oldest %s", f.Heard, f.Members, ago(f.Oldest))}
	for _, s := range f.Silent {
		if s.Age < 0 {
			parts = append(parts, clean(s.Name)+" not heard yet")
			continue
		}
		parts = append(parts, clean(s.Name)+" silent "+ago(s.Age))
	}
	a.say("%s", strings.Join(parts, "; "))
}
