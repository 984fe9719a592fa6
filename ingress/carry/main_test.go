// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"go.uber.org/goleak"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/balance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = netip.MustParseAddr("127.0.0.1")

// member is one peer: its host, its carrier, and what it says of its replicas.
type member struct {
	*Carrier
	id   shoal.PeerID
	host host.Host // nil: it is alone

	mu       sync.Mutex // guards what follows
	places   map[shoal.ReplicaID]Place
	refusals map[shoal.ReplicaID]*Refusal
	asks     []Ask
	askers   []shoal.PeerID
}

// Target implements Targets.
func (m *member) Target(_ context.Context, asker shoal.PeerID, a Ask) (Place, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asks, m.askers = append(m.asks, a), append(m.askers, asker)
	if r := m.refusals[a.Replica]; r != nil {
		return Place{}, r
	}
	p, ok := m.places[a.Replica]
	if !ok {
		return Place{}, &Refusal{Reason: NotHere}
	}
	return p, nil
}

// asked returns what Target was asked so far.
func (m *member) asked() []Ask {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Ask(nil), m.asks...)
}

func (m *member) refuse(id shoal.ReplicaID, r *Refusal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refusals[id] = r
}

// open opens a stream to a holder.
func (m *member) open(ctx context.Context, holder shoal.PeerID) (network.Stream, error) {
	if m.host == nil {
		return nil, shoal.ErrUnreachable
	}
	p, err := peer.Decode(string(holder))
	if err != nil {
		return nil, err
	}
	return m.host.NewStream(ctx, p, Protocol)
}

func newMember(t testing.TB, cfg Config, h host.Host) *member {
	t.Helper()
	m := &member{id: "self", host: h, places: map[shoal.ReplicaID]Place{}, refusals: map[shoal.ReplicaID]*Refusal{}}
	if h != nil {
		m.id = shoal.PeerID(h.ID().String())
	}
	c, err := New(cfg, Deps{Self: m.id, Targets: m, Open: m.open, Clock: shoal.NewSystemClock(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	m.Carrier = c
	return m
}

// alone returns a peer without a network.
func alone(t testing.TB, cfg Config) *member {
	t.Helper()
	return newMember(t, cfg, nil)
}

// world returns peers on loopback that know each other and serve each other. Streams end
// with the test.
func world(t testing.TB, n int, cfg Config) []*member {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	var out []*member
	for range n {
		h, err := libp2p.New(
			libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
			libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableRelay(), libp2p.DisableMetrics(),
			libp2p.DisableIdentifyAddressDiscovery(),
		)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		m := newMember(t, cfg, h)
		for _, o := range out {
			o.host.Peerstore().AddAddrs(h.ID(), h.Addrs(), peerstore.PermanentAddrTTL)
			h.Peerstore().AddAddrs(o.host.ID(), o.host.Addrs(), peerstore.PermanentAddrTTL)
		}
		h.SetStreamHandler(Protocol, func(s network.Stream) {
			serving.Add(1)
			defer serving.Done()
			m.Serve(ctx, s)
		})
		out = append(out, m)
	}
	t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
	return out
}

func replica(n byte) shoal.ReplicaID { return shoal.ReplicaID{0: n, 15: 1} }

// has says that a peer holds a replica that listens at an address.
func (m *member) has(n byte, at netip.AddrPort) balance.Backend {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.places[replica(n)] = Place{Addr: at}
	return balance.Backend{Replica: replica(n), Slot: int(n), Holder: m.id, Ready: true, Alive: true}
}

// service returns one with these replicas, in turn.
func service(backends ...balance.Backend) *Service {
	s := NewService("web", 1)
	s.Update(balance.Snapshot{Policy: shoal.LBRoundRobin, Backends: backends})
	return s
}

func (s *Service) published() Dest { return Dest{Service: s, Port: 80, Via: ViaPublished} }

// door has a peer publish a service and returns where. It ends with the test, which fails
// if something is open then.
func (m *member) door(t testing.TB, s *Service, protocol string) netip.AddrPort {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l, err := Listen(ctx, netip.AddrPortFrom(loopback, 0), protocol)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Serve(ctx, m.Carrier, s.published()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v", err)
		}
		if n := s.Stats().Open; n != 0 {
			t.Errorf("%d connections are open at the end", n)
		}
		for _, r := range s.Rows(m.deps.Clock.Mono()) {
			if r.Open != 0 {
				t.Errorf("replica %s has %d open connections at the end", r.Replica.Short(), r.Open)
			}
		}
	})
	return l.Addr()
}

// listen has fn serve each connection that comes, and returns where. fn's connection is
// closed when it returns.
func listen(t testing.TB, fn func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				fn(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return portOf(l.Addr())
}

// echo sends back what comes, and its end.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

// says answers each connection with a name, and reads to its end.
func says(name string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		_, _ = io.WriteString(c, name)
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	}
}

// nobody returns an address of loopback at which nobody listens.
func nobody(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return portOf(l.Addr())
}

func dial(t testing.TB, at netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

// knock returns what a client sees that sends nothing: a reset may come before it knows
// that it is connected.
func knock(t testing.TB, at netip.AddrPort) error {
	t.Helper()
	c, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.ReadAll(c)
	return err
}

// ask sends something and its end, and returns the whole answer.
func ask(t testing.TB, at netip.AddrPort, what string) (string, error) {
	t.Helper()
	c := dial(t, at)
	_, _ = io.WriteString(c, what) // the answer says what became of it
	_ = c.CloseWrite()
	b, err := io.ReadAll(c)
	return string(b), err
}

// noise returns bytes that a seed determines.
func noise(seed byte, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// until waits for something that other goroutines bring about.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not in a minute: %s", what)
		}
		time.Sleep(2 * time.Millisecond) // sockets are real
	}
}
