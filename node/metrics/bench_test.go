// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"log/slog"
	"testing"
	"time"
)

// BenchmarkText is a scrape of a peer that carries connections of 200 services.
func BenchmarkText(b *testing.B) {
	s := busy()
	web := s.Reach["web"]
	for len(web.Connect.Bounds) < 24 {
		web.Connect.Bounds = append(web.Connect.Bounds, time.Duration(len(web.Connect.Bounds)+1)*time.Second)
		web.Connect.Counts = append(web.Connect.Counts, 1)
	}
	web.FirstByte = web.Connect
	for i := range 200 {
		s.Reach[fmt.Sprintf("web-%d", i)] = web
	}
	e := New(func() Snapshot { return s }, slog.New(slog.DiscardHandler))
	var size int
	for b.Loop() {
		text, err := e.Text()
		if err != nil {
			b.Fatal(err)
		}
		size = len(text)
	}
	b.ReportMetric(float64(size), "bytes")
}
