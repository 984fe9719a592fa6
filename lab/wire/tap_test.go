// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package wire

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socket opens a UDP socket in a network namespace of its own, which has a TAP device
// with an address and ends with the device. The thread is never used again.
func socket(t *testing.T, s *Switch, i byte) *net.UDPConn {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root; run make lab-test as root")
	}
	type result struct {
		c   *net.UDPConn
		tap *os.File
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		var r result
		defer func() { done <- r }()
		if r.err = unix.Unshare(unix.CLONE_NEWNET); r.err != nil {
			return
		}
		if r.tap, r.err = OpenTAP("eth0"); r.err != nil {
			return
		}
		batch := fmt.Sprintf("link set lo up\nlink set eth0 address %s\naddress add 10.214.0.%d/24 dev eth0\nlink set eth0 up\n", macOf(i), i)
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(batch)
		if out, err := cmd.CombinedOutput(); err != nil {
			r.err = fmt.Errorf("ip: %w: %s", err, out)
			return
		}
		r.c, r.err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 214, 0, i), Port: 7})
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	if _, err := s.Attach("outside", string(rune('a'+i-1)), macOf(i), TAP{r.tap}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.c.Close() })
	return r.c
}

// Packets of real kernels' stacks meet the delay, the loss and the cut that were asked.
func TestTAP(t *testing.T) {
	s := New(Config{Seed: 3})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	a, b := socket(t, s, 1), socket(t, s, 2)
	echoed := make(chan struct{})
	go func() {
		defer close(echoed)
		buf := make([]byte, 2000)
		for {
			n, from, err := b.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = b.WriteToUDPAddrPort(buf[:n], from) // a lost answer is seen by who waits
		}
	}()
	t.Cleanup(func() { _ = b.Close(); <-echoed })
	// ask sends n packets, a pause apart, and returns the round trips of those that came back.
	ask := func(n int, pause, patience time.Duration) []time.Duration {
		t.Helper()
		for { // what an earlier step left on its way
			if err := a.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Read(make([]byte, 2000)); err != nil {
				break
			}
		}
		start := time.Now()
		sent := make(chan error, 1)
		go func() {
			msg := make([]byte, 8)
			for range n {
				binary.BigEndian.PutUint64(msg, uint64(time.Since(start)))
				if _, err := a.WriteToUDP(msg, &net.UDPAddr{IP: net.IPv4(10, 214, 0, 2), Port: 7}); err != nil {
					sent <- err
					return
				}
				time.Sleep(pause)
			}
			sent <- nil
		}()
		var trips []time.Duration
		for len(trips) < n {
			if err := a.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			msg := make([]byte, 8)
			if _, err := a.Read(msg); err != nil {
				break
			}
			trips = append(trips, time.Since(start)-time.Duration(binary.BigEndian.Uint64(msg)))
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		slices.Sort(trips)
		return trips
	}
	both := func(l Link) {
		t.Helper()
		for _, p := range []Pair{{"outside", "a", "b"}, {"outside", "b", "a"}} {
			if err := s.SetLink(p, l); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := ask(20, time.Millisecond, time.Second); len(got) != 20 {
		t.Fatalf("%d of 20 packets came back over a wire without length", len(got))
	}
	for _, rtt := range []time.Duration{50 * time.Millisecond, 150 * time.Millisecond} {
		both(Link{Delay: rtt / 2})
		got := ask(100, 5*time.Millisecond, time.Second)
		if len(got) != 100 {
			t.Fatalf("%d of 100 packets came back", len(got))
		}
		t.Logf("asked for a round trip of %s: p50 %s, p99 %s", rtt, got[50], got[98])
		if got[0] < rtt || got[50] > rtt+rtt/10 {
			t.Errorf("asked for a round trip of %s, the least is %s and the middle %s", rtt, got[0], got[50])
		}
	}
	both(Link{Loss: 0.02})
	lost := 2000 - len(ask(2000, 200*time.Microsecond, 300*time.Millisecond))
	t.Logf("asked for a loss of 2 %% each way: %d of 2,000 round trips lost", lost)
	if lost < 35 || lost > 125 { // 79 on average, five standard deviations of 8.7
		t.Errorf("%d of 2,000 round trips lost at 2 %% each way, want about 79", lost)
	}
	both(Link{})
	if err := s.SetLink(Pair{"outside", "b", "a"}, Link{Cut: true}); err != nil {
		t.Fatal(err)
	}
	if got := ask(5, time.Millisecond, 200*time.Millisecond); len(got) != 0 {
		t.Errorf("%d packets came back over a cut link", len(got))
	}
	both(Link{})
	if got := ask(5, time.Millisecond, time.Second); len(got) != 5 {
		t.Errorf("%d of 5 packets came back after the cut was healed", len(got))
	}
}
