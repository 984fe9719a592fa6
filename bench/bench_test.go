// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalnet/shoal/runtime"
)

// What is measured inside this process must go on working as the rooms change; what
// it takes is not asserted.
func TestWritesAreTakenAndSeen(t *testing.T) {
	b := &bench{effort: effort{writing: 500 * time.Millisecond}, dir: t.TempDir(), sockets: t.TempDir()}
	local, seen, err := b.writeTo(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if local.Len() != 10 || seen.Len() != 10 {
		t.Errorf("%d writes taken and %d seen, want 10", local.Len(), seen.Len())
	}
	if left, err := os.ReadDir(b.dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v is left", left, err)
	}
}

// -dir names a directory whose content goes: it must be the bench's.
func TestClaimTakesOnlyItsOwn(t *testing.T) {
	b := &bench{dir: filepath.Join(t.TempDir(), "b"), docker: runtime.DefaultHost}
	unlock, err := b.claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&bench{dir: b.dir}).claim(t.Context()); err == nil {
		t.Error("two runs got one directory")
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{b.dir, b.sockets} {
		if _, err := os.Lstat(gone); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", gone, err)
		}
	}
	other := t.TempDir()
	file := filepath.Join(other, "precious")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (&bench{dir: other}).claim(t.Context()); err == nil {
		t.Error("claimed somebody else's directory")
	}
	if _, err := os.Lstat(file); err != nil {
		t.Error(err)
	}
}
