// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"context"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// blast sends as much as the other side takes.
func blast(c *net.TCPConn) {
	b := make([]byte, 128<<10)
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// BenchmarkThroughput reads one connection: straight from the replica, carried on this
// peer, carried from another, and, for the last to be judged by, a bare libp2p stream.
func BenchmarkThroughput(b *testing.B) {
	w := world(b, 2, Defaults())
	at := listen(b, blast)
	w[1].host.SetStreamHandler("/raw", func(s network.Stream) {
		defer s.Reset()
		buf := make([]byte, 128<<10)
		for {
			if _, err := s.Write(buf); err != nil {
				return
			}
		}
	})
	drain := func(b *testing.B, r io.Reader) {
		buf := make([]byte, 128<<10)
		const unit = 1 << 20
		b.SetBytes(unit)
		if _, err := io.CopyBuffer(io.Discard, onlyReader{io.LimitReader(r, 8*unit)}, buf); err != nil { // to get going
			b.Fatal(err)
		}
		b.ResetTimer()
		if _, err := io.CopyBuffer(io.Discard, onlyReader{io.LimitReader(r, int64(b.N)*unit)}, buf); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("direct", func(b *testing.B) { drain(b, dial(b, at)) })
	b.Run("local", func(b *testing.B) { drain(b, dial(b, w[0].door(b, service(w[0].has(1, at)), TCP))) })
	b.Run("stream", func(b *testing.B) {
		s, err := w[0].host.NewStream(context.Background(), w[1].host.ID(), "/raw")
		if err != nil {
			b.Fatal(err)
		}
		defer s.Reset()
		drain(b, s)
	})
	b.Run("remote", func(b *testing.B) { drain(b, dial(b, w[0].door(b, service(w[1].has(1, at)), TCP))) })
}

type onlyReader struct{ io.Reader }

// BenchmarkRequest sends a request of 200 bytes and reads an answer of 1,000, over one
// connection and over one each.
func BenchmarkRequest(b *testing.B) {
	w := world(b, 2, Defaults())
	at := listen(b, func(c *net.TCPConn) {
		in, out := make([]byte, 200), make([]byte, 1000)
		for {
			if _, err := io.ReadFull(c, in); err != nil {
				return
			}
			_, _ = c.Write(out)
		}
	})
	for _, way := range []struct {
		name string
		at   netip.AddrPort
	}{
		{"direct", at},
		{"local", w[0].door(b, service(w[0].has(1, at)), TCP)},
		{"remote", w[0].door(b, service(w[1].has(1, at)), TCP)},
	} {
		in, out := make([]byte, 1000), make([]byte, 200)
		ask := func(b *testing.B, c net.Conn) {
			_, _ = c.Write(out)
			if _, err := io.ReadFull(c, in); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(way.name+"/kept", func(b *testing.B) {
			c := dial(b, way.at)
			p50(b, func() { ask(b, c) })
		})
		b.Run(way.name+"/each", func(b *testing.B) {
			p50(b, func() {
				c, err := net.Dial("tcp4", way.at.String())
				if err != nil {
					b.Fatal(err)
				}
				ask(b, c)
				_ = c.Close()
			})
		})
	}
}

// p50 reports the median of fn.
func p50(b *testing.B, fn func()) {
	b.Helper()
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		begun := time.Now()
		fn()
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
}

// maxPerConnection is what an open connection may cost (issue 6), here with the ends of
// the client and of the replica, which are in this process too.
const maxPerConnection = 20 << 10

// TestMemoryOfOpenConnections counts heap and stacks of connections that were used and
// wait. Remote ones cost both peers.
func TestMemoryOfOpenConnections(t *testing.T) {
	cfg := Defaults()
	cfg.ConnsPerClient = cfg.Conns
	everywhere(t, cfg, func(t *testing.T, here, holder *member) {
		peers := 1
		if here != holder {
			peers = 2
		}
		n := min(10_000, (openFiles(t)-1000)/4)
		if isRace { // whose own memory would be counted
			n = min(n, 300)
		}
		var mu sync.Mutex
		var ends []net.Conn
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var accepting sync.WaitGroup
		accepting.Go(func() { // no goroutine for each, which would be counted
			b := make([]byte, 2)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.ReadFull(c, b)
				_, _ = c.Write(b)
				mu.Lock()
				ends = append(ends, c)
				mu.Unlock()
			}
		})
		s := service(holder.has(1, portOf(l.Addr())))
		at := here.door(t, s, TCP)
		before := memory()
		b := make([]byte, 2)
		for range n {
			c := dialOrFail(t, at)
			_, _ = c.Write(b)
			if _, err := io.ReadFull(c, b); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			ends = append(ends, c)
			mu.Unlock()
		}
		each := (memory() - before) / n
		t.Logf("%d open connections: %d bytes each on %d peers, with both ends", n, each, peers)
		if each > maxPerConnection*peers && !isRace {
			t.Errorf("an open connection costs %d bytes, want at most %d", each, maxPerConnection*peers)
		}
		if open := s.Stats().Open; open != uint64(n) {
			t.Errorf("%d are open, want %d", open, n)
		}
		l.Close()
		accepting.Wait()
		for _, c := range ends {
			_ = c.(*net.TCPConn).SetLinger(0) // or ports wait for a minute
			c.Close()
		}
		until(t, "all are closed", func() bool { return s.Stats().Open == 0 })
	})
}

func dialOrFail(t testing.TB, at netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// memory returns the bytes of heap and stacks in use.
func memory() int {
	runtime.GC()
	runtime.GC() // pools let go at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
