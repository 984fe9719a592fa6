// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package drive

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fake returns a client of a command that prints a text whatever it is asked.
func fake(t *testing.T, text string) Client {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "shoal")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\ncat <<'X'\n"+text+"\nX\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return Client{Bin: bin, Socket: "/none"}
}

func TestToken(t *testing.T) {
	for _, c := range []struct{ out, want string }{
		{"shoal join shoal1-abc\n", "shoal1-abc"},
		{"shoal1-abc", "shoal1-abc"},
		{"no such thing", ""},
	} {
		got, err := Token(c.out)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("Token(%q) = %q, %v, want %q", c.out, got, err, c.want)
		}
	}
}

func TestStatus(t *testing.T) {
	c := fake(t, `{"server": {"self": "a", "freshness": {"heard": 3}, "store": {"refused": {"x": 2, "y": 5}}}}`)
	s, err := c.Status(t.Context())
	if err != nil || s.Self != "a" || s.Freshness.Heard != 3 || s.Refusals() != 7 {
		t.Errorf("Status() = %+v, %v", s, err)
	}
	if err := c.Heard(t.Context(), 3, time.Minute); err != nil {
		t.Errorf("Heard(3) = %v", err)
	}
	if err := c.Heard(t.Context(), 4, time.Millisecond); err == nil || !strings.Contains(err.Error(), "it hears 3") {
		t.Errorf("Heard(4) = %v", err)
	}
	if _, err := fake(t, "no json").Status(t.Context()); err == nil {
		t.Error("nonsense was read")
	}
}

func TestExact(t *testing.T) {
	const two = `[{"service": "web", "slot": 0, "state": "ready", "peer_name": "a"}, {"service": "web", "slot": 1, "state": "ready", "peer_name": "b"}]`
	for _, c := range []struct {
		name, text string
		lost       []string
		n          int
		why        string // "": it is exact
	}{
		{"exact", two, nil, 2, ""},
		{"one is lost", two, []string{"b"}, 1, ""},
		{"too many", two, nil, 1, "2 replicas in 2 slots"},
		{"two in a slot", strings.ReplaceAll(two, `"slot": 1`, `"slot": 0`), nil, 2, "2 replicas in 1 slots"},
		{"not ready", strings.Replace(two, "ready", "starting", 1), nil, 2, "web/0 is starting"},
		{"silent", strings.Replace(two, "ready", "silent", 1), nil, 1, ""},
	} {
		rows, err := fake(t, c.text).Exact(t.Context(), "web", c.n, time.Millisecond, c.lost...)
		switch {
		case c.why == "" && (err != nil || len(rows) != c.n):
			t.Errorf("%s: %d rows, %v", c.name, len(rows), err)
		case c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)):
			t.Errorf("%s: %v, want %q", c.name, err, c.why)
		}
	}
}

func TestKnown(t *testing.T) {
	c := fake(t, `[{"name": "a", "state": "alive"}, {"name": "b", "state": "alive"}, {"name": "c", "state": "silent"}]`)
	if err := c.Known(t.Context(), []string{"a", "b"}, time.Minute); err != nil {
		t.Errorf("Known(a b) = %v", err)
	}
	for _, absent := range []string{"c", "d"} {
		if err := c.Known(t.Context(), []string{"a", absent}, time.Millisecond); err == nil || !strings.Contains(err.Error(), "does not know "+absent) {
			t.Errorf("Known(a %s) = %v", absent, err)
		}
	}
}

func TestUntil(t *testing.T) {
	tries := 0
	if err := Until(t.Context(), time.Minute, "it is so", func() error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	}); err != nil || tries != 3 {
		t.Errorf("Until = %v after %d tries", err, tries)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	never := errors.New("never")
	if err := Until(ctx, time.Minute, "it is so", func() error { return never }); !errors.Is(err, never) || !strings.Contains(err.Error(), "it is so") {
		t.Errorf("Until, called off = %v", err)
	}
}

func TestCapture(t *testing.T) {
	out, err := Capture(exec.CommandContext(t.Context(), "sh", "-c", "echo said; echo why >&2; exit 3"))
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 || out != "said\n" || !strings.Contains(err.Error(), "why") {
		t.Errorf("Capture = %q, %v", out, err)
	}
}
