// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"fmt"
	"testing"
)

// A tail keeps whole lines, the newest, and no more than it may.
func TestTailKeepsTheNewestLines(t *testing.T) {
	var tail Tail
	for i := range 200_000 {
		if n, err := fmt.Fprintf(&tail, "line %06d\n", i); n != 12 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	got := tail.Lines()
	if len(got) > tailBytes || len(got) < tailBytes-12 || len(got)%12 != 0 {
		t.Errorf("Lines has %d bytes, want whole lines of nearly %d", len(got), tailBytes)
	}
	if !bytes.HasSuffix(got, []byte("line 199999\n")) || !bytes.HasPrefix(got, []byte("line ")) {
		t.Errorf("Lines = %q ... %q", got[:12], got[len(got)-12:])
	}
}
