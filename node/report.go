// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	goruntime "runtime"
	"runtime/pprof"

	"github.com/shoalnet/shoal/node/metrics"
)

// Report calls fn for each file that only the daemon itself can add to a report of a
// fault: what it was configured with, its last log lines, what its goroutines do, and
// its memory and its metrics. None holds a key or a token.
func (p *Peer) Report(ctx context.Context, fn func(name string, data []byte) error) error {
	files := []struct {
		name string
		make func() ([]byte, error)
	}{
		{"daemon/settings.json", func() ([]byte, error) { return json.MarshalIndent(p.parts.Settings, "", "  ") }},
		{"daemon/log.txt", func() ([]byte, error) { return p.parts.Tail.Lines(), nil }},
		{"daemon/goroutines.txt", goroutines},
		{"daemon/memory.json", memory},
		{"daemon/metrics.txt", metrics.New(p.measure, p.parts.Log).Text},
	}
	for _, f := range files {
		if f.name == "daemon/log.txt" && p.parts.Tail == nil {
			continue
		}
		data, err := f.make()
		if err != nil {
			data = fmt.Appendf(nil, "not available: %v\n", err)
		}
		if err := fn(f.name, data); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func goroutines() ([]byte, error) {
	var b bytes.Buffer
	err := pprof.Lookup("goroutine").WriteTo(&b, 1)
	return b.Bytes(), err
}

func memory() ([]byte, error) {
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return json.MarshalIndent(map[string]any{
		"heap_bytes": m.HeapAlloc, "heap_objects": m.HeapObjects, "system_bytes": m.Sys, "stack_bytes": m.StackInuse,
		"collections": m.NumGC, "goroutines": goruntime.NumGoroutine(), "processors": goruntime.GOMAXPROCS(0), "go": goruntime.Version(),
	}, "", "  ")
}
