// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// rename is the usual small write: this peer says something about itself.
func rename(b *testing.B, s shoal.Store, name string) time.Duration {
	begin := time.Now()
	_, err := s.Update(context.Background(), func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{&shoal.PeerBody{Peer: as.Author, Facts: shoal.PeerFacts{Name: name}}}, nil
	}, shoal.UpdateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(begin)
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// BenchmarkUpdate is one durable write after another, alone, on pebble.
func BenchmarkUpdate(b *testing.B) {
	c := newCluster(b, 1)
	s := onDisk(b, c, filepath.Join(b.TempDir(), "store"))
	if err := s.Inject(b.Context(), c.admissions()); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		took = append(took, rename(b, s, strconv.Itoa(i)))
	}
	report(b, took)
}

// BenchmarkUpdateMany is 100 clients writing durably at once.
func BenchmarkUpdateMany(b *testing.B) {
	c := newCluster(b, 1)
	s := onDisk(b, c, filepath.Join(b.TempDir(), "store"))
	if err := s.Inject(b.Context(), c.admissions()); err != nil {
		b.Fatal(err)
	}
	const clients = 100
	var mu sync.Mutex
	var took []time.Duration
	before := s.Stats()
	for b.Loop() {
		var wg sync.WaitGroup
		for w := range clients {
			wg.Go(func() {
				d := rename(b, s, strconv.Itoa(w))
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
			})
		}
		wg.Wait()
	}
	report(b, took)
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "writes/s")
	after := s.Stats()
	b.ReportMetric(float64(len(took))/float64(after.Flushes-before.Flushes), "writes/sync")
}

// BenchmarkUpdateSeen is one write after another on the first of n connected peers,
// all with pebble on this machine's loopback, and when the last of them shows it.
func BenchmarkUpdateSeen(b *testing.B) {
	for _, n := range []int{3, 5} {
		b.Run(fmt.Sprintf("%dpeers", n), func(b *testing.B) {
			c := newCluster(b, n)
			var peers []*peerOnDisk
			for i := range n {
				p := onLoopback(b, c, i, filepath.Join(b.TempDir(), "store"))
				for _, o := range peers {
					p.connect(b, o)
				}
				peers = append(peers, p)
			}
			if err := peers[0].Inject(b.Context(), c.admissions()); err != nil {
				b.Fatal(err)
			}
			for _, p := range peers[1:] {
				awaitDigest(b, peers[0], p)
			}
			var wrote, seen []time.Duration
			for i := 0; b.Loop(); i++ {
				begin := time.Now()
				wrote = append(wrote, rename(b, peers[0], strconv.Itoa(i)))
				for _, p := range peers[1:] {
					awaitDigest(b, peers[0], p)
				}
				seen = append(seen, time.Since(begin))
			}
			report(b, wrote)
			slices.Sort(seen)
			b.ReportMetric(float64(seen[len(seen)/2].Microseconds())/1000, "seen-p50-ms")
			b.ReportMetric(float64(seen[len(seen)*99/100].Microseconds())/1000, "seen-p99-ms")
		})
	}
}

// BenchmarkOpen is a start on 10,000 records, after a clean end.
func BenchmarkOpen(b *testing.B) {
	c := newCluster(b, 1)
	dir := filepath.Join(b.TempDir(), "store")
	s := onDisk(b, c, dir)
	if err := s.Inject(b.Context(), c.admissions()); err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for i := range 100 {
				rename(b, s, strconv.Itoa(i))
			}
		})
	}
	wg.Wait()
	s.stop()
	for b.Loop() {
		onDisk(b, c, dir).stop()
	}
}

// BenchmarkJoin is a newcomer that pulls 10,000 blocks of one record each, durably.
func BenchmarkJoin(b *testing.B) {
	const records = 10000
	c := newCluster(b, 2)
	old := onLoopback(b, c, 0, filepath.Join(b.TempDir(), "store"))
	if err := old.Inject(b.Context(), c.admissions()); err != nil {
		b.Fatal(err)
	}
	for i := range records {
		rename(b, old, strconv.Itoa(i))
	}
	for b.Loop() {
		b.StopTimer()
		newcomer := onLoopback(b, c, 1, filepath.Join(b.TempDir(), "store"))
		newcomer.connect(b, old)
		b.StartTimer()
		if err := newcomer.SyncWith(b.Context(), c.members[0].id); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if newcomer.Digest() != old.Digest() {
			b.Fatal("digests differ after a join")
		}
		newcomer.stop()
		b.StartTimer()
	}
}
