// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
	"golang.org/x/net/netutil"

	"github.com/shoalnet/shoal"
)

// Bounds of what Serve takes.
const (
	maxScrapes = 4  // at once
	maxClients = 64 // connections at once
	headTime   = 10 * time.Second
	scrapeTime = 30 * time.Second // to send an answer
	stopTime   = 2 * time.Second
)

// Exporter tells what snapshots say, and what the Go runtime and the system say of this
// process. It is safe for concurrent use and starts nothing by itself.
type Exporter struct {
	registry *prometheus.Registry
	log      *slog.Logger
}

// New returns the exporter of what take returns, which is asked at every scrape and must
// not block.
func New(take func() Snapshot, log *slog.Logger) *Exporter {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(take), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &Exporter{registry: r, log: log}
}

// Text returns all metrics in Prometheus' text format.
func (e *Exporter) Text() ([]byte, error) {
	all, err := e.registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	var b bytes.Buffer
	for _, f := range all {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return nil, fmt.Errorf("write metric %s: %w", f.GetName(), err)
		}
	}
	return b.Bytes(), nil
}

// Serve answers GET /metrics on l until ctx ends, and closes it; it returns after all that
// it started has ended. Nobody is asked who he is.
func (e *Exporter) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(e.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(e.log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes,
	}))
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: headTime, WriteTimeout: scrapeTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if srv.Shutdown(within) != nil {
			_ = srv.Close() // who reads slowly had his time
		}
	})
	err := srv.Serve(netutil.LimitListener(l, maxClients))
	if !stop() {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve metrics at %s: %w", l.Addr(), err)
}

// collector makes metrics of a snapshot. It implements prometheus.Collector.
type collector struct {
	take  func() Snapshot
	descs []*prometheus.Desc // of families, in their order
}

func newCollector(take func() Snapshot) *collector {
	c := &collector{take: take}
	for _, f := range families {
		c.descs = append(c.descs, prometheus.NewDesc(f.name, f.help+".", f.labels, nil))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.take()
	for i, f := range families {
		desc := c.descs[i]
		if f.durations != nil {
			f.durations(&s, func(h shoal.Histogram, labels ...string) { out <- histogramOf(desc, h, labels) })
			continue
		}
		of := prometheus.GaugeValue
		if f.kind == counter {
			of = prometheus.CounterValue
		}
		f.numbers(&s, func(value float64, labels ...string) {
			m, err := prometheus.NewConstMetric(desc, of, value, labels...)
			if err != nil {
				m = prometheus.NewInvalidMetric(desc, err)
			}
			out <- m
		})
	}
}

// histogramOf sums the buckets up, as Prometheus has them.
func histogramOf(desc *prometheus.Desc, h shoal.Histogram, labels []string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Bounds))
	var n uint64
	for i, bound := range h.Bounds {
		n += h.Counts[i]
		buckets[bound.Seconds()] = n
	}
	m, err := prometheus.NewConstHistogram(desc, h.Count(), h.Sum.Seconds(), buckets, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return m
}
