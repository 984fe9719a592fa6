// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"context"
	"fmt"

	"github.com/shoalnet/shoal"
)

// Usage implements [shoal.Remote]: a replica uses 10 milli more and 4 MiB more than
// that of the slot before.
func (c *Cluster) Usage(_ context.Context, peer shoal.PeerID) ([]shoal.Usage, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost[peer] {
		return nil, fmt.Errorf("usage: dial: no route: %w", shoal.ErrUnreachable)
	}
	var out []shoal.Usage
	for _, claim := range c.seen().ClaimsBy(peer) {
		n := int64(claim.Slot + 1)
		out = append(out, shoal.Usage{Replica: claim.Replica, CPUMilli: 10 * n, MemBytes: n << 22})
	}
	return out, nil
}
