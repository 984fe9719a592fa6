// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/miekg/dns"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/bridge"
	"github.com/shoalnet/shoal/runtime"
)

// island is one peer whose machine and engine are made up.
type island struct {
	t       testing.TB
	room    *Room
	machine *fakeMachine
	engine  *runtime.Twin
	stop    func()

	mu      sync.Mutex // guards what follows
	desired *shoal.Desired
	state   *shoal.PeerState
	changed chan struct{}
}

// inIsland runs fn in a bubble, with a room that runs.
func inIsland(t *testing.T, change func(*Config, *Deps, *fakeMachine), fn func(*testing.T, *island)) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		i := newIsland(t, conf, change)
		i.start()
		defer i.stop()
		fn(t, i)
	})
}

func newIsland(t testing.TB, conf string, change func(*Config, *Deps, *fakeMachine)) *island {
	i := &island{
		t: t, machine: &fakeMachine{ifindex: 1}, desired: &shoal.Desired{Peers: []shoal.Peer{{ID: "self"}}},
		state: &shoal.PeerState{}, changed: make(chan struct{}),
	}
	i.engine = runtime.NewTwin(runtime.TwinConfig{Cluster: "c", Peer: "self", Images: []string{"app"}}, shoal.NewSystemClock())
	i.renew(conf, change)
	return i
}

// renew makes a room as a daemon does that starts.
func (i *island) renew(conf string, change func(*Config, *Deps, *fakeMachine)) {
	i.t.Helper()
	cfg := Defaults()
	cfg.Resolvers = conf
	deps := Deps{
		Self: "self", Views: i, Clock: shoal.NewSystemClock(), Log: slog.New(slog.DiscardHandler), Networks: i.engine,
		Handle: func(protocol.ID, network.StreamHandler) {}, Path: func(shoal.PeerID) string { return "" },
	}
	if change != nil {
		change(&cfg, &deps, i.machine)
	}
	var err error
	if i.room, err = New(cfg, deps); err != nil {
		i.t.Fatal(err)
	}
	i.room.networks.machine = i.machine
}

func (i *island) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- i.room.Run(ctx) }()
	i.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			i.t.Errorf("Run = %v", err)
		}
		if open := i.machine.open(); len(open) != 0 {
			i.t.Errorf("still open at the end: %v", open)
		}
	})
}

// View implements shoal.Views.
func (i *island) View() *shoal.View {
	i.mu.Lock()
	defer i.mu.Unlock()
	d := *i.desired
	d.Services, d.Claims = slices.Clone(d.Services), slices.Clone(d.Claims)
	return shoal.NewView("self", &d, nil, map[shoal.PeerID]*shoal.PeerState{"self": {Replicas: slices.Clone(i.state.Replicas)}})
}

// Changed implements shoal.Views.
func (i *island) Changed() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.changed
}

// change changes what the peer knows, and waits until it was followed.
func (i *island) change(fn func()) {
	i.mu.Lock()
	fn()
	slices.SortFunc(i.desired.Services, func(a, b shoal.Service) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	slices.SortFunc(i.desired.Claims, func(a, b shoal.Claim) int { return strings.Compare(a.Service, b.Service) })
	close(i.changed)
	i.changed = make(chan struct{})
	i.mu.Unlock()
	time.Sleep(2 * gather)
	synctest.Wait()
}

// deploy adds a service of n slots, each of them ready here. Its first network has the
// containers' addresses.
func (i *island) deploy(n int, spec shoal.Spec) {
	i.change(func() {
		i.desired.Services = append(i.desired.Services, shoal.Service{Spec: spec, Replicas: n})
		for slot := range n {
			id := shoal.ReplicaID{spec.Name[0], byte(slot + 1)}
			i.desired.Claims = append(i.desired.Claims, shoal.Claim{Holder: "self", Service: spec.Name, Slot: slot, Replica: id})
			i.state.Replicas = append(i.state.Replicas, shoal.ReplicaStatus{ID: id, Service: spec.Name, Slot: slot, Phase: shoal.PhaseReady})
		}
	})
}

func (i *island) attach(spec shoal.Spec) ([]shoal.Network, netip.Addr) {
	i.t.Helper()
	got, dns, err := i.room.Attach(i.t.Context(), &spec)
	if err != nil {
		i.t.Fatal(err)
	}
	synctest.Wait()
	return got, dns
}

// names returns those of the networks that the engine has.
func (i *island) names() []string {
	i.t.Helper()
	all, err := i.engine.ListNetworks(i.t.Context())
	if err != nil {
		i.t.Fatal(err)
	}
	var out []string
	for _, n := range all {
		out = append(out, n.Name)
	}
	return out
}

// fakeMachine is a machine that does as it is told.
type fakeMachine struct {
	mu      sync.Mutex // guards what follows
	unable  error
	refused error // what sockets says
	ifindex int
	tried   int
	spans   map[string]*fakeSpan
	dns     map[string]*fakePackets
}

func (m *fakeMachine) able() error { return m.unable }

func (m *fakeMachine) taken() ([]netip.Prefix, error) {
	return []netip.Prefix{netip.MustParsePrefix("10.213.0.0/22")}, nil
}

func (m *fakeMachine) index(string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ifindex
}

func (m *fakeMachine) set(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
}

func (m *fakeMachine) sockets(_ context.Context, n *shoal.Network) (net.PacketConn, net.Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tried++
	if m.refused != nil {
		return nil, nil, m.refused
	}
	if m.dns == nil {
		m.dns = map[string]*fakePackets{}
	}
	if m.dns[n.Name] != nil && !m.dns[n.Name].isClosed() {
		return nil, nil, errors.New("the port is still open")
	}
	p := &fakePackets{in: make(chan datagram), out: make(chan []byte), closed: make(chan struct{})}
	m.dns[n.Name] = p
	return p, fakeListener{p}, nil
}

func (m *fakeMachine) span(deps bridge.Deps) (span, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.spans == nil {
		m.spans = map[string]*fakeSpan{}
	}
	s := &fakeSpan{deps: deps, broken: make(chan error)}
	m.spans[deps.Network.Name] = s
	return s, nil
}

// at returns the span of a network.
func (m *fakeMachine) at(name string) *fakeSpan {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spans[name]
}

// open returns the networks that are answered on.
func (m *fakeMachine) open() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m.spans)) {
		if m.spans[name].runs() {
			out = append(out, name)
		}
	}
	return out
}

// ask asks the resolver of a network, and returns the address or the code of the answer.
func (m *fakeMachine) ask(t testing.TB, at, client, name string) string {
	t.Helper()
	q, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	p := m.dns[at]
	m.mu.Unlock()
	p.in <- datagram{q, &net.UDPAddr{IP: net.ParseIP(client), Port: 9}}
	var answer dns.Msg
	if err := answer.Unpack(<-p.out); err != nil {
		t.Fatal(err)
	}
	if len(answer.Answer) == 1 {
		return answer.Answer[0].(*dns.A).A.String()
	}
	return dns.RcodeToString[answer.Rcode]
}

type fakeSpan struct {
	deps   bridge.Deps
	broken chan error

	mu        sync.Mutex // guards what follows
	isRunning bool
	endpoints []string
	stats     bridge.Stats
}

func (s *fakeSpan) Run(ctx context.Context) error {
	s.setRuns(true)
	defer s.setRuns(false)
	s.deps.Held()
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.broken:
		return err
	}
}

func (s *fakeSpan) setRuns(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isRunning = is
}

func (s *fakeSpan) runs() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isRunning
}

func (s *fakeSpan) SetEndpoints(all []bridge.Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints = nil
	for _, e := range all {
		s.endpoints = append(s.endpoints, e.String())
	}
	slices.Sort(s.endpoints)
}

func (s *fakeSpan) Stats() bridge.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

type datagram struct {
	data []byte
	from net.Addr
}

// fakePackets is a UDP socket without a network.
type fakePackets struct {
	net.PacketConn
	in     chan datagram
	out    chan []byte
	once   sync.Once
	closed chan struct{}
}

func (p *fakePackets) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-p.in:
		return copy(b, d.data), d.from, nil
	case <-p.closed:
		return 0, nil, net.ErrClosed
	}
}

func (p *fakePackets) WriteTo(b []byte, _ net.Addr) (int, error) {
	select {
	case p.out <- slices.Clone(b):
		return len(b), nil
	case <-p.closed:
		return 0, net.ErrClosed
	}
}

func (p *fakePackets) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *fakePackets) isClosed() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

// fakeListener gets no connection.
type fakeListener struct{ p *fakePackets }

func (l fakeListener) Accept() (net.Conn, error) { <-l.p.closed; return nil, net.ErrClosed }
func (l fakeListener) Close() error              { return l.p.Close() }
func (l fakeListener) Addr() net.Addr            { return &net.TCPAddr{} }

func on(networks ...string) (out []shoal.Attachment) {
	for _, n := range networks {
		out = append(out, shoal.Attachment{Network: n})
	}
	return out
}

// TestAttach makes what is missing, in order, and once; the first network answers.
func TestAttach(t *testing.T) {
	inIsland(t, nil, func(t *testing.T, i *island) {
		web := shoal.Spec{Name: "web", Project: "shop", Networks: on("shop_front", "shop_back")}
		got, dns := i.attach(web)
		if len(got) != 2 || got[0].Name != "shop_front" || got[1].Name != "shop_back" || dns != got[0].Gateway {
			t.Fatalf("Attach = %+v, %s", got, dns)
		}
		if got[0].Subnet == netip.MustParsePrefix("10.213.0.0/22") {
			t.Error("it lies on what the machine uses")
		}
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				again, dns, err := i.room.Attach(t.Context(), &web)
				if err != nil || !slices.Equal(again, got) || dns != got[0].Gateway {
					t.Errorf("Attach again = %+v, %s, %v", again, dns, err)
				}
			})
		}
		group.Wait()
		if open := i.machine.open(); !slices.Equal(open, []string{"shop_back", "shop_front"}) || i.machine.tried != 2 {
			t.Errorf("open = %v after %d tries, want two and two", open, i.machine.tried)
		}
		for what, spec := range map[string]shoal.Spec{
			"the machine's network": {Name: "a", Setup: shoal.Setup{HostNetwork: true}}, "none": {Name: "a", Setup: shoal.Setup{NoNetwork: true}},
		} {
			if got, dns := i.attach(spec); got != nil || dns.IsValid() {
				t.Errorf("Attach with %s = %v, %s", what, got, dns)
			}
		}
		if _, _, err := i.room.Attach(t.Context(), &shoal.Spec{Name: "a", Networks: on("no such/name")}); !errors.As(err, new(*shoal.InvalidError)) {
			t.Errorf("Attach to no name = %v", err)
		}
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := i.room.Attach(canceled, &web); !errors.Is(err, context.Canceled) {
			t.Errorf("Attach of nobody = %v", err)
		}
	})
}

// TestAttachWithoutNames still makes networks, and says why there are no names.
func TestAttachWithoutNames(t *testing.T) {
	forbidden := &shoal.AdviceError{Err: shoal.ErrRefused, Advice: "let it"}
	for what, c := range map[string]struct {
		change func(*Config, *Deps, *fakeMachine)
		want   shoal.Check
	}{
		"off": {
			func(c *Config, _ *Deps, _ *fakeMachine) { c.NoNames = true },
			shoal.Check{State: shoal.CheckSkip, Detail: "do not work: the owner of this machine switched names off (network.names)"},
		},
		"no right": {
			func(_ *Config, _ *Deps, m *fakeMachine) { m.unable = forbidden },
			shoal.Check{State: shoal.CheckWarn, Detail: "do not work: refused", Remedy: "let it"},
		},
		"rootless": {
			func(_ *Config, d *Deps, _ *fakeMachine) {
				d.Apart = func(context.Context) (bool, error) { return true, nil }
			},
			shoal.Check{State: shoal.CheckWarn, Detail: "do not work: the engine is rootless, or in a machine of its own: this one does not reach its containers"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			inIsland(t, c.change, func(t *testing.T, i *island) {
				began := time.Now()
				got, dns := i.attach(shoal.Spec{Name: "web", Project: "shop"})
				if len(got) != 1 || got[0].Name != "shop_default" || dns.IsValid() || time.Since(began) >= moment {
					t.Errorf("Attach = %v, %s after %s", got, dns, time.Since(began))
				}
				all := i.room.NameChecks(t.Context())
				c.want.Area, c.want.Name = "names", "containers"
				if diff := cmp.Diff([]shoal.Check{c.want}, all, cmpopts.IgnoreFields(shoal.Check{}, "Remedy")); diff != "" || c.want.Remedy != "" && all[0].Remedy != c.want.Remedy {
					t.Errorf("checks = %+v (-want +got):\n%s", all, diff)
				}
			})
		})
	}
}

// TestTroubleIsTriedAgain: port 53 that somebody has is told, and taken once it is free. A
// bridge that breaks, or is another one, is the same.
func TestTroubleIsTriedAgain(t *testing.T) {
	inIsland(t, func(_ *Config, _ *Deps, m *fakeMachine) { m.refused = shoal.ErrConflict }, func(t *testing.T, i *island) {
		if _, dns := i.attach(shoal.Spec{Name: "web"}); dns.IsValid() {
			t.Errorf("dns = %s, where nobody answers", dns)
		}
		check := func(state shoal.CheckState, detail, remedy string) {
			t.Helper()
			all := i.room.NameChecks(t.Context())
			if len(all) != 2 || all[1].Name != "default" || all[1].State != state || !strings.Contains(all[1].Detail, detail) || !strings.Contains(all[1].Remedy, remedy) {
				t.Errorf("checks = %+v, want %s, %q, %q", all, state, detail, remedy)
			}
		}
		check(shoal.CheckFail, "conflict", "'sport = :53'")
		i.machine.set(func() { i.machine.refused = nil })
		time.Sleep(again)
		synctest.Wait()
		check(shoal.CheckOK, "0 services by 10.213.4.1", "")
		if _, dns := i.attach(shoal.Spec{Name: "web"}); !dns.IsValid() {
			t.Error("no dns, and it answers")
		}
		i.machine.at("default").broken <- errors.New("the cat sat on it")
		synctest.Wait()
		check(shoal.CheckFail, "the cat", "tries again")
		time.Sleep(again)
		synctest.Wait()
		check(shoal.CheckOK, "", "")
		i.machine.set(func() { i.machine.ifindex = 2 })
		time.Sleep(again)
		synctest.Wait()
		check(shoal.CheckFail, "gone, or another", "machine of its engine")
		i.machine.set(func() { i.machine.ifindex = 0 })
		time.Sleep(again)
		synctest.Wait()
		check(shoal.CheckFail, "is not on this machine", "machine of its engine")
		i.machine.set(func() { i.machine.ifindex = 2 })
		time.Sleep(again)
		synctest.Wait()
		check(shoal.CheckOK, "", "")
	})
}

// TestUnusedIsRemoved a minute after nobody wants it, and not while a container is on it
// or a claim or an old replica needs it.
func TestUnusedIsRemoved(t *testing.T) {
	inIsland(t, nil, func(t *testing.T, i *island) {
		web := shoal.Spec{Name: "web", Networks: on("a", "b")}
		nets, _ := i.attach(web)
		i.deploy(1, web)
		has := func(why string, want ...string) {
			t.Helper()
			time.Sleep(unusedFor + again)
			synctest.Wait()
			if got := i.names(); !slices.Equal(got, want) || !slices.Equal(i.machine.open(), want) {
				t.Errorf("%s: there are %v, open %v, want %v", why, got, i.machine.open(), want)
			}
		}
		has("a claim needs them", "a", "b")
		i.change(func() { i.desired.Services[0].Spec.Networks, i.desired.Services[0].Revision.Seq = on("a"), 2 })
		has("the replica is of an older revision", "a", "b")
		i.change(func() { i.desired.Claims = nil })
		has("it stops", "a", "b")
		i.change(func() { i.state.Replicas = nil })
		id, err := i.engine.Create(t.Context(), shoal.ContainerSpec{
			Cluster: "c", Peer: "self", Replica: shoal.ReplicaID{1}, Revision: shoal.RevisionID{Seq: 1, Author: "self"}, Spec: &shoal.Spec{Name: "web", Image: "app"}, Networks: nets[1:],
		})
		if err != nil {
			t.Fatal(err)
		}
		has("a container is on it", "b")
		if err := i.engine.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(unusedFor - again)
		i.attach(shoal.Spec{Name: "web", Networks: on("b")})
		time.Sleep(unusedFor - 2*again)
		if got := i.names(); !slices.Equal(got, []string{"b"}) {
			t.Errorf("there are %v, and somebody attached meanwhile", got)
		}
		has("nobody wants it")
	})
}

// TestSurvey: a daemon that starts answers on the networks that it finds, with the same
// addresses; one that somebody removes ends, and comes back with the next replica.
func TestSurvey(t *testing.T) {
	inIsland(t, nil, func(t *testing.T, i *island) {
		web := shoal.Spec{Name: "web", Project: "shop", Ports: []shoal.Port{{Container: 53, Protocol: "udp"}}}
		nets, _ := i.attach(web)
		i.deploy(3, web)
		const client = "10.213.4.9"
		before := i.machine.ask(t, "shop_default", client, "web.shop.shoal.")
		endpoints := i.machine.at("shop_default").endpoints
		i.stop()
		ready := make(chan struct{})
		i.renew(i.room.cfg.Resolvers, func(_ *Config, d *Deps, _ *fakeMachine) { d.Ready = ready })
		i.start()
		defer i.stop()
		synctest.Wait()
		if open := i.machine.open(); len(open) != 0 {
			t.Errorf("open = %v before anything is known", open)
		}
		close(ready)
		synctest.Wait()
		if after := i.machine.ask(t, "shop_default", client, "web.shop.shoal."); after != before {
			t.Errorf("web = %s, was %s before the restart", after, before)
		}
		if now := i.machine.at("shop_default").endpoints; !slices.Equal(now, endpoints) || len(now) != 4 {
			t.Errorf("endpoints = %v, were %v; want those of web and three slots", now, endpoints)
		}
		if err := i.engine.RemoveNetwork(t.Context(), nets[0].ID); err != nil {
			t.Fatal(err)
		}
		i.machine.set(func() { i.machine.ifindex = 0 })
		time.Sleep(3 * again)
		synctest.Wait()
		if all := i.room.networks.all(); len(all) != 0 {
			t.Errorf("%d lanes, want none", len(all))
		}
		i.machine.set(func() { i.machine.ifindex = 3 })
		if again, dns := i.attach(web); again[0].ID == nets[0].ID || dns != again[0].Gateway {
			t.Errorf("Attach = %+v, %s", again, dns)
		}
		if now := i.machine.ask(t, "shop_default", client, "web."); now != before {
			t.Errorf("web = %s, was %s", now, before)
		}
	})
}

// TestDetach leaves nothing, and makes nothing new.
func TestDetach(t *testing.T) {
	inIsland(t, nil, func(t *testing.T, i *island) {
		web := shoal.Spec{Name: "web", Networks: on("a", "b")}
		i.attach(web)
		if err := i.room.Detach(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * again)
		synctest.Wait()
		if got, open := i.names(), i.machine.open(); len(got) != 0 || len(open) != 0 {
			t.Errorf("left: %v, open %v", got, open)
		}
		if _, _, err := i.room.Attach(t.Context(), &web); !errors.Is(err, shoal.ErrRefused) {
			t.Errorf("Attach to a peer that leaves = %v", err)
		}
	})
}
