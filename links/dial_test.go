// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"io"
	"net"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shoalnet/shoal"
)

// pair is two linked members; b joined through a.
func pair(t *testing.T) (a *cluster, b *testPeer) {
	t.Helper()
	a, b = newCluster(t, 1), newcomer(t, 2)
	_, err := b.Join(t.Context(), a.invite(t, shoal.TokenOptions{}), shoal.JoinOptions{})
	mustBe(t, "join", err)
	eventually(t, "a links b", linked(a.testPeer, b.id.Self()))
	eventually(t, "b links a", linked(b, a.id.Self()))
	return a, b
}

// TestRestartElsewhere stops b and starts it on another port with nothing but what
// lies beside its key: it finds a by itself, and a finds b on its new port when that
// cannot dial.
func TestRestartElsewhere(t *testing.T) {
	a, b := pair(t)
	eventually(t, "a remembers b", func() bool { return len(a.id.Members()) == 1 })
	before := b.Addrs()
	b.stop()
	eventually(t, "a saw b go", linked(a.testPeer))
	id, err := b.id.Reopen()
	mustBe(t, "reopen", err)
	again := up(t, quiet(), id)
	if slices.Equal(again.Addrs(), before) {
		t.Fatal("the kernel gave the same ports again: nothing was tested")
	}
	eventually(t, "b links a again", linked(again, a.id.Self()))
	eventually(t, "a links b again", linked(a.testPeer, again.id.Self()))

	// Now a restarts too, and only b knows where it was; b's record tells a where b is.
	again.stop()
	a.stop()
	aid, err := a.id.Reopen()
	mustBe(t, "reopen", err)
	bid, err := again.id.Reopen()
	mustBe(t, "reopen", err)
	b3 := up(t, quiet(), bid)
	a3 := up(t, quiet(), aid)
	a.store.setAddrs(bid.Self(), b3.Addrs()...)
	a3.SetMembers(a.store.Desired())
	eventually(t, "a links b by its record", linked(a3, bid.Self()))
}

// TestPrefersTCP: with both open, the link is TCP.
func TestPrefersTCP(t *testing.T) {
	a, b := pair(t)
	for _, c := range append(a.host.Network().Conns(), b.host.Network().Conns()...) {
		if _, err := c.RemoteMultiaddr().ValueForProtocol(ma.P_TCP); err != nil {
			t.Errorf("linked by %s", c.RemoteMultiaddr())
		}
		if sec := c.ConnState().Security; sec != "/tls/1.0.0" {
			t.Errorf("secured by %s, want TLS first", sec)
		}
	}
}

func TestPause(t *testing.T) {
	d := bareDialer(t, LAN())
	for fails, most := range map[int]time.Duration{
		0: d.cfg.DialMin, 1: d.cfg.DialMin, 2: 2 * d.cfg.DialMin, 3: 4 * d.cfg.DialMin, 7: d.cfg.DialMax, 1000: d.cfg.DialMax,
	} {
		lo, hi := time.Hour, time.Duration(0)
		for range 1000 {
			p := d.pause(fails)
			lo, hi = min(lo, p), max(hi, p)
		}
		if lo < most/2 || hi > most || hi-lo < most/4 {
			t.Errorf("pauses after %d failures: %s to %s, want %s to %s", fails, lo, hi, most/2, most)
		}
	}
}

// bareDialer is a dial loop's state without links that run.
func bareDialer(t *testing.T, cfg Config) *dialer {
	t.Helper()
	id := memory(t, 1)
	l := &Links{cfg: cfg, id: id, clock: shoal.NewSystemClock(), log: discard(), gate: newGate(shoal.NewSystemClock(), true)}
	return newDialer(l)
}

// TestChooseLarge: above FullMesh each peer chooses Degree others, differently from
// its neighbours; one that is hopeless makes room.
func TestChooseLarge(t *testing.T) {
	cfg := LAN()
	cfg.FullMesh, cfg.Degree = 20, 5
	d := bareDialer(t, cfg)
	members := map[peer.ID]bool{}
	for i := range 19 {
		members[decodeID(t, memory(t, byte(i+2)).Self())] = true
	}
	d.gate.set(members, nil, 0)
	if got := d.choose(); len(got) != 19 {
		t.Errorf("%d of 19 chosen below the limit, want all", len(got))
	}
	members[decodeID(t, memory(t, 100).Self())] = true
	d.gate.set(members, nil, 0)
	first := d.choose()
	if len(first) != 5 {
		t.Fatalf("%d chosen above the limit, want 5", len(first))
	}
	for p := range first {
		d.targets[p] = &target{fails: hopeless}
	}
	more := d.choose()
	for p := range first {
		if !more[p] {
			t.Error("a hopeless peer is not dialled any more")
		}
	}
	if len(more) != 10 {
		t.Errorf("%d chosen, want 5 hopeless and 5 others", len(more))
	}
	other := memory(t, 77)
	d.id = other
	d.targets = map[peer.ID]*target{}
	second := d.choose()
	same := 0
	for p := range second {
		if first[p] {
			same++
		}
	}
	if same == 5 {
		t.Error("two peers made the same choice")
	}
}

// TestUnionIsConnected draws graphs as large clusters would and walks them.
func TestUnionIsConnected(t *testing.T) {
	const n = 120
	cfg := LAN()
	ids := make([]*Identity, n)
	index := map[peer.ID]int{}
	for i := range ids {
		ids[i] = memory(t, byte(i))
		index[decodeID(t, ids[i].Self())] = i
	}
	edges := make([][]int, n)
	for i, id := range ids {
		d := bareDialer(t, cfg)
		d.id = id
		members := map[peer.ID]bool{}
		for p, j := range index {
			if j != i {
				members[p] = true
			}
		}
		d.gate.set(members, nil, 0)
		for p := range d.choose() {
			edges[i] = append(edges[i], index[p])
			edges[index[p]] = append(edges[index[p]], i)
		}
	}
	seen := map[int]bool{0: true}
	for todo := []int{0}; len(todo) > 0; todo = todo[1:] {
		for _, j := range edges[todo[0]] {
			if !seen[j] {
				seen[j] = true
				todo = append(todo, j)
			}
		}
	}
	if len(seen) != n {
		t.Errorf("the graph of all choices reaches %d of %d peers", len(seen), n)
	}
}

// TestPing measures a living peer and notices a stopped one.
func TestPing(t *testing.T) {
	a, b := pair(t)
	for _, fresh := range []bool{false, true} {
		rtt, err := a.Ping(t.Context(), b.id.Self(), fresh)
		if err != nil || rtt <= 0 || rtt > time.Second {
			t.Errorf("Ping(fresh %v) = %s, %v", fresh, rtt, err)
		}
	}
	if rtt, err := a.Ping(t.Context(), a.id.Self(), true); rtt != 0 || err != nil {
		t.Errorf("Ping of self = %s, %v", rtt, err)
	}
	if _, err := a.Ping(t.Context(), memory(t, 9).Self(), true); err == nil {
		t.Error("Ping of somebody unknown was answered")
	}
	b.stop()
	if _, err := a.Ping(t.Context(), b.id.Self(), true); err == nil {
		t.Error("Ping of a stopped peer was answered")
	}
}

// TestPingRefused: a machine that refuses on TCP runs no daemon; the rest of the
// timeout is not waited out for UDP, which refuses nothing.
func TestPingRefused(t *testing.T) {
	a, b := pair(t)
	b.stop()
	eventually(t, "a notices", func() bool {
		return a.host.Network().Connectedness(decodeID(t, b.id.Self())) != network.Connected
	})
	a.cfg.PingTimeout = 8 * time.Second
	// A quarter of the timeout is 2 s; QUIC itself would give up after 5.
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if _, err := a.Ping(ctx, b.id.Self(), true); err == nil || ctx.Err() != nil {
		t.Errorf("Ping = %v, %v, want a refusal in time", err, ctx.Err())
	}
}

// TestPingForcesConnection: the peer's streams hang although it lives. The forced
// handshake proves life, and the dead links are replaced.
func TestPingForcesConnection(t *testing.T) {
	a, b := pair(t)
	hang := make(chan struct{})
	b.host.SetStreamHandler(ProtocolPing, func(s network.Stream) {
		<-hang
		_ = s.Reset()
	})
	old := a.host.Network().ConnsToPeer(decodeID(t, b.id.Self()))
	if _, err := a.Ping(t.Context(), b.id.Self(), false); err == nil {
		t.Error("a hanging stream was taken for an answer")
	}
	rtt, err := a.Ping(t.Context(), b.id.Self(), true)
	if err != nil || rtt <= 0 {
		t.Errorf("Ping with a forced connection = %s, %v", rtt, err)
	}
	close(hang)
	for _, c := range old {
		if !c.IsClosed() {
			t.Error("a dead link is still open")
		}
	}
	eventually(t, "a links b anew", linked(a.testPeer, b.id.Self()))
}

// TestPingFrozen: a machine whose kernel accepts connections for a daemon that does
// not run (SIGSTOP) is not alive.
func TestPingFrozen(t *testing.T) {
	a, b := pair(t)
	b.stop()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	mustBe(t, "listen", err)
	defer ln.Close()
	addr, err := net.ResolveTCPAddr("tcp", ln.Addr().String())
	mustBe(t, "resolve", err)
	p := decodeID(t, b.id.Self())
	a.mu.Lock()
	a.seen[p] = parseAddrs([]string{"/ip4/127.0.0.1/tcp/" + strconv.Itoa(addr.Port)})
	a.mu.Unlock()
	if rtt, err := a.Ping(t.Context(), b.id.Self(), true); err == nil {
		t.Errorf("Ping of a frozen peer = %s", rtt)
	}
}

// TestFoundOnLAN: local discovery gives addresses of members and of nobody else.
func TestFoundOnLAN(t *testing.T) {
	a, b := pair(t)
	addr := ma.StringCast("/ip4/10.9.9.9/tcp/1")
	member, stranger := decodeID(t, b.id.Self()), decodeID(t, memory(t, 9).Self())
	for _, p := range []peer.ID{member, stranger} {
		found{a.Links}.HandlePeerFound(peer.AddrInfo{ID: p, Addrs: []ma.Multiaddr{addr, ma.StringCast("/ip4/169.254.169.254/tcp/80")}})
	}
	if got := a.seenAt(member); len(got) == 0 || !got[0].Equal(addr) || len(addrTexts(got)) > 4 {
		t.Errorf("addresses of the member = %v, want %s first", got, addr)
	}
	if got := a.seenAt(stranger); len(got) != 0 {
		t.Errorf("addresses of a stranger were kept: %v", got)
	}
}

// TestRunStopsWithHandlers: Run ends although a reader never goes.
func TestRunStopsWithHandlers(t *testing.T) {
	simulate(t, 2, func(t *testing.T, sim *simulation) {
		d := sim.members(t)
		for _, p := range sim.peers {
			p.SetMembers(d)
		}
		started := make(chan struct{})
		sim.peers[0].ServeLogs(func(ctx context.Context, _ shoal.LogQuery, _ func(shoal.LogLine) error) error {
			close(started)
			<-ctx.Done()
			return ctx.Err()
		})
		time.Sleep(time.Second)
		s, err := sim.peers[1].openLogs(t.Context(), sim.peers[0].host.ID(), shoal.LogQuery{Service: "web", LogOptions: shoal.LogOptions{Follow: true}})
		mustBe(t, "open logs", err)
		<-started
		go func() { _, _ = io.Copy(io.Discard, s) }() // ends with the host
		synctest.Wait()
	})
}
