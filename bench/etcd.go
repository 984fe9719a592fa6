// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoalnet/shoal/bench/figures"
)

const noteEtcd = "etcd's own server and client, with their defaults: a put of 512 bytes, durable, offered as the writes above are. " +
	"All members run in one process of their own on loopback, each with its own store on disk; the client asks all in turn."

const etcdWhat = "etcd put, 20/s"

// etcds measures the durable writes of what a user would otherwise keep state in.
func (b *bench) etcds(ctx context.Context) error {
	for _, n := range b.etcd {
		s, err := b.etcdOf(ctx, n)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			why, _, _ := strings.Cut(err.Error(), "\n")
			b.add(figures.NotMeasured("etcd", etcdWhat, n, why))
			continue
		}
		row := figures.NewRow("etcd", etcdWhat, n, s, figures.Seconds)
		i := slices.IndexFunc(b.table.Rows, func(r figures.Row) bool { return r.What == localWrite && r.Peers == n })
		if i >= 0 {
			row = row.Against("our write", b.table.Rows[i].P50)
			if n >= 3 {
				row = row.Aims("ours below: ratio above 1", row.Ratio.Value > 1)
			}
		}
		b.add(row)
	}
	return nil
}

func (b *bench) etcdOf(ctx context.Context, members int) (*figures.Series, error) {
	if err := built("bin/bench-etcd"); err != nil {
		return nil, err
	}
	out, err := output(ctx, "bin/bench-etcd", "-members", fmt.Sprint(members), "-rate", fmt.Sprint(rate),
		"-n", fmt.Sprint(int(b.writing.Seconds()*rate)), "-dir", filepath.Join(b.dir, fmt.Sprintf("etcd-%d", members)))
	if err != nil {
		return nil, err
	}
	var took []float64
	if err := json.Unmarshal(out, &took); err != nil {
		return nil, fmt.Errorf("read what bench-etcd prints: %w", err)
	}
	s := &figures.Series{}
	for _, t := range took {
		s.Add(t)
	}
	return s, nil
}
