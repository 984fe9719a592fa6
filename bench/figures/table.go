// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package figures

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Row is one measurement.
type Row struct {
	Group   string `json:"group"` // rows of one group share a note
	What    string `json:"what"`
	Peers   int    `json:"peers"`
	Samples int    `json:"samples"`
	Unit    Unit   `json:"unit"`
	P50     Figure `json:"p50"`
	P99     Figure `json:"p99"`
	Beside  string `json:"beside,omitempty"` // what it is compared with
	Other   Figure `json:"other"`            // the p50 of that, in this run
	Ratio   Figure `json:"ratio"`            // P50 to Other
	Aim     string `json:"aim,omitempty"`
	Met     string `json:"met,omitempty"`     // "yes", "no"; "": no aim that a machine can judge
	Missing string `json:"missing,omitempty"` // why it was not measured
}

// NewRow makes a row of a series.
func NewRow(group, what string, peers int, s *Series, unit Unit) Row {
	return Row{
		Group: group, What: what, Peers: peers, Samples: s.Len(), Unit: unit,
		P50: Of(s.At(50), unit), P99: Of(s.At(99), unit),
	}
}

// NotMeasured makes a row that says why there is nothing.
func NotMeasured(group, what string, peers int, why string) Row {
	return Row{Group: group, What: what, Peers: peers, Missing: why}
}

// Against returns the row beside another figure of the same run.
func (r Row) Against(what string, other Figure) Row {
	r.Beside, r.Other = what, other
	if other.Taken && other.Value > 0 {
		r.Ratio = Of(r.P50.Value/other.Value, Plain)
	}
	return r
}

// Aims returns the row with an aim and whether it was met.
func (r Row) Aims(aim string, met bool) Row {
	r.Aim, r.Met = aim, "no"
	if met {
		r.Met = "yes"
	}
	return r
}

// Table is what one run found.
type Table struct {
	Machine Machine           `json:"machine"`
	Run     string            `json:"run"` // "quick" or "full"
	Rows    []Row             `json:"rows"`
	Notes   map[string]string `json:"notes"` // by group: what exactly was measured
}

// Formats that Write knows.
const (
	Text     = "table"
	Markdown = "markdown"
	JSON     = "json"
)

// Write prints the table in a format.
func (t *Table) Write(w io.Writer, format string) error {
	switch format {
	case Text:
		return t.text(w)
	case Markdown:
		return t.markdown(w)
	case JSON:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(t)
	}
	return fmt.Errorf("unknown format %q; use %s, %s or %s", format, Text, Markdown, JSON)
}

var header = []string{"what", "peers", "n", "p50", "p99", "beside", "ratio", "aim", "met"}

func (r *Row) cells() []string {
	if r.Missing != "" {
		return []string{r.What, count(r.Peers), "-", "not measured: " + r.Missing, "", "", "", "", ""}
	}
	beside := "-"
	if r.Beside != "" {
		beside = r.Beside + " " + r.Other.String()
	}
	return []string{
		r.What, count(r.Peers), count(r.Samples), r.P50.String(), r.P99.String(),
		beside, r.Ratio.String(), cmp.Or(r.Aim, "-"), cmp.Or(r.Met, "-"),
	}
}

func count(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

// groups returns the groups in the order of their first rows.
func (t *Table) groups() []string {
	var out []string
	for i := range t.Rows {
		if g := t.Rows[i].Group; !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}

func (t *Table) text(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "bench %s on %s\n\n", t.Run, t.Machine); err != nil {
		return err
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells []string) {
		_, _ = fmt.Fprintln(out, strings.TrimRight(strings.Join(cells, "\t"), "\t")) // Flush says it
	}
	upper := make([]string, len(header))
	for i, h := range header {
		upper[i] = strings.ToUpper(h)
	}
	line(upper)
	for i := range t.Rows {
		line(t.Rows[i].cells())
	}
	if err := out.Flush(); err != nil {
		return err
	}
	for _, g := range t.groups() {
		if _, err := fmt.Fprintf(w, "\n%s: %s", g, t.Notes[g]); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w)
	return err
}

func (t *Table) markdown(w io.Writer) error {
	lines := []string{
		fmt.Sprintf("`make bench BENCH=%s` on %s:", t.Run, t.Machine), "",
		"| " + strings.Join(header, " | ") + " |", strings.Repeat("|---", len(header)) + "|",
	}
	for i := range t.Rows {
		cells := t.Rows[i].cells()
		for j := range cells {
			cells[j] = strings.ReplaceAll(cells[j], "|", `\|`)
		}
		lines = append(lines, "| "+strings.Join(cells, " | ")+" |")
	}
	lines = append(lines, "")
	for _, g := range t.groups() {
		lines = append(lines, "* *"+g+"*: "+t.Notes[g])
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}
