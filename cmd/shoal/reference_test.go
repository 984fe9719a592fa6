// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReferenceIsCurrent: docs/cli.md is what the commands say.
func TestReferenceIsCurrent(t *testing.T) {
	var b strings.Builder
	if err := reference(&b, plainApp().root()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(got), "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Errorf("docs/cli.md is not what the commands say; run \"make docs\" (-file +now):\n%s", diff)
	}
	for _, want := range []string{"## shoal deploy", "## shoal token create", "`--ack` INT", "shoal scale web=10", "`ports[]?.{container, protocol, host_ip?, host_port?, host?}`", "`cpu_free_milli?`", "| `token ls` | `id`", "`slots[]: as ps`"} {
		if !strings.Contains(b.String(), strings.ReplaceAll(want, "` INT", " INT`")) {
			t.Errorf("the reference does not have %q", want)
		}
	}
	if strings.Contains(b.String(), "print-reference") {
		t.Error("the reference shows a hidden flag")
	}
}

// plainApp is the command in an empty environment.
func plainApp() *app { return &app{env: map[string]string{}} }
