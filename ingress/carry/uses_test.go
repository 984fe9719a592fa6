// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/balance"
)

// carried sends nothing to a destination and returns the answer.
func (m *member) carried(t *testing.T, to Dest) (string, error) {
	t.Helper()
	near, conn := net.Pipe()
	defer near.Close()
	done := make(chan error, 1)
	go func() { done <- m.TCP(t.Context(), conn, to) }()
	got, _ := io.ReadAll(near) // a reset is seen in the error of TCP
	near.Close()
	return string(got), <-done
}

// TestSlot asks for whoever fills a slot: a ready replica first, else one that is not
// ready yet, never one that is released or of another slot.
func TestSlot(t *testing.T) {
	m := alone(t, Defaults())
	old, next, other := m.has(1, listen(t, says("old"))), m.has(2, listen(t, says("next"))), m.has(3, listen(t, says("other")))
	old.Slot, next.Slot, next.Ready = 0, 0, false
	s := service(old, next, other)
	to := Dest{Service: s, Port: 80, Via: ViaName, OfSlot: true}
	want := func(want string) {
		t.Helper()
		// A pipe breaks where a socket ends, so only a refusal is an error that counts.
		if got, err := m.carried(t, to); got != want || want == "" && err == nil {
			t.Errorf("slot %d answers %q, %v; want %q", to.Slot, got, err, want)
		}
	}
	want("old")
	old.Releasing = true
	s.Update(balance.Snapshot{Backends: []balance.Backend{old, next, other}})
	want("next")
	next.Alive = false
	s.Update(balance.Snapshot{Backends: []balance.Backend{old, next, other}})
	want("")
	if n := s.Stats().Errors[NoReplica]; n != 1 {
		t.Errorf("%d connections found no replica, want 1", n)
	}
	to.Slot = 3
	want("other")
}

// TestGuess finds a port closed that nobody declared: the replica is as good as before.
func TestGuess(t *testing.T) {
	for _, isGuess := range []bool{true, false} {
		m := alone(t, Defaults())
		s := service(m.has(1, nobody(t)))
		if _, err := m.carried(t, Dest{Service: s, Port: 80, Via: ViaName, IsGuess: isGuess}); err == nil {
			t.Error("a closed port takes connections")
		}
		if row := s.Rows(0)[0]; row.Refusals == 0 != isGuess || row.Open != 0 {
			t.Errorf("guess %v: replica is %+v", isGuess, row)
		}
	}
}

// TestCarried is so while a connection is open, here and at the holder.
func TestCarried(t *testing.T) {
	everywhere(t, Defaults(), func(t *testing.T, here, holder *member) {
		s := service(holder.has(1, listen(t, echo)))
		if holder.Carried(replica(1)) {
			t.Error("carried before the first connection")
		}
		c := dial(t, here.door(t, s, TCP))
		_, _ = c.Write([]byte("a"))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if !holder.Carried(replica(1)) || holder.Carried(replica(2)) || here != holder && here.Carried(replica(1)) {
			t.Error("want it carried at the holder only, and no other")
		}
		_ = c.Close()
		until(t, "the connection is over", func() bool {
			holder.uses.mu.Lock()
			defer holder.uses.mu.Unlock()
			return holder.uses.of[replica(1)].open == 0
		})
		if !holder.Carried(replica(1)) {
			t.Error("forgotten at once")
		}
	})
}

// TestUsesEnd forgets a replica 10 s after its last connection.
func TestUsesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := shoal.NewSystemClock()
		u := &uses{clock: clock, of: map[shoal.ReplicaID]*use{}}
		end := u.begin(replica(1), clock.Mono())
		time.Sleep(time.Minute)
		if !u.lately(replica(1)) {
			t.Error("an open connection does not count")
		}
		end()
		time.Sleep(usedFor)
		if !u.lately(replica(1)) {
			t.Error("forgotten too early")
		}
		time.Sleep(time.Nanosecond)
		if u.lately(replica(1)) {
			t.Error("not forgotten")
		}
		u.begin(replica(2), clock.Mono())()
		if len(u.of) != 1 {
			t.Errorf("%d are kept, want the one that was used", len(u.of))
		}
	})
}

// TestUDPToSlot: datagrams count as uses, too.
func TestUDPToSlot(t *testing.T) {
	m := alone(t, Defaults())
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		buffer := make([]byte, 64)
		for {
			n, from, err := pc.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(buffer[:n], from)
		}
	}()
	b := m.has(1, portOf(pc.LocalAddr()))
	b.Ready = false
	s := service(b)
	door, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- m.UDP(t.Context(), onlyPackets{door}, Dest{Service: s, Port: 53, Via: ViaName, OfSlot: true, Slot: 1})
	}()
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(portOf(door.LocalAddr())))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = c.Write([]byte("hi"))
	got := make([]byte, 64)
	if n, err := c.Read(got); err != nil || string(got[:n]) != "hi" {
		t.Errorf("answer = %q, %v", got[:n], err)
	}
	if !m.Carried(replica(1)) || m.asked()[0].Reached != portOf(door.LocalAddr()) || m.asked()[0].Client.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("asked %+v, want it counted, with its client", m.asked())
	}
	door.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// onlyPackets is a socket that is not a net.UDPConn.
type onlyPackets struct{ net.PacketConn }
