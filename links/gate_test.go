// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"

	"github.com/shoalnet/shoal/proto/frame"
)

func TestDialable(t *testing.T) {
	for addr, want := range map[string][2]bool{ // without and with loopback of our own
		"/ip4/10.1.2.3/tcp/1":                 {true, true},
		"/ip4/8.8.8.8/udp/1/quic-v1":          {true, true},
		"/ip6/2001:db8::1/tcp/1":              {true, true},
		"/dns4/example.org/tcp/1":             {true, true},
		"/ip4/127.0.0.1/tcp/1":                {false, true},
		"/ip4/127.9.9.9/tcp/1":                {false, true},
		"/ip6/::1/tcp/1":                      {false, true},
		"/ip6/::ffff:127.0.0.1/tcp/1":         {false, true},
		"/ip4/169.254.169.254/tcp/80":         {false, false},
		"/ip4/169.254.170.2/tcp/80":           {false, false},
		"/ip6/::ffff:169.254.169.254/tcp/80":  {false, false},
		"/ip6/fd00:ec2::254/tcp/80":           {false, false},
		"/ip6/fe80::1/tcp/1":                  {false, false},
		"/ip4/0.0.0.0/tcp/1":                  {false, false},
		"/ip6/::/tcp/1":                       {false, false},
		"/ip4/224.0.0.1/udp/1/quic-v1":        {false, false},
		"/ip4/255.255.255.255/udp/1/quic-v1":  {false, false},
		"/unix/run%2fdocker.sock":             {false, false},
		"/p2p/" + string(memory(t, 1).Self()): {false, false},
		"/dnsaddr/example.org":                {false, false},
	} {
		a, err := ma.NewMultiaddr(addr)
		mustBe(t, addr, err)
		if got := [2]bool{dialable(a, false), dialable(a, true)}; got != want {
			t.Errorf("dialable(%s) = %v, want %v", addr, got, want)
		}
	}
}

func TestPickBounds(t *testing.T) {
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("/ip4/10.0.0.%d/tcp/1", i%250+1))
	}
	many = append(many, "nonsense", "/ip4/127.0.0.1/tcp/1")
	if got := pick(false, maxAddrs, parseAddrs(many)); len(got) != maxAddrs {
		t.Errorf("a record of %d addresses gives %d, want %d", len(many), len(got), maxAddrs)
	}
	bad := parseAddrs([]string{"", "127.0.0.1:80", "/ip4/127.0.0.1/tcp/1", "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/1"})
	if got := pick(false, maxAddrs, bad); len(got) != 1 || got[0].String() != "/ip4/1.2.3.4/tcp/1" {
		t.Errorf("pick = %v, want only 1.2.3.4, once", got)
	}
}

func TestPreferTCP(t *testing.T) {
	addrs := parseAddrs([]string{"/ip4/1.1.1.1/udp/1/quic-v1", "/ip4/1.1.1.1/tcp/1", "/ip4/1.1.1.2/tcp/1"})
	got := preferTCP(addrs)
	if len(got) != 3 || got[0].Addr.String() != "/ip4/1.1.1.1/tcp/1" || got[0].Delay != 0 || got[2].Delay != quicDelay {
		t.Errorf("preferTCP = %v", got)
	}
	if got := preferTCP(addrs[:1]); len(got) != 1 || got[0].Delay != 0 {
		t.Errorf("preferTCP of QUIC alone = %v, want no delay", got)
	}
	var many []ma.Multiaddr
	for i := range 100 {
		many = append(many, ma.StringCast(fmt.Sprintf("/ip4/10.0.0.%d/tcp/1", i+1)))
	}
	if got := preferTCP(many); len(got) != maxAddrs {
		t.Errorf("preferTCP dials %d of %d addresses, want %d", len(got), len(many), maxAddrs)
	}
}

func TestConfigValidate(t *testing.T) {
	for name, c := range map[string]Config{"LAN": LAN(), "WAN": WAN()} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*Config){
		"listen":       func(c *Config) { c.Listen = nil },
		"listen[0]":    func(c *Config) { c.Listen = []string{"4801"} },
		"listen[1]":    func(c *Config) { c.Listen = []string{":1", "/ip4/nowhere"} },
		"advertise[0]": func(c *Config) { c.Advertise = []string{"here"} },
		"dial timeout": func(c *Config) { c.DialTimeout = 0 },
		"dial min":     func(c *Config) { c.DialMin = -1 },
		"dial max":     func(c *Config) { c.DialMax = time.Millisecond },
		"ping timeout": func(c *Config) { c.PingTimeout = 0 },
		"full mesh":    func(c *Config) { c.FullMesh = 0 },
	} {
		c := LAN()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: Validate = %v", name, err)
		}
	}
	got, err := expandAddrs("listen", []string{"127.0.0.1:1", "[::1]:2", ":3", "example.org:4", "/ip4/1.2.3.4/tcp/5"})
	want := "[/ip4/127.0.0.1/tcp/1 /ip4/127.0.0.1/udp/1/quic-v1 /ip6/::1/tcp/2 /ip6/::1/udp/2/quic-v1 /ip4/0.0.0.0/tcp/3" +
		" /ip4/0.0.0.0/udp/3/quic-v1 /dns/example.org/tcp/4 /dns/example.org/udp/4/quic-v1 /ip4/1.2.3.4/tcp/5]"
	if fmt.Sprint(got) != want || err != nil {
		t.Errorf("expandAddrs = %v, %v, want %v", got, err, want)
	}
}

func TestListenTaken(t *testing.T) {
	a := up(t, quiet(), memory(t, 1))
	cfg := quiet()
	i := slices.IndexFunc(a.Addrs(), isTCP)
	cfg.Listen = a.Addrs()[i : i+1]
	where := strings.NewReplacer("/ip4/", "", "/tcp/", ":").Replace(cfg.Listen[0])
	l, err := New(cfg, memory(t, 2), newFixedClock(), discard())
	mustBe(t, "new", err)
	if err := l.Run(t.Context()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("listen on %s (tcp): already in use by pid %d (", where, os.Getpid())) {
		t.Errorf("Run on a taken port = %v, want an error that names it and who has it", err)
	}
	never, err := New(quiet(), memory(t, 3), newFixedClock(), discard())
	mustBe(t, "new", err)
	mustBe(t, "close", never.Close())
}

// TestStranger: with the door open a stranger reaches the join protocol and nothing
// else; with it shut, not even a connection.
func TestStranger(t *testing.T) {
	a := newCluster(t, 1)
	called := make(chan struct{}, 10)
	note := func(s network.Stream) { called <- struct{}{}; _ = s.Close() }
	a.Handle("/test/handled/1", note)
	a.Host().SetStreamHandler("/test/host/1", note)
	a.Host().SetStreamHandlerMatch("/test/match/1", func(p protocol.ID) bool { return p == "/test/match/1" }, note)

	b := newcomer(t, 2)
	target := decodeID(t, a.id.Self())
	defer b.gate.visit(target)()
	if err := b.reach(t.Context(), target, a.Addrs()); err == nil {
		// TLS lets the dialler go on before the other side decided: ask for a stream.
		if s, err := b.host.NewStream(t.Context(), target, ProtocolJoin); err == nil {
			t.Fatalf("a stranger got in through a shut door: %v", s.ID())
		}
	}
	a.invite(t, shoal.TokenOptions{})
	mustBe(t, "connect with the door open", b.reach(t.Context(), target, a.Addrs()))
	for _, p := range []protocol.ID{"/test/handled/1", "/test/host/1", "/test/match/1", ProtocolPing, ProtocolLogs} {
		s, err := b.host.NewStream(t.Context(), target, p)
		if err != nil {
			continue
		}
		_ = frame.Write(s, &shoalv1.Ping{Nonce: []byte("nonce of some length")}, 100)
		if n, err := io.ReadFull(s, make([]byte, 1)); err == nil {
			t.Errorf("%s: a stranger read %d bytes", p, n)
		}
	}
	select {
	case <-called:
		t.Error("a handler ran for a stranger")
	default:
	}
	if _, err := a.Host().NewStream(t.Context(), decodeID(t, b.id.Self()), "/test/any/1"); err == nil || !strings.Contains(err.Error(), "not a member") {
		t.Errorf("a room opened a stream to a stranger: %v", err)
	}
	s, err := b.host.NewStream(t.Context(), target, ProtocolJoin)
	mustBe(t, "open join stream", err)
	var hello shoalv1.JoinHello
	if err := frame.Read(s, &hello, joinFrame); err != nil || len(hello.GetNonce()) != nonceSize {
		t.Errorf("join hello = %v, %v", &hello, err)
	}
	_ = s.Reset()
}

// TestDoor checks the places for strangers: four at a time, ten seconds each.
func TestDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(shoal.NewSystemClock(), false)
		var ids []peer.ID
		for i := range 6 {
			ids = append(ids, decodeID(t, memory(t, byte(i)).Self()))
		}
		wall := time.Now().Unix()
		may := func(want string) {
			t.Helper()
			got := ""
			for _, p := range ids {
				got += map[bool]string{true: "y", false: "-"}[g.mayStay(p)]
			}
			if got != want {
				t.Errorf("after %s: may stay %s, want %s", time.Since(time.Unix(wall, 0)), got, want)
			}
		}
		may("------")
		g.set(nil, nil, wall+3600)
		may("yyyy--")
		if at, ok := g.nextStranger(); !ok || at != strangerTime {
			t.Errorf("next stranger goes at %v, %v", at, ok)
		}
		time.Sleep(strangerTime - time.Millisecond)
		may("yyyy--")
		time.Sleep(time.Millisecond)
		may("----yy") // those who stood at the door are not let in again at once
		g.set(map[peer.ID]bool{ids[0]: true}, nil, wall+3600)
		may("y---yy")
		time.Sleep(strangerTime)
		may("yyyy--") // those who went first have waited as long as they stood
		g.set(nil, nil, 0)
		time.Sleep(2 * strangerTime)
		may("------")
	})
}

// TestStrangerIsCut holds a connection open until the member ends it.
func TestStrangerIsCut(t *testing.T) {
	simulate(t, 2, func(t *testing.T, sim *simulation) {
		a, b := sim.peers[0], sim.peers[1]
		store := newTestStore(t, a.id)
		a.ServeJoin(store, store)
		a.SetMembers(store.Desired())
		target := decodeID(t, a.id.Self())
		defer b.gate.visit(target)()

		mustBe(t, "connect to a shut door", b.host.Connect(t.Context(), a.info()))
		time.Sleep(time.Second)
		if n := len(a.host.Network().Peers()); n != 0 {
			t.Errorf("%d strangers are connected though the door is shut", n)
		}
		_, err := a.CreateInvite(t.Context(), store, shoal.TokenOptions{})
		mustBe(t, "invite", err)
		a.SetMembers(store.Desired())
		mustBe(t, "connect", b.host.Connect(t.Context(), a.info()))
		time.Sleep(strangerTime - time.Second)
		if n := len(a.host.Network().Peers()); n != 1 {
			t.Errorf("%d strangers are connected after 9s, want 1", n)
		}
		time.Sleep(2 * time.Second)
		if n := len(a.host.Network().Peers()); n != 0 {
			t.Errorf("%d strangers are connected after 11s, want none", n)
		}
	})
}

// TestRemovedMemberIsCut removes a member: its links end and it is not dialled again.
func TestRemovedMemberIsCut(t *testing.T) {
	a := newCluster(t, 1)
	b := newcomer(t, 2)
	_, err := b.Join(t.Context(), a.invite(t, shoal.TokenOptions{}), shoal.JoinOptions{})
	mustBe(t, "join", err)
	eventually(t, "a links b", linked(a.testPeer, b.id.Self()))
	eventually(t, "b links a", linked(b, a.id.Self()))

	changed := a.Changed()
	a.clock.add(2 * doorGrace)
	a.store.setRemoved(b.id.Self())
	a.SetMembers(a.store.Desired())
	<-changed
	eventually(t, "the link is cut", func() bool { return len(a.host.Network().Peers()) == 0 })
	eventually(t, "b is forgotten", func() bool { return len(a.id.Members()) == 0 })
	if _, err := b.Ping(t.Context(), a.id.Self(), false); err == nil {
		t.Error("a removed member's ping was answered")
	}
	if _, err := a.Ping(t.Context(), b.id.Self(), true); err == nil {
		t.Error("a removed member was pinged")
	}
	if got := a.Connected(); len(got) != 0 {
		t.Errorf("Connected = %v", got)
	}
}

// TestRemovedMemberIsTold: the links of who was removed are cut, but not before it was
// told why, whether it is there or comes back later, and also at a shut door.
func TestRemovedMemberIsTold(t *testing.T) {
	a := newCluster(t, 1)
	b := newcomer(t, 2)
	_, err := b.Join(t.Context(), a.invite(t, shoal.TokenOptions{}), shoal.JoinOptions{})
	mustBe(t, "join", err)
	eventually(t, "a links b", linked(a.testPeer, b.id.Self()))
	eventually(t, "b links a", linked(b, a.id.Self()))
	told := make(chan [][]byte, 8)
	b.ServeRemoval(func(_ context.Context, envelopes [][]byte) error {
		told <- envelopes
		return nil
	})

	a.clock.add(2 * doorGrace)
	a.store.setRemoved(b.id.Self())
	d := *a.store.Desired()
	d.Peers = slices.Clone(d.Peers)
	removal := admitBy(t, a.id, &shoal.MemberBody{Peer: b.id.Self(), Removed: true, HighestSeq: 1})
	for i := range d.Peers {
		if d.Peers[i].ID == b.id.Self() {
			d.Peers[i].Removal = removal
		}
	}
	if got := RemoverOf(&d, b.id.Self()); got != a.id.Self() {
		t.Errorf("RemoverOf = %q, want a", got)
	}
	a.SetMembers(&d)
	for range 2 { // b does not listen, and links again
		got := <-told
		if len(got) != 1+len(a.id.Chain()) || !bytes.Equal(got[len(got)-1], removal) {
			t.Fatalf("told %d envelopes, want a's chain and the removal", len(got))
		}
		if _, err := VerifyChain(a.id.Cluster(), a.id.Self(), got[:len(got)-1]); err != nil {
			t.Errorf("the chain that came along: %v", err)
		}
		for _, c := range b.host.Network().Conns() {
			mustBe(t, "hang up", c.Close())
		}
	}
	if _, err := b.Ping(t.Context(), a.id.Self(), false); err == nil {
		t.Error("a removed member's ping was answered")
	}
}
