// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing in a Compose file that stands in the way, or that does nothing.
type Problem struct {
	File string `json:"file,omitempty"` // as it was named; "stdin" for "-"
	Line int    `json:"line,omitempty"` // from 1; 0: of no one line
	Key  string `json:"key,omitempty"`  // "services.web.ports[0]"; "": the file as a whole
	Why  string `json:"why"`            // why, and what to do
}

// String returns "FILE:LINE: KEY: WHY" without the parts that are not there.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	return b.String() + p.Why
}

// Error is all that is wrong with the files of one project, in their order. Nothing
// of the project is to be used.
type Error struct{ Problems []Problem }

// Error returns the problems, one a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// maxProblems is how many problems are named: more than a person's file has.
const maxProblems = 500

// problems collects what is wrong with some files.
type problems struct {
	order []string // of the files
	all   []Problem
}

func (p *problems) add(in ...Problem) { p.all = append(p.all, in...) }

// addNew adds what is about other places than what was found before, which has said
// it better.
func (p *problems) addNew(in []Problem) {
	before := p.all
	for _, q := range in {
		if q.Key == "" || !slices.ContainsFunc(before, func(o Problem) bool { return o.File == q.File && o.Line == q.Line && o.Key == q.Key }) {
			p.add(q)
		}
	}
}

// err returns what was collected as one error, by file and line, each once; nil if
// that is nothing.
func (p *problems) err() error {
	if len(p.all) == 0 {
		return nil
	}
	slices.SortStableFunc(p.all, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(slices.Index(p.order, a.File), slices.Index(p.order, b.File)), cmp.Compare(a.Line, b.Line))
	})
	all := slices.Compact(p.all)
	if more := len(all) - maxProblems; more > 0 {
		all = append(all[:maxProblems:maxProblems], Problem{Why: fmt.Sprintf("and %d more", more)})
	}
	return &Error{Problems: all}
}
