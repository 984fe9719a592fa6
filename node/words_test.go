// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

func TestWordsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "words.json")
	f := wordsFile(path)
	if got, err := f.Load(); err != nil || got != nil {
		t.Errorf("Load without a file = %v, %v; want none", got, err)
	}
	want := []shoal.LastWords{{
		Service: "web", Slot: 1, Replica: shoal.ReplicaID{7}, Revision: shoal.RevisionID{Seq: 3, Author: "a"}, Time: time.Unix(1_700_000_000, 0).UTC(),
		Reason: "exited with code 1", Check: "no answer", Lines: []string{"a", "b"},
	}}
	for range 2 {
		if err := f.Save(want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.Load()
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Load: %v, differs (-want +got):\n%s", err, diff)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file %v, %v; want it for its owner only", info, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Load(); err == nil {
		t.Errorf("Load of a torn file = %v, want an error", got)
	}
	if err := os.Truncate(path, maxWordsFile+1); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Load(); err == nil {
		t.Errorf("Load of a large file = %v, want an error", got)
	}
	if err := f.Save(nil); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Load(); err != nil || len(got) != 0 {
		t.Errorf("Load of none = %v, %v", got, err)
	}
}
