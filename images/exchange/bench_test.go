// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/sync/errgroup"
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

// BenchmarkSwarm lets 8 peers fetch 256 MiB from one seeder with an uplink of 20 MB/s. The
// optimum is what that needs to send it once: 13.4 s.
func BenchmarkSwarm(b *testing.B) {
	blob := content(1, benchSize)
	for b.Loop() {
		slow := quick()
		slow.UpRate = 20e6
		w := newWorld(b, append([]Config{slow}, many(8, quick())...)...)
		w.holdersAre(w.peers[0])
		w.peers[0].put(blob)
		what := blobOf(blob)
		began, before := time.Now(), cpu(b)
		var g errgroup.Group
		for _, m := range w.peers[1:] {
			g.Go(func() error { return m.fetch(what) })
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		took := time.Since(began)
		optimum := float64(benchSize) / slowRate
		b.ReportMetric(took.Seconds(), "s")
		b.ReportMetric(took.Seconds()/optimum, "optimum")
		b.ReportMetric(float64(w.peers[0].sentBytes())/benchSize, "blobs-sent")
		b.ReportMetric((cpu(b)-before).Seconds()/(8*benchSize/1e9), "cpu-s/GB")
		for _, m := range w.peers {
			m.stop()
		}
	}
}

const slowRate = 20e6 // bytes a second
