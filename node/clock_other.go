// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package node

import (
	"context"

	"github.com/shoalnet/shoal"
)

// clockChecks is known on Linux only.
func clockChecks(context.Context) []shoal.Check { return nil }
