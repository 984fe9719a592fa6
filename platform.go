// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"slices"
	"strings"
)

// Platform returns the name of a platform: "linux/amd64", "linux/arm/v7". The variant v8
// of arm64 is the only one there is, and left out.
func Platform(os, arch, variant string) string {
	if variant == "" || arch == "arm64" && variant == "v8" {
		return os + "/" + arch
	}
	return os + "/" + arch + "/" + variant
}

// Runs reports whether the peer's machine can run an image for these platforms, as far as
// both are known.
func (f *PeerFacts) Runs(platforms []string) bool {
	return len(f.Platforms) == 0 || len(platforms) == 0 || slices.ContainsFunc(f.Platforms, func(m string) bool {
		return slices.ContainsFunc(platforms, func(i string) bool { return PlatformFits(m, i) })
	})
}

// PlatformFits reports whether a machine can run what was built for a platform: the same
// one, or for a 32-bit ARM an earlier variant. A variant that one of them does not say is
// no obstacle. What is built for no platform ("") fits everywhere.
func PlatformFits(machine, image string) bool {
	if image == "" || machine == image {
		return true
	}
	m, i := strings.SplitN(machine, "/", 3), strings.SplitN(image, "/", 3)
	if len(m) < 2 || len(i) < 2 || m[0] != i[0] || m[1] != i[1] {
		return false
	}
	if len(m) < 3 || len(i) < 3 {
		return true
	}
	return m[1] == "arm" && i[2] < m[2] // v5 < v6 < v7
}
