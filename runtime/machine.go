// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
)

// Info implements [shoal.Machine].
func (d *Docker) Info(ctx context.Context) (shoal.MachineInfo, error) {
	return call(ctx, d, d.cfg.Quick, "ask engine", func(ctx context.Context, c *client.Client) (shoal.MachineInfo, error) {
		info, err := c.Info(ctx)
		if err != nil && strings.HasPrefix(err.Error(), "Error reading remote info") {
			// the client library drops the cause: the answer broke off, or is no JSON
			return shoal.MachineInfo{}, fmt.Errorf("%w: %w", shoal.ErrEngineDown, err)
		}
		if err != nil {
			return shoal.MachineInfo{}, err
		}
		version, _, _ := strings.Cut(info.ServerVersion, "+") // Debian says 20.10.24+dfsg1
		return shoal.MachineInfo{
			Engine:   "docker " + version,
			API:      c.ClientVersion(),
			Platform: info.OSType + "/" + archOf(info.Architecture),
			Capacity: shoal.Resources{CPUMilli: int64(info.NCPU) * 1000, MemBytes: info.MemTotal},
		}, nil
	})
}

// archOf names a machine as images do; the engine answers as uname does.
func archOf(machine string) string {
	switch machine {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "armv7l", "armv6l":
		return "arm"
	case "i386", "i686":
		return "386"
	default:
		return machine
	}
}

// cpuSample is a container's CPU time at a moment.
type cpuSample struct {
	at    time.Duration // Clock.Mono
	nanos uint64
}

// Usage implements [shoal.Machine]: CPU since the last call (0 in the first), memory
// without the page cache that the kernel may take back. It costs one engine call per
// running container, and Engine 20.10 answers each after about a second, at its next
// collection: call it every ten seconds, not every second.
func (d *Docker) Usage(ctx context.Context) (shoal.Resources, error) {
	const what = "measure containers"
	found, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) ([]container.Summary, error) {
		return c.ContainerList(ctx, container.ListOptions{Filters: d.ours()})
	})
	if err != nil {
		return shoal.Resources{}, err
	}
	var mu sync.Mutex // guards sum
	var sum shoal.Resources
	var group errgroup.Group
	group.SetLimit(8 * d.cfg.Parallel) // they wait, they do not work
	for _, s := range found {
		group.Go(func() error {
			stats, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) (container.StatsResponse, error) {
				return statsOf(ctx, c, s.ID)
			})
			if isNotFound(err) {
				return nil // it ended meanwhile
			}
			if err != nil {
				return err
			}
			one := d.measure(s.ID, &stats)
			mu.Lock()
			defer mu.Unlock()
			sum = sum.Add(one)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return shoal.Resources{}, err
	}
	return sum, nil
}

func statsOf(ctx context.Context, c *client.Client, id string) (container.StatsResponse, error) {
	var out container.StatsResponse
	r, err := c.ContainerStatsOneShot(ctx, id)
	if err != nil {
		return out, err
	}
	err = json.NewDecoder(r.Body).Decode(&out)
	if closed := r.Body.Close(); err == nil && closed != nil {
		err = closed
	}
	if err != nil {
		return out, fmt.Errorf("read statistics: %w", err)
	}
	return out, nil
}

// measure turns one reading into what is used.
func (d *Docker) measure(id string, s *container.StatsResponse) shoal.Resources {
	now := cpuSample{at: d.clock.Mono(), nanos: s.CPUStats.CPUUsage.TotalUsage}
	mem := s.MemoryStats.Usage
	for _, cache := range []string{"inactive_file", "total_inactive_file"} { // cgroup v2, v1
		if v := s.MemoryStats.Stats[cache]; v > 0 && v < mem {
			mem -= v
			break
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	was, ok := d.used[id]
	d.used[id] = now
	out := shoal.Resources{MemBytes: int64(mem)}
	if ok && now.at > was.at && now.nanos >= was.nanos {
		out.CPUMilli = int64(float64(now.nanos-was.nanos) / float64(now.at-was.at) * 1000)
	}
	return out
}
