// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux && !lab

package bridge

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
