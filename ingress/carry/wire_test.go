// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/frame"
)

var compareAddrs = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func TestAskSurvivesTheWire(t *testing.T) {
	for _, a := range []Ask{
		{Service: "web", Replica: replica(1), Port: 80, Protocol: TCP, Via: ViaPublished},
		{
			Service: "dns", Replica: replica(2), Port: 65535, Protocol: UDP, Via: ViaName,
			Client: netip.MustParseAddrPort("[2001:db8::1]:1234"), Reached: netip.MustParseAddrPort("192.0.2.1:53"),
		},
	} {
		var b bytes.Buffer
		if err := frame.Write(&b, a.message(), maxMessage); err != nil {
			t.Fatal(err)
		}
		got, err := hearAsk(&b)
		if err != nil || cmp.Diff(a, got, compareAddrs) != "" {
			t.Errorf("hearAsk = %v, %s", err, cmp.Diff(a, got, compareAddrs))
		}
	}
	zoned := Ask{Client: netip.MustParseAddrPort("[fe80::1%eth0]:1"), Reached: netip.MustParseAddrPort("[::ffff:192.0.2.1]:2")}
	if m := zoned.message(); m.GetClient() != "[fe80::1]:1" || m.GetReached() != "192.0.2.1:2" {
		t.Errorf("message has %s and %s", m.GetClient(), m.GetReached())
	}
}

func TestAskThatMakesNoSense(t *testing.T) {
	good := Ask{Service: "web", Replica: replica(1), Port: 80, Protocol: TCP, Via: ViaPublished}
	for what, fn := range map[string]func(*Ask) any{
		"service":  func(a *Ask) any { m := a.message(); m.Service = "Not a name"; return m },
		"replica":  func(a *Ask) any { m := a.message(); m.Replica = m.GetReplica()[1:]; return m },
		"port":     func(a *Ask) any { m := a.message(); m.Port = 65536; return m },
		"protocol": func(a *Ask) any { m := a.message(); m.Protocol = 9; return m },
		"door":     func(a *Ask) any { m := a.message(); m.Via = 9; return m },
		"client":   func(a *Ask) any { m := a.message(); m.Client = "web:80"; return m },
		"reached":  func(a *Ask) any { m := a.message(); m.Reached = "1.2.3.4"; return m },
	} {
		var b bytes.Buffer
		if err := frame.Write(&b, fn(&good).(frame.Message), maxMessage); err != nil {
			t.Fatal(err)
		}
		_, err := hearAsk(&b)
		if r, ok := errors.AsType[*Refusal](err); !ok || r.Reason != Invalid || !strings.Contains(r.Text, what) {
			t.Errorf("%s: hearAsk = %v, want %v that names it", what, err, Invalid)
		}
	}
}

func TestAnswers(t *testing.T) {
	var b bytes.Buffer
	for r := NotHere; r <= Invalid; r++ {
		if err := answer(&b, &Refusal{Reason: r, Text: strings.Repeat("\xff", 1000)}); err != nil {
			t.Fatal(err)
		}
		got, ok := errors.AsType[*Refusal](hearAnswer(&b))
		if !ok || got.Reason != r || len(got.Text) > 300 {
			t.Errorf("answer %v came as %v", r, got)
		}
	}
	if err := answer(&b, &Refusal{Reason: 99}); err != nil {
		t.Fatal(err)
	}
	if got, ok := errors.AsType[*Refusal](hearAnswer(&b)); !ok || got.Reason != NotAllowed {
		t.Errorf("an unknown refusal came as %v, want %v", got, NotAllowed)
	}
	if err := errors.Join(answer(&b, nil), hearAnswer(&b)); err != nil {
		t.Errorf("no refusal came as %v", err)
	}
	if got, ok := errors.AsType[*Refusal](hearAnswer(&b)); !ok || got.Reason != LinkDown || !errors.Is(got, io.EOF) {
		t.Errorf("no answer came as %v, want %v", got, LinkDown)
	}
	for r := NotHere; r < reasons; r++ {
		if r.String() == "" || r.String() == "unknown" {
			t.Errorf("reason %d has no words", r)
		}
	}
}

func TestDatagramFraming(t *testing.T) {
	p := newPools()
	var b bytes.Buffer
	for _, size := range []int{0, 1, maxDatagram} {
		want := noise(byte(size), size)
		if err := writeDatagram(&b, append(make([]byte, lengthBytes), want...)); err != nil {
			t.Fatal(err)
		}
		got, err := readDatagram(&b, p.packet)
		if err != nil || !bytes.Equal(got.datagram()[lengthBytes:], want) {
			t.Errorf("%d bytes came as %d, %v", size, got.n, err)
		}
		got.put()
	}
	if _, err := readDatagram(&b, p.packet); !errors.Is(err, io.EOF) {
		t.Errorf("readDatagram at the end = %v, want %v", err, io.EOF)
	}
	if err := writeDatagram(&b, make([]byte, lengthBytes+maxDatagram+1)); !errors.Is(err, errDropped) {
		t.Errorf("writeDatagram of too much = %v, want %v", err, errDropped)
	}
	for _, cut := range [][]byte{{0}, {0, 2, 1}} {
		if _, err := readDatagram(bytes.NewReader(cut), p.packet); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("readDatagram of %v = %v, want %v", cut, err, io.ErrUnexpectedEOF)
		}
	}
	if _, err := readDatagram(bytes.NewReader([]byte{0xff, 0xff}), p.packet); err == nil {
		t.Error("readDatagram takes one that no network carries")
	}
}

// Bytes as in the specification, section 2.2.
func TestProxyHeader(t *testing.T) {
	const signature = "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
	v4, other := netip.MustParseAddrPort("192.0.2.7:50000"), netip.MustParseAddrPort("198.51.100.1:80")
	v6 := netip.MustParseAddrPort("[2001:db8::7]:443")
	for name, c := range map[string]struct {
		from, to netip.AddrPort
		want     string
	}{
		"IPv4":  {v4, other, "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xc3\x50\x00\x50"},
		"local": {netip.AddrPort{}, other, "\x20\x00\x00\x00"},
		"IPv6": {v6, v6, "\x21\x21\x00\x24" + strings.Repeat("\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07", 2) +
			"\x01\xbb\x01\xbb"},
		"both": {v4, v6, "\x21\x21\x00\x24\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x07" +
			"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\xc3\x50\x01\xbb"},
	} {
		b := ProxyHeader(c.from, c.to)
		if want := signature + c.want; string(b) != want {
			t.Errorf("%s: ProxyHeader = %q, want %q", name, b, want)
		}
		from, to, n, err := ParseProxyHeader(append(b, "rest"...))
		if !c.from.IsValid() {
			c.to = netip.AddrPort{}
		}
		if from != c.from || to != c.to || n != len(b) || err != nil {
			t.Errorf("%s: ParseProxyHeader = %v, %v, %d, %v", name, from, to, n, err)
		}
		if _, _, _, err := ParseProxyHeader(b[:len(b)-1]); !errors.Is(err, ErrNotProxy) {
			t.Errorf("%s, cut: ParseProxyHeader = %v, want %v", name, err, ErrNotProxy)
		}
	}
}

// The replica sees the client's address, whoever connects it.
func TestProxyHeaderIsFirst(t *testing.T) {
	everywhere(t, Defaults(), func(t *testing.T, here, holder *member) {
		heard := make(chan []byte, 1)
		b := holder.has(1, listen(t, func(c *net.TCPConn) {
			all, _ := io.ReadAll(c)
			heard <- all
		}))
		holder.places[replica(1)] = Place{Addr: holder.places[replica(1)].Addr, Proxy: true}
		s := service(b)
		at := here.door(t, s, TCP)
		c := dial(t, at)
		_, _ = io.WriteString(c, "hello")
		_ = c.CloseWrite()
		all := <-heard
		from, to, n, err := ParseProxyHeader(all)
		if from != portOf(c.LocalAddr()) || to != at || err != nil || string(all[n:]) != "hello" {
			t.Errorf("the replica heard %v, %v, %v, then %q", from, to, err, all[n:])
		}
		_, _ = io.ReadAll(c)
		until(t, "it is over", func() bool { return s.Stats().Open == 0 })
		if n := s.Stats().In; n != 5 {
			t.Errorf("counted %d bytes of the client, want 5", n)
		}
	})
}

func FuzzAsk(f *testing.F) {
	var b bytes.Buffer
	a := Ask{Service: "web", Replica: shoal.ReplicaID{1}, Port: 80, Protocol: UDP, Via: ViaForward, Client: netip.MustParseAddrPort("192.0.2.1:1")}
	if err := frame.Write(&b, a.message(), maxMessage); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		a, err := hearAsk(bytes.NewReader(in))
		if err != nil {
			if _, ok := errors.AsType[*Refusal](err); !ok {
				t.Fatalf("hearAsk = %v, want a refusal", err)
			}
			return
		}
		var out bytes.Buffer
		if err := frame.Write(&out, a.message(), maxMessage); err != nil {
			t.Fatal(err)
		}
		again, err := hearAsk(&out)
		if err != nil || cmp.Diff(a, again, compareAddrs) != "" {
			t.Fatalf("%+v came back as %+v, %v", a, again, err)
		}
	})
}

func FuzzProxyHeader(f *testing.F) {
	f.Add(ProxyHeader(netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")))
	f.Add(ProxyHeader(netip.MustParseAddrPort("[2001:db8::1]:1"), netip.MustParseAddrPort("192.0.2.2:2")))
	f.Add(ProxyHeader(netip.AddrPort{}, netip.AddrPort{}))
	f.Fuzz(func(t *testing.T, in []byte) {
		from, to, n, err := ParseProxyHeader(in)
		if err != nil {
			return
		}
		if n > len(in) {
			t.Fatalf("a header of %d bytes in %d", n, len(in))
		}
		from2, to2, _, err := ParseProxyHeader(ProxyHeader(from, to))
		if from != from2 || to != to2 || err != nil {
			t.Fatalf("%v, %v came back as %v, %v, %v", from, to, from2, to2, err)
		}
	})
}

func FuzzDatagrams(f *testing.F) {
	f.Add([]byte{0, 1, 7, 0, 0, 0, 2, 1, 2})
	f.Add([]byte{0xff, 0xff, 1})
	p := newPools()
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		var out bytes.Buffer
		for {
			d, err := readDatagram(r, p.packet)
			if err != nil {
				d.put()
				break
			}
			if err := writeDatagram(&out, d.datagram()); err != nil {
				t.Fatal(err)
			}
			d.put()
		}
		if !bytes.HasPrefix(in, out.Bytes()) {
			t.Fatal("what was read is not what is there")
		}
	})
}
