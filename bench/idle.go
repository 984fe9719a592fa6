// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/shoalnet/shoal/bench/figures"
)

const noteIdle = "3 built daemons on one engine, settled, without any service; p50 is the middle one of the three, p99 the worst."

// What an idle daemon may take (DESIGN.md section 14).
const (
	maxMemory  = 60e6 // bytes
	maxPercent = 1.0  // of a core
)

// idling measures what daemons take while nothing happens.
func (b *bench) idling(ctx context.Context) error {
	d, err := b.settled(ctx)
	if err != nil {
		return err
	}
	before, err := d.usage()
	if err != nil {
		return err
	}
	if err := sleep(ctx, b.idle); err != nil {
		return err
	}
	after, err := d.usage()
	if err != nil {
		return err
	}
	var memory, processor, disk figures.Series
	for i := range after {
		memory.Add(float64(after[i].rss))
		processor.Add(100 * (after[i].cpu - before[i].cpu) / b.idle.Seconds())
		disk.Add(float64(after[i].written - before[i].written))
	}
	m := figures.NewRow("idle", "idle daemon: memory", daemonCount, &memory, figures.Bytes)
	p := figures.NewRow("idle", "idle daemon: of a core", daemonCount, &processor, figures.Percent)
	w := figures.NewRow("idle", "idle daemon: written in "+b.idle.String(), daemonCount, &disk, figures.Bytes)
	b.add(
		m.Aims("below 60 MB", m.P99.Value < maxMemory),
		p.Aims("below 1 %", p.P99.Value < maxPercent),
		w.Aims("none", w.P99.Value == 0),
	)
	return nil
}

func (d *daemons) usage() ([]usage, error) {
	var out []usage
	for _, one := range d.list {
		u, err := usageOf(one.cmd.Process.Pid)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}
