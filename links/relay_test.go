// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	pbv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"

	"github.com/shoalnet/shoal"
)

// tell gives every peer the records of all, as they are now.
func (sim *simulation) tell(t *testing.T, store *testStore) {
	t.Helper()
	for _, p := range sim.peers {
		store.setAddrs(p.id.Self(), p.Addrs()...)
	}
	for _, p := range sim.peers {
		p.SetMembers(store.Desired())
	}
}

// settle lets virtual time pass and spreads what changed of the records.
func (sim *simulation) settle(t *testing.T, store *testStore, d time.Duration) {
	t.Helper()
	for range int(d / time.Second) {
		time.Sleep(time.Second)
		sim.tell(t, store)
	}
}

func (p *simPeer) path(o *simPeer) string {
	return p.Path(o.id.Self()).Text(shoal.PeerID.Short)
}

// echo serves a stream that sends back what comes.
func (p *simPeer) echo() {
	p.Handle("/test/echo/1", func(s network.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
}

// TestSimRelayed: two peers with no way between them are linked through a third one.
// The link is as good as any: it carries a large transfer and a stream for hours. When
// a way appears it is taken, without breaking the stream, and the relayed one is closed
// once that has ended.
func TestSimRelayed(t *testing.T) {
	simulate(t, 3, func(t *testing.T, sim *simulation) {
		store := sim.memberStore(t)
		r, a, b := sim.peers[0], sim.peers[1], sim.peers[2]
		sim.apart.Store(true)
		sim.settle(t, store, time.Minute)
		want := "relayed by " + r.id.Self().Short() + ", quic"
		if got := a.path(b); got != want {
			t.Fatalf("the path is %q, want %q", got, want)
		}
		if got := b.path(a); got != want {
			t.Fatalf("the path back is %q, want %q", got, want)
		}
		if got := sim.links(); got != 6 {
			t.Errorf("%d links, want all 6", got)
		}
		if a.host.Network().Connectedness(b.host.ID()) != network.Connected {
			t.Error("libp2p takes the link for a limited one: pubsub would not use it")
		}
		if rtt, err := a.Ping(t.Context(), b.id.Self(), false); err != nil || rtt < 40*time.Millisecond {
			t.Errorf("ping = %s, %v, want two hops of 20ms", rtt, err)
		}
		if took, err := a.handshake(t.Context(), b.host.ID()); err != nil {
			t.Errorf("forced connection = %s, %v", took, err)
		}

		b.echo()
		s, err := a.Host().NewStream(t.Context(), b.host.ID(), "/test/echo/1")
		mustBe(t, "open stream", err)
		exchange(t, s, 1<<20)
		for range 6 {
			sim.settle(t, store, time.Minute)
			exchange(t, s, 1000)
		}

		sim.apart.Store(false)
		sim.settle(t, store, lastTry+firstTry)
		if got := a.path(b); got != "direct, quic" {
			t.Errorf("the path is %q, want a direct one", got)
		}
		exchange(t, s, 1000)
		if straight, relayed := a.open(b.host.ID()); len(straight) == 0 || len(relayed) == 0 {
			t.Errorf("%d straight and %d relayed connections under a stream", len(straight), len(relayed))
		}
		fresh, err := a.Host().NewStream(t.Context(), b.host.ID(), "/test/echo/1")
		mustBe(t, "open another stream", err)
		if isRelayed(fresh.Conn()) {
			t.Error("a new stream takes the relay")
		}
		_ = fresh.Reset()
		mustBe(t, "end the stream", s.Close())
		sim.settle(t, store, 4*settled)
		if _, relayed := a.open(b.host.ID()); len(relayed) != 0 {
			t.Errorf("%d relayed connections are left", len(relayed))
		}
		if got := r.RelayChecks()[0].Detail; !strings.Contains(got, "0 circuits open, 2 MiB carried; refused: 0") {
			t.Errorf("the relay says %q", got)
		}
	}, 0)
}

// exchange sends bytes to an echo and reads them back.
func exchange(t *testing.T, s network.Stream, n int) {
	t.Helper()
	data := make([]byte, n)
	_, _ = seeded(9).Read(data)
	done := make(chan error, 1)
	go func() {
		_, err := s.Write(data)
		done <- err
	}()
	got := make([]byte, n)
	if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("echo of %d bytes: %v", n, err)
	}
	mustBe(t, "write", <-done)
}

// TestSimRelayDies: with two relays the loss of one costs the link a moment.
func TestSimRelayDies(t *testing.T) {
	simulate(t, 4, func(t *testing.T, sim *simulation) {
		store := sim.memberStore(t)
		a, b := sim.peers[1], sim.peers[2]
		sim.apart.Store(true)
		sim.settle(t, store, time.Minute)
		via := a.Path(b.id.Self()).Via
		dead, left := sim.peers[0], sim.peers[3]
		if via == left.id.Self() {
			dead, left = left, dead
		}
		if via != dead.id.Self() || len(a.reservedOn()) != 2 {
			t.Fatalf("relayed by %q, reserved on %v", via, a.reservedOn())
		}
		sim.down.Store(int32(slices.Index(sim.peers, dead) + 1))
		sim.settle(t, store, 2*time.Minute)
		if got := a.Path(b.id.Self()).Via; got != left.id.Self() {
			t.Errorf("relayed by %q, want the other one", got.Short())
		}
		if _, err := a.Ping(t.Context(), b.id.Self(), false); err != nil {
			t.Errorf("ping through the other relay = %v", err)
		}
		if got := a.reservedOn(); len(got) != 1 {
			t.Errorf("reserved on %v, want the living one", got)
		}
	}, 0, 3)
}

// trio is a relay and two members that no straight way connects, on loopback.
func trio(t *testing.T) (r, a, b *testPeer, store *testStore, apart *atomic.Bool) {
	t.Helper()
	rid, aid, bid := founder(t, 1), memory(t, 2), memory(t, 3)
	store = newTestStore(t, rid)
	for _, id := range []*Identity{aid, bid} {
		env := admitBy(t, rid, &shoal.MemberBody{Peer: id.Self(), Role: shoal.RoleOperator})
		mustBe(t, "set membership", id.SetMembership(rid.Cluster(), append(rid.Chain()[:1:1], env)))
		store.take(t, env)
	}
	apart = &atomic.Bool{}
	apart.Store(true)
	cfg := quiet()
	cfg.Relay = relayOn
	r = up(t, cfg, rid)
	a, b = up(t, kept(apart, bid), aid), up(t, kept(apart, aid), bid)
	return r, a, b, store, apart
}

// kept is the configuration of a peer whom no straight way leads to another.
func kept(apart *atomic.Bool, from *Identity) Config {
	cfg := quiet()
	other, _ := peer.Decode(string(from.Self()))
	cfg.noWay = func(p peer.ID) bool { return p == other && apart.Load() }
	return cfg
}

func tellAll(store *testStore, peers ...*testPeer) {
	for _, p := range peers {
		store.setAddrs(p.id.Self(), p.Addrs()...)
	}
	for _, p := range peers {
		p.SetMembers(store.Desired())
	}
}

// TestRelayedProtocols: over TCP, every protocol of this room works through a relay,
// and beats are heard by those that look at the connection once.
func TestRelayedProtocols(t *testing.T) {
	r, a, b, store, apart := trio(t)
	eventually(t, "a is linked to b", func() bool {
		tellAll(store, r, a, b)
		return linked(a, r.id.Self(), b.id.Self())() && linked(b, r.id.Self(), a.id.Self())()
	})
	if a.carrying.isOn.Load() || b.carrying.isOn.Load() {
		t.Error("a peer on loopback relays without being told to")
	}
	if p := a.Path(b.id.Self()); p.Kind != pathRelayed || p.Via != r.id.Self() || p.Transport != "tcp" {
		t.Errorf("the path is %+v", p)
	}
	b.ServeInside(insideFunc(cat))
	large := strings.Repeat("0123456789abcdef", 64<<10)
	var out, errs bytes.Buffer
	code, err := a.Exec(t.Context(), b.id.Self(), shoal.Target{Service: "web"}, shoal.ExecOptions{Command: []string{"cat"}, Stdin: true},
		shoal.Terminal{In: io.NopCloser(strings.NewReader(large)), Out: &out, Err: &errs})
	if err != nil || code != 7 || out.String() != large {
		t.Errorf("exec = %d, %v, %d bytes", code, err, out.Len())
	}
	var checks []string
	mustBe(t, "ways", a.Ways(t.Context(), b.id.Self(), func(c shoal.Check) error {
		checks = append(checks, fmt.Sprint(c.State, " ", c.Name, ": ", c.Detail))
		return nil
	}))
	text := strings.Join(checks, "\n")
	for _, want := range []string{"ok dial through relay " + r.id.Self().Short(), "ok path: relayed by " + r.id.Self().Short()} {
		if !strings.Contains(text, want) {
			t.Errorf("doctor lacks %q:\n%s", want, text)
		}
	}
	if got := b.RelayChecks(); len(got) != 2 || !strings.Contains(got[1].Detail, r.id.Self().Short()) {
		t.Errorf("the doctor of b says %+v", got)
	}

	apart.Store(false)
	a.host.Network().ClosePeer(b.host.ID()) // the next dial finds the straight way first
	eventually(t, "a and b are linked straight", func() bool { return a.Path(b.id.Self()).Kind == pathDirect })
}

// TestStrangersAreNotRelayed: a peer that is let in to join gets neither a reservation
// nor a circuit, and nobody joins through a relay.
func TestStrangersAreNotRelayed(t *testing.T) {
	c := &cluster{}
	id := founder(t, 1)
	cfg := quiet()
	cfg.Relay = relayOn
	c.testPeer, c.store = up(t, cfg, id), newTestStore(t, id)
	c.ServeJoin(c.store, c.store)
	token := c.invite(t, shoal.TokenOptions{})
	s := newcomer(t, 2)
	relay := decodeID(t, id.Self())
	defer s.gate.visit(relay)()
	tok, err := ParseToken(token)
	mustBe(t, "parse", err)
	mustBe(t, "reach", s.reach(t.Context(), relay, tok.Peers[0].Addrs))
	eventually(t, "the relay speaks", func() bool { return c.carrying.isOn.Load() })

	_, err = client.Reserve(t.Context(), s.host, peer.AddrInfo{ID: relay})
	if re, ok := err.(client.ReservationError); !ok || re.Status != pbv2.Status_PERMISSION_DENIED { //nolint:errorlint // it is returned as it is
		t.Errorf("a stranger's reservation = %v", err)
	}
	if c.carrying.AllowConnect(decodeID(t, s.id.Self()), nil, relay) || c.carrying.AllowReserve(decodeID(t, s.id.Self()), nil) {
		t.Error("a stranger is carried")
	}
	if got := c.RelayChecks()[0].Detail; !strings.Contains(got, "refused: 3 of strangers") {
		t.Errorf("the doctor says %q", got)
	}
	if got := strings.Count(c.logs.String(), "refused to relay"); got != 1 {
		t.Errorf("refusals are logged %d times, want once", got)
	}
	via := circuitVia(relay)
	if s.gate.InterceptAddrDial(relay, via) {
		t.Error("a circuit through one that is no member may be dialled")
	}
	if err := s.reach(t.Context(), decodeID(t, memory(t, 3).Self()), []string{via.String()}); err == nil || !strings.Contains(err.Error(), "none of its addresses") {
		t.Errorf("joining through a relay = %v", err)
	}
	for _, p := range tok.Peers {
		if slices.ContainsFunc(parseAddrs(p.Addrs), isCircuit) {
			t.Errorf("a token names a circuit: %v", p.Addrs)
		}
	}
}

// TestCircuitBound: more than so many circuits at a time are refused, and counted.
func TestCircuitBound(t *testing.T) {
	g := newGate(shoal.NewSystemClock(), true)
	a, b := decodeID(t, memory(t, 1).Self()), decodeID(t, memory(t, 2).Self())
	g.set(map[peer.ID]bool{a: true, b: true}, nil, 0)
	c := &carrying{gate: g}
	for range maxCircuits {
		if !c.AllowConnect(a, nil, b) {
			t.Fatal("refused below the bound")
		}
		c.ConnectionOpened()
	}
	if c.AllowConnect(a, nil, b) || c.overfull.Load() != 1 {
		t.Errorf("above the bound it was carried, or not counted: %d", c.overfull.Load())
	}
	c.ConnectionClosed(time.Second)
	if !c.AllowConnect(a, nil, b) {
		t.Error("refused although one has ended")
	}
}

// TestElsewhere: who is seen from another network.
func TestElsewhere(t *testing.T) {
	_, lan, err := net.ParseCIDR("10.0.0.0/24")
	mustBe(t, "parse", err)
	own := []net.Addr{&net.IPNet{IP: net.ParseIP("10.0.0.5"), Mask: lan.Mask}}
	for _, c := range []struct {
		what, ip string
		told     []string
		want     bool
	}{
		{"a neighbour", "10.0.0.9", []string{"/ip4/10.0.0.9/tcp/4710"}, false},
		{"a neighbour whose record has not come", "10.0.0.9", nil, false},
		{"from far", "203.0.113.4", nil, true},
		{"through a router that is a neighbour", "10.0.0.201", []string{"/ip4/10.0.1.11/tcp/4710"}, true},
		{"a neighbour known by name", "10.0.0.9", []string{"/dns/osaka/tcp/4710"}, false},
		{"a neighbour that tells circuits only", "10.0.0.9", []string{circuitVia(decodeID(t, memory(t, 1).Self())).String()}, false},
	} {
		if got := isElsewhere(net.ParseIP(c.ip), own, parseAddrs(c.told)); got != c.want {
			t.Errorf("%s: elsewhere %v, want %v", c.what, got, c.want)
		}
	}
}
