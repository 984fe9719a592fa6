// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/balance"
)

// everywhere runs a test with the replica on the peer that publishes, and on another one.
func everywhere(t *testing.T, cfg Config, fn func(t *testing.T, here, holder *member)) {
	t.Run("local", func(t *testing.T) {
		m := alone(t, cfg)
		fn(t, m, m)
	})
	t.Run("remote", func(t *testing.T) {
		w := world(t, 2, cfg)
		fn(t, w[0], w[1])
	})
}

func TestCarriesBothWays(t *testing.T) {
	everywhere(t, Defaults(), func(t *testing.T, here, holder *member) {
		s := service(holder.has(1, listen(t, echo)))
		at := here.door(t, s, TCP)
		got, err := ask(t, at, "hello")
		if got != "hello" || err != nil {
			t.Fatalf("answer = %q, %v, want hello", got, err)
		}
		until(t, "the connection is over", func() bool { return s.Stats().Open == 0 })
		st := s.Stats()
		if st.Total != 1 || st.In != 5 || st.Out != 5 || st.Errors != [reasons]uint64{} {
			t.Errorf("Stats = %+v, want one connection of 5 bytes each way", st)
		}
		if st.Connect.Count() != 1 || st.FirstByte.Count() != 1 {
			t.Errorf("counted %d connects and %d first bytes, want 1 and 1", st.Connect.Count(), st.FirstByte.Count())
		}
		if row := s.Rows(0)[0]; row.Connect == 0 || row.FirstByte == 0 {
			t.Errorf("the table knows connect %v and first byte %v, want both", row.Connect, row.FirstByte)
		}
		a := holder.asked()[0]
		if a.Service != "web" || a.Port != 80 || a.Protocol != TCP || a.Via != ViaPublished || a.Reached != at || a.Client.Addr() != loopback {
			t.Errorf("the holder was asked %+v", a)
		}
		if holder.askers[0] != here.id {
			t.Errorf("asker = %s, want %s", holder.askers[0], here.id)
		}
		if here != holder {
			until(t, "the holder is done", func() bool { return holder.Served().Open == 0 })
			if v := holder.Served(); v.Total != 1 || v.In != 5 || v.Out != 5 {
				t.Errorf("Served = %+v, want one connection of 5 bytes each way", v)
			}
		}
	})
}

// Each way ends by itself: here the replica ends first and still hears all, and in
// TestCarriesBothWays the client does.
func TestHalfCloseOfReplica(t *testing.T) {
	everywhere(t, Defaults(), func(t *testing.T, here, holder *member) {
		heard := make(chan string, 1)
		s := service(holder.has(1, listen(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "bye")
			_ = c.CloseWrite()
			b, err := io.ReadAll(c)
			if err != nil {
				b = []byte(err.Error())
			}
			heard <- string(b)
		})))
		c := dial(t, here.door(t, s, TCP))
		if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
			t.Fatalf("answer = %q, %v, want bye", b, err)
		}
		if _, err := io.WriteString(c, "still here"); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		if got := <-heard; got != "still here" {
			t.Errorf("the replica heard %q, want still here", got)
		}
	})
}

// A reader that stalls stops the sender, and nothing is lost when it goes on.
func TestBigTransferWithBackPressure(t *testing.T) {
	const size = 96 << 20
	block := noise(1, 1<<20)
	sum := sha256.New()
	for range size / len(block) {
		sum.Write(block)
	}
	want := string(sum.Sum(nil))
	everywhere(t, Defaults(), func(t *testing.T, here, holder *member) {
		var sent atomic.Int64
		s := service(holder.has(1, listen(t, func(c *net.TCPConn) {
			for range size / len(block) {
				n, err := c.Write(block)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		})))
		c := dial(t, here.door(t, s, TCP))
		stalled := int64(-1)
		until(t, "the sender stalls", func() bool {
			now := sent.Load()
			is := now > 0 && now == stalled
			stalled = now
			time.Sleep(100 * time.Millisecond) // long enough to send something
			return is
		})
		if stalled > size/2 {
			t.Errorf("a client that reads nothing was sent %d bytes", stalled)
		}
		got := sha256.New()
		n, err := io.Copy(got, c)
		if n != size || err != nil || string(got.Sum(nil)) != want {
			t.Fatalf("read %d bytes, %v, want %d and the same hash", n, err, size)
		}
		_ = c.Close()
		until(t, "all is counted", func() bool { return s.Stats().Open == 0 })
		if st := s.Stats(); st.Out != size {
			t.Errorf("counted %d bytes out, want %d", st.Out, size)
		}
	})
}

// A broken answer must not look whole.
func TestResetIsPassedOn(t *testing.T) {
	everywhere(t, Defaults(), func(t *testing.T, here, holder *member) {
		s := service(holder.has(1, listen(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "half of")
			_, _ = c.Read(make([]byte, 1)) // the client has read that
			_ = c.SetLinger(0)
		})))
		c := dial(t, here.door(t, s, TCP))
		if _, err := io.ReadFull(c, make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("x"))
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client saw %v, want a reset", err)
		}
		until(t, "it is counted", func() bool { return s.Stats().Errors[ReplicaBroke] == 1 })
	})
}

func TestResetOfClientIsPassedOn(t *testing.T) {
	everywhere(t, Defaults(), func(t *testing.T, here, holder *member) {
		saw := make(chan error, 1)
		s := service(holder.has(1, listen(t, func(c *net.TCPConn) {
			_, err := io.ReadAll(c)
			saw <- err
		})))
		c := dial(t, here.door(t, s, TCP))
		_, _ = c.Write([]byte("x"))
		until(t, "it is carried", func() bool { return s.Stats().In == 1 })
		_ = c.SetLinger(0)
		_ = c.Close()
		if err := <-saw; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the replica saw %v, want a reset", err)
		}
		until(t, "it is counted", func() bool { return s.Stats().Errors[ClientBroke] == 1 })
	})
}

// Every kind of replica that takes nothing is passed over, without a byte lost.
func TestTriesAnother(t *testing.T) {
	cfg := Defaults()
	cfg.Attempts = 10
	w := world(t, 3, cfg)
	gone := w[2].has(5, netip.AddrPort{})
	if err := w[2].host.Close(); err != nil {
		t.Fatal(err)
	}
	refusing := w[1].has(4, netip.AddrPort{})
	w[1].refuse(refusing.Replica, &Refusal{Reason: NotReady, Text: "releasing"})
	s := service(
		w[0].has(1, nobody(t)), // nobody listens here
		w[1].has(2, nobody(t)), // nor there
		balance.Backend{Replica: replica(3), Holder: w[1].id, Ready: true, Alive: true}, // not there
		refusing, gone,
		w[1].has(6, listen(t, echo)),
	)
	at := w[0].door(t, s, TCP)
	for range 6 {
		if got, err := ask(t, at, "whole"); got != "whole" || err != nil {
			t.Fatalf("answer = %q, %v, want whole", got, err)
		}
	}
	st := s.Stats()
	if st.Errors[Unreachable] == 0 || st.Errors[NotHere] == 0 || st.Errors[NotReady] == 0 || st.Errors[LinkDown] == 0 {
		t.Errorf("errors = %v, want each kind once", st.Errors)
	}
	if st.Retries < 5 {
		t.Errorf("%d retries, want one for each that refuses", st.Retries)
	}
	until(t, "the holder counts them", func() bool {
		v := w[1].Served()
		return v.Errors[Unreachable] > 0 && v.Errors[NotHere] > 0 && v.Errors[NotReady] > 0
	})
}

func TestAllRefuse(t *testing.T) {
	everywhere(t, Defaults(), func(t *testing.T, here, holder *member) {
		s := service(holder.has(1, nobody(t)), holder.has(2, nobody(t)))
		if err := knock(t, here.door(t, s, TCP)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client saw %v, want a reset", err)
		}
		until(t, "it is counted", func() bool { return s.Stats().Errors[Unreachable] == 2 })
		for _, r := range s.Rows(here.deps.Clock.Mono()) {
			if r.Refusals != 1 {
				t.Errorf("replica %d: %d refusals, want 1", r.Slot, r.Refusals)
			}
		}
	})
}

func TestNoReplica(t *testing.T) {
	m := alone(t, Defaults())
	s := service()
	if err := knock(t, m.door(t, s, TCP)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client saw %v, want a reset", err)
	}
	if n := s.Stats().Errors[NoReplica]; n != 1 {
		t.Errorf("counted %d, want 1", n)
	}
}

// A releasing replica keeps its open connections and gets no new ones.
func TestReleasing(t *testing.T) {
	m := alone(t, Defaults())
	one, two := m.has(1, listen(t, echo)), m.has(2, listen(t, says("two")))
	s := service(one)
	at := m.door(t, s, TCP)
	open := dial(t, at)
	_, _ = open.Write([]byte("a"))
	if _, err := io.ReadFull(open, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	one.Releasing = true
	s.Update(balance.Snapshot{Policy: shoal.LBRoundRobin, Backends: []balance.Backend{one, two}})
	for range 8 {
		if got, err := ask(t, at, ""); got != "two" || err != nil {
			t.Fatalf("answer = %q, %v, want two", got, err)
		}
	}
	_, _ = open.Write([]byte("b"))
	if _, err := io.ReadFull(open, make([]byte, 1)); err != nil {
		t.Errorf("the open connection ended: %v", err)
	}
}

// The refusal's words come back to who asked.
func TestRefusalHasItsReason(t *testing.T) {
	w := world(t, 2, Defaults())
	b := w[1].has(1, netip.AddrPort{})
	w[1].refuse(b.Replica, &Refusal{Reason: NotPublished, Text: "web publishes 80/tcp"})
	near, conn := net.Pipe()
	defer near.Close()
	s := service(b)
	err := w[0].TCP(context.Background(), conn, Dest{Service: s, Port: 81, Via: ViaForward, Replica: b.Replica})
	want := &Refusal{Reason: NotPublished, Text: "web publishes 80/tcp"}
	if r, ok := errors.AsType[*Refusal](err); !ok || r.Reason != want.Reason || r.Text != want.Text {
		t.Errorf("TCP = %v, want %v", err, want)
	}
	if row := s.Rows(0)[0]; row.Refusals != 0 || row.Open != 0 {
		t.Errorf("a forwarded port counts against the replica: %+v", row)
	}
	if err := w[0].TCP(context.Background(), conn, Dest{Service: s, Port: 81, Replica: replica(9)}); err == nil || err.Error() != "no replica" {
		t.Errorf("TCP to an unknown replica = %v, want no replica", err)
	}
}

func TestEndOfContextResets(t *testing.T) {
	everywhere(t, Defaults(), func(t *testing.T, here, holder *member) {
		s := service(holder.has(1, listen(t, echo)))
		ctx, cancel := context.WithCancel(t.Context())
		l, err := Listen(ctx, netip.AddrPortFrom(loopback, 0), TCP)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- l.Serve(ctx, here.Carrier, s.published()) }()
		c := dial(t, l.Addr())
		_, _ = c.Write([]byte("a"))
		_, _ = io.ReadFull(c, make([]byte, 1))
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v", err)
		}
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client saw %v, want a reset", err)
		}
		if st := s.Stats(); st.Open != 0 || st.Errors[Ended] != 1 {
			t.Errorf("Stats = %+v, want none open and one ended", st)
		}
	})
}

// A closed listener lets nobody in, and what is open goes on.
func TestCloseOfListener(t *testing.T) {
	m := alone(t, Defaults())
	s := service(m.has(1, listen(t, echo)))
	l, err := Listen(t.Context(), netip.AddrPortFrom(loopback, 0), TCP)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Serve(context.Background(), m.Carrier, s.published()) }()
	c := dial(t, l.Addr())
	_, _ = c.Write([]byte("a"))
	_, _ = io.ReadFull(c, make([]byte, 1))
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Errorf("Close = %v", err)
	}
	if late, err := net.Dial("tcp4", l.Addr().String()); err == nil {
		late.Close()
		t.Error("a closed listener was dialled")
	}
	_, _ = c.Write([]byte("b"))
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "b" || err != nil {
		t.Errorf("answer = %q, %v, want b", b, err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

func TestIdle(t *testing.T) {
	cfg := Defaults()
	cfg.Idle = time.Second // much, for this machine may be busy
	everywhere(t, cfg, func(t *testing.T, here, holder *member) {
		s := service(holder.has(1, listen(t, echo)))
		c := dial(t, here.door(t, s, TCP))
		for range 4 { // it is not silence that lasts as long
			_, _ = c.Write([]byte("a"))
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(cfg.Idle / 3) // shorter than what ends it
		}
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client saw %v, want a reset", err)
		}
		until(t, "it is counted", func() bool { return s.Stats().Errors[Silent]+s.Stats().Errors[ReplicaBroke] == 1 })
	})
}
