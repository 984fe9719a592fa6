// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"io"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	ma "github.com/multiformats/go-multiaddr"
	"pgregory.net/rapid"
)

// TestChooseRelays: the choice is fit, full and each once; it does not depend on the
// order; what is had stays; one relay more or less changes at most one of the choice.
func TestChooseRelays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		self := peer.ID(rapid.StringN(1, 8, 8).Draw(t, "self"))
		fit := rapid.SliceOfNDistinct(rapid.Map(rapid.StringN(1, 8, 8), func(s string) peer.ID { return peer.ID(s) }), 0, 10, func(p peer.ID) peer.ID { return p }).Draw(t, "fit")
		had := map[peer.ID]bool{}
		for _, p := range fit {
			if k := rapid.IntRange(0, 4).Draw(t, "had"); k < 2 {
				had[p] = k == 0
			}
		}
		n := rapid.IntRange(0, 3).Draw(t, "n")
		got := chooseRelays(self, fit, had, n)
		usable := slices.DeleteFunc(slices.Clone(fit), func(p peer.ID) bool { has, known := had[p]; return known && !has })
		if len(got) != min(n, len(usable)) {
			t.Fatalf("%d chosen of %d, want %d", len(got), len(usable), n)
		}
		kept := 0
		for i, p := range got {
			if !slices.Contains(usable, p) || slices.Contains(got[:i], p) {
				t.Fatalf("chose %q, which is not fit, or twice", p)
			}
			if had[p] {
				kept++
			}
		}
		held := 0
		for _, has := range had {
			if has {
				held++
			}
		}
		if kept != min(held, n) {
			t.Fatalf("kept %d of %d", kept, held)
		}
		back := slices.Clone(fit)
		slices.Reverse(back)
		if again := chooseRelays(self, back, had, n); !slices.Equal(again, got) {
			t.Fatalf("in another order %v, want %v", again, got)
		}
		if len(fit) == 0 {
			return
		}
		fewer, changed := chooseRelays(self, fit[1:], had, n), 0
		for _, p := range fewer {
			if !slices.Contains(got, p) {
				changed++
			}
		}
		if changed > 1 {
			t.Fatalf("without %q the choice is %v, it was %v", fit[0], fewer, got)
		}
	})
}

// TestChooseRelaysSpreads: 1,000 peers with 5 relays reserve twice each; none is to
// carry half as many again as its share.
func TestChooseRelaysSpreads(t *testing.T) {
	fit := make([]peer.ID, 5)
	for i := range fit {
		fit[i] = decodeID(t, memory(t, byte(200+i)).Self())
	}
	load := map[peer.ID]int{}
	for i := range 1000 {
		for _, p := range chooseRelays(peer.ID([]byte{byte(i), byte(i >> 8)}), fit, nil, maxRelays) {
			load[p]++
		}
	}
	for p, n := range load {
		if n < 200 || n > 600 {
			t.Errorf("relay %s has %d reservations, want about 400", p, n)
		}
	}
}

func TestTryPause(t *testing.T) {
	for tries, most := range map[int]time.Duration{0: firstTry, 1: 2 * firstTry, 3: 8 * firstTry, 6: lastTry, 1000: lastTry} {
		if lo, hi := tryPause(tries, 0), tryPause(tries, 1); lo != most/2 || hi != most {
			t.Errorf("after %d tries %s to %s, want %s to %s", tries, lo, hi, most/2, most)
		}
	}
}

// onlyProtocol is a stream that only says what it is for.
type onlyProtocol struct {
	network.Stream
	is protocol.ID
}

func (s onlyProtocol) Protocol() protocol.ID { return s.is }

func TestIsSpent(t *testing.T) {
	for _, c := range []struct {
		what string
		held time.Duration
		left []protocol.ID
		want bool
	}{
		{"nothing is left", settled, nil, true},
		{"the straight one is too young", settled - 1, nil, false},
		{"pubsub moves by itself", settled, []protocol.ID{"/meshsub/1.2.0", "/floodsub/1.0.0"}, true},
		{"a command runs", time.Hour, []protocol.ID{"/meshsub/1.2.0", ProtocolExec}, false},
		{"a stream that has not said what it is", time.Hour, []protocol.ID{""}, false},
	} {
		var left []network.Stream
		for _, p := range c.left {
			left = append(left, onlyProtocol{is: p})
		}
		if got := isSpent(c.held, left); got != c.want {
			t.Errorf("%s: spent %v, want %v", c.what, got, c.want)
		}
	}
}

func TestPingLog(t *testing.T) {
	var g pingLog
	for i := range 30 {
		g = g.add(i%3 != 0, time.Duration(i))
	}
	// Of the last 20, 10 to 29, those of 12, 15, ... 27 were lost.
	if p := g.path(); p.Pings != 20 || p.Lost != 6 || p.RTT != 29 {
		t.Errorf("%d of %d lost, RTT %d, want 6 of 20 and 29", p.Lost, p.Pings, p.RTT)
	}
	for range 20 {
		g = g.add(false, 0)
	}
	if p := g.path(); p.Lost != 20 || p.RTT != 29 {
		t.Errorf("%d lost, RTT %d, want all, and the last answer's", p.Lost, p.RTT)
	}
}

// TestPreferTCPThenRelays: circuits wait for straight ways, and for nothing else.
func TestPreferTCPThenRelays(t *testing.T) {
	via := circuitVia(decodeID(t, memory(t, 1).Self()))
	tcp := ma.StringCast("/ip4/192.0.2.1/tcp/4710")
	got := preferTCP([]ma.Multiaddr{via, tcp})
	if len(got) != 2 || !got[0].Addr.Equal(tcp) || got[0].Delay != 0 || got[1].Delay != relayDelay {
		t.Errorf("preferTCP = %v", got)
	}
	if got := preferTCP([]ma.Multiaddr{via}); len(got) != 1 || got[0].Delay != 0 {
		t.Errorf("preferTCP of a circuit alone = %v", got)
	}
}

func TestCircuitAddresses(t *testing.T) {
	id := decodeID(t, memory(t, 1).Self())
	for text, want := range map[string]bool{
		circuitVia(id).String():                                   true,
		"/ip4/10.0.0.1/tcp/1/p2p/" + id.String() + "/p2p-circuit": false, // where it is stands elsewhere
		"/p2p-circuit": false,
		"/p2p/" + id.String() + "/p2p-circuit/p2p/" + id.String():   false,
		"/p2p/" + id.String() + "/p2p-circuit/ip4/127.0.0.1/tcp/22": false,
	} {
		a := ma.StringCast(text)
		if got := dialable(a, true); got != want || !isCircuit(a) {
			t.Errorf("%s: dialable %v, circuit %v, want %v and true", text, got, isCircuit(a), want)
		}
	}
	if relay, ok := relayOf(ma.StringCast("/ip4/10.0.0.1/udp/1/quic-v1/p2p/" + id.String() + "/p2p-circuit")); !ok || relay != id {
		t.Errorf("relayOf = %s, %v", relay, ok)
	}
}

func TestMapsPort(t *testing.T) {
	for _, c := range []struct {
		listen string
		off    bool
		want   bool
	}{
		{"0.0.0.0:4710", false, true},
		{"192.168.1.5:4710", false, true},
		{"192.168.1.5:4710", true, false},
		{"127.0.0.1:4710", false, false},
		{"203.0.113.7:4710", false, false},
		{"[fd00::1]:4710", false, true},
	} {
		cfg := LAN()
		cfg.Listen, cfg.UPnP = []string{c.listen}, !c.off
		addrs, err := cfg.listenAddrs()
		mustBe(t, "listen addresses", err)
		if got := cfg.mapsPort(addrs); got != c.want {
			t.Errorf("listening on %s, off %v: asks %v, want %v", c.listen, c.off, got, c.want)
		}
	}
}

// gateway is a router that forwards everything from one address outside.
type gateway struct{ io.Closer }

func (gateway) GetMapping(a ma.Multiaddr) ma.Multiaddr {
	_, rest := ma.SplitFirst(a)
	return ma.Join(ma.StringCast("/ip4/203.0.113.7"), rest)
}
func (gateway) HasDiscoveredNAT() bool { return true }
func (gateway) Close() error           { return nil }

// TestPortMapping: what a router forwards is told to others; on loopback, and where it
// is switched off, no router is asked.
func TestPortMapping(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(*Config)
		want   bool
	}{
		{"on every address", func(c *Config) { c.Listen = []string{"0.0.0.0:0"} }, true},
		{"switched off", func(c *Config) { c.Listen, c.UPnP = []string{"0.0.0.0:0"}, false }, false},
		{"on loopback", func(*Config) {}, false},
	} {
		asked := false
		cfg := quiet()
		cfg.nat = func(network.Network) basichost.NATManager { asked = true; return gateway{} }
		c.change(&cfg)
		p := up(t, cfg, memory(t, 1))
		if asked != c.want {
			t.Errorf("%s: a router was asked %v, want %v", c.what, asked, c.want)
		}
		isOutside := func() bool {
			return slices.ContainsFunc(p.Addrs(), func(a string) bool { return len(a) > 17 && a[:17] == "/ip4/203.0.113.7/" })
		}
		if c.want {
			eventually(t, "the forwarded address is told", isOutside)
		} else if isOutside() {
			t.Errorf("%s: tells %v", c.what, p.Addrs())
		}
		p.stop()
	}
}
