// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package carry

// isRace: the detector has a share of every goroutine's memory.
const isRace = false
