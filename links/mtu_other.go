// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package links

import "net"

// pathMTU is known on Linux only.
func pathMTU(net.IP) int { return 0 }
