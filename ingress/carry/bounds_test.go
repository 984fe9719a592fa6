// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/balance"
)

func TestListenErrors(t *testing.T) {
	any := netip.AddrPortFrom(loopback, 0)
	first, err := Listen(t.Context(), any, TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := Listen(t.Context(), first.Addr(), TCP); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Listen on a taken port = %v, want %v", err, shoal.ErrConflict)
	}
	if _, err := Listen(t.Context(), any, "sctp"); err == nil || !strings.Contains(err.Error(), "sctp") {
		t.Errorf("Listen for sctp = %v, want an error that names it", err)
	}
	udp, err := Listen(t.Context(), netip.MustParseAddrPort("[::ffff:127.0.0.1]:0"), UDP)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if _, err := Listen(t.Context(), udp.Addr(), UDP); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Listen on a taken port = %v, want %v", err, shoal.ErrConflict)
	}
}

// Who is one too many is reset at once, and comes in when another has gone.
func TestConnectionsAreBounded(t *testing.T) {
	cfg := Defaults()
	cfg.ConnsPerClient = 3
	m := alone(t, cfg)
	s := service(m.has(1, listen(t, echo)))
	at := m.door(t, s, TCP)
	var open []*net.TCPConn
	for range 3 {
		c := dial(t, at)
		_, _ = c.Write([]byte("a"))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if err := knock(t, at); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the fourth saw %v, want a reset", err)
	}
	if st := s.Stats(); st.Open != 3 || st.Errors[TooMany] != 1 {
		t.Errorf("%d open and %d too many, want 3 and 1", st.Open, st.Errors[TooMany])
	}
	_ = open[0].Close()
	until(t, "one has gone", func() bool { return s.Stats().Open == 2 })
	until(t, "another comes in", func() bool {
		got, err := ask(t, at, "b")
		return got == "b" && err == nil
	})
}

// A client that says nothing costs what an open connection costs, and one that sends byte
// by byte no more.
func TestSlowClients(t *testing.T) {
	m := alone(t, Defaults())
	s := service(m.has(1, listen(t, echo)))
	at := m.door(t, s, TCP)
	var silent []*net.TCPConn
	for range 100 {
		silent = append(silent, dial(t, at))
	}
	until(t, "all are connected", func() bool { return s.Stats().Connect.Count() == 100 })
	if got, err := ask(t, at, "quick"); got != "quick" || err != nil {
		t.Errorf("beside silent ones: %q, %v", got, err)
	}
	for _, c := range silent {
		for _, b := range []byte("slow") {
			_, _ = c.Write([]byte{b})
			got := make([]byte, 1)
			if _, err := io.ReadFull(c, got); err != nil || got[0] != b {
				t.Fatalf("got %q, %v, want %q", got, err, b)
			}
		}
		_ = c.Close()
	}
}

// served opens a stream to the other peer and says what fn says.
func served(t *testing.T, w []*member, fn func(network.Stream)) error {
	t.Helper()
	s, err := w[0].open(t.Context(), w[1].id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Reset() }()
	fn(s)
	_ = s.SetReadDeadline(time.Now().Add(time.Minute))
	return hearAnswer(s)
}

func TestServeRefusesNonsense(t *testing.T) {
	cfg := Defaults()
	cfg.AskTimeout = 300 * time.Millisecond
	w := world(t, 2, cfg)
	for name, fn := range map[string]func(network.Stream){
		"no message":        func(s network.Stream) { _, _ = s.Write([]byte{0, 0, 0, 3, 255, 255, 255}) },
		"a long message":    func(s network.Stream) { _, _ = s.Write([]byte{255, 255, 255, 255}) },
		"an empty message":  func(s network.Stream) { _, _ = s.Write([]byte{0, 0, 0, 0}) },
		"half a message":    func(s network.Stream) { _, _ = s.Write([]byte{0, 0}) },
		"nothing, for long": func(s network.Stream) { _, _ = s.Write(nil) },
	} {
		before := w[1].Served().Errors[Invalid]
		err := served(t, w, fn)
		if r, ok := errors.AsType[*Refusal](err); !ok || r.Reason != Invalid && r.Reason != LinkDown {
			t.Errorf("%s: answer %v, want %v", name, err, Invalid)
		}
		until(t, name+" is counted", func() bool { return w[1].Served().Errors[Invalid] == before+1 })
	}
	if v := w[1].Served(); v.Total != 0 || v.Open != 0 {
		t.Errorf("Served = %+v, want nothing", v)
	}
}

func TestServeIsBounded(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*Config)
		open int
		want string
	}{
		{"of one peer", func(c *Config) { c.StreamsPerPeer = 2 }, 2, "2 connections for peer"},
		{"in all", func(c *Config) { c.Streams = 2 }, 2, "2 connections for other peers"},
		{"a second", func(c *Config) { c.AsksPerSecond = 0.001 }, 1, "asks more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Defaults()
			c.set(&cfg)
			w := world(t, 2, cfg)
			s := service(w[1].has(1, listen(t, echo)))
			at := w[0].door(t, s, TCP)
			for range c.open {
				open := dial(t, at)
				_, _ = open.Write([]byte("a"))
				if _, err := io.ReadFull(open, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			near, conn := net.Pipe()
			defer near.Close()
			err := w[0].TCP(t.Context(), conn, s.published())
			if r, ok := errors.AsType[*Refusal](err); !ok || r.Reason != Busy || !strings.Contains(r.Text, c.want) {
				t.Errorf("TCP = %v, want %v: %s", err, Busy, c.want)
			}
			until(t, "it is counted", func() bool { return w[1].Served().Errors[Busy] == 1 })
		})
	}
}

// The gate is the caller's: a stream that it turns away is a holder that does not answer.
func TestStrangerIsTurnedAway(t *testing.T) {
	w := world(t, 2, Defaults())
	isMember := func(shoal.PeerID) bool { return false }
	w[1].host.SetStreamHandler(Protocol, func(s network.Stream) {
		if !isMember(shoal.PeerID(s.Conn().RemotePeer().String())) {
			_ = s.Reset()
			return
		}
		w[1].Serve(t.Context(), s)
	})
	s := service(w[1].has(1, listen(t, echo)))
	if err := knock(t, w[0].door(t, s, TCP)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client saw %v, want a reset", err)
	}
	if n := s.Stats().Errors[LinkDown]; n != 1 {
		t.Errorf("counted %d, want 1", n)
	}
	if asks := w[1].asked(); len(asks) != 0 {
		t.Errorf("a stranger's wish was looked up: %+v", asks)
	}
}

// A replica that does not take the connection in time is passed over.
func TestHolderThatNeverAnswers(t *testing.T) {
	cfg := Defaults()
	cfg.AnswerTimeout = 200 * time.Millisecond
	w := world(t, 2, cfg)
	w[1].host.SetStreamHandler(Protocol, func(s network.Stream) { _, _ = io.Copy(io.Discard, s); _ = s.Close() })
	s := service(w[1].has(1, netip.AddrPort{}), w[0].has(2, listen(t, says("here"))))
	at := w[0].door(t, s, TCP)
	for range 2 {
		if got, err := ask(t, at, ""); got != "here" || err != nil {
			t.Errorf("answer = %q, %v, want here", got, err)
		}
	}
	if n := s.Stats().Errors[LinkDown]; n == 0 {
		t.Error("it was not counted")
	}
}

func TestConfig(t *testing.T) {
	cfg := Defaults()
	if err := cfg.Validate(); err != nil {
		t.Errorf("Defaults = %v", err)
	}
	cfg.Attempts = 0
	if _, err := New(cfg, Deps{}); err == nil || !strings.Contains(err.Error(), "attempts") || !strings.Contains(err.Error(), "Self") {
		t.Errorf("New = %v, want what is wrong with both", err)
	}
}

func TestHistogram(t *testing.T) {
	var h atomicHistogram
	for _, d := range []time.Duration{-1, 0, 15 * time.Microsecond, 16 * time.Microsecond, time.Millisecond, time.Hour} {
		h.add(d)
	}
	got := h.read()
	if c := got.Counts; c[0] != 3 || c[1] != 1 || c[6] != 1 || c[buckets-1] != 1 || got.Count() != 6 {
		t.Errorf("histogram = %v", got)
	}
	if len(got.Bounds) != len(got.Counts)-1 || got.Bounds[0] != 16*time.Microsecond || got.Bounds[6] != 1024*time.Microsecond {
		t.Errorf("bounds = %v, want 16µs, twice as much each time, and one fewer than buckets", got.Bounds)
	}
	if want := time.Hour + time.Millisecond + 31*time.Microsecond; got.Sum != want { // what is below 0 took no time
		t.Errorf("sum = %v, want %v", got.Sum, want)
	}
}

// What is named is taken whether it is ready or not, and counted.
func TestNamedReplica(t *testing.T) {
	m := alone(t, Defaults())
	b := m.has(1, listen(t, says("one")))
	b.Ready = false
	s := service(b, m.has(2, listen(t, says("two"))))
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- m.TCP(t.Context(), far, Dest{Service: s, Port: 80, Via: ViaForward, Replica: b.Replica})
	}()
	got := make([]byte, 3)
	if _, err := io.ReadFull(near, got); string(got) != "one" || err != nil {
		t.Fatalf("answer = %q, %v, want one", got, err)
	}
	if open := func(r []balance.Row) int { return r[0].Open }(s.Rows(0)); open != 1 {
		t.Errorf("%d open, want 1", open)
	}
	near.Close()
	<-done // a pipe knows no halves: how it ends is not said
	if open := s.Rows(0)[0].Open; open != 0 {
		t.Errorf("%d open at the end", open)
	}
}

// A socket that fails is not asked again and again at once, nor never.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wait backOff
		for _, want := range []time.Duration{5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
			begun := time.Now()
			wait.pause(t.Context())
			if got := time.Since(begun); got != want*time.Millisecond {
				t.Fatalf("waited %v, want %v", got, want*time.Millisecond)
			}
		}
		wait.reset()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begun := time.Now()
		wait.pause(ctx)
		if got := time.Since(begun); got != 0 {
			t.Errorf("waited %v after the end", got)
		}
	})
}
