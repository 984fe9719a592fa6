// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/names"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is one server on loopback, and resolvers of its machine that a test controls.
type world struct {
	t       testing.TB
	cfg     Config
	server  *Server
	forward *Forwarder
	udp     string // where the server listens
	tcp     string
	conf    string // its resolv.conf
	log     *syncBuffer

	mu        sync.Mutex // guards all below
	own       map[netip.Addr]bool
	upstreams map[string]string // "192.0.2.1:53" to a socket on loopback
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), s)
}

// newWorld starts a server whose machine has the resolvers that handlers are, as
// 192.0.2.1, .2 and so on; a nil one does not exist: nobody listens there.
func newWorld(t testing.TB, cfg Config, handlers ...dns.HandlerFunc) *world {
	t.Helper()
	w := &world{
		t: t, cfg: cfg, conf: filepath.Join(t.TempDir(), "resolv.conf"), log: &syncBuffer{},
		own: map[netip.Addr]bool{}, upstreams: map[string]string{},
	}
	var conf strings.Builder
	for i, h := range handlers {
		addr := fmt.Sprintf("192.0.2.%d", i+1)
		fmt.Fprintf(&conf, "nameserver %s\n", addr)
		if h != nil {
			w.upstreams[addr+":53"] = startUpstream(t, h)
		}
	}
	w.write(conf.String())
	log := slog.New(slog.NewTextHandler(w.log, nil))
	var err error
	w.forward, err = NewForwarder(cfg, Outside{Log: log, Path: w.conf, Own: w.isOwn, Dial: w.dial})
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.udp, w.tcp = pc.LocalAddr().String(), l.Addr().String()
	w.server, err = New(cfg, Deps{
		Log: log, Packets: []net.PacketConn{pc}, Listeners: []net.Listener{l}, Forward: w.forward,
		Allowed: func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.1") },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.server.SetZone(testZone(t))
	run(t, w.server.Run)
	run(t, w.forward.Run)
	return w
}

// run runs f until the test ends.
func run(t testing.TB, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

func (w *world) write(conf string) {
	w.t.Helper()
	if err := os.WriteFile(w.conf, []byte(conf), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) isOwn(a netip.Addr) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.own[a]
}

func (w *world) setOwn(a string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.own[netip.MustParseAddr(a)] = true
}

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	real := w.upstreams[address]
	w.mu.Unlock()
	if real == "" {
		return nil, fmt.Errorf("dial %s: nobody listens", address)
	}
	return new(net.Dialer).DialContext(ctx, network, real)
}

// startUpstream serves h by UDP and TCP on one port.
func startUpstream(t testing.TB, h dns.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: l, Handler: h}, {PacketConn: pc, Handler: h}} {
		up, done := make(chan struct{}), make(chan error, 1)
		s.NotifyStartedFunc = func() { close(up) }
		go func() { done <- s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-done
		})
	}
	return l.Addr().String()
}

// testZone knows web.shop with three ready replicas, and big.shop with 200.
func testZone(t testing.TB) *names.Zone {
	t.Helper()
	services := []names.Service{{Name: "web", Project: "shop", Ports: []shoal.Port{{Container: 80, Protocol: "tcp"}}}, {Name: "big", Project: "shop"}}
	for i := range 200 {
		if i < 3 {
			services[0].Slots = append(services[0].Slots, names.Slot{Index: i, Ready: true})
		}
		services[1].Slots = append(services[1].Slots, names.Slot{Index: i, Ready: true})
	}
	upper := netip.MustParsePrefix("10.7.128.0/17")
	held, err := names.Allocate(upper, names.Wanted(services), nil, 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return names.NewZone(names.Network{Range: upper, Services: services, Addresses: held})
}

func query(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	return m.SetQuestion(name, qtype)
}

// ask sends a message to the server and returns the answer.
func (w *world) ask(network string, m *dns.Msg) *dns.Msg {
	w.t.Helper()
	got, err := w.tryAsk(network, m)
	if err != nil {
		w.t.Fatalf("ask for %s by %s: %v", m.Question[0].Name, network, err)
	}
	return got
}

func (w *world) tryAsk(network string, m *dns.Msg) (*dns.Msg, error) {
	c := &dns.Client{Net: network, Timeout: 10 * time.Second, UDPSize: 4096}
	to := w.udp
	if network == "tcp" {
		to = w.tcp
	}
	got, _, err := c.Exchange(m, to)
	return got, err
}

// expect waits until as many questions were refused for a reason.
func (w *world) expect(r Reason, n uint64) {
	w.t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		got := w.server.Stats().Refused[r]
		if got == n {
			return
		}
		if got > n || time.Now().After(end) {
			w.t.Fatalf("refused as %s: %d, want %d", r, got, n)
		}
	}
}

// says answers every question with one address.
func says(ip string) dns.HandlerFunc {
	return func(rw dns.ResponseWriter, m *dns.Msg) {
		a := new(dns.Msg).SetReply(m)
		a.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(ip),
		}}
		_ = rw.WriteMsg(a)
	}
}

// fails answers every question with an rcode.
func fails(rcode int) dns.HandlerFunc {
	return func(rw dns.ResponseWriter, m *dns.Msg) { _ = rw.WriteMsg(new(dns.Msg).SetRcode(m, rcode)) }
}

// silent answers nothing.
func silent(dns.ResponseWriter, *dns.Msg) {}

// addressOf returns the one address of an answer, or its rcode.
func addressOf(m *dns.Msg) string {
	if len(m.Answer) == 1 {
		if a, ok := m.Answer[0].(*dns.A); ok {
			return a.A.String()
		}
	}
	return dns.RcodeToString[m.Rcode]
}
