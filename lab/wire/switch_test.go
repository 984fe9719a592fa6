// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is a card in memory.
type pipe struct {
	out     chan []byte // what the host sends
	in      chan []byte // what it gets
	over    chan struct{}
	close   func()
	mu      sync.Mutex
	offload bool
}

func newPipe() *pipe {
	p := &pipe{out: make(chan []byte), in: make(chan []byte, 1000), over: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.over) })
	return p
}

func (p *pipe) Read(b []byte) (int, error) {
	select {
	case f := <-p.out:
		return copy(b, f), nil
	case <-p.over:
		return 0, io.EOF
	}
}

func (p *pipe) Write(b []byte) (int, error) {
	select {
	case <-p.over:
		return 0, io.ErrClosedPipe
	case p.in <- bytes.Clone(b):
		return len(b), nil
	}
}

func (p *pipe) Close() error { p.close(); return nil }

func (p *pipe) SetOffload(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offload = on
	return nil
}

func (p *pipe) offloads() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.offload
}

func macOf(i byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, i} }

var everybody = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func frameTo(to net.HardwareAddr, body string) []byte {
	f := make([]byte, HeaderBytes, HeaderBytes+etherBytes+len(body))
	f = append(append(append(f, to...), macOf(99)...), 8, 0)
	return append(f, body...)
}

// world is three cards on one segment, in a bubble.
type world struct {
	*Switch
	cards map[string]*pipe
	ports map[string]*Port
}

func newWorld(t *testing.T) *world {
	w := &world{New(Config{Seed: 7}), map[string]*pipe{}, map[string]*Port{}}
	for i, name := range []string{"a", "b", "c"} {
		w.attach(t, name, byte(i+1))
	}
	return w
}

func (w *world) attach(t *testing.T, name string, i byte) {
	t.Helper()
	w.cards[name] = newPipe()
	p, err := w.Attach("outside", name, macOf(i), w.cards[name])
	if err != nil {
		t.Fatal(err)
	}
	w.ports[name] = p
}

func (w *world) link(t *testing.T, from, to string, l Link) {
	t.Helper()
	if err := w.SetLink(Pair{"outside", from, to}, l); err != nil {
		t.Fatal(err)
	}
}

// got is how many frames a card has, after so long.
func (w *world) got(name string, after time.Duration) int {
	time.Sleep(after)
	synctest.Wait()
	n := len(w.cards[name].in)
	for range n {
		<-w.cards[name].in
	}
	return n
}

func TestSwitch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}()
		check := func(what, name string, after time.Duration, want int) {
			t.Helper()
			if got := w.got(name, after); got != want {
				t.Errorf("%s: %s has %d frames, want %d", what, name, got, want)
			}
		}
		a := w.cards["a"].out
		a <- frameTo(macOf(2), "one card")
		check("for b", "b", 0, 1)
		check("for b", "c", 0, 0)
		a <- frameTo(everybody, "all cards")
		check("for all", "b", 0, 1)
		check("for all", "c", 0, 1)
		check("for all", "a", 0, 0)
		a <- []byte("no frame")
		check("no frame", "b", 0, 0)

		w.link(t, "a", "b", Link{Delay: 50 * time.Millisecond})
		a <- frameTo(everybody, "delayed for b only")
		check("delayed", "c", 0, 1)
		check("delayed", "b", 49*time.Millisecond, 0)
		check("delayed", "b", time.Millisecond, 1)
		w.cards["b"].out <- frameTo(macOf(1), "back")
		check("the way back has no delay", "a", 0, 1)

		a <- frameTo(macOf(2), "slow")
		synctest.Wait()
		w.link(t, "a", "b", Link{})
		a <- frameTo(macOf(2), "over the new link")
		check("the new link", "b", 0, 1)
		check("the slow one", "b", 50*time.Millisecond, 1)

		w.link(t, "a", "b", Link{Cut: true})
		a <- frameTo(macOf(2), "cut")
		check("cut", "b", time.Second, 0)
		w.cards["b"].out <- frameTo(macOf(1), "the other way")
		check("cut one way", "a", 0, 1)
		w.link(t, "a", "b", Link{Loss: 1})
		a <- frameTo(macOf(2), "lost")
		check("lost", "b", time.Second, 0)
		if c := w.Counters()[Pair{"outside", "a", "b"}]; c.Cut != 1 || c.Lost != 1 || c.Packets != 5 {
			t.Errorf("counted %+v, want 5 delivered, 1 cut, 1 lost", c)
		}
	})
}

// A host that reboots finds its links; what was on its way to its old card is gone.
func TestReattach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.link(t, "a", "b", Link{Delay: 10 * time.Millisecond})
		w.cards["a"].out <- frameTo(macOf(2), "to the old card")
		synctest.Wait()
		if err := w.Detach(w.ports["b"]); err != nil {
			t.Fatal(err)
		}
		if err := w.Detach(w.ports["b"]); err != nil {
			t.Fatal("the second time:", err)
		}
		w.cards["a"].out <- frameTo(macOf(2), "to no card")
		synctest.Wait()
		w.attach(t, "b", 2)
		w.cards["a"].out <- frameTo(macOf(2), "to the new one")
		if n := w.got("b", 9*time.Millisecond); n != 0 {
			t.Errorf("%d frames came before the delay", n)
		}
		if n := w.got("b", time.Millisecond); n != 1 {
			t.Errorf("%d frames came, want the new one", n)
		}
		if _, err := w.Attach("outside", "b", macOf(9), newPipe()); err == nil {
			t.Error("a second card of one name is taken")
		}
		if _, err := w.Attach("outside", "d", macOf(1), newPipe()); err == nil {
			t.Error("a second card of one address is taken")
		}
	})
}

// A host hands over large frames unless one of its links counts packets.
func TestOffload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		for _, step := range []struct {
			link Link
			want bool
		}{{Link{Delay: time.Second}, true}, {Link{Loss: 0.1}, false}, {Link{}, true}, {Link{Rate: 1e6}, false}} {
			w.link(t, "a", "c", step.link)
			if got := w.cards["a"].offloads(); got != step.want {
				t.Errorf("with %+v it offloads: %t", step.link, got)
			}
			if !w.cards["b"].offloads() {
				t.Error("the other host does not, though none of its links counts packets")
			}
		}
	})
}

func BenchmarkForward(b *testing.B) {
	s := New(Config{})
	from, to := newPipe(), &sink{pipe: newPipe()}
	for i, c := range []Card{from, to} {
		if _, err := s.Attach("outside", string(rune('a'+i)), macOf(byte(i+1)), c); err != nil {
			b.Fatal(err)
		}
	}
	frame := frameTo(macOf(2), string(make([]byte, 1400)))
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		from.out <- frame
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// sink takes everything.
type sink struct{ *pipe }

func (*sink) Write(b []byte) (int, error) { return len(b), nil }
