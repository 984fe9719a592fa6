// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !failpoint

package gossip

// killer hooks nothing: only a build with the tag failpoint kills itself.
func killer() hooks { return hooks{} }
