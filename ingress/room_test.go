// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"go.uber.org/goleak"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a few peers that all know the same, each with a Room on an address of its own.
type world struct {
	t     *testing.T
	peers []*member

	mu      sync.Mutex // guards what follows
	desired *shoal.Desired
	states  map[shoal.PeerID]*shoal.PeerState
}

// member is one of them.
type member struct {
	w    *world
	id   shoal.PeerID
	host host.Host
	addr netip.Addr
	room *Room

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	told    [][]shoal.Carried
}

func newWorld(t *testing.T, n int) *world {
	t.Helper()
	w := &world{t: t, desired: &shoal.Desired{}, states: map[shoal.PeerID]*shoal.PeerState{}}
	for i := range n {
		h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		m := &member{w: w, id: shoal.PeerID(h.ID().String()), host: h, addr: netip.AddrFrom4([4]byte{127, 0, 0, byte(61 + i)}), changed: make(chan struct{})}
		w.peers = append(w.peers, m)
		w.desired.Peers = append(w.desired.Peers, shoal.Peer{ID: m.id, Role: shoal.RoleOperator})
		w.states[m.id] = &shoal.PeerState{}
	}
	slices.SortFunc(w.desired.Peers, func(a, b shoal.Peer) int { return strings.Compare(string(a.ID), string(b.ID)) })
	for _, m := range w.peers {
		for _, o := range w.peers {
			if o != m {
				if err := m.host.Connect(t.Context(), peer.AddrInfo{ID: o.host.ID(), Addrs: o.host.Addrs()}); err != nil {
					t.Fatal(err)
				}
			}
		}
		m.start()
	}
	return w
}

func (m *member) start() {
	cfg := Defaults()
	cfg.Publish = m.addr
	var err error
	m.room, err = New(cfg, Deps{
		Self: m.id, Views: m, Host: m.host, Clock: shoal.NewSystemClock(), Log: slog.New(slog.DiscardHandler),
		Handle:   func(id protocol.ID, fn network.StreamHandler) { m.host.SetStreamHandler(id, fn) },
		Path:     func(shoal.PeerID) string { return "direct" },
		Networks: runtime.NewTwin(runtime.TwinConfig{Cluster: "c", Peer: m.id}, shoal.NewSystemClock()),
		Tell: func(c []shoal.Carried) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.told = append(m.told, c)
		},
	})
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.room.networks.machine = &fakeMachine{ifindex: 1}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.room.Run(ctx) }()
	m.w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			m.w.t.Errorf("Run = %v", err)
		}
	})
}

// View implements shoal.Views.
func (m *member) View() *shoal.View {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	lives := map[shoal.PeerID]shoal.Life{}
	states := map[shoal.PeerID]*shoal.PeerState{}
	for id, st := range m.w.states {
		lives[id] = shoal.Life{State: shoal.LifeAlive}
		states[id] = &shoal.PeerState{Replicas: slices.Clone(st.Replicas)}
	}
	d := *m.w.desired
	d.Services, d.Claims = slices.Clone(d.Services), slices.Clone(d.Claims)
	return shoal.NewView(m.id, &d, lives, states)
}

// Changed implements shoal.Views.
func (m *member) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// change changes what all know.
func (w *world) change(fn func()) {
	w.mu.Lock()
	fn()
	w.mu.Unlock()
	for _, m := range w.peers {
		m.mu.Lock()
		close(m.changed)
		m.changed = make(chan struct{})
		m.mu.Unlock()
	}
}

// deploy makes a service with a replica at each of these, which says its name and slot and
// then what it hears.
func (w *world) deploy(name string, published uint16, at ...*member) {
	w.t.Helper()
	target := uint16(0)
	var statuses []shoal.ReplicaStatus
	for slot := range at {
		l := w.listen("127.0.0.1:" + fmt.Sprint(target)) // all on one port, each on an address
		target = uint16(l.Addr().(*net.TCPAddr).Port)
		statuses = append(statuses, shoal.ReplicaStatus{
			ID: shoal.ReplicaID{name[0], byte(slot + 1)}, Service: name, Slot: slot, Phase: shoal.PhaseReady, Addr: "127.0.0.1",
		})
		if slot > 0 {
			w.t.Fatal("one replica is all that fits on one address")
		}
		go serveEcho(l, fmt.Sprintf("%s/%d\n", name, slot))
	}
	w.change(func() {
		s := shoal.Service{Replicas: len(at), Spec: shoal.Spec{Name: name, Ports: []shoal.Port{{Container: target, Published: published, Protocol: "tcp"}}}}
		s.Revision = shoal.RevisionID{Seq: uint64(len(w.desired.Services) + 1), Author: w.peers[0].id}
		w.desired.Services = append(w.desired.Services, s)
		slices.SortFunc(w.desired.Services, func(a, b shoal.Service) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
		for i, st := range statuses {
			w.desired.Claims = append(w.desired.Claims, shoal.Claim{Holder: at[i].id, Service: name, Slot: st.Slot, Replica: st.ID})
			w.states[at[i].id].Replicas = append(w.states[at[i].id].Replicas, st)
		}
	})
}

func (w *world) listen(addr string) net.Listener {
	w.t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(w.t.Context(), "tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = l.Close() })
	return l
}

func serveEcho(l net.Listener, greeting string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, greeting); err == nil {
				_, _ = io.Copy(conn, conn) // the client's test says what came back
			}
		}()
	}
}

// freePort is one that nobody has on the members' addresses.
func (w *world) freePort() uint16 {
	l := w.listen("127.0.0.61:0")
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		w.t.Fatal(err)
	}
	return port
}

// ask says something at a published port, and returns what comes back.
func (w *world) ask(m *member, port uint16, text string) (string, error) {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(m.addr, port).String())
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	got, err := io.ReadAll(conn)
	return string(got), err
}

func (w *world) until(what string, fn func() bool) {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); !fn(); time.Sleep(5 * time.Millisecond) { // real sockets have no other sign
		if time.Now().After(end) {
			w.t.Fatalf("not in time: %s", what)
		}
	}
}

func (w *world) opened(port uint16) {
	w.t.Helper()
	w.until("all answer", func() bool {
		for _, m := range w.peers {
			if !slices.ContainsFunc(m.room.Ports(), func(p shoal.PortState) bool { return p.Port == port && p.Address != "" }) {
				return false
			}
		}
		return true
	})
}

// TestPublishedAnswersEverywhere: whichever peer is asked, the replica answers, and when
// the service goes nobody listens any more.
func TestPublishedAnswersEverywhere(t *testing.T) {
	w := newWorld(t, 3)
	port := w.freePort()
	w.deploy("web", port, w.peers[1])
	w.opened(port)
	for i, m := range w.peers {
		if got, err := w.ask(m, port, "hello"); got != "web/0\nhello" || err != nil {
			t.Errorf("peer %d answers %q, %v", i, got, err)
		}
		st := m.room.Ports()
		if len(st) != 1 || st[0].Service != "web" || st[0].Usable != 1 || st[0].Total != 1 || st[0].In != 5 || st[0].Out != 11 {
			t.Errorf("ports of peer %d = %+v", i, st)
		}
		rows, err := m.room.Replicas("web")
		if err != nil || len(rows) != 1 || !rows[0].IsUsable || rows[0].Path != map[bool]string{true: "local", false: "direct"}[i == 1] || rows[0].Connect <= 0 {
			t.Errorf("replicas at peer %d = %+v, %v", i, rows, err)
		}
	}
	w.change(func() { w.desired.Services, w.desired.Claims = nil, nil })
	w.until("nobody listens", func() bool {
		_, err := w.ask(w.peers[0], port, "x")
		return errors.Is(err, syscall.ECONNREFUSED) && len(w.peers[0].room.Ports()) == 0
	})
}

// TestNotReadyGetsNothing: a connection that no replica may take is reset and counted, and
// the first one that is ready takes the next.
func TestNotReadyGetsNothing(t *testing.T) {
	w := newWorld(t, 2)
	port := w.freePort()
	w.deploy("web", port, w.peers[1])
	w.change(func() { w.states[w.peers[1].id].Replicas[0].Phase = shoal.PhaseStarting })
	w.opened(port)
	usable := func(n int) func() bool {
		return func() bool { return w.peers[0].room.Ports()[0].Usable == n }
	}
	w.until("the view is followed", usable(0))
	if got, err := w.ask(w.peers[0], port, "hello"); err == nil {
		t.Errorf("a replica that starts answers %q", got)
	}
	w.until("it is counted", func() bool { return w.peers[0].room.Ports()[0].Refused["no replica"] == 1 })
	w.change(func() { w.states[w.peers[1].id].Replicas[0].Phase = shoal.PhaseReady })
	w.until("the view is followed", usable(1))
	if got, err := w.ask(w.peers[0], port, "hello"); got != "web/0\nhello" || err != nil {
		t.Errorf("it answers %q, %v", got, err)
	}
}

// TestPortIsTaken: a port that something else on the machine has is told, and taken once it
// is free; the others answer.
func TestPortIsTaken(t *testing.T) {
	w := newWorld(t, 2)
	squatter := w.listen("127.0.0.61:0")
	port := uint16(squatter.Addr().(*net.TCPAddr).Port)
	w.deploy("web", port, w.peers[1])
	w.until("it is told", func() bool {
		st := w.peers[0].room.Ports()
		return len(st) == 1 && st[0].Address == "" && strings.Contains(st[0].Trouble, "something else on this machine has it")
	})
	if err := squatter.Close(); err != nil {
		t.Fatal(err)
	}
	w.opened(port)
	if got, err := w.ask(w.peers[0], port, "hello"); got != "web/0\nhello" || err != nil {
		t.Errorf("it answers %q, %v", got, err)
	}
}

// TestPortOfTwo: of two services that want one port the one with the higher revision
// answers, and the other once that is gone.
func TestPortOfTwo(t *testing.T) {
	w := newWorld(t, 1)
	port := w.freePort()
	w.deploy("api", port, w.peers[0])
	w.opened(port)
	w.deploy("web", port, w.peers[0])
	answers := func(name string) func() bool {
		return func() bool {
			got, err := w.ask(w.peers[0], port, "")
			return err == nil && got == name+"/0\n"
		}
	}
	w.until("the later one has it", answers("web"))
	if st := w.peers[0].room.Ports(); !slices.Equal(st[0].Losers, []string{"api"}) {
		t.Errorf("ports = %+v, want that api loses", st)
	}
	w.change(func() { w.desired.Services[1].Stopped = true })
	w.until("the former one has it", answers("api"))
}

// TestForward: any port of a replica, wherever it is, for operators.
func TestForward(t *testing.T) {
	w := newWorld(t, 2)
	w.deploy("web", w.freePort(), w.peers[1])
	port := w.desired.Services[0].Spec.Ports[0].Container
	forward := func(m *member, at shoal.Target, port uint16) (string, error) {
		here, there := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- m.room.Forward(t.Context(), at, port, there) }()
		got := make([]byte, len("web/0\nhello"))
		_ = here.SetDeadline(time.Now().Add(10 * time.Second))
		var n int
		if _, err := io.WriteString(here, "hello"); err == nil {
			n, _ = io.ReadFull(here, got) // what is missing is seen in what came
		}
		_ = here.Close()
		return string(got[:n]), <-done
	}
	for _, m := range w.peers {
		for _, slot := range []int{-1, 0} {
			if got, _ := forward(m, shoal.Target{Service: "web", Slot: slot}, port); got != "web/0\nhello" {
				t.Errorf("slot %d answers %q", slot, got)
			}
		}
	}
	a := w.peers[0]
	if _, err := forward(a, shoal.Target{Service: "nosuch", Slot: -1}, port); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Forward to no service = %v", err)
	}
	if _, err := forward(a, shoal.Target{Service: "web", Slot: 3}, port); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Forward to no slot = %v", err)
	}
	if _, err := forward(a, shoal.Target{Service: "web", Slot: -1}, 1); !errors.Is(err, shoal.ErrUnreachable) {
		t.Errorf("Forward to a closed port = %v", err)
	}
	w.change(func() {
		for i := range w.desired.Peers {
			w.desired.Peers[i].Role = shoal.RolePeer
		}
	})
	if _, err := forward(a, shoal.Target{Service: "web", Slot: 0}, port); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("Forward by no operator = %v", err)
	}
}
