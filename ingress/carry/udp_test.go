// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalnet/shoal"
)

// listenUDP answers each datagram with what fn makes of it, nil for nothing.
func listenUDP(t testing.TB, fn func([]byte) []byte) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, packetBytes)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if out := fn(buf[:n]); err == nil && out != nil {
				_, _ = pc.WriteToUDPAddrPort(out, from)
			}
		}
	})
	t.Cleanup(func() {
		pc.Close()
		wg.Wait()
	})
	return portOf(pc.LocalAddr())
}

func echoUDP(b []byte) []byte { return b }

func dialUDP(t testing.TB, at netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

// swap sends a datagram and returns the answer.
func swap(t testing.TB, c *net.UDPConn, what []byte) []byte {
	t.Helper()
	if _, err := c.Write(what); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, packetBytes)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func TestDatagrams(t *testing.T) {
	everywhere(t, Defaults(), func(t *testing.T, here, holder *member) {
		s := service(holder.has(1, listenUDP(t, echoUDP)), holder.has(2, listenUDP(t, echoUDP)))
		at := here.door(t, s, UDP)
		c := dialUDP(t, at)
		total := 0
		for _, size := range []int{1, 0, 1400, maxDatagram, 9000} {
			want := noise(byte(size), size)
			total += size
			if got := swap(t, c, want); !slices.Equal(got, want) {
				t.Fatalf("%d bytes came back for %d", len(got), size)
			}
		}
		st := s.Stats()
		if st.Total != 1 || st.Open != 1 || st.In != uint64(total) || st.Out != uint64(total) || st.FirstByte.Count() != 1 {
			t.Errorf("Stats = %+v, want one open flow and %d bytes each way", st, total)
		}
		for _, a := range holder.asked() {
			if a.Protocol != UDP || a.Replica != holder.asked()[0].Replica || a.Reached != at {
				t.Errorf("asked %+v: one client has one replica", a)
			}
		}
		swap(t, dialUDP(t, at), []byte("other"))
		if n := s.Stats().Open; n != 2 {
			t.Errorf("%d flows of two clients", n)
		}
	})
}

func TestFlowExpires(t *testing.T) {
	cfg := Defaults()
	cfg.FlowIdle = time.Second // much, for this machine may be busy
	everywhere(t, cfg, func(t *testing.T, here, holder *member) {
		s := service(holder.has(1, listenUDP(t, echoUDP)))
		c := dialUDP(t, here.door(t, s, UDP))
		swap(t, c, []byte("a"))
		until(t, "the flow ends", func() bool { return s.Stats().Open == 0 })
		until(t, "the holder's too", func() bool { return holder.Served().Open == 0 })
		swap(t, c, []byte("b"))
		if st := s.Stats(); st.Total != 2 || st.Errors != [reasons]uint64{} {
			t.Errorf("Stats = %+v, want two flows and no error", st)
		}
		if v := holder.Served(); v.Errors != [reasons]uint64{} {
			t.Errorf("Served = %+v, want no error", v)
		}
	})
}

// Only silence ends a flow.
func TestIdleTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := shoal.NewSystemClock()
		var ended atomic.Int64
		timer := newIdleTimer(clock, time.Minute, func() { ended.Store(int64(clock.Mono())) })
		for range 10 {
			time.Sleep(50 * time.Second) // of the bubble
			timer.touch()
		}
		time.Sleep(time.Hour)
		if got, want := time.Duration(ended.Load()), 560*time.Second; got != want {
			t.Errorf("ended at %v, want %v", got, want)
		}
		stopped := newIdleTimer(clock, time.Minute, func() { t.Error("a stopped timer fired") })
		stopped.stop()
		time.Sleep(time.Hour)
	})
}

// One that nobody listens on is left out once it has said so.
func TestFlowRefused(t *testing.T) {
	everywhere(t, Defaults(), func(t *testing.T, here, holder *member) {
		gone := listenUDPOnce(t)
		s := service(holder.has(1, gone), holder.has(2, listenUDP(t, echoUDP)))
		at := here.door(t, s, UDP)
		for range 2 { // in turn
			_, _ = dialUDP(t, at).Write([]byte("x"))
		}
		until(t, "it is counted", func() bool { return s.Stats().Errors[Unreachable] == 1 && s.Stats().FirstByte.Count() == 1 })
		if rows := s.Rows(0); rows[0].Refusals != 1 || rows[0].Open != 0 || rows[1].Refusals != 0 || rows[1].Open != 1 {
			t.Errorf("rows = %+v, want the first refused and the second in use", rows)
		}
	})
}

// listenUDPOnce returns a port of loopback that nobody has.
func listenUDPOnce(t testing.TB) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	return portOf(pc.LocalAddr())
}

// Many clients push each other out, one client only itself.
func TestFlowsAreBounded(t *testing.T) {
	cfg := Defaults()
	cfg.Flows, cfg.FlowsPerClient = 12, 8
	m := alone(t, cfg)
	s := service(m.has(1, listenUDP(t, echoUDP)))
	at := m.door(t, s, UDP)
	for range 40 {
		swap(t, dialUDP(t, at), []byte("x"))
	}
	until(t, "8 are open", func() bool { return s.Stats().Open == 8 })
	for i := range 20 { // of other addresses
		from := &net.UDPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}
		c, err := net.DialUDP("udp4", from, net.UDPAddrFromAddrPort(at))
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Skip("this machine has one loopback address")
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		swap(t, c, []byte("x"))
	}
	until(t, "12 are open", func() bool { return s.Stats().Open == 12 })
	if st := s.Stats(); st.Errors[TooMany] != 60-12 {
		t.Errorf("%d went for newcomers, want %d", st.Errors[TooMany], 60-12)
	}
}

// The table alone: who is put out, how much waits, and that its counts return to zero.
func TestFlowTable(t *testing.T) {
	clock := shoal.NewSystemClock()
	cfg := Defaults()
	cfg.Flows, cfg.FlowsPerClient, cfg.FlowQueue, cfg.FlowBytes = 3, 2, 4, 60
	lost := 0
	table := newFlowTable(&cfg, func() { lost++ })
	var all []*flow
	put := func(client string, size int) (*flow, bool) {
		at := netip.MustParseAddrPort(client)
		return table.put(at, make([]byte, size), func() *flow {
			f := &flow{client: at, queue: make(chan []byte, cfg.FlowQueue), idle: newIdleTimer(clock, time.Hour, func() {})}
			all = append(all, f)
			t.Cleanup(f.idle.stop)
			return f
		})
	}
	for i, step := range []struct {
		client  string
		size    int
		evicted string
		queued  bool
	}{
		{"10.0.0.1:1", 8, "", true},
		{"10.0.0.1:2", 8, "", true},
		{"10.0.0.1:1", 0, "", true},           // it spoke again
		{"10.0.0.1:3", 8, "10.0.0.1:2", true}, // its client's oldest
		{"10.0.0.2:1", 8, "", true},
		{"[2001:db8::1]:1", 8, "10.0.0.1:1", true},
		{"[2001:db8::2]:1", 8, "10.0.0.1:3", true},
		{"[2001:db8::3]:1", 8, "[2001:db8::1]:1", true}, // of one /64
		{"[2001:db8::3]:1", 29, "", false},              // 30 wait, and there is room for 60
		{"[2001:db8::3]:1", 0, "", true},
		{"[2001:db8::3]:1", 0, "", true},
		{"[2001:db8::3]:1", 0, "", true},
		{"[2001:db8::3]:1", 0, "", false}, // its queue is full
	} {
		evicted, queued := put(step.client, step.size)
		got := ""
		if evicted != nil {
			got = evicted.client.String()
		}
		if got != step.evicted || queued != step.queued {
			t.Fatalf("step %d: %s put out %q, queued %v, want %q and %v", i, step.client, got, queued, step.evicted, step.queued)
		}
		time.Sleep(time.Millisecond) // the clock is what tells them apart
	}
	for _, f := range all {
		table.remove(f)
		table.remove(f)
	}
	if lost != 11 {
		t.Errorf("%d datagrams were lost with their flows, want all 11 that were queued", lost)
	}
	if table.queued.Load() != 0 || len(table.flows) != 0 || len(table.byClient) != 0 || table.recent.Len() != 0 {
		t.Errorf("left: %d bytes, %d flows, %d clients", table.queued.Load(), len(table.flows), len(table.byClient))
	}
}

// A flood never stops the loop, and what could not be delivered is counted.
func TestDatagramFlood(t *testing.T) {
	cfg := Defaults()
	cfg.FlowQueue = 4
	m := alone(t, cfg)
	hold := make(chan struct{})
	s := service(m.has(1, listenUDP(t, echoUDP)))
	slow := &slowTargets{Targets: m, hold: hold}
	m.deps.Targets = slow
	at := m.door(t, s, UDP)
	c := dialUDP(t, at)
	for i := range 100 {
		_, _ = fmt.Fprint(c, i)
	}
	until(t, "the rest is dropped", func() bool { return s.Stats().Errors[Dropped] == 100-4 })
	close(hold)
	buf := make([]byte, 16)
	for i := range 4 {
		n, err := c.Read(buf)
		if got, want := string(buf[:n]), fmt.Sprint(i); err != nil || got != want {
			t.Errorf("answer %q, %v, want %q", got, err, want)
		}
	}
}

// slowTargets says nothing for a while.
type slowTargets struct {
	Targets
	hold chan struct{}
}

func (s *slowTargets) Target(ctx context.Context, asker shoal.PeerID, a Ask) (Place, error) {
	select {
	case <-s.hold:
	case <-ctx.Done():
		return Place{}, ctx.Err()
	}
	return s.Targets.Target(ctx, asker, a)
}
