// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/shoalnet/shoal"
)

func TestUsageOf(t *testing.T) {
	reading := func(total, system uint64, cores uint32) container.CPUStats {
		return container.CPUStats{CPUUsage: container.CPUUsage{TotalUsage: total}, SystemUsage: system, OnlineCPUs: cores}
	}
	tests := map[string]struct {
		stats container.StatsResponse
		want  shoal.Usage
	}{
		"half a core of two": {container.StatsResponse{
			CPUStats: reading(3e9, 20e9, 2), PreCPUStats: reading(2.5e9, 18e9, 2),
			MemoryStats: container.MemoryStats{Usage: 50 << 20, Stats: map[string]uint64{"inactive_file": 20 << 20}},
		}, shoal.Usage{CPUMilli: 500, MemBytes: 30 << 20, CPUTime: 3e9}},
		"cgroup v1, both cores": {container.StatsResponse{
			CPUStats: reading(4e9, 20e9, 2), PreCPUStats: reading(2e9, 18e9, 2),
			MemoryStats: container.MemoryStats{Usage: 50 << 20, Stats: map[string]uint64{"total_inactive_file": 10 << 20, "inactive_file": 1}},
		}, shoal.Usage{CPUMilli: 2000, MemBytes: 40 << 20, CPUTime: 4e9}},
		"one reading only": {container.StatsResponse{
			CPUStats: reading(4e9, 0, 2), MemoryStats: container.MemoryStats{Usage: 5},
		}, shoal.Usage{MemBytes: 5, CPUTime: 4e9}},
		"counted back": {container.StatsResponse{
			CPUStats: reading(1e9, 20e9, 2), PreCPUStats: reading(2e9, 18e9, 2), MemoryStats: container.MemoryStats{Usage: 5, Stats: map[string]uint64{"inactive_file": 9}},
		}, shoal.Usage{MemBytes: 5, CPUTime: 1e9}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := usageOf(&tt.stats); got != tt.want {
				t.Errorf("usageOf = %+v, want %+v", got, tt.want)
			}
		})
	}
}
