// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"

	"github.com/shoalnet/shoal"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// simPeer is a peer on the simulated network.
type simPeer struct {
	*Links
	id *Identity
}

func (p *simPeer) info() peer.AddrInfo {
	return peer.AddrInfo{ID: p.host.ID(), Addrs: p.host.Addrs()}
}

// simulation is some peers on a network of 20 ms; the first one founded a cluster.
type simulation struct {
	peers  []*simPeer
	relays map[int]bool
	cut    atomic.Bool  // every packet is held for an hour while set
	apart  atomic.Bool  // those between the second and the third are
	down   atomic.Int32 // those from and to one peer are; 1 more than its number
}

// isHeld reports whether a packet is lost.
func (sim *simulation) isHeld(p *simnet.Packet) bool {
	from, to := simNumber(p.From), simNumber(p.To)
	down := int(sim.down.Load()) - 1
	return sim.cut.Load() || sim.apart.Load() && from+to == 1+2 && from*to == 1*2 ||
		down >= 0 && (from == down || to == down)
}

// simNumber says which peer an address is of.
func simNumber(a net.Addr) int {
	for i := range 20 {
		if at, ok := a.(*net.UDPAddr); ok && at.IP.Equal(simnet.IntToPublicIPv4(i)) {
			return i
		}
	}
	return -1
}

// simulate runs fn in a bubble of virtual time; the peers of the numbers relay.
func simulate(t *testing.T, n int, fn func(*testing.T, *simulation), relays ...int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sim := &simulation{relays: map[int]bool{}}
		for _, i := range relays {
			sim.relays[i] = true
		}
		sn := &simnet.Simnet{LatencyFunc: func(p *simnet.Packet) time.Duration {
			if sim.isHeld(p) {
				return time.Hour
			}
			return 10 * time.Millisecond
		}}
		sn.Start()
		defer sn.Close()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, n)
		for i := range n {
			id := memory(t, byte(i+1))
			if i == 0 {
				id = founder(t, 1)
			}
			p := sim.newPeer(t, sn, id, i)
			sim.peers = append(sim.peers, p)
			go func() { done <- p.Run(ctx) }()
		}
		fn(t, sim)
		cancel()
		for range n {
			mustBe(t, "run", <-done)
		}
		for _, p := range sim.peers {
			mustBe(t, "close host", p.host.Close())
		}
	})
}

func (sim *simulation) newPeer(t *testing.T, sn *simnet.Simnet, id *Identity, i int) *simPeer {
	t.Helper()
	link := simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps}
	h, err := libp2p.New(
		libp2p.Identity(id.Key()),
		libp2p.ListenAddrStrings(fmt.Sprintf("/ip4/%s/udp/4801/quic-v1", simnet.IntToPublicIPv4(i))),
		simlibp2p.QUICSimnet(sn, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}),
		libp2p.DisableIdentifyAddressDiscovery(), libp2p.EnableRelay(), libp2p.DisableMetrics(),
		libp2p.ResourceManager(&network.NullResourceManager{}),
	)
	mustBe(t, "make simulated host", err)
	cfg := Sim()
	cfg.Host = h
	if sim.relays[i] {
		cfg.Relay = relayOn
	}
	l, err := New(cfg, id, shoal.NewSystemClock(), discard())
	mustBe(t, "make links", err)
	return &simPeer{Links: l, id: id}
}

// members makes all peers of a simulation members of the first one's cluster.
func (sim *simulation) members(t *testing.T) *shoal.Desired {
	t.Helper()
	return sim.memberStore(t).Desired()
}

// memberStore is members, with the store.
func (sim *simulation) memberStore(t *testing.T) *testStore {
	t.Helper()
	store := newTestStore(t, sim.peers[0].id)
	for _, p := range sim.peers[1:] {
		env := admitBy(t, sim.peers[0].id, &shoal.MemberBody{Peer: p.id.Self(), Role: shoal.RoleOperator})
		mustBe(t, "set membership", p.id.SetMembership(sim.peers[0].id.Cluster(), append(sim.peers[0].id.Chain()[:1:1], env)))
		store.take(t, env)
	}
	for _, p := range sim.peers {
		store.setAddrs(p.id.Self(), p.Addrs()...)
	}
	return store
}

// links counts open links between members, both directions seen.
func (sim *simulation) links() int {
	n := 0
	for _, p := range sim.peers {
		n += len(p.Connected())
	}
	return n
}

func TestSimMesh(t *testing.T) {
	simulate(t, 8, func(t *testing.T, sim *simulation) {
		d := sim.members(t)
		for _, p := range sim.peers {
			p.SetMembers(d)
		}
		time.Sleep(2 * time.Second)
		if got := sim.links(); got != 8*7 {
			t.Errorf("%d links after 2s, want a full mesh of %d", got, 8*7)
		}
	})
}

// TestSimMembersLearnLate: some know the members seconds before the others do, and
// are refused until then.
func TestSimMembersLearnLate(t *testing.T) {
	simulate(t, 4, func(t *testing.T, sim *simulation) {
		d := sim.members(t)
		for _, p := range sim.peers {
			p.SetMembers(d)
			time.Sleep(3 * time.Second)
		}
		time.Sleep(2 * time.Second)
		if got := sim.links(); got != 4*3 {
			t.Errorf("%d links, want %d", got, 4*3)
		}
		for _, p := range sim.peers {
			for _, c := range p.host.Network().Conns() {
				if p.gate.stale(c) {
					t.Errorf("a link from before membership is still open")
				}
			}
		}
	})
}

// TestSimSplitHeals holds every packet for a minute; the mesh is back within the
// longest pause after it ends.
func TestSimSplitHeals(t *testing.T) {
	simulate(t, 4, func(t *testing.T, sim *simulation) {
		d := sim.members(t)
		for _, p := range sim.peers {
			p.SetMembers(d)
		}
		time.Sleep(2 * time.Second)
		sim.cut.Store(true)
		time.Sleep(time.Minute)
		if got := sim.links(); got != 0 {
			t.Errorf("%d links after a minute of silence, want 0", got)
		}
		if _, err := sim.peers[0].Ping(t.Context(), sim.peers[1].id.Self(), true); err == nil {
			t.Error("a ping was answered through a cut network")
		}
		sim.cut.Store(false)
		time.Sleep(LAN().DialMax + LAN().DialTimeout)
		if got := sim.links(); got != 4*3 {
			t.Errorf("%d links after healing, want %d", got, 4*3)
		}
		if rtt, err := sim.peers[0].Ping(t.Context(), sim.peers[1].id.Self(), false); err != nil || rtt < 20*time.Millisecond || rtt > 100*time.Millisecond {
			t.Errorf("ping = %s, %v, want about 20 to 60ms", rtt, err)
		}
	})
}

// TestSimShortSplit holds every packet for 20 s: too short for links to break, long
// enough for their transports to fall silent. A doubted link is asked again until it
// answers, and so are all of them soon after the split ended.
func TestSimShortSplit(t *testing.T) {
	simulate(t, 3, func(t *testing.T, sim *simulation) {
		d := sim.members(t)
		for _, p := range sim.peers {
			p.SetMembers(d)
		}
		time.Sleep(2 * time.Second)
		a, b := sim.peers[0], sim.peers[1]
		sim.cut.Store(true)
		time.Sleep(5 * time.Second)
		if _, err := a.Ping(t.Context(), b.id.Self(), true); err == nil || !a.isDoubted(b.host.ID()) {
			t.Errorf("ping through a cut network = %v; doubted %v", err, a.isDoubted(b.host.ID()))
		}
		time.Sleep(15 * time.Second)
		if got := len(a.Connected()); got != 2 {
			t.Errorf("%d links after 20s of silence, want both still open: nothing was tested", got)
		}
		sim.cut.Store(false)
		time.Sleep(LAN().DialMax + 2*LAN().PingTimeout)
		if a.isDoubted(b.host.ID()) {
			t.Error("the link is still doubted")
		}
		if rtt, err := a.Ping(t.Context(), b.id.Self(), false); err != nil || rtt > 100*time.Millisecond {
			t.Errorf("ping after healing = %s, %v", rtt, err)
		}
	})
}

// TestSimJoin runs the join protocol in virtual time with an injected host.
func TestSimJoin(t *testing.T) {
	simulate(t, 3, func(t *testing.T, sim *simulation) {
		a, b := sim.peers[0], sim.peers[1]
		store := newTestStore(t, a.id)
		a.ServeJoin(store, store)
		token, err := a.CreateInvite(t.Context(), store, shoal.TokenOptions{})
		mustBe(t, "invite", err)
		a.SetMembers(store.Desired())
		_, err = b.Join(t.Context(), token, shoal.JoinOptions{Name: "b"})
		mustBe(t, "join", err)
		time.Sleep(time.Second)
		if got := sim.links(); got != 2 {
			t.Errorf("%d links, want one seen from both sides", got)
		}
		conns := append(a.host.Network().Conns(), b.host.Network().Conns()...)
		time.Sleep(time.Minute)
		for _, c := range conns {
			if c.IsClosed() {
				t.Error("a link made after the join was closed again")
			}
		}
		_, err = sim.peers[2].Join(t.Context(), token, shoal.JoinOptions{})
		wantJoinFault(t, err, TokenUsed, shoal.ErrRefused)
	})
}
