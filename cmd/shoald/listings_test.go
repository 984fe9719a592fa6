// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/rogpeppe/go-internal/testscript"
)

// listing is one question about the cluster that every peer must answer alike.
type listing struct {
	args string
	// keys are the fields of a JSON answer that do not depend on who is asked; a field
	// with a dot is one of an object, or of each item of a list.
	keys []string
	own  string // what the asked peer itself saw, so others do not say the same: a word of it
	exit int    // of the command
}

var allListings = []listing{
	{args: "ls", keys: []string{"name", "mode", "project", "image", "replicas", "ready", "unplaced", "revision"}},
	{args: "ps", keys: []string{"service", "slot", "state", "image", "revision", "current"}},
	{args: "peer ls", keys: []string{"id", "name", "state", "role", "labels"}},
	{args: "inspect web", keys: []string{"name", "replicas", "spec", "heads", "slots.slot", "slots.state", "placement.peer_name", "placement.feasible"}},
	{args: "peer inspect c", keys: []string{"id", "name", "state", "role", "labels", "slots"}},
	{args: "explain api", keys: []string{"name", "never", "slots.slot", "placement.reason"}},
	{args: "explain web", keys: []string{"name", "slots.slot", "slots.proposed", "slots.holders", "placement.peer_name", "placement.feasible"}},
	{args: "explain web/1", keys: []string{"name", "slots.slot", "slots.proposed", "slots.holders", "placement.peer_name", "placement.feasible"}},
	{args: "top", keys: []string{"peers.name", "peers.state", "peers.replicas", "peers.ready", "services.name", "services.replicas", "services.phases"}},
	{args: "top peers --once", keys: []string{"name", "state", "replicas", "phases"}},
	{args: "top services --sort name", keys: []string{"name", "replicas", "phases"}},
	{args: "inspect web api", keys: []string{"name", "project", "mode", "ports", "unplaced"}},
	{args: "network ls", keys: []string{"name", "projects", "services", "peers"}},
	{args: "network inspect shop_back", keys: []string{"name", "services.service", "services.aliases", "services.names"}},
	{args: "token ls", keys: []string{"id", "issuer", "role", "expires", "uses", "used", "state"}},
	{args: "events", keys: []string{"kind", "service"}, own: "  web "},
	{args: "events --since 1h -n 2 --filter service=web", keys: []string{"kind", "service"}, own: "  web "},
	{args: "version", keys: []string{"client", "server.cluster", "server.self", "server.version"}, own: "Cluster"},
	{args: "doctor a", keys: []string{"peer_name", "area", "check", "state"}, own: "WHAT TO DO", exit: 1}, // there is no engine
}

// cmdListings asks each named daemon for every listing, in a pipe: it exits as it should,
// what it prints has no control characters, the JSON has the same rows everywhere, and
// the end says that the peer SILENT, and nobody else, is silent (-: that nobody is).
//
//	listings SILENT NAME...
func cmdListings(ts *testscript.TestScript, _ bool, args []string) {
	end := regexp.MustCompile(`\A\z`)
	if args[0] != "-" {
		end = regexp.MustCompile(fmt.Sprintf(`\Aview: \d/3 peers, oldest [0-9.]+s; %s silent [0-9.]+(s|m)\n\z`, args[0]))
	}
	for _, l := range allListings {
		var first []string
		for _, name := range args[1:] {
			cmdOn(ts, false, []string{name})
			table := ask(ts, l, "table", end)
			if !bytes.Contains(table, []byte(l.own)) {
				ts.Fatalf("shoal %s on %s says nothing of %q:\n%s", l.args, name, l.own, table)
			}
			rows := rowsOf(ts, l, ask(ts, l, "json", end))
			if len(rows) == 0 {
				ts.Fatalf("shoal %s on %s has no rows", l.args, name)
			}
			if first == nil {
				first = rows
			}
			if l.own == "" && !slices.Equal(rows, first) {
				ts.Fatalf("shoal %s on %s = %s\nand on %s = %s", l.args, name, strings.Join(rows, "\n"), args[1], strings.Join(first, "\n"))
			}
		}
	}
}

// ask runs one listing and checks what every form of it must be.
func ask(ts *testscript.TestScript, l listing, form string, end *regexp.Regexp) []byte {
	what := fmt.Sprintf("shoal %s -o %s", l.args, form)
	if code := run(ts, append(append([]string{"shoal"}, strings.Fields(l.args)...), "-o", form)); code != l.exit {
		ts.Fatalf("%s = exit %d, want %d", what, code, l.exit)
	}
	out, said := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	if i := strings.IndexFunc(out+said, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }); i >= 0 {
		ts.Fatalf("%s prints the control character %q into a pipe", what, (out + said)[i])
	}
	if l.own == "" && !end.MatchString(said) {
		ts.Fatalf("%s ends with %q, want %s", what, said, end)
	}
	return []byte(out)
}

// rowsOf reads a JSON answer, one array or one object a line, and returns of each row
// the fields that matter.
func rowsOf(ts *testscript.TestScript, l listing, raw []byte) []string {
	var out []string
	known := map[string]bool{}
	for dec := json.NewDecoder(bytes.NewReader(raw)); dec.More(); {
		var answer any
		ts.Check(dec.Decode(&answer))
		rows, list := answer.([]any)
		if !list {
			rows = []any{answer}
		}
		for _, row := range rows {
			picked := map[string]any{}
			for _, key := range l.keys {
				if picked[key] = field(row, key); picked[key] != nil {
					known[key] = true
				}
			}
			text, err := json.Marshal(picked) // keys in order
			ts.Check(err)
			out = append(out, string(text))
		}
	}
	for _, key := range l.keys {
		if !known[key] {
			ts.Fatalf("no row of shoal %s -o json has a %s:\n%s", l.args, key, raw)
		}
	}
	return out
}

// field returns a field of a row, or of each item of a list in it.
func field(row any, key string) any {
	fields, _ := row.(map[string]any)
	name, rest, nested := strings.Cut(key, ".")
	if !nested {
		return fields[name]
	}
	items, list := fields[name].([]any)
	if !list {
		return field(fields[name], rest)
	}
	out := make([]any, len(items))
	for i, item := range items {
		out[i] = field(item, rest)
	}
	return out
}
