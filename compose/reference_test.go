// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReference: the committed page is what the table says.
func TestReference(t *testing.T) {
	var want bytes.Buffer
	if err := Reference(&want); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../docs/compose.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("docs/compose.md is not what the table says; run make docs (want -, got +):\n%s", diff)
	}
}

// TestTable: each key is there once, below keys that are walked, and says why.
func TestTable(t *testing.T) {
	if len(table) != len(rows) {
		t.Errorf("the table has %d rows and %d keys: some key is there twice", len(rows), len(table))
	}
	for _, r := range rows {
		if r.why == "" && r.verdict != supported && r.verdict != inner {
			t.Errorf("%s does not say why it is refused or harmless", r.path)
		}
		above := r.path[:max(0, strings.LastIndexByte(r.path, '.'))]
		above = strings.TrimSuffix(above, ".*")
		if above != "" && (table[above] == nil || table[above].verdict != supported) {
			t.Errorf("%s can never be reached: what stands above it is not walked", r.path)
		}
	}
}
