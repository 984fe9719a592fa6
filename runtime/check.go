// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
)

// Check implements [shoal.Console]. The engine keeps the output of the last five checks,
// of each 4 KiB.
func (d *Docker) Check(ctx context.Context, id string) (string, error) {
	what := "read the health check of " + short(id)
	if _, err := d.own(ctx, what, id); err != nil {
		return "", err
	}
	info, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) (container.InspectResponse, error) {
		return c.ContainerInspect(ctx, id)
	})
	if err != nil || info.ContainerJSONBase == nil || info.State == nil || info.State.Health == nil {
		return "", err
	}
	log := info.State.Health.Log
	if len(log) == 0 {
		return "", nil
	}
	return strings.TrimSpace(strings.ToValidUTF8(log[len(log)-1].Output, "\uFFFD")), nil
}
