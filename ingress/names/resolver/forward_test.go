// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestForward: what is not ours is asked for under a mix of case of our own, and comes
// back as the client wrote it.
func TestForward(t *testing.T) {
	var mu sync.Mutex
	var seen []*dns.Msg
	w := newWorld(t, Defaults(), func(rw dns.ResponseWriter, m *dns.Msg) {
		mu.Lock()
		seen = append(seen, m.Copy())
		mu.Unlock()
		says("192.0.2.80")(rw, m)
	})
	for _, network := range []string{"udp", "tcp"} {
		m := query("wWw.Example.com.", dns.TypeA)
		if network == "tcp" {
			m.SetEdns0(1400, true)
			m.CheckingDisabled = true
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"})
		}
		got := w.ask(network, m)
		if len(got.Answer) != 1 || got.Answer[0].Header().Name != "wWw.Example.com." || got.Question[0].Name != "wWw.Example.com." {
			t.Errorf("by %s: %v, want one address under the name as asked", network, got)
		}
		if (got.IsEdns0() != nil) != (network == "tcp") {
			t.Errorf("by %s: options %v, want some if the client has", network, got.IsEdns0())
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for i, m := range seen {
		name := m.Question[0].Name
		if !strings.EqualFold(name, "www.example.com.") || name == "www.example.com." || name == "wWw.Example.com." {
			t.Errorf("the resolver was asked for %q, want a mix of case of its own", name)
		}
		opt := m.IsEdns0()
		if i == 0 && opt != nil || i == 1 && (opt == nil || !opt.Do() || len(opt.Option) != 0 || !m.CheckingDisabled) {
			t.Errorf("question %d went out as %v, want the client's flags and none of its options", i, m)
		}
	}
	if s := w.server.Stats(); s.Forwarded != 2 || len(seen) != 2 {
		t.Errorf("Stats = %+v, %d questions seen, want 2 forwarded", s, len(seen))
	}
}

// TestForwardFailover: the next resolver is asked for each reason to.
func TestForwardFailover(t *testing.T) {
	cfg := Defaults()
	cfg.Try = 100 * time.Millisecond
	good := says("192.0.2.80")
	for _, c := range []struct {
		what      string
		resolvers []dns.HandlerFunc
		want      string
	}{
		{"nobody listens", []dns.HandlerFunc{nil, good}, "192.0.2.80"},
		{"silent", []dns.HandlerFunc{silent, good}, "192.0.2.80"},
		{"cannot", []dns.HandlerFunc{fails(dns.RcodeServerFailure), good}, "192.0.2.80"},
		{"will not", []dns.HandlerFunc{fails(dns.RcodeRefused), good}, "192.0.2.80"},
		{"does not exist, and that is an answer", []dns.HandlerFunc{fails(dns.RcodeNameError), good}, "NXDOMAIN"},
		{"refused by all", []dns.HandlerFunc{nil, fails(dns.RcodeRefused)}, "REFUSED"},
		{"silent all", []dns.HandlerFunc{silent, silent}, "SERVFAIL"},
		{"none", nil, "SERVFAIL"},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t, cfg, c.resolvers...)
			if got := addressOf(w.ask("udp", query("www.example.com.", dns.TypeA))); got != c.want {
				t.Errorf("answer = %s, want %s", got, c.want)
			}
			if c.want == "SERVFAIL" {
				w.expect(Unresolved, 1)
			}
		})
	}
}

// TestForwardShuns: a resolver that is silent again and again is asked last, one that
// fails only once is not.
func TestForwardShuns(t *testing.T) {
	cfg := Defaults()
	cfg.Try, cfg.Shun = 50*time.Millisecond, time.Hour
	var asked atomic.Int32
	var up atomic.Bool
	w := newWorld(t, cfg, func(rw dns.ResponseWriter, m *dns.Msg) {
		asked.Add(1)
		if up.Load() {
			says("192.0.2.81")(rw, m)
		}
	}, says("192.0.2.82"))
	for i := range 5 {
		if got := addressOf(w.ask("udp", query(fmt.Sprintf("n%d.example.com.", i), dns.TypeA))); got != "192.0.2.82" {
			t.Fatalf("answer = %s, want the second resolver's", got)
		}
	}
	if n := asked.Load(); n != maxSilent {
		t.Errorf("the silent resolver was asked %d times of 5, want %d", n, maxSilent)
	}
	got := w.forward.Upstreams()
	if !got[0].Shunned || got[0].Failed != maxSilent || got[1].Shunned || got[1].Asked != 5 || got[1].Failed != 0 {
		t.Errorf("Upstreams = %+v, want the first shunned", got)
	}
	// It gets another chance when its time is over, and one answer redeems it.
	w.forward.mu.Lock()
	w.forward.upstreams[0].until = time.Now()
	w.forward.mu.Unlock()
	up.Store(true)
	if got := addressOf(w.ask("udp", query("again.example.com.", dns.TypeA))); got != "192.0.2.81" || w.forward.Upstreams()[0].Shunned {
		t.Errorf("answer = %s, want the first resolver's again", got)
	}
}

// TestForwardTruncation: an answer that is cut is fetched whole by TCP, and cut to what
// our own client takes.
func TestForwardTruncation(t *testing.T) {
	long := func(rw dns.ResponseWriter, m *dns.Msg) {
		a := new(dns.Msg).SetReply(m)
		for i := range 60 {
			a.Answer = append(a.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, byte(i)),
			})
		}
		if _, udp := rw.RemoteAddr().(*net.UDPAddr); udp {
			a.Truncate(512)
		}
		_ = rw.WriteMsg(a)
	}
	w := newWorld(t, Defaults(), long)
	if got := w.ask("udp", query("long.example.com.", dns.TypeA)); !got.Truncated || len(got.Answer) >= 60 {
		t.Errorf("plain UDP: %d records, cut %t, want a part", len(got.Answer), got.Truncated)
	}
	wide := query("long.example.com.", dns.TypeA).SetEdns0(4096, false)
	if got := w.ask("udp", wide); got.Truncated || len(got.Answer) != 60 {
		t.Errorf("UDP with EDNS: %d records, cut %t, want all 60", len(got.Answer), got.Truncated)
	}
	if got := w.ask("tcp", query("long.example.com.", dns.TypeA)); got.Truncated || len(got.Answer) != 60 {
		t.Errorf("TCP: %d records, cut %t, want all 60", len(got.Answer), got.Truncated)
	}
	// Where TCP is not to be had, the part is better than nothing.
	cut := newWorld(t, Defaults(), func(rw dns.ResponseWriter, m *dns.Msg) {
		if _, udp := rw.RemoteAddr().(*net.UDPAddr); udp {
			long(rw, m)
		} else {
			_ = rw.Close()
		}
	})
	if got := cut.ask("udp", query("long.example.com.", dns.TypeA)); !got.Truncated || len(got.Answer) == 0 {
		t.Errorf("without TCP: %v, want a part", got)
	}
}

// TestForwardForged: messages that do not answer the question are passed over.
func TestForwardForged(t *testing.T) {
	w := newWorld(t, Defaults(), func(rw dns.ResponseWriter, m *dns.Msg) {
		for _, spoil := range []func(*dns.Msg){
			func(m *dns.Msg) { m.Id++ },
			func(m *dns.Msg) { m.Question[0].Name = "other.example.com." },
			func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX },
			func(m *dns.Msg) { m.Response = false },
			func(m *dns.Msg) { m.Question = nil },
		} {
			a := new(dns.Msg).SetReply(m)
			spoil(a)
			_ = rw.WriteMsg(a)
		}
		raw, _ := new(dns.Msg).SetReply(m).Pack()
		_, _ = rw.Write(append(raw[:len(raw)-2], 0xff)) // cannot be read
		says("192.0.2.80")(rw, m)
	})
	if got := addressOf(w.ask("udp", query("www.example.com.", dns.TypeA))); got != "192.0.2.80" {
		t.Errorf("answer = %s, want that of the message that fits", got)
	}
}

// TestForwardOnce: equal questions at one time are one question, however they are written.
func TestForwardOnce(t *testing.T) {
	release, asked := make(chan struct{}), make(chan struct{}, 2)
	w := newWorld(t, Defaults(), func(rw dns.ResponseWriter, m *dns.Msg) {
		asked <- struct{}{}
		<-release
		says("192.0.2.80")(rw, m)
	})
	first := make(chan string)
	go func() {
		m, err := w.tryAsk("udp", query("www.example.com.", dns.TypeA))
		if err != nil {
			t.Error(err)
		}
		first <- addressOf(m)
	}()
	<-asked
	fl, run, err := w.forward.join(&ask{msg: query("Www.example.com.", dns.TypeA)})
	if err != nil || run != nil {
		t.Fatalf("an equal question is asked again, %v; want it to join the first", err)
	}
	other := query("www.example.com.", dns.TypeA)
	other.CheckingDisabled = true
	if _, run, err := w.forward.join(&ask{msg: other}); err != nil || run == nil {
		t.Errorf("a question with other flags joined, %v; want one of its own", err)
	}
	close(release)
	<-fl.done
	if got := <-first; got != "192.0.2.80" || addressOf(fl.answer) != got || len(asked) != 0 {
		t.Errorf("answers = %s and %s, %d more questions, want one for both", got, addressOf(fl.answer), len(asked))
	}
}

// TestForwardBusy: what is under way is bounded per client and in all, and ours is still
// answered.
func TestForwardBusy(t *testing.T) {
	for what, set := range map[string]func(*Config){
		"client": func(c *Config) { c.ClientInFlight = 3 },
		"all":    func(c *Config) { c.InFlight = 3 },
	} {
		t.Run(what, func(t *testing.T) {
			cfg := Defaults()
			set(&cfg)
			release := make(chan struct{})
			w := newWorld(t, cfg, func(rw dns.ResponseWriter, m *dns.Msg) {
				<-release
				says("192.0.2.80")(rw, m)
			})
			var g sync.WaitGroup
			var served, failed atomic.Int32
			for i := range 8 {
				g.Go(func() {
					m, err := w.tryAsk("udp", query(fmt.Sprintf("n%d.example.com.", i), dns.TypeA))
					switch {
					case err != nil:
						t.Error(err)
					case addressOf(m) == "SERVFAIL":
						failed.Add(1)
					case addressOf(m) == "192.0.2.80":
						served.Add(1)
					}
				})
			}
			w.expect(Busy, 5)
			if got := w.ask("udp", query("web.", dns.TypeA)); len(got.Answer) != 1 {
				t.Errorf("a name of ours while busy = %v, want its address", got)
			}
			close(release)
			g.Wait()
			if served.Load() != 3 || failed.Load() != 5 {
				t.Errorf("%d served, %d failed, want 3 and 5", served.Load(), failed.Load())
			}
			if got := addressOf(w.ask("udp", query("later.example.com.", dns.TypeA))); got != "192.0.2.80" {
				t.Errorf("afterwards = %s, want an answer", got)
			}
		})
	}
}

// TestLoopThroughAResolver: a resolver of the machine asks us in turn. If it keeps the
// name as it is the loop is known at once and the next resolver answers; if it does not,
// it ends with the time limit, after one round.
func TestLoopThroughAResolver(t *testing.T) {
	for what, spoil := range map[string]func(string) string{
		"keeps the name": func(s string) string { return s },
		"lowers it":      strings.ToLower,
	} {
		t.Run(what, func(t *testing.T) {
			cfg := Defaults()
			cfg.Try = 300 * time.Millisecond
			var asked atomic.Int32
			back := make(chan string, 1)
			w := newWorld(t, cfg, func(rw dns.ResponseWriter, m *dns.Msg) {
				asked.Add(1)
				again := query(spoil(m.Question[0].Name), m.Question[0].Qtype)
				to := <-back
				back <- to
				a, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(again, to)
				if err != nil {
					return
				}
				a.Id, a.Question = m.Id, m.Question
				_ = rw.WriteMsg(a)
			}, says("192.0.2.80"))
			back <- w.udp
			start := time.Now()
			got := addressOf(w.ask("udp", query("www.example.com.", dns.TypeA)))
			if got != "192.0.2.80" || asked.Load() != 1 {
				t.Errorf("answer = %s after %d rounds, want the second resolver's after one", got, asked.Load())
			}
			took := time.Since(start)
			if loops := w.server.Stats().Refused[Loop]; (loops == 1) != (what == "keeps the name") || loops == 1 && took > cfg.Try {
				t.Errorf("%d loops counted, took %s", loops, took)
			}
			if what == "keeps the name" && w.log.count("came back") != 1 {
				t.Error("the loop is not in the log")
			}
		})
	}
}

// TestLoopOfOurOwn: our own addresses are not asked, and may not ask for what is foreign.
func TestLoopOfOurOwn(t *testing.T) {
	var asked atomic.Int32
	w := newWorld(t, Defaults(), func(rw dns.ResponseWriter, m *dns.Msg) {
		asked.Add(1)
		says("192.0.2.81")(rw, m)
	}, says("192.0.2.82"))
	w.setOwn("192.0.2.1") // the network's gateway stands in the machine's own file
	if got := addressOf(w.ask("udp", query("www.example.com.", dns.TypeA))); got != "192.0.2.82" || asked.Load() != 0 {
		t.Errorf("answer = %s, our own address was asked %d times, want the other's", got, asked.Load())
	}
	if u := w.forward.Upstreams(); !u[0].LeftOut || u[1].LeftOut {
		t.Errorf("Upstreams = %+v, want the first left out", u)
	}
	w.setOwn("127.0.0.1")
	if got := addressOf(w.ask("udp", query("www.example.com.", dns.TypeA))); got != "SERVFAIL" {
		t.Errorf("a foreign question from our own address = %s, want SERVFAIL", got)
	}
	w.expect(Loop, 1)
	if got := w.ask("udp", query("web.", dns.TypeA)); len(got.Answer) != 1 {
		t.Errorf("a name of ours from our own address = %v, want its address", got)
	}
}

// TestForwardHidesItsMark: names that point into the question are not in our mix of case.
func TestForwardHidesItsMark(t *testing.T) {
	w := newWorld(t, Defaults(), func(rw dns.ResponseWriter, m *dns.Msg) {
		name := m.Question[0].Name
		a := new(dns.Msg).SetReply(m)
		a.Compress = true
		a.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 60}, Target: "web" + name[3:]}}
		_ = rw.WriteMsg(a)
	})
	got := w.ask("udp", query("www.Example.com.", dns.TypeA))
	if len(got.Answer) != 1 || got.Answer[0].Header().Name != "www.Example.com." || got.Answer[0].(*dns.CNAME).Target != "web.example.com." {
		t.Errorf("answer = %v, want the name as asked and its target in lower case", got.Answer)
	}
}

func TestMark(t *testing.T) {
	seen := map[string]bool{}
	for range 50 {
		got, ok := mark("Www.Example.com.")
		if !ok || !strings.EqualFold(got, "www.example.com.") || slices.Contains([]string{"Www.Example.com.", "www.example.com.", "WWW.EXAMPLE.COM."}, got) {
			t.Fatalf("mark = %q, %t, want a mix of its own", got, ok)
		}
		seen[got] = true
	}
	if len(seen) < 20 {
		t.Errorf("50 marks were only %d different ones", len(seen))
	}
	for _, short := range []string{".", "t.co.", "1.2.3.4."} {
		if got, ok := mark(short); ok || got != short {
			t.Errorf("mark(%q) = %q, %t, want it unmarked", short, got, ok)
		}
	}
}

func TestReread(t *testing.T) {
	cfg := Defaults()
	cfg.Reread = 5 * time.Millisecond
	w := newWorld(t, cfg)
	if got := w.forward.Upstreams(); len(got) != 0 {
		t.Errorf("Upstreams = %v, want none", got)
	}
	w.write("# by hand\nsearch example.com\nnameserver 192.0.2.1\nnameserver not-an-address\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver ::ffff:192.0.2.7\noptions ndots:2\n")
	want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("192.0.2.7")}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		var got []netip.Addr
		for _, u := range w.forward.Upstreams() {
			got = append(got, u.Addr)
		}
		if slices.Equal(got, want) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Upstreams = %v, want %v", got, want)
		}
	}
	var many strings.Builder
	for i := range 100 {
		fmt.Fprintf(&many, "nameserver 192.0.2.%d\n", i)
	}
	w.write(many.String())
	got, err := readResolvers(w.conf)
	if err != nil || len(got) != maxResolvers {
		t.Errorf("%d resolvers, %v, want %d", len(got), err, maxResolvers)
	}
	if _, err := readResolvers(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there has resolvers")
	}
}

// TestClientsAreBounded: who comes when all are remembered shares one allowance, until
// somebody can be forgotten.
func TestClientsAreBounded(t *testing.T) {
	cfg := Defaults()
	cfg.Clients, cfg.Rate, cfg.Burst = 4, 1, 2
	c, now := newClients(cfg), time.Unix(1000, 0)
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	for i := range 4 {
		if ok, _ := c.ask(addr(i), now); !ok {
			t.Fatalf("client %d has no allowance of its own", i)
		}
	}
	for i, want := range []bool{true, true, false} {
		if ok, say := c.ask(addr(10+i), now); ok != want || say == want {
			t.Errorf("stranger %d may ask: %t, log: %t, want %t", i, ok, say, want)
		}
	}
	if len(c.known) != 4 {
		t.Errorf("%d clients remembered, want 4", len(c.known))
	}
	land, _ := c.fly(addr(0), now)
	now = now.Add(2 * time.Second) // all buckets are full again
	c.ask(addr(20), now)
	if _, kept := c.known[addr(0)]; !kept || len(c.known) != 2 {
		t.Errorf("%d clients remembered, want the newcomer and the one with a question under way", len(c.known))
	}
	land()
}

// TestFloodIsLoggedOnceAMinute also for a client that is forgotten in between.
func TestFloodIsLoggedOnceAMinute(t *testing.T) {
	cfg := Defaults()
	cfg.Clients, cfg.Rate, cfg.Burst = 1, 10, 1
	c, now, a, said := newClients(cfg), time.Unix(1000, 0), netip.MustParseAddr("10.0.0.1"), 0
	for range 3 * 600 { // three minutes at ten bursts a second
		now = now.Add(100 * time.Millisecond)
		for range 3 {
			if _, say := c.ask(a, now); say {
				said++
			}
		}
		c.ask(netip.MustParseAddr("10.0.0.2"), now)
	}
	if said != 3 {
		t.Errorf("logged %d times in three minutes, want 3", said)
	}
}
