// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package driver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/shoalnet/shoal/lab/topology"
)

// Spawn believes a driver what it says, and tells how one ended that says nothing.
func TestSpawn(t *testing.T) {
	for _, x := range []struct {
		name, script string
		said         []string
		fails        string // "": it is up
	}{
		{"it comes up", `cat >order; echo '{"say": "booting h1"}'; echo '{"up": true}'`, []string{"booting h1"}, ""},
		{"it cannot", `echo '{"say": "booting h1"}'; echo '{"error": {"kind": "refused", "text": "no room"}}'`, []string{"booting h1"}, "no room"},
		{"it crashes", `echo 'panic: oh' >&2; exit 2`, nil, `the driver ended: exit status 2; it said "panic: oh"`},
		{"it is killed", `kill -KILL $$`, nil, "the driver ended: signal: killed"},
		{"it says nonsense", `echo nonsense`, nil, "the driver said what is not understood"},
		{"it ends in silence", `true`, nil, "the driver ended before the lab was up"},
	} {
		dir := t.TempDir()
		var said []string
		err := Spawn(t.Context(), []string{"/bin/sh", "-c", "cd " + dir + "; " + x.script}, &Order{Name: "x"}, func(line string) { said = append(said, line) })
		if (err == nil) != (x.fails == "") || err != nil && !strings.Contains(err.Error(), x.fails) || !slices.Equal(said, x.said) {
			t.Errorf("%s: %v after %q, want %q after %q", x.name, err, said, x.fails, x.said)
		}
		if x.fails == "" {
			var got Order
			text, err := os.ReadFile(filepath.Join(dir, "order"))
			if err != nil || json.Unmarshal(text, &got) != nil || got.Name != "x" {
				t.Errorf("%s: the order is %q, %v", x.name, text, err)
			}
		}
	}
}

// A driver that is called off may clean up, and is waited for.
func TestSpawnCalledOff(t *testing.T) {
	file := filepath.Join(t.TempDir(), "left")
	ctx, cancel := context.WithCancel(t.Context())
	script := `touch ` + file + `; trap 'rm ` + file + `; exit 1' TERM; echo '{"say": "booting h1"}'; while :; do sleep 0.01; done`
	err := Spawn(ctx, []string{"/bin/sh", "-c", script}, &Order{}, func(string) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Spawn, called off = %v", err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it did not wait for the driver to clean up: %v", err)
	}
}

func TestSpawnNothing(t *testing.T) {
	if err := Spawn(t.Context(), []string{"/none"}, &Order{}, nil); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("Spawn of no program = %v", err)
	}
}

// closer is where a driver says how far it is.
type closer struct{ bytes.Buffer }

func (c *closer) Close() error { return nil }

// A driver says in one line why there is no lab.
func TestDriveRefuses(t *testing.T) {
	order := func(o Order) string {
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, x := range []struct{ name, in, says, kind string }{
		{"no order", "", "read the order: EOF", ""},
		{"nonsense", "[", "read the order: ", ""},
		{"no topology", order(Order{Name: "x"}), "the topology: it is empty", ""},
		{"a name that is none", order(Order{Name: "../x", Topology: topology.LAN(1).YAML(), Init: []string{"/none"}}), `no lab can be called "../x"`, KindUsage},
	} {
		var out closer
		err := Drive(t.Context(), strings.NewReader(x.in), &out)
		var w word
		if jsonErr := json.Unmarshal(out.Bytes(), &w); jsonErr != nil || w.Error == nil {
			t.Errorf("%s: it says %q, %v", x.name, &out, jsonErr)
			continue
		}
		if err == nil || !strings.HasPrefix(w.Error.Text, x.says) || strings.Contains(w.Error.Text, "\n") || w.Error.Kind != x.kind {
			t.Errorf("%s: %v; it says %+v, want a line with %q of the kind %q", x.name, err, w.Error, x.says, x.kind)
		}
	}
}
