// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/shoalnet/shoal/api"
)

// agreePace is how often the asked peer is asked again who holds the same records; it
// hears of that with every beat.
const agreePace = 200 * time.Millisecond

// agree waits until as many peers as --consistent says hold the same records.
func (a *app) agree(ctx context.Context, c *api.Client) error {
	if a.agreed == 0 {
		return nil
	}
	limit := cmp.Or(time.Duration(a.timeout), unaryTime)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(agreePace)
	defer tick.Stop()
	var last api.Freshness
	for {
		status, err := c.Status(ctx)
		switch {
		case ctx.Err() != nil:
			return a.disagreement(last, limit)
		case err != nil:
			return err
		case status.Freshness == nil: // of no cluster: the command itself says so
			return nil
		}
		last = *status.Freshness
		if last.Agree >= a.agreed {
			return nil
		}
		if a.agreed > last.Members {
			return usage("--consistent: there are only %s", count(last.Members, "peer"))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return a.disagreement(last, limit)
		}
	}
}

// disagreement says who holds other records, and who is not heard.
func (a *app) disagreement(f api.Freshness, limit time.Duration) error {
	parts := []string{fmt.Sprintf("%d of the %d peers that are wanted hold the same records after %s", f.Agree, a.agreed, limit)}
	if len(f.Differ) > 0 {
		parts = append(parts, strings.Join(f.Differ, ", ")+" not yet")
	}
	for _, s := range f.Silent {
		parts = append(parts, s.Name+" is silent")
	}
	return &coded{code: exitTimeout, name: api.CodeTimeout, err: fmt.Errorf("%s; ask without --consistent, or see shoal peer ls", clean(strings.Join(parts, "; ")))}
}

// self returns the ID of the asked peer, for what --local limits to it.
func (a *app) self(ctx context.Context, c *api.Client) (string, error) {
	status, err := c.Status(ctx)
	return status.Self, err
}
