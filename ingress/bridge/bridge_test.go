// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalnet/shoal"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// loopback is a network that needs no rights: the kernel holds all of 127.0.0.0/8 already.
var loopback = shoal.Network{
	ID: "1", Name: "shop_default", Bridge: "lo", Subnet: netip.MustParsePrefix("127.9.0.0/22"), Gateway: netip.MustParseAddr("127.9.0.1"),
	Containers: netip.MustParsePrefix("127.9.0.0/23"), Virtual: netip.MustParsePrefix("127.9.2.0/23"),
}

// fakeHost is a machine that answers as it is told.
type fakeHost struct {
	mu          sync.Mutex // guards what follows
	route, rule error
	held        []uint16
	released    int
}

func (h *fakeHost) hold(_ *shoal.Network, port uint16) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = append(h.held, port)
	if h.route != nil || port == 0 {
		return h.route
	}
	return h.rule
}

func (h *fakeHost) letGo(*shoal.Network) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released++
	return nil
}

func (h *fakeHost) turnedAway(*shoal.Network) uint64 { return 7 }

// echo is a bridge whose streams and datagrams come back with the address they were for.
func echo(t testing.TB, cfg Config, n shoal.Network) *Bridge {
	t.Helper()
	b, err := New(cfg, Deps{
		Network: n, Log: slog.New(slog.DiscardHandler),
		Stream: func(ctx context.Context, s Stream) {
			defer context.AfterFunc(ctx, func() { s.Conn.Close() })()
			fmt.Fprintf(s.Conn, "%s %s\n", s.From.Addr(), s.To)
			io.Copy(io.Discard, s.Conn)
		},
		Packets: func(_ context.Context, p Packets) {
			buffer := make([]byte, 1<<16)
			for {
				n, from, err := p.Conn.ReadFrom(buffer)
				if err != nil {
					return
				}
				client := from.(*net.UDPAddr).AddrPort()
				p.Conn.WriteTo(fmt.Appendf(nil, "%s %s %s", buffer[:n], client.Addr(), p.To), from)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// run runs a bridge to the end of the test, or until stop, which returns what Run did.
func run(t testing.TB, b *Bridge) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return errors.New("Run does not end")
		}
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return stop
}

// ask connects from an address and returns the first line, or what went wrong.
func ask(from, to string) string {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp4", to)
	if err != nil {
		return wrong(err)
	}
	defer c.Close()
	return read(c)
}

// send sends one datagram and returns the answer, or what went wrong.
func send(from, to string, wait time.Duration) string {
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("udp4", to)
	if err != nil {
		return wrong(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("hi")); err != nil {
		return wrong(err)
	}
	return read(c)
}

func read(c net.Conn) string {
	buffer := make([]byte, 200)
	n, err := c.Read(buffer)
	if err != nil {
		return wrong(err)
	}
	return strings.TrimSpace(string(buffer[:n]))
}

func wrong(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, io.EOF):
		return "closed"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "silence"
	}
	return err.Error()
}

// await asks again until the answer is as wanted.
func await(t testing.TB, want string, ask func() string) {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) { // for a socket that another goroutine opens
		if got = ask(); got == want {
			return
		}
	}
	t.Errorf("answer = %q, want %q", got, want)
}

func endpoint(protocol, at string) Endpoint {
	return Endpoint{Protocol: protocol, Addr: netip.MustParseAddrPort(at)}
}

func TestDeclaredPortsAnswer(t *testing.T) {
	b, h := echo(t, Config{}, loopback), &fakeHost{rule: errNoRedirect}
	b.host = h
	held := make(chan struct{})
	b.deps.Held = func() { close(held) }
	web, dns := endpoint("tcp", "127.9.2.7:8080"), endpoint("udp", "127.9.2.8:5353")
	bad := []Endpoint{
		endpoint("tcp", "127.9.0.7:8080"), endpoint("tcp", "127.9.2.7:0"), endpoint("sctp", "127.9.2.7:80"), endpoint("udp", "127.9.3.255:80"),
	}
	b.SetEndpoints(append([]Endpoint{web, dns, web}, bad...))
	stop := run(t, b)
	<-held // from now on nothing is refused
	if got := ask("127.9.0.5", "127.9.2.7:8080"); got != "127.9.0.5 127.9.2.7:8080" {
		t.Errorf("first connection = %q", got)
	}
	await(t, "hi 127.9.0.6 127.9.2.8:5353", func() string { return send("127.9.0.6", "127.9.2.8:5353", time.Second) })
	s := b.Stats()
	if s.Redirects || s.TurnedAway != 0 || len(s.Failed) != len(bad) {
		t.Errorf("Stats = %+v, want no redirect, and %d endpoints that failed", s, len(bad))
	}
	for _, e := range bad {
		if _, ok := errors.AsType[*shoal.InvalidError](s.Failed[e]); !ok {
			t.Errorf("endpoint %s failed with %v, want an InvalidError", e, s.Failed[e])
		}
	}
	// Strangers: another network, the gateway (a loop), a virtual address.
	for _, from := range []string{"127.9.4.5", "127.0.0.1", "127.9.0.1", "127.9.2.9"} {
		if got := ask(from, "127.9.2.7:8080"); got != "closed" {
			t.Errorf("connection from %s = %q, want it closed", from, got)
		}
		if got := send(from, "127.9.2.8:5353", 50*time.Millisecond); got != "silence" {
			t.Errorf("datagram from %s = %q, want silence", from, got)
		}
	}
	if got := b.Stats().Refused[Stranger]; got != 8 {
		t.Errorf("%d strangers, want 8", got)
	}
	b.SetEndpoints([]Endpoint{dns})
	await(t, "refused", func() string { return ask("127.9.0.5", "127.9.2.7:8080") })
	await(t, "hi 127.9.0.6 127.9.2.8:5353", func() string { return send("127.9.0.6", "127.9.2.8:5353", time.Second) })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := send("127.9.0.6", "127.9.2.8:5353", time.Second); got != "refused" {
		t.Errorf("datagram after the end = %q, want it refused", got)
	}
	if h.released != 1 {
		t.Errorf("let go %d times, want once", h.released)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	b := echo(t, Config{Conns: 3, ConnsPerContainer: 2}, loopback)
	b.host = &fakeHost{rule: errNoRedirect}
	b.SetEndpoints([]Endpoint{endpoint("tcp", "127.9.2.7:8081")})
	run(t, b)
	await(t, "127.9.0.5 127.9.2.7:8081", func() string { return ask("127.9.0.5", "127.9.2.7:8081") })
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, 0, 5)}}
	for range 2 {
		// The one that was asked before may still be on its way out.
		await(t, "127.9.0.5 127.9.2.7:8081", func() string {
			c, err := d.Dial("tcp4", "127.9.2.7:8081")
			if err != nil {
				return err.Error()
			}
			t.Cleanup(func() { c.Close() })
			return read(c)
		})
	}
	if got := ask("127.9.0.5", "127.9.2.7:8081"); got != "closed" {
		t.Errorf("third connection = %q, want it closed", got)
	}
	await(t, "127.9.0.6 127.9.2.7:8081", func() string { return ask("127.9.0.6", "127.9.2.7:8081") })
	other := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, 0, 7)}}
	await(t, "127.9.0.7 127.9.2.7:8081", func() string {
		c, err := other.Dial("tcp4", "127.9.2.7:8081")
		if err != nil {
			return err.Error()
		}
		t.Cleanup(func() { c.Close() })
		return read(c)
	})
	if got := ask("127.9.0.6", "127.9.2.7:8081"); got != "closed" {
		t.Errorf("fourth connection of all = %q, want it closed", got)
	}
	if s := b.Stats(); s.Refused[Busy] == 0 || s.Streams < 3 {
		t.Errorf("Stats = %+v, want it counted as busy", s)
	}
}

func TestEndpointsAreBoundedAndTriedAgain(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.9.2.7:8082")
	if err != nil {
		t.Fatal(err)
	}
	b := echo(t, Config{Endpoints: 1, Refresh: 10 * time.Millisecond}, loopback)
	h := &fakeHost{rule: errNoRedirect}
	b.host = h
	first, second := endpoint("tcp", "127.9.2.7:8082"), endpoint("udp", "127.9.2.7:8082")
	b.SetEndpoints([]Endpoint{first})
	run(t, b)
	await(t, "true", func() string { return fmt.Sprint(errors.Is(b.Stats().Failed[first], unix.EADDRINUSE)) })
	taken.Close()
	await(t, "127.9.0.5 127.9.2.7:8082", func() string { return ask("127.9.0.5", "127.9.2.7:8082") })
	b.SetEndpoints([]Endpoint{first, second})
	await(t, "true", func() string { return fmt.Sprint(errors.Is(b.Stats().Failed[second], shoal.ErrNoSpace)) })
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.held); n < 3 || h.held[n-1] != 0 {
		t.Errorf("held %v, want the route put back, and no rules", h.held)
	}
}

func TestRunWithoutTheRight(t *testing.T) {
	for _, h := range []*fakeHost{{route: permitted(unix.EPERM)}, {rule: permitted(unix.EPERM)}} {
		b := echo(t, Config{}, loopback)
		b.host = h
		b.deps.Held = func() { t.Error("it says that it holds what it may not") }
		err := b.Run(t.Context())
		advice, ok := errors.AsType[*shoal.AdviceError](err)
		if !ok || !errors.Is(err, shoal.ErrRefused) || !strings.Contains(advice.Advice, "CAP_NET_ADMIN") {
			t.Errorf("Run = %v, want advice about CAP_NET_ADMIN", err)
		}
		if h.released != 1 {
			t.Errorf("let go %d times, want once", h.released)
		}
	}
}

// TestRedirectListener dials the listener itself, as a container can: nothing was
// redirected, so it is for no virtual address.
func TestRedirectListener(t *testing.T) {
	b, h := echo(t, Config{}, loopback), &fakeHost{}
	b.host = h
	web := endpoint("tcp", "127.9.2.7:8083")
	b.SetEndpoints([]Endpoint{web})
	run(t, b)
	await(t, "closed", func() string {
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.held) < 2 {
			return "not yet"
		}
		return ask("127.9.0.5", fmt.Sprintf("127.9.0.1:%d", h.held[1]))
	})
	await(t, "true 1 7", func() string {
		s := b.Stats()
		return fmt.Sprint(s.Redirects, min(s.Refused[Astray], 1), s.TurnedAway)
	})
	if got := ask("127.9.0.5", web.Addr.String()); got != "refused" {
		t.Errorf("declared port = %q, want no socket of its own beside the redirect", got)
	}
}

func TestNewRefuses(t *testing.T) {
	for what, spoil := range map[string]func(*Config, *shoal.Network){
		"no bridge":              func(_ *Config, n *shoal.Network) { n.Bridge = "" },
		"a long name":            func(_ *Config, n *shoal.Network) { n.Bridge = "br-0123456789abcdef" },
		"everybody's addresses":  func(_ *Config, n *shoal.Network) { n.Subnet = netip.MustParsePrefix("0.0.0.0/0") },
		"IPv6":                   func(_ *Config, n *shoal.Network) { n.Subnet = netip.MustParsePrefix("fd00::/64") },
		"all of the subnet":      func(_ *Config, n *shoal.Network) { n.Virtual = n.Subnet },
		"addresses elsewhere":    func(_ *Config, n *shoal.Network) { n.Virtual = netip.MustParsePrefix("127.10.2.0/23") },
		"no virtual range":       func(_ *Config, n *shoal.Network) { n.Virtual = netip.Prefix{} },
		"the containers' own":    func(_ *Config, n *shoal.Network) { n.Virtual = n.Containers },
		"a gateway elsewhere":    func(_ *Config, n *shoal.Network) { n.Gateway = netip.MustParseAddr("127.9.2.1") },
		"less than none at once": func(c *Config, _ *shoal.Network) { c.Conns = -1 },
	} {
		cfg, n := Config{}, loopback
		spoil(&cfg, &n)
		if _, err := New(cfg, Deps{Network: n}); err == nil {
			t.Errorf("New with %s = nil, want it refused", what)
		} else if _, ok := errors.AsType[*shoal.InvalidError](err); !ok {
			t.Errorf("New with %s = %v, want an InvalidError", what, err)
		}
	}
}

func TestUDPCapabilitySaysWhy(t *testing.T) {
	on, off, absent := udp([]byte("1\n"), nil), udp([]byte("0\n"), nil), udp(nil, errors.New("absent"))
	if on.Works || off.Works || absent != off || !strings.Contains(on.Why, "= 1 defeats") || strings.Contains(off.Why, "= 1") {
		t.Errorf("udp = %+v with the filter, %+v without", on, off)
	}
}
