// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
)

// maxStats bounds what the engine says of one container; it is a few KiB, more with
// many networks and disks.
const maxStats = 1 << 20

// Measure implements [shoal.Console]. The engine takes two readings a second apart. A
// container that is not ours is ErrRefused.
func (d *Docker) Measure(ctx context.Context, id string) (shoal.Usage, error) {
	what := "measure " + short(id)
	if _, err := d.own(ctx, what, id); err != nil {
		return shoal.Usage{}, err
	}
	stats, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) (container.StatsResponse, error) {
		var out container.StatsResponse
		r, err := c.ContainerStats(ctx, id, false)
		if err != nil {
			return out, err
		}
		defer r.Body.Close() //nolint:errcheck // read only
		return out, json.NewDecoder(io.LimitReader(r.Body, maxStats)).Decode(&out)
	})
	if err != nil {
		return shoal.Usage{}, err
	}
	if stats.MemoryStats.Usage == 0 && stats.CPUStats.SystemUsage == 0 { // what the engine says of one that ended
		return shoal.Usage{}, fmt.Errorf("%s: %w", what, errNotRunning)
	}
	return usageOf(&stats), nil
}

// usageOf computes what docker stats shows: the container's share of the processor
// time that passed between the readings, and memory without inactive file pages (the
// key differs between cgroup v1 and v2).
func usageOf(s *container.StatsResponse) shoal.Usage {
	u := shoal.Usage{MemBytes: int64(s.MemoryStats.Usage), CPUTime: time.Duration(min(s.CPUStats.CPUUsage.TotalUsage, math.MaxInt64))} //nolint:gosec // bounded
	for _, key := range []string{"total_inactive_file", "inactive_file"} {
		if cache, ok := s.MemoryStats.Stats[key]; ok && cache < s.MemoryStats.Usage {
			u.MemBytes = int64(s.MemoryStats.Usage - cache)
			break
		}
	}
	used := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	passed := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage)
	cores := float64(s.CPUStats.OnlineCPUs)
	if cores == 0 {
		cores = float64(len(s.CPUStats.CPUUsage.PercpuUsage))
	}
	if used > 0 && passed > 0 {
		u.CPUMilli = int64(used / passed * cores * 1000)
	}
	return u
}
