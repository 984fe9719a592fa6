// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/bridge"
	"github.com/shoalnet/shoal/ingress/names"
)

// inside is a container's side of a lane.
type inside struct {
	w *world
	l *lane
}

// attached returns a container on a network of a member.
func (w *world) attached(m *member, spec shoal.Spec) inside {
	w.t.Helper()
	if _, dns, err := m.room.Attach(w.t.Context(), &spec); err != nil || !dns.IsValid() {
		w.t.Fatalf("Attach = %s, %v", dns, err)
	}
	return inside{w, m.room.networks.all()[0]}
}

// addressOf returns the address of a name, once it has one.
func (i inside) addressOf(name string) (a netip.Addr) {
	i.w.t.Helper()
	i.w.until("there is a "+name, func() bool {
		i.l.mu.Lock()
		defer i.l.mu.Unlock()
		a = i.l.held.Of(name)
		return a.IsValid()
	})
	return a
}

// connect returns the client's end of a connection to a virtual address.
func (i inside) connect(to netip.Addr, port uint16) *net.TCPConn {
	t := i.w.t
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		i.l.stream(t.Context(), bridge.Stream{Conn: server.(*net.TCPConn), To: netip.AddrPortFrom(to, port)})
	}()
	t.Cleanup(func() { client.Close(); <-done })
	if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return client.(*net.TCPConn)
}

// ask says hello and returns the whole answer; "" if the connection was reset.
func (i inside) ask(to netip.Addr, port uint16) string {
	c := i.connect(to, port)
	_, _ = io.WriteString(c, "hello") // the answer says what became of it
	_ = c.CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil {
		return ""
	}
	return string(got)
}

// TestNamed carries what a container sends to a name, here and elsewhere, and refuses
// peers that have nothing on the network.
func TestNamed(t *testing.T) {
	w := newWorld(t, 3)
	w.deploy("web", w.freePort(), w.peers[1])
	port := w.desired.Services[0].Spec.Ports[0].Container
	w.deploy("api", w.freePort(), w.peers[0])
	for n, m := range w.peers[:2] {
		in := w.attached(m, shoal.Spec{Name: "api"})
		web, slot := in.addressOf(names.FullName("web", "")), in.addressOf(names.SlotName("web", "", 0))
		for _, at := range []netip.Addr{web, slot} {
			if got := in.ask(at, port); got != "web/0\nhello" {
				t.Errorf("peer %d: %s answers %q", n, at, got)
			}
		}
		if got := in.ask(web, 1); got != "" {
			t.Errorf("peer %d: a port of nobody answers %q", n, got)
		}
		if got := in.ask(in.l.network.Virtual.Addr(), port); got != "" || in.l.nobody.Load() != 1 {
			t.Errorf("peer %d: an address of nobody answers %q, counted %d", n, got, in.l.nobody.Load())
		}
	}
	if id := w.states[w.peers[1].id].Replicas[0].ID; !w.peers[1].room.Carried(id) || w.peers[0].room.Carried(id) {
		t.Error("want it carried where it is, and nowhere else")
	}
	for _, st := range w.peers[0].room.Ports() {
		if st.Total != 0 {
			t.Errorf("port = %+v: what comes by name is no traffic of it", st)
		}
	}
	// A slot answers before it is ready; its service does not.
	w.change(func() { w.states[w.peers[1].id].Replicas[0].Phase = shoal.PhaseStarting })
	in := w.attached(w.peers[0], shoal.Spec{Name: "api"})
	w.until("it is known that it is not ready", func() bool {
		return in.ask(in.addressOf(names.FullName("web", "")), port) == ""
	})
	if got := in.ask(in.addressOf(names.SlotName("web", "", 0)), port); got != "web/0\nhello" {
		t.Errorf("slot answers %q", got)
	}
	// The third peer has no container on any network: what it carries by name is refused.
	w.change(func() { w.states[w.peers[1].id].Replicas[0].Phase = shoal.PhaseReady })
	stranger := w.attached(w.peers[2], shoal.Spec{Name: "api"})
	if got := stranger.ask(stranger.addressOf(names.FullName("web", "")), port); got != "" {
		t.Errorf("a stranger hears %q", got)
	}
	s, end := w.peers[2].room.use(serviceKey{name: "web", port: port, isNamed: true})
	defer end()
	if traffic := traffic(s.Stats()); traffic.Refused["not allowed"] == 0 {
		t.Errorf("traffic = %+v, want it refused as not allowed", traffic)
	}
}

// TestNamedDatagrams carries them to a declared port, and back by the same socket.
func TestNamedDatagrams(t *testing.T) {
	w := newWorld(t, 2)
	replica, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { replica.Close() })
	go func() {
		buffer := make([]byte, 64)
		for {
			n, from, err := replica.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = replica.WriteTo(append([]byte("re: "), buffer[:n]...), from)
		}
	}()
	port := uint16(replica.LocalAddr().(*net.UDPAddr).Port)
	w.deploy("web", w.freePort(), w.peers[0])
	w.deploy("dns", w.freePort(), w.peers[1])
	w.change(func() { w.desired.Services[0].Spec.Ports = []shoal.Port{{Container: port, Protocol: "udp"}} })
	in := w.attached(w.peers[0], shoal.Spec{Name: "web"})
	at := netip.AddrPortFrom(in.addressOf(names.FullName("dns", "")), port)
	w.until("the port is declared", func() bool {
		_, ok := in.l.destOf(at, "udp")
		return ok && (*in.l.meant.Load())[at.Addr()].ports[carriedPort{port, "udp"}]
	})
	door, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		in.l.packets(t.Context(), bridge.Packets{Conn: door, To: at})
	}()
	client, err := net.Dial("udp4", door.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(client, "hi")
	got := make([]byte, 64)
	if n, err := client.Read(got); err != nil || string(got[:n]) != "re: hi" {
		t.Errorf("answer = %q, %v", got[:n], err)
	}
	door.Close()
	<-done
	in.l.packets(t.Context(), bridge.Packets{Conn: door, To: netip.AddrPortFrom(in.l.network.Virtual.Addr(), port)}) // nobody's: it ends at once
}
