// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package lab_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal/internal/pack"
	"github.com/shoalnet/shoal/lab"
)

// visits returns the example's image in a tar, and its binary.
func visits(t *testing.T) (tar, program string) {
	t.Helper()
	binary, err := pack.Build(t.Context(), "../examples/visits")
	ok(t, err)
	img, err := pack.Image(binary, pack.Options{Path: "/visits"})
	ok(t, err)
	var out bytes.Buffer
	ok(t, pack.Tar(&out, "visits:1", img))
	tar, program = filepath.Join(t.TempDir(), "visits.tar"), filepath.Join(t.TempDir(), "visits")
	ok(t, os.WriteFile(tar, out.Bytes(), 0o600))
	ok(t, os.WriteFile(program, binary, 0o755)) //nolint:gosec // it is run
	return tar, program
}

// ask returns what a host's published port says, as soon as it says something that has want
// in it.
func ask(t *testing.T, l *lab.Lab, program, host, want string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		var out, bad bytes.Buffer
		err := l.Exec(ctx, host, []string{program, "ask", "http://127.0.0.1:8000/"}, lab.Streams{Out: &out, Err: &bad})
		if err == nil && strings.Contains(out.String(), want) {
			return strings.TrimSpace(out.String())
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s: %v: %q %q, want %q", host, err, out.String(), bad.String(), want)
		}
	}
}

// An unmodified Compose file of two tiers works with the tiers on different hosts: the page
// finds the store by its name, every host answers, and the store is found again after it
// moved to a third host.
func TestTwoTiers(t *testing.T) {
	tar, program := visits(t)
	l := lab.Up(t, lab.Hosts(3), lab.Images(tar))
	ctx := t.Context()
	shoal := func(argv ...string) {
		t.Helper()
		must(t)(l.Shoal(ctx, "h1", argv...))
	}
	shoal("cordon", "h2", "h3")
	shoal("deploy", "-f", "../examples/visits/compose.yaml", "-y", "redis")
	shoal("uncordon", "h2", "h3")
	shoal("cordon", "h1")
	shoal("deploy", "-f", "../examples/visits/compose.yaml", "-y")
	for i, h := range []string{"h1", "h2", "h3"} {
		if got := ask(t, l, program, h, "visit"); !strings.HasPrefix(got, fmt.Sprintf("visit %d, ", i+1)) {
			t.Errorf("%s says %q, want visit %d", h, got, i+1)
		}
	}
	if ps := must(t)(l.Shoal(ctx, "h2", "ps")); strings.Count(ps, " h1 ") != 1 {
		t.Errorf("both tiers are on one host:\n%s", ps)
	}
	shoal("drain", "h1", "--timeout", "60s")
	ask(t, l, program, "h1", "visit 1, ") // the store counts anew: it keeps numbers in memory
	ask(t, l, program, "h3", "visit 2, ")
}
