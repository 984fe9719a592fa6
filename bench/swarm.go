// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal/bench/figures"
)

const noteSwarm = "the benchmarks of images/exchange: the peers are hosts, stores and exchanges in one process, linked by TCP on loopback; those with a round trip by QUIC on " +
	"a simulated network of 1 Gbit/s, whose clock stands still while anybody computes. Optimum: what the one that has it needs to send it once at 20 MB/s. " +
	"Beside it 8 plain HTTP clients of one server that sends 20 MB/s to all together; they neither hash nor store. A raw stream does neither, too."

// What the swarms are, as images/exchange makes them.
const (
	swarmPeers = 9    // one that has the blob, 8 that want it
	swarmRate  = 20e6 // bytes a second that the one sends
)

// swarmSize is a blob that a swarm moves.
type swarmSize struct {
	name  string // "256 MiB"; the benchmark's without the space
	bytes int64
}

// swarms measures what moves between peers that do nothing else.
func (b *bench) swarms(ctx context.Context) error {
	program := filepath.Join(b.dir, "exchange.test")
	if _, err := output(ctx, "go", "test", "-c", "-o", program, "./images/exchange"); err != nil {
		return fmt.Errorf("%w; the bench runs at the root of the repository", err)
	}
	two, err := b.taken(ctx, program, twoWants, "-test.run=^$", "-test.bench=TwoPeers", "-test.benchtime=3x")
	if err != nil {
		return err
	}
	b.addTwo(two)
	near := metrics{}
	for _, s := range b.swarmed {
		found, err := b.taken(ctx, program, swarmWants(s.test()), "-test.run=^$", "-test.bench="+strings.TrimPrefix(s.test(), "Benchmark"), "-test.benchtime=1x")
		if err != nil {
			return err
		}
		maps.Copy(near, found)
	}
	far, servers, err := b.beside(ctx, program)
	if err != nil {
		return err
	}
	for i, s := range b.swarmed {
		b.addSwarm(s.name+" to 8", near, s.test(), 1.2, &servers[i])
	}
	b.addSwarm("256 MiB to 8, round trip 50 ms", far, farTests[0], 1.2, nil)
	b.addSwarm("256 MiB to 8, round trip 150 ms", far, farTests[1], 1.4, nil)
	return nil
}

// farTests are the swarms on a simulated network.
var farTests = [...]string{"TestSwarmAfar/50ms", "TestSwarmAfar/150ms"}

// test is the benchmark of a size.
func (s swarmSize) test() string { return "BenchmarkSwarm/" + strings.ReplaceAll(s.name, " ", "") }

// What tests have to say.
var twoWants = []string{twoBlob + perSecond, twoStream + perSecond, twoBlob + perGigabyte, twoStream + perGigabyte}

func swarmWants(test string) []string { return []string{test + optimum, test + blobsSent} }

const (
	twoBlob, twoStream = "BenchmarkTwoPeers/blob", "BenchmarkTwoPeers/stream"

	perSecond, perGigabyte = " MB/s", " cpu-s/GB"
	optimum, blobsSent     = " optimum", " blobs-sent"
)

// beside measures the far swarms, and what is compared with the near ones, at once: the
// former have a clock of their own, and the latter leave this machine idle.
func (b *bench) beside(ctx context.Context, program string) (metrics, []served, error) {
	far, servers := make([]metrics, len(farTests)), make([]served, len(b.swarmed))
	g, ctx := errgroup.WithContext(ctx)
	for i, name := range farTests {
		g.Go(func() (err error) {
			far[i], err = b.taken(ctx, program, swarmWants(name), "-test.run=^"+strings.ReplaceAll(name, "/", "$/^")+"$", "-test.v", "-test.cpu=1", "-afar")
			return err
		})
	}
	g.Go(func() (err error) {
		for i, s := range b.swarmed {
			if servers[i], err = oneServer(ctx, swarmPeers-1, s.bytes, swarmRate); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	maps.Copy(far[0], far[1])
	return far[0], servers, nil
}

// addTwo adds the rows of two peers.
func (b *bench) addTwo(m metrics) {
	blob, stream, used := m[twoBlob+perSecond], m[twoStream+perSecond], m[twoBlob+perGigabyte]
	b.add(
		figures.NewRow("swarm", "256 MiB between two, a second", 2, one(1e6*blob), figures.Bytes).
			Against("raw stream", figures.Of(1e6*stream, figures.Bytes)).Aims("at least 0.7 of it", blob >= 0.7*stream),
		figures.NewRow("swarm", "processor for a gigabyte, both ends", 2, one(used), figures.Seconds).
			Against("raw stream", figures.Of(m[twoStream+perGigabyte], figures.Seconds)).Aims("at most 3 s", used <= 3),
	)
}

// addSwarm adds the rows of one swarm, whose aim is to take at most so much of the optimum.
func (b *bench) addSwarm(what string, m metrics, test string, most float64, beside *served) {
	took, sent := m[test+optimum], m[test+blobsSent]
	times := figures.NewRow("swarm", what+": time over the optimum", swarmPeers, one(took), figures.Plain).
		Aims(fmt.Sprintf("at most %.1f", most), took <= most)
	blobs := figures.NewRow("swarm", what+": blobs that the one sent", swarmPeers, one(sent), figures.Plain).
		Aims("at most 1.1", sent <= 1.1)
	if beside != nil {
		times = times.Against("one server", figures.Of(beside.took.Seconds()*swarmRate/float64(beside.size), figures.Plain))
		blobs = blobs.Against("one server", figures.Of(float64(beside.sent)/float64(beside.size), figures.Plain))
	}
	b.add(times, blobs)
}

// one is a series of one figure.
func one(value float64) *figures.Series {
	var s figures.Series
	s.Add(value)
	return &s
}

// metrics are what benchmarks and tests report, by name and unit: "BenchmarkSwarm/1GiB s".
type metrics map[string]float64

// taken runs a test binary, whose files are where the stores are, and returns figures, wants
// among them. A test that says them and fails has missed its aim: the table says that.
func (b *bench) taken(ctx context.Context, program string, wants []string, args ...string) (metrics, error) {
	cmd := command(ctx, program, append(args, "-test.timeout=20m")...)
	cmd.Env = append(cmd.Environ(), "TMPDIR="+b.dir)
	out, err := cmd.Output()
	found := metricsOf(out)
	for _, want := range wants {
		if _, ok := found[want]; !ok {
			return nil, errors.Join(fmt.Errorf("%s does not say %q: %s", filepath.Base(program), want, bytes.TrimSpace(out)), err)
		}
	}
	return found, nil
}

// processors is what a benchmark's name ends in when they are not one.
var processors = regexp.MustCompile(`-[0-9]+$`)

// metricsOf reads what a test binary printed: lines of benchmarks, "name count value unit
// value unit", and attributes of tests, "=== ATTR name unit value".
func metricsOf(out []byte) metrics {
	found := metrics{}
	add := func(name, unit, value string) {
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			found[name+" "+unit] = v
		}
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 5 && fields[1] == "ATTR":
			add(fields[2], fields[3], fields[4])
		case len(fields) >= 4 && strings.HasPrefix(fields[0], "Benchmark"):
			for i := 2; i+1 < len(fields); i += 2 {
				add(processors.ReplaceAllString(fields[0], ""), fields[i+1], fields[i])
			}
		}
	}
	return found
}
