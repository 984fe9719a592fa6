// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package carry

import (
	"syscall"
	"testing"
)

// openFiles returns how many this process may have open.
func openFiles(t testing.TB) int {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	return int(min(uint64(l.Cur), 1<<20))
}
