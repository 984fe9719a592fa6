// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

const benchSize = 256 * chunk

// cpu returns what this process used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// report says how fast size bytes moved n times since began, and what that cost.
func report(b *testing.B, took, used time.Duration) {
	b.Helper()
	bytes := float64(benchSize) * float64(b.N)
	b.ReportMetric(bytes/1e6/took.Seconds(), "MB/s")
	b.ReportMetric(used.Seconds()/(bytes/1e9), "cpu-s/GB")
}

// BenchmarkTwoPeers moves 256 MiB from one peer to another: as a blob, on a raw stream of
// libp2p, and by plain HTTP. The two last neither verify nor store what came.
func BenchmarkTwoPeers(b *testing.B) {
	blob := content(1, benchSize)
	b.Run("blob", func(b *testing.B) { benchBlob(b, blob) })
	b.Run("stream", func(b *testing.B) { benchStream(b, blob) })
	b.Run("http", func(b *testing.B) { benchHTTP(b, blob) })
}

func benchBlob(b *testing.B, blob []byte) {
	w := newWorld(b, many(2, quick())...)
	w.holdersAre(w.peers[0])
	w.peers[0].put(blob)
	got, what := w.peers[1], blobOf(blob)
	var took, used time.Duration
	for b.Loop() {
		before, began := cpu(b), time.Now()
		if err := got.fetch(what); err != nil {
			b.Fatal(err)
		}
		took += time.Since(began)
		used += cpu(b) - before
		b.StopTimer()
		until(b, "the blob may go", func() bool { return got.store.Remove(what.Digest) == nil })
		b.StartTimer()
	}
	report(b, took, used)
}

func benchStream(b *testing.B, blob []byte) {
	w := newWorld(b, many(2, quick())...)
	from, to := w.peers[0].host, w.peers[1].host
	from.SetStreamHandler("/test/raw/1", func(s network.Stream) {
		for at := 0; at < len(blob); at += maxPiece {
			if _, err := s.Write(blob[at : at+maxPiece]); err != nil {
				return
			}
		}
		_ = s.Close()
	})
	var took, used time.Duration
	for b.Loop() {
		before, began := cpu(b), time.Now()
		s, err := to.NewStream(b.Context(), from.ID(), "/test/raw/1")
		if err != nil {
			b.Fatal(err)
		}
		drain(b, s)
		_ = s.Close()
		took += time.Since(began)
		used += cpu(b) - before
	}
	report(b, took, used)
}

func benchHTTP(b *testing.B, blob []byte) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(blob) })}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	defer http.DefaultClient.CloseIdleConnections()
	var took, used time.Duration
	for b.Loop() {
		before, began := cpu(b), time.Now()
		resp, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		drain(b, resp.Body)
		_ = resp.Body.Close()
		took += time.Since(began)
		used += cpu(b) - before
	}
	report(b, took, used)
}

func drain(b *testing.B, r io.Reader) {
	b.Helper()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, maxPiece))
	if err != nil || n != benchSize {
		b.Fatalf("read %d bytes, %v", n, err)
	}
}

// BenchmarkSwarm lets 8 peers fetch a blob from one seeder with an uplink of 20 MB/s. The
// optimum is what that needs to send it once: 13.4 s for 256 MiB.
func BenchmarkSwarm(b *testing.B) {
	b.Run("256MiB", func(b *testing.B) { benchSwarm(b, 256*chunk) })
	b.Run("1GiB", func(b *testing.B) { benchSwarm(b, 1024*chunk) })
}

func benchSwarm(b *testing.B, size int) {
	blob := content(1, size)
	for b.Loop() {
		w := newWorld(b, seedAndEight(quick(), slowRate)...)
		before := cpu(b)
		took, optimum := w.race(blob)
		b.ReportMetric(took.Seconds(), "s")
		b.ReportMetric(optimum, "optimum")
		b.ReportMetric(float64(w.peers[0].sentBytes())/float64(size), "blobs-sent")
		b.ReportMetric((cpu(b)-before).Seconds()/(8*float64(size)/1e9), "cpu-s/GB")
		for _, m := range w.peers {
			m.stop()
		}
	}
}

const slowRate = 20e6 // bytes a second

var isAfar = flag.Bool("afar", false, "run TestSwarmAfar, which takes minutes")

// TestSwarmAfar is BenchmarkSwarm with distance, which only a simulated network has: it says
// as attributes what that reports as metrics.
func TestSwarmAfar(t *testing.T) {
	if !*isAfar {
		t.Skip("takes minutes; -afar asks for it")
	}
	for _, c := range []struct {
		rtt  time.Duration
		most float64 // of the optimum
	}{{50 * time.Millisecond, 1.2}, {150 * time.Millisecond, 1.4}} {
		t.Run(c.rtt.String(), func(t *testing.T) {
			optimum, sent := raceAfar(t, c.rtt)
			t.Attr("optimum", fmt.Sprintf("%.3f", optimum))
			t.Attr("blobs-sent", fmt.Sprintf("%.3f", sent))
			if optimum > c.most || sent > 1.1 {
				t.Errorf("took %.2f of the optimum and %.2f blobs from the seeder, want at most %.1f and 1.1", optimum, sent, c.most)
			}
		})
	}
}

// raceAfar returns how long 8 peers took beside the optimum, and how many blobs the seeder
// sent, when any two are rtt apart.
func raceAfar(t *testing.T, rtt time.Duration) (optimum, sent float64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, end := simulate(t, rtt)
		defer end()
		for _, c := range seedAndEight(Defaults(), slowRate) {
			w.add(c)
		}
		_, optimum = w.race(content(1, benchSize))
		sent = float64(w.peers[0].sentBytes()) / benchSize
	})
	return optimum, sent
}
