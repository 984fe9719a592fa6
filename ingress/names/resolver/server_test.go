// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/names"
)

func TestServeOurs(t *testing.T) {
	w := newWorld(t, Defaults())
	for _, network := range []string{"udp", "tcp"} {
		got := w.ask(network, query("wEb.Shop.", dns.TypeA))
		if len(got.Answer) != 1 || got.Answer[0].Header().Name != "wEb.Shop." || !got.Authoritative || !got.RecursionAvailable {
			t.Errorf("by %s: %v, want one address under the name as asked", network, got)
		}
		if got := w.ask(network, query("nobody.shoal.", dns.TypeA)); got.Rcode != dns.RcodeNameError || len(got.Ns) != 1 {
			t.Errorf("by %s: %v, want NXDOMAIN and how long it holds", network, got)
		}
	}
	if s := w.server.Stats(); s.Asked != 4 || s.Ours != 4 || s.Forwarded != 0 || len(s.Refused) != 0 {
		t.Errorf("Stats = %+v, want 4 asked and ours", s)
	}
}

// TestServeGoResolver: what a program in a container sees through an ordinary resolver.
func TestServeGoResolver(t *testing.T) {
	w := newWorld(t, Defaults(), says("192.0.2.80"))
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		to := map[bool]string{true: w.udp, false: w.tcp}[strings.HasPrefix(network, "udp")]
		return new(net.Dialer).DialContext(ctx, network, to)
	}}
	for name, want := range map[string]int{"web.shop.": 1, "tasks.web.": 3, "tasks.big.": 200, "www.example.com.": 1} {
		if got, err := r.LookupNetIP(t.Context(), "ip", name); err != nil || len(got) != want {
			t.Errorf("%s has %d addresses, %v, want %d", name, len(got), err, want)
		}
	}
	_, srv, err := r.LookupSRV(t.Context(), "80", "tcp", "tasks.web.shop.shoal.")
	if err != nil || len(srv) != 3 || srv[0].Port != 80 || !strings.HasSuffix(srv[0].Target, ".web.shop.shoal.") {
		t.Errorf("SRV = %v, %v, want port 80 of three replicas", srv, err)
	}
	ips, err := r.LookupHost(t.Context(), "0.web.")
	if err != nil || len(ips) != 1 {
		t.Fatalf("0.web = %v, %v, want one address", ips, err)
	}
	if got, err := r.LookupAddr(t.Context(), ips[0]); err != nil || !slices.Equal(got, []string{"0.web.shop.shoal."}) {
		t.Errorf("the name of %s = %v, %v, want 0.web.shop.shoal.", ips[0], got, err)
	}
	var missing *net.DNSError
	if _, err := r.LookupHost(t.Context(), "nobody.shoal."); !errors.As(err, &missing) || !missing.IsNotFound {
		t.Errorf("nobody.shoal = %v, want not found", err)
	}
}

// TestBeyond: what the zone does not know is looked for in the other zones of the client,
// in order; a name under the suffix is absent only if it is in all of them.
func TestBeyond(t *testing.T) {
	zone := func(third byte, services ...names.Service) *names.Zone {
		in := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, third, 0}), 23)
		held, err := names.Allocate(in, names.Wanted(services), nil, 0, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return names.NewZone(names.Network{Range: in, Services: services, Addresses: held})
	}
	web, db := names.Service{Name: "web", Project: "shop"}, names.Service{Name: "db", Project: "shop"}
	front, back := zone(2, web), zone(6, web, db)
	inside, alone := netip.MustParseAddr("10.213.0.9"), netip.MustParseAddr("10.213.0.10")
	s, err := New(Defaults(), Deps{Packets: []net.PacketConn{brokenConn{}}, Beyond: func(client netip.Addr) []*names.Zone {
		if client == inside {
			return []*names.Zone{zone(10), back}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.SetZone(front)
	for _, c := range []struct {
		client netip.Addr
		name   string
		in     string // the range of the answer; "": NXDOMAIN; "-": it is not ours
	}{
		{inside, "web.", "10.213.2.0/23"},
		{inside, "db.", "10.213.6.0/23"},
		{inside, "db.shop.shoal.", "10.213.6.0/23"},
		{inside, "cache.shop.shoal.", ""},
		{inside, "9.db.", ""},
		{inside, "example.com.", "-"},
		{alone, "web.", "10.213.2.0/23"},
		{alone, "db.", "-"},
		{alone, "db.shop.shoal.", ""},
	} {
		got, ours := s.answer(c.client, dns.Question{Name: c.name, Qtype: dns.TypeA, Qclass: dns.ClassINET})
		switch {
		case c.in == "-" && !ours, c.in == "" && ours && got.Rcode == dns.RcodeNameError:
		case ours && len(got.Records) == 1:
			if a, _ := netip.AddrFromSlice(got.Records[0].(*dns.A).A); c.in == "" || c.in == "-" || !netip.MustParsePrefix(c.in).Contains(a.Unmap()) {
				t.Errorf("%s for %s = %s, want %q", c.name, c.client, a, c.in)
			}
		default:
			t.Errorf("%s for %s = %+v, %v; want %q", c.name, c.client, got, ours, c.in)
		}
	}
}

func TestServeSwapsZones(t *testing.T) {
	w := newWorld(t, Defaults(), says("192.0.2.80"))
	w.server.SetZone(names.NewZone(names.Network{}))
	if got := addressOf(w.ask("udp", query("web.", dns.TypeA))); got != "192.0.2.80" {
		t.Errorf("a name that is not ours any more = %s, want what the machine's resolver says", got)
	}
}

func TestServeRotates(t *testing.T) {
	w := newWorld(t, Defaults())
	first := map[string]bool{}
	for range 3 {
		got := w.ask("udp", query("tasks.web.", dns.TypeA))
		if len(got.Answer) != 3 {
			t.Fatalf("%d addresses, want 3", len(got.Answer))
		}
		first[got.Answer[0].(*dns.A).A.String()] = true
	}
	if len(first) != 3 {
		t.Errorf("%d addresses came first in three answers, want 3", len(first))
	}
}

// TestServeSizes: an answer is as long as the client takes by UDP, and whole by TCP.
func TestServeSizes(t *testing.T) {
	w := newWorld(t, Defaults())
	for _, c := range []struct {
		what, network string
		edns          uint16
		limit         int
		cut           bool
	}{
		{"plain", "udp", 0, 512, true},
		{"small buffer", "udp", 100, 512, true},
		{"large buffer", "udp", 4096, 1232, true},
		{"stream", "tcp", 0, 65535, false},
	} {
		m := query("tasks.big.", dns.TypeA)
		if c.edns > 0 {
			m.SetEdns0(c.edns, true)
		}
		conn, err := net.Dial(c.network, map[string]string{"udp": w.udp, "tcp": w.tcp}[c.network])
		if err != nil {
			t.Fatal(err)
		}
		dc := &dns.Conn{Conn: conn, UDPSize: 65535}
		if err := dc.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
		raw, err := dc.ReadMsgHeader(nil)
		_ = conn.Close()
		if err != nil {
			t.Fatal(err)
		}
		var got dns.Msg
		if err := got.Unpack(raw); err != nil {
			t.Fatal(err)
		}
		if len(raw) > c.limit || got.Truncated != c.cut || !c.cut && len(got.Answer) != 200 {
			t.Errorf("%s: %d bytes, cut %t, %d records; want at most %d, %t", c.what, len(raw), got.Truncated, len(got.Answer), c.limit, c.cut)
		}
		if opt := got.IsEdns0(); (opt != nil) != (c.edns > 0) || opt != nil && (!opt.Do() || opt.UDPSize() != maxDatagram) {
			t.Errorf("%s: options %v, want ours if and only if the client has some", c.what, opt)
		}
	}
}

func TestServeRefuses(t *testing.T) {
	w := newWorld(t, Defaults(), says("192.0.2.80"))
	notify := query("web.", dns.TypeSOA)
	notify.Opcode = dns.OpcodeNotify
	update := query("shoal.", dns.TypeSOA)
	update.Opcode = dns.OpcodeUpdate
	chaos := query("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	future := query("web.", dns.TypeA)
	future.SetEdns0(1232, false)
	future.IsEdns0().SetVersion(1)
	for want, ms := range map[int][]*dns.Msg{
		dns.RcodeNotImplemented: {notify, update},
		dns.RcodeRefused:        {chaos, query("google.com.", dns.TypeAXFR), query("google.com.", dns.TypeTSIG), query("shoal.", dns.TypeIXFR)},
		dns.RcodeBadVers:        {future},
	} {
		for _, m := range ms {
			if got := w.ask("udp", m); got.Rcode != want {
				t.Errorf("answer to %v = %s, want %s", m, dns.RcodeToString[got.Rcode], dns.RcodeToString[want])
			}
		}
	}
	w.expect(Unsupported, 7)
}

// TestServeMalformed: what is no question gets no answer, or one that says so, and the
// server serves on.
func TestServeMalformed(t *testing.T) {
	w := newWorld(t, Defaults())
	good, err := query("web.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	with := func(at int, v byte) []byte {
		p := append([]byte(nil), good...)
		p[at] = v
		return p
	}
	for what, c := range map[string]struct {
		packet []byte
		rcode  int // -1: no answer
	}{
		"nothing":          {nil, -1},
		"half a header":    {good[:7], -1},
		"an answer":        {with(2, 0x81), -1},
		"two questions":    {with(5, 2), dns.RcodeFormatError},
		"no question":      {with(5, 0), dns.RcodeFormatError},
		"an answer inside": {with(7, 1), dns.RcodeFormatError},
		"a name cut short": {good[:15], dns.RcodeFormatError},
		"a pointer loop":   {append(append([]byte(nil), good[:12]...), 0xc0, 12, 0, 1, 0, 1), dns.RcodeFormatError},
	} {
		conn, err := net.Dial("udp", w.udp)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(c.packet); err != nil {
			t.Fatal(err)
		}
		if c.rcode < 0 { // what comes first is then the answer to a good question
			if _, err := conn.Write(good); err != nil {
				t.Fatal(err)
			}
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 512)
		n, err := conn.Read(buf)
		_ = conn.Close()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := int(buf[3] & 0xf); got != max(c.rcode, 0) || c.rcode > 0 && n != headerSize || c.rcode < 0 && n <= headerSize {
			t.Errorf("%s: rcode %d in %d bytes, want %d", what, got, n, c.rcode)
		}
	}
	w.expect(Malformed, 8)
}

func TestServeStrangers(t *testing.T) {
	w := newWorld(t, Defaults())
	from := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)}
	conn, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(w.udp)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, _ := query("web.", dns.TypeA).Pack()
	if _, err := conn.Write(raw); err != nil {
		t.Fatal(err)
	}
	w.expect(Stranger, 1)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	tcp, err := d.Dial("tcp", w.tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	if _, err := tcp.Read(make([]byte, 1)); err == nil {
		t.Error("a stranger's connection was answered, want it closed")
	}
	w.expect(Stranger, 2)
}

func TestServeFlood(t *testing.T) {
	cfg := Defaults()
	cfg.Rate, cfg.Burst = 1, 20
	w := newWorld(t, cfg)
	conn, err := net.Dial("udp", w.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, _ := query("web.", dns.TypeA).Pack()
	for range 100 {
		if _, err := conn.Write(raw); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(5 * time.Second); w.server.Stats().Asked < 100; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("Stats = %+v, want 100 asked", w.server.Stats())
		}
	}
	// The bucket may have got a token or two back meanwhile.
	if s := w.server.Stats(); s.Ours < 20 || s.Ours > 25 || s.Ours+s.Refused[Flood] != 100 {
		t.Errorf("Stats = %+v, want about 20 answered and the rest dropped", s)
	}
	if n := w.log.count("too often"); n != 1 {
		t.Errorf("the flood was logged %d times, want once", n)
	}
}

func TestServeConnLimits(t *testing.T) {
	cfg := Defaults()
	cfg.ClientConns = 2
	w := newWorld(t, cfg)
	var open []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", w.tcp)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	w.expect(Busy, 1)
	_ = open[0].Close()
	_ = open[1].Close()
	// Room is there again once the server has seen them close.
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if got, err := w.tryAsk("tcp", query("web.", dns.TypeA)); err == nil && len(got.Answer) == 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("no connection is served although the others are closed")
		}
	}
}

// TestServeConnPipelines: several questions on one connection, also in one segment.
func TestServeConnPipelines(t *testing.T) {
	w := newWorld(t, Defaults(), says("192.0.2.80"))
	conn, err := net.Dial("tcp", w.tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var all []byte
	wants := []string{"web.", "www.example.com.", "db.shoal."}
	for _, name := range wants {
		raw, _ := query(name, dns.TypeA).Pack()
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(raw))), raw...)
	}
	if _, err := conn.Write(all); err != nil {
		t.Fatal(err)
	}
	dc := &dns.Conn{Conn: conn}
	for _, name := range wants {
		got, err := dc.ReadMsg()
		if err != nil || got.Question[0].Name != name {
			t.Fatalf("answer = %v, %v, want one about %s", got, err, name)
		}
	}
	// A message longer than any question ends the connection.
	if _, err := conn.Write([]byte{0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	if _, err := dc.ReadMsg(); err == nil {
		t.Error("a message of 64 KiB was read, want the connection closed")
	}
	w.expect(Malformed, 1)
}

// pipeListener hands out one end of pipes.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

type pipeConn struct {
	net.Conn
	from net.Addr
}

func (c pipeConn) RemoteAddr() net.Addr { return c.from }

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { close(l.done); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) dial() net.Conn {
	here, there := net.Pipe()
	l.conns <- pipeConn{there, &net.TCPAddr{IP: net.IPv4(10, 7, 0, 2)}}
	return here
}

// TestServeSlow: a client that sends byte by byte has as long as one that sends nothing.
func TestServeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		cfg := Defaults()
		f, err := NewForwarder(cfg, Outside{Log: slog.New(slog.DiscardHandler), Path: "/does/not/exist"})
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(cfg, Deps{
			Log: slog.New(slog.DiscardHandler), Listeners: []net.Listener{l}, Forward: f, Allowed: func(netip.Addr) bool { return true },
		})
		if err != nil {
			t.Fatal(err)
		}
		s.SetZone(testZone(t))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()

		drip, start := l.dial(), time.Now()
		for {
			time.Sleep(3 * time.Second)
			if _, err := drip.Write([]byte{1}); err != nil {
				break
			}
		}
		if took := time.Since(start); took < cfg.Idle || took > cfg.Idle+3*time.Second {
			t.Errorf("dripping was cut off after %s, want %s", took, cfg.Idle)
		}
		// One that was answered and then is quiet is not slow, only over.
		quiet := &dns.Conn{Conn: l.dial()}
		if err := quiet.WriteMsg(query("web.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if m, err := quiet.ReadMsg(); err != nil || len(m.Answer) != 1 {
			t.Errorf("answer = %v, %v, want one address", m, err)
		}
		if _, err := quiet.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a quiet connection ends with %v, want EOF", err)
		}
		// One that does not read its answer.
		deaf := &dns.Conn{Conn: l.dial()}
		if err := deaf.WriteMsg(query("web.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(cfg.Idle + time.Second)
		if _, err := deaf.ReadMsg(); err == nil {
			t.Error("an answer waited for its reader longer than allowed")
		}
		synctest.Wait()
		if got := s.Stats().Refused[Slow]; got != 1 {
			t.Errorf("slow connections = %d, want 1", got)
		}
		idle := l.dial()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if _, err := idle.Read(make([]byte, 1)); err == nil {
			t.Error("a connection outlived Run")
		}
	})
}

// brokenConn is a socket that fails for good.
type brokenConn struct{ net.PacketConn }

var errBroken = errors.New("broken")

func (brokenConn) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, errBroken }
func (brokenConn) Close() error                           { return nil }

func TestRunReportsABrokenSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		s, err := New(Defaults(), Deps{Log: slog.New(slog.DiscardHandler), Packets: []net.PacketConn{brokenConn{}}, Listeners: []net.Listener{l}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); !errors.Is(err, errBroken) {
			t.Errorf("Run = %v, want %v", err, errBroken)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	bad := Defaults()
	bad.Burst = 0
	for want, c := range map[string]Config{"burst": bad, "listeners": Defaults()} {
		var invalid *shoal.InvalidError
		if _, err := New(c, Deps{}); !errors.As(err, &invalid) || invalid.Field != want {
			t.Errorf("New = %v, want an InvalidError about %s", err, want)
		}
	}
	var invalid *shoal.InvalidError
	if _, err := NewForwarder(bad, Outside{}); !errors.As(err, &invalid) || invalid.Field != "burst" {
		t.Errorf("NewForwarder = %v, want an InvalidError about burst", err)
	}
	if s := Reason(99).String() + " " + Slow.String(); s != "unknown slow" {
		t.Errorf("reasons = %q", s)
	}
}

// FuzzPacket: whatever a client sends is answered or dropped, never with more than it
// takes, and an answer is never answered.
func FuzzPacket(f *testing.F) {
	opts := query("web.", dns.TypeA).SetEdns0(0, true)
	for _, m := range []*dns.Msg{query("web.", dns.TypeA), query("tasks.big.shoal.", dns.TypeA), query("google.com.", dns.TypeMX), opts, query("_tcp.tasks.web.", dns.TypeSRV)} {
		raw, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, false)
		f.Add(raw, true)
	}
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"), false)
	log := slog.New(slog.DiscardHandler)
	forward, err := NewForwarder(Defaults(), Outside{Log: log, Path: "/does/not/exist"})
	if err != nil {
		f.Fatal(err)
	}
	s, err := New(Defaults(), Deps{Log: log, Packets: []net.PacketConn{brokenConn{}}, Forward: forward})
	if err != nil {
		f.Fatal(err)
	}
	s.SetZone(testZone(f))
	f.Fuzz(func(t *testing.T, packet []byte, tcp bool) {
		reply, a := s.local(netip.Addr{}, packet, tcp)
		if a != nil {
			if strings.HasSuffix(strings.ToLower(a.question().Name), ".shoal.") && !strings.HasSuffix(strings.ToLower(a.question().Name), `\.shoal.`) {
				t.Errorf("%q would be forwarded", a.question().Name)
			}
			reply = s.foreign(t.Context(), netip.Addr{}, a)
		}
		if reply == nil {
			if len(packet) >= headerSize && packet[2]&0x80 == 0 {
				t.Error("a message with a header got no answer")
			}
			return
		}
		limit := 512
		if tcp {
			limit = 65535
		} else if a, _, _ := screen(packet, false); a != nil && a.opt != nil {
			limit = maxDatagram
		}
		if len(reply) > limit || len(reply) < headerSize || reply[0] != packet[0] || reply[1] != packet[1] || reply[2]&0x80 == 0 {
			t.Errorf("reply of %d bytes to a message of %d: %x", len(reply), len(packet), reply[:min(len(reply), 12)])
		}
		if err := new(dns.Msg).Unpack(reply); err != nil {
			t.Errorf("the reply cannot be read: %v", err)
		}
	})
}

// BenchmarkLocal is a question of ours from bytes to bytes.
func BenchmarkLocal(b *testing.B) {
	s, err := New(Defaults(), Deps{Log: slog.New(slog.DiscardHandler), Packets: []net.PacketConn{brokenConn{}}})
	if err != nil {
		b.Fatal(err)
	}
	s.SetZone(testZone(b))
	for label, name := range map[string]string{"service": "web.shop.shoal.", "tasks3": "tasks.web.", "tasks200cut": "tasks.big."} {
		raw, err := query(name, dns.TypeA).Pack()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(label, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if reply, _ := s.local(netip.Addr{}, raw, false); len(reply) <= headerSize {
					b.Fatal("no answer")
				}
			}
		})
	}
}
