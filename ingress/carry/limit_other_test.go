// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package carry

import "testing"

// openFiles returns how many this process may have open, for all that is known.
func openFiles(testing.TB) int { return 2000 }
