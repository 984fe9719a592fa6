// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/manifest"
)

func TestBusy(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault http.HandlerFunc
		left  time.Duration
		why   string
	}{
		{"429 says when", status(429, "Retry-After", "40"), 40 * time.Second, "429, again in 40s"},
		{"429 says at once", status(429, "Retry-After", "0"), time.Second, "429, again in 5s"},
		{"429 says next year", status(429, "Retry-After", "31536000"), time.Hour, "429, again in 60m"},
		{"429 says more than a number", status(429, "Retry-After", "99999999999999999999"), backOff, "429"},
		{"429 says nothing", status(429), backOff, "429, again in 5s"},
		{"429 says nonsense", status(429, "Retry-After", "-soon"), backOff, "429"},
		{"503 says a date", status(503, "Date", "Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After", "Sun, 06 Nov 1994 08:51:37 GMT"), 2 * time.Minute, "503, again in 2m"},
		{"503 says yesterday", status(503, "Date", "Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After", "Sat, 05 Nov 1994 08:49:37 GMT"), time.Second, "503"},
		{"500", status(500), backOff, "500"},
		{"502", status(502), backOff, "502"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, false, nil)
			w.push("app", "v1", content(10))
			w.breaks(c.fault)
			_, err := w.client.Resolve(t.Context(), w.ref("app:v1"))
			w.wantWait(err, c.left, shoal.ErrUnreachable, c.why)
			w.wantAsked("GET /v2/app/manifests/v1")
			w.breaks(nil)

			w.clock.add(c.left - time.Millisecond)
			_, _, err = w.client.Blob(t.Context(), w.ref("other"), digestOf(nil), 0)
			w.wantWait(err, time.Millisecond, shoal.ErrUnreachable, strings.Split(c.why, ",")[0])
			w.wantAsked()
			if told := w.client.Waits(); len(told) != 1 || !strings.HasPrefix(told[0].Waits, strings.Split(c.why, ",")[0]+", again in ") {
				t.Errorf("Waits = %v", told)
			}

			w.clock.add(time.Millisecond)
			if _, err := w.client.Resolve(t.Context(), w.ref("app:v1")); err != nil {
				t.Errorf("after the wait: %v", err)
			}
			if told := w.client.Waits(); len(told) != 1 || told[0].Waits != "" {
				t.Errorf("Waits = %v", told)
			}
		})
	}
}

// Failures in a row double the wait, those that came together count once, and one success
// ends the row.
func TestBackOff(t *testing.T) {
	w := newWorld(t, false, nil)
	w.push("app", "v1", content(10))
	fail := func(want time.Duration) {
		t.Helper()
		w.breaks(status(500))
		_, err := w.client.Resolve(t.Context(), w.ref("app:v1"))
		w.wantWait(err, want, shoal.ErrUnreachable, "500")
		w.clock.add(want)
	}
	for _, want := range []time.Duration{5, 10, 20, 40, 80, 160, 320, 600, 600, 600} {
		fail(want * time.Second)
	}
	w.breaks(nil)
	if _, err := w.client.Resolve(t.Context(), w.ref("app:v1")); err != nil {
		t.Fatal(err)
	}
	w.clock.add(time.Second)

	arrived, open := make(chan struct{}, 10), make(chan struct{})
	w.breaks(func(rw http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-open
		status(500)(rw, r)
	})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			_, _, err := w.client.Blob(t.Context(), w.ref("app"), digestOf(nil), 0)
			w.wantWait(err, backOff, shoal.ErrUnreachable, "500")
		})
	}
	for range 10 {
		<-arrived
	}
	close(open)
	wg.Wait()
}

func TestFalseAnswers(t *testing.T) {
	other := []byte(`{"schemaVersion":2}`)
	send := func(b []byte, header ...string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				rw.Header().Set(header[i], header[i+1])
			}
			_, _ = rw.Write(b)
		}
	}
	endless := func(rw http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := rw.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}
	pinned := "app@sha256:" + strings.Repeat("ab", 32)
	for _, c := range []struct {
		name, ref string
		fault     http.HandlerFunc
		kind      error
		why       string
	}{
		{"another manifest", pinned, send(other), ErrMismatch, "does not have its digest"},
		{"another than it says", "app", send(other, "Docker-Content-Digest", digestOf(nil)), ErrMismatch, "does not have its digest"},
		{"huge, and says so", "app", send(nil, "Content-Length", fmt.Sprint(manifest.MaxBytes+1)), shoal.ErrRefused, "more than 4194304 bytes"},
		{"endless", "app", endless, shoal.ErrRefused, "more than 4194304 bytes"},
		{"400", "app", status(400), shoal.ErrRefused, "400"},
		{"403", "app", status(403), shoal.ErrRefused, "403, it is not there or wants another login"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, false, nil)
			raw, _ := w.push("other", "latest", content(10))
			w.breaks(c.fault)
			_, err := w.client.Resolve(t.Context(), w.ref(c.ref))
			w.wantWait(err, backOff, c.kind, c.why)
			w.asked()
			_, err = w.client.Resolve(t.Context(), w.ref(c.ref))
			w.wantWait(err, backOff, c.kind, c.why)
			w.wantAsked()

			w.breaks(nil)
			if got, err := w.client.Resolve(t.Context(), w.ref("other")); err != nil || got.Digest != digestOf(raw) {
				t.Errorf("another image of the registry: %v", err)
			}
			told := w.client.Waits()
			if len(told) != 2 || told[0].Waits != "" || told[1].Registry != w.host+"/app" || !strings.Contains(told[1].Waits, c.why) {
				t.Errorf("Waits = %v", told)
			}
			if MayAsk(told, w.ref(c.ref)) || !MayAsk(told, w.ref("other")) {
				t.Error("who is told takes what waits for what may be asked")
			}
		})
	}
	t.Run("no image", func(t *testing.T) {
		w := newWorld(t, false, nil)
		w.breaks(send([]byte("<html>"), "Content-Type", "text/html"))
		if _, err := w.client.Resolve(t.Context(), w.ref("app")); !errors.As(err, new(*shoal.InvalidError)) {
			t.Errorf("Resolve = %v", err)
		}
	})
	t.Run("blame", func(t *testing.T) {
		w := newWorld(t, false, nil)
		_, layer := w.push("app", "v1", content(10))
		for _, want := range []time.Duration{5, 10, 20} {
			if _, err := w.read(w.ref("app"), layer, 0, 10); err != nil {
				t.Fatal(err)
			}
			w.wantWait(w.client.Blame(w.ref("app")), want*time.Second, ErrMismatch, "digest")
			_, err := w.read(w.ref("app"), layer, 0, 10)
			w.wantWait(err, want*time.Second, ErrMismatch, "digest")
			w.clock.add(want * time.Second)
		}
	})
}

// Senders that stop are dropped: a stream that brought something fails, one that brought
// nothing makes the registry wait.
func TestSlow(t *testing.T) { both(t, testSlow) }

func testSlow(t *testing.T, plain bool) {
	quick := func(c *Config) { c.Timeout, c.Stall = 300*time.Millisecond, 300*time.Millisecond }
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	after := func(n int) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Length", "1000")
			_, _ = rw.Write(make([]byte, n))
			_ = http.NewResponseController(rw).Flush()
			hang(rw, r)
		}
	}
	t.Run("head", func(t *testing.T) {
		w := newWorld(t, plain, quick)
		w.breaks(hang)
		begin := time.Now()
		_, err := w.client.Resolve(t.Context(), w.ref("app"))
		w.wantWait(err, backOff, shoal.ErrUnreachable, "no answer in 300ms")
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("took %s", took)
		}
	})
	t.Run("nothing of a blob", func(t *testing.T) {
		w := newWorld(t, plain, quick)
		w.breaks(after(0))
		_, err := w.read(w.ref("app"), digestOf(nil), 0, 1000)
		w.wantWait(err, backOff, shoal.ErrUnreachable, "sends nothing any more")
	})
	t.Run("some of a blob", func(t *testing.T) {
		w := newWorld(t, plain, quick)
		w.breaks(after(10))
		got, err := w.read(w.ref("app"), digestOf(nil), 0, 1000)
		if !errors.Is(err, errStalled) || len(got) != 10 {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if told := w.client.Waits(); told[0].Waits != "" {
			t.Errorf("Waits = %v", told)
		}
	})
	t.Run("drops of a manifest", func(t *testing.T) { // each in time, all of it never
		w := newWorld(t, plain, quick)
		w.breaks(func(rw http.ResponseWriter, r *http.Request) {
			for tick := time.NewTicker(50 * time.Millisecond); ; {
				select {
				case <-tick.C:
					_, _ = rw.Write([]byte(" "))
					_ = http.NewResponseController(rw).Flush()
				case <-r.Context().Done():
					tick.Stop()
					return
				}
			}
		})
		begin := time.Now()
		_, err := w.client.Resolve(t.Context(), w.ref("app"))
		w.wantWait(err, backOff, shoal.ErrUnreachable, "no answer in time")
		if took := time.Since(begin); took > 6*time.Second {
			t.Errorf("took %s", took)
		}
	})
	t.Run("a slow reader is none of its faults", func(t *testing.T) {
		w := newWorld(t, plain, quick)
		all := content(5 << 20)
		_, layer := w.push("app", "v1", all)
		r, _, err := w.client.Blob(t.Context(), w.ref("app"), layer, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := io.CopyN(io.Discard, r, 1); err != nil {
			t.Fatal(err)
		}
		<-time.After(500 * time.Millisecond)
		if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(all)-1) {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

func TestNoConnection(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		w := newWorld(t, false, nil)
		w.server.Close()
		_, err := w.client.Resolve(t.Context(), w.ref("app"))
		w.wantWait(err, backOff, shoal.ErrUnreachable, "connection refused")
	})
	t.Run("no TLS", func(t *testing.T) {
		w := newWorld(t, true, func(c *Config) { c.Insecure = nil })
		_, err := w.client.Resolve(t.Context(), w.ref("app"))
		w.wantWait(err, backOff, shoal.ErrUnreachable, "does not speak TLS")
	})
	t.Run("another's certificate", func(t *testing.T) {
		w := newWorld(t, false, func(c *Config) { c.Roots = nil })
		_, err := w.client.Resolve(t.Context(), w.ref("app"))
		w.wantWait(err, backOff, shoal.ErrUnreachable, "certificate is not trusted")
	})
	anywhere := func(c *Config) { c.Registries, c.Timeout = []string{"*"}, 300*time.Millisecond }
	t.Run("no such name", func(t *testing.T) {
		w := newWorld(t, false, anywhere)
		w.resolve(func(q dnsmessage.Message) []byte {
			q.RCode = dnsmessage.RCodeNameError
			q.Response = true
			raw, err := q.Pack()
			if err != nil {
				t.Error(err)
			}
			return raw
		})
		_, err := w.client.Resolve(t.Context(), "registry.test/app")
		w.wantWait(err, backOff, shoal.ErrUnreachable, "registry.test: no such host, again in 5s")
	})
	t.Run("a resolver that swallows", func(t *testing.T) {
		w := newWorld(t, false, anywhere)
		var questions atomic.Int32
		w.resolve(func(dnsmessage.Message) []byte { questions.Add(1); return nil })
		begin := time.Now()
		_, err := w.client.Resolve(t.Context(), "registry.test/app")
		w.wantWait(err, backOff, shoal.ErrUnreachable, "registry.test: its name does not resolve in 300ms")
		if took := time.Since(begin); took > 2*time.Second || questions.Load() == 0 {
			t.Errorf("took %s, %d questions", took, questions.Load())
		}
	})
	t.Run("a name for this machine", func(t *testing.T) {
		w := newWorld(t, false, anywhere)
		w.resolve(func(q dnsmessage.Message) []byte {
			q.Response = true
			if q.Questions[0].Type == dnsmessage.TypeA {
				q.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
					Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
				}}
			}
			q.Additionals = nil
			raw, err := q.Pack()
			if err != nil {
				t.Error(err)
			}
			return raw
		})
		_, port, err := net.SplitHostPort(w.host)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.client.Resolve(t.Context(), "registry.test:"+port+"/app")
		w.wantWait(err, backOff, shoal.ErrRefused, "127.0.0.1 is this machine, and not listed as a registry")
		w.wantAsked()
	})
	for ref, why := range map[string]string{
		"169.254.169.254/app":          "169.254.169.254 is an address of the link",
		"[fe80::1]/app":                "fe80::1 is an address of the link",
		"[::ffff:a9fe:a9fe]/app":       "169.254.169.254 is an address of the link",
		"100.100.100.200:80/app":       "is an address of the link or the cloud",
		"metadata.google.internal/app": "is where a cloud tells",
	} {
		t.Run(ref, func(t *testing.T) {
			w := newWorld(t, false, func(c *Config) { c.Registries = []string{"*"} })
			_, err := w.client.Resolve(t.Context(), ref)
			w.wantWait(err, backOff, shoal.ErrRefused, why)
		})
	}
	t.Run("this machine", func(t *testing.T) { // our own registry, above all
		w := newWorld(t, false, func(c *Config) { c.Registries = []string{"*"} })
		_, err := w.client.Resolve(t.Context(), w.ref("app"))
		if !errors.Is(err, shoal.ErrRefused) || w.client.Allowed(w.ref("app")) {
			t.Errorf("Resolve = %v", err)
		}
	})
}

// resolve has names resolved by a server of the test. No answer: it swallows the question.
func (w *world) resolve(answer func(dnsmessage.Message) []byte) {
	w.t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan struct{})
	var mu sync.Mutex
	var asking []net.Conn
	w.t.Cleanup(func() {
		conn.Close()
		<-done
		mu.Lock()
		defer mu.Unlock()
		for _, c := range asking { // package net would go on reading for seconds
			c.Close()
		}
	})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if q.Unpack(buf[:n]) != nil {
				continue
			}
			if raw := answer(q); raw != nil {
				_, _ = conn.WriteTo(raw, from)
			}
		}
	}()
	w.client.transport = newTransport(w.client.cfg, &dialer{cfg: w.client.cfg, resolver: &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
			if err == nil {
				mu.Lock()
				asking = append(asking, c)
				mu.Unlock()
			}
			return c, err
		},
	}})
}

func TestMayDial(t *testing.T) {
	for _, c := range []struct {
		addr          string
		local, listed bool // may be dialled; may be dialled if listed
	}{
		{"1.1.1.1", true, true},
		{"10.0.0.7", true, true},
		{"fd00::7", true, true},
		{"127.0.0.1", false, true},
		{"::1", false, true},
		{"::ffff:127.0.0.1", false, true},
		{"0.0.0.0", false, true},
		{"::", false, true},
		{"64:ff9b::7f00:1", false, true},
		{"169.254.169.254", false, false},
		{"::ffff:169.254.169.254", false, false},
		{"64:ff9b::a9fe:a9fe", false, false},
		{"64:ff9b:1::a9fe:a9fe", false, false},
		{"fe80::1%lo", false, false},
		{"fd00:ec2::254", false, false},
		{"100.100.100.200", false, false},
		{"168.63.129.16", false, false},
		{"224.0.0.1", false, false},
	} {
		a := netip.MustParseAddr(c.addr)
		if err := mayDial(a, false); (err == nil) != c.local {
			t.Errorf("mayDial(%s, false) = %v", c.addr, err)
		}
		if err := mayDial(a, true); (err == nil) != c.listed {
			t.Errorf("mayDial(%s, true) = %v", c.addr, err)
		}
	}
}
