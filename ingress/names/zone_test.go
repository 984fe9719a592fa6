// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package names_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/names"
)

// shop is a network with a service in each state that matters.
func shop() []names.Service {
	return []names.Service{
		{
			Name: "web", Project: "shop", Aliases: []string{"www", "front"},
			Ports: []shoal.Port{{Container: 80, Protocol: "tcp"}, {Container: 443, Protocol: "tcp"}, {Container: 443, Protocol: "udp"}},
			Slots: []names.Slot{{Index: 2, Ready: true}, {Index: 0, Ready: true}, {Index: 1}},
		},
		{Name: "db", Project: "shop", Aliases: []string{"front", "web"}, Slots: []names.Slot{{Index: 0}}},
		{Name: "cache", Ports: []shoal.Port{{Container: 6379, Protocol: "tcp"}}, Slots: []names.Slot{{Index: 0, Ready: true}}},
		{Name: "tasks", Project: "cache", Slots: []names.Slot{{Index: 0, Ready: true}}},
	}
}

// zone makes a zone of services with every address they need but those of without.
func zone(t testing.TB, services []names.Service, without ...string) (*names.Zone, names.Addresses) {
	t.Helper()
	held := allocate(t, upper, names.Wanted(services), nil, 0)
	for _, name := range without {
		delete(held, name)
	}
	return names.NewZone(names.Network{Range: upper, Services: services, Addresses: held}), held
}

// show writes an answer as a test reads it: addresses as the names they belong to.
func show(a names.Answer, held names.Addresses) []string {
	out := []string{}
	if a.Rcode != dns.RcodeSuccess {
		out = append(out, dns.RcodeToString[a.Rcode])
	}
	line := func(prefix string, rr dns.RR) {
		value := strings.TrimPrefix(rr.String(), rr.Header().String())
		if _, ok := rr.(*dns.SOA); ok {
			value = "."
		}
		for name, l := range held {
			if value == l.Addr.String() {
				value = "@" + name
			}
		}
		h := rr.Header()
		out = append(out, fmt.Sprintf("%s%s %d %s %s", prefix, h.Name, h.Ttl, dns.TypeToString[h.Rrtype], value))
	}
	for _, rr := range a.Records {
		line("", rr)
	}
	for _, rr := range a.Authority {
		line("auth ", rr)
	}
	for _, rr := range a.Extra {
		line("extra ", rr)
	}
	return out
}

const foreign = "not ours"

func TestAnswer(t *testing.T) {
	z, held := zone(t, shop())
	const web, shoalSOA = "@web.shop.shoal.", "auth shoal. 5 SOA ."
	for _, c := range []struct {
		name  string
		qtype uint16
		want  []string
	}{
		{"web.", dns.TypeA, []string{"web. 30 A " + web}},
		{"WeB.", dns.TypeA, []string{"WeB. 30 A " + web}},
		{"web.shop.", dns.TypeA, []string{"web.shop. 30 A " + web}},
		{"web.shop.shoal.", dns.TypeA, []string{"web.shop.shoal. 30 A " + web}},
		{"Web.Shop.SHOAL.", dns.TypeA, []string{"Web.Shop.SHOAL. 30 A " + web}},
		{"web.shoal.", dns.TypeA, []string{"web.shoal. 30 A " + web}},
		{"www.", dns.TypeA, []string{"www. 30 A " + web}},
		{"www.shoal.", dns.TypeA, []string{"www.shoal. 30 A " + web}},
		{"www.shop.", dns.TypeA, []string{foreign}},
		{"cache.", dns.TypeA, []string{"cache. 30 A @cache.shoal."}},
		{"cache.shoal.", dns.TypeA, []string{"cache.shoal. 30 A @cache.shoal."}},

		{"tasks.web.", dns.TypeA, []string{"tasks.web. 5 A @0.web.shop.shoal.", "tasks.web. 5 A @2.web.shop.shoal."}},
		{"tasks.www.", dns.TypeA, []string{"tasks.www. 5 A @0.web.shop.shoal.", "tasks.www. 5 A @2.web.shop.shoal."}},
		{"0.web.", dns.TypeA, []string{"0.web. 5 A @0.web.shop.shoal."}},
		{"1.web.shop.shoal.", dns.TypeA, []string{"1.web.shop.shoal. 5 A @1.web.shop.shoal."}}, // not ready
		{"3.web.", dns.TypeA, []string{"NXDOMAIN", "auth 3.web. 5 SOA ."}},
		{"3.web.shoal.", dns.TypeA, []string{"NXDOMAIN", shoalSOA}},
		{"00.web.", dns.TypeA, []string{foreign}},
		{"+1.web.", dns.TypeA, []string{foreign}},

		// Nobody is ready: the service keeps its address, the list is empty.
		{"db.", dns.TypeA, []string{"db. 30 A @db.shop.shoal."}},
		{"tasks.db.", dns.TypeA, []string{"auth tasks.db. 5 SOA ."}},
		{"tasks.db.shoal.", dns.TypeA, []string{shoalSOA}},

		// A service goes before a form, a name before an alias, the first before the second.
		{"tasks.cache.", dns.TypeA, []string{"tasks.cache. 30 A @tasks.cache.shoal."}},
		{"tasks.", dns.TypeA, []string{"tasks. 30 A @tasks.cache.shoal."}},
		{"0.tasks.cache.", dns.TypeA, []string{"0.tasks.cache. 5 A @0.tasks.cache.shoal."}},
		{"front.", dns.TypeA, []string{"front. 30 A @db.shop.shoal."}},

		{"_80._tcp.web.", dns.TypeSRV, []string{"_80._tcp.web. 30 SRV 1 1 80 web.shop.shoal.", "extra web.shop.shoal. 30 A " + web}},
		{"_443._UDP.web.shop.shoal.", dns.TypeSRV, []string{"_443._UDP.web.shop.shoal. 30 SRV 1 1 443 web.shop.shoal.", "extra web.shop.shoal. 30 A " + web}},
		{"_tcp.web.", dns.TypeSRV, []string{
			"_tcp.web. 30 SRV 1 1 80 web.shop.shoal.", "_tcp.web. 30 SRV 1 1 443 web.shop.shoal.", "extra web.shop.shoal. 30 A " + web,
		}},
		{"_80._tcp.tasks.web.", dns.TypeSRV, []string{
			"_80._tcp.tasks.web. 5 SRV 1 1 80 0.web.shop.shoal.", "_80._tcp.tasks.web. 5 SRV 1 1 80 2.web.shop.shoal.",
			"extra 0.web.shop.shoal. 5 A @0.web.shop.shoal.", "extra 2.web.shop.shoal. 5 A @2.web.shop.shoal.",
		}},
		{"_80._tcp.1.web.", dns.TypeSRV, []string{"_80._tcp.1.web. 5 SRV 1 1 80 1.web.shop.shoal.", "extra 1.web.shop.shoal. 5 A @1.web.shop.shoal."}},
		{"_81._tcp.web.", dns.TypeSRV, []string{"NXDOMAIN", "auth _81._tcp.web. 5 SOA ."}},
		{"_udp.db.", dns.TypeSRV, []string{"NXDOMAIN", "auth _udp.db. 5 SOA ."}},
		{"_080._tcp.web.", dns.TypeSRV, []string{foreign}},
		{"_70000._tcp.web.", dns.TypeSRV, []string{foreign}},
		{"_http._tcp.web.", dns.TypeSRV, []string{foreign}},
		{"_http._tcp.web.shoal.", dns.TypeSRV, []string{"NXDOMAIN", shoalSOA}},
		{"_80._tcp.google.com.", dns.TypeSRV, []string{foreign}},
		{"_80._tcp.web.", dns.TypeA, []string{"auth _80._tcp.web. 5 SOA ."}},
		{"web.", dns.TypeSRV, []string{"auth web. 5 SOA ."}},

		// Other types and the suffix itself.
		{"web.", dns.TypeAAAA, []string{"auth web. 5 SOA ."}},
		{"web.shop.shoal.", dns.TypeAAAA, []string{shoalSOA}},
		{"web.", dns.TypeHTTPS, []string{"auth web. 5 SOA ."}},
		{"web.", dns.TypeANY, []string{`web. 30 HINFO "RFC8482" ""`}},
		{"google.com.", dns.TypeANY, []string{foreign}},
		{"shoal.", dns.TypeSOA, []string{"shoal. 5 SOA ."}},
		{"shoal.", dns.TypeA, []string{shoalSOA}},
		{"shop.shoal.", dns.TypeA, []string{shoalSOA}}, // there are names below it
		{"nobody.shoal.", dns.TypeA, []string{"NXDOMAIN", shoalSOA}},
		{"a.b.c.d.shoal.", dns.TypeA, []string{"NXDOMAIN", shoalSOA}},

		// Everybody else's.
		{".", dns.TypeNS, []string{foreign}},
		{"google.com.", dns.TypeA, []string{foreign}},
		{"localhost.localdomain.", dns.TypeA, []string{foreign}},
		{"nobody.", dns.TypeA, []string{foreign}},
		{"shop.", dns.TypeA, []string{foreign}},
		{"nobody.shop.", dns.TypeA, []string{foreign}},
		{"tasks.nobody.", dns.TypeA, []string{foreign}},
		{"x.web.", dns.TypeA, []string{foreign}},
		{"web.example.com.", dns.TypeA, []string{foreign}},
		{"notshoal.", dns.TypeA, []string{foreign}},
		{`web\.shop.`, dns.TypeA, []string{foreign}},
		{`web\.shop.shoal.`, dns.TypeA, []string{"NXDOMAIN", shoalSOA}},
	} {
		t.Run(dns.TypeToString[c.qtype]+" "+c.name, func(t *testing.T) {
			a, ours := z.Answer(dns.Question{Name: c.name, Qtype: c.qtype, Qclass: dns.ClassINET})
			got := show(a, held)
			if !ours {
				got = append(got, foreign)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestAnswerReverse(t *testing.T) {
	z, held := zone(t, shop())
	for name, l := range held {
		arpa, err := dns.ReverseAddr(l.Addr.String())
		if err != nil {
			t.Fatal(err)
		}
		a, ours := z.Answer(dns.Question{Name: arpa, Qtype: dns.TypePTR, Qclass: dns.ClassINET})
		if !ours || len(a.Records) != 1 || a.Records[0].(*dns.PTR).Ptr != name {
			t.Errorf("PTR of %s = %v, %t, want %s", l.Addr, a, ours, name)
		}
		if a, _ := z.Answer(dns.Question{Name: arpa, Qtype: dns.TypeA, Qclass: dns.ClassINET}); len(a.Records) != 0 || a.Rcode != dns.RcodeSuccess {
			t.Errorf("A of %s = %v, want no data", arpa, a)
		}
	}
	for name, want := range map[string]string{
		"255.255.7.10.in-addr.arpa.": "NXDOMAIN", // nobody's, but of our range
		"1.0.7.10.in-addr.arpa.":     foreign,    // a container's
		"1.1.1.01.in-addr.arpa.":     foreign,
		"7.10.in-addr.arpa.":         foreign,
		"b.a.9.8.ip6.arpa.":          foreign,
	} {
		a, ours := z.Answer(dns.Question{Name: name, Qtype: dns.TypePTR, Qclass: dns.ClassINET})
		got := dns.RcodeToString[a.Rcode]
		if !ours {
			got = foreign
		}
		if got != want {
			t.Errorf("PTR of %s = %s, want %s", name, got, want)
		}
	}
}

func TestAnswerRefuses(t *testing.T) {
	z, _ := zone(t, shop())
	for _, q := range []dns.Question{
		{Name: "web.", Qtype: dns.TypeA, Qclass: dns.ClassCHAOS},
		{Name: "google.com.", Qtype: dns.TypeA, Qclass: dns.ClassANY},
		{Name: "shoal.", Qtype: dns.TypeAXFR, Qclass: dns.ClassINET},
		{Name: "google.com.", Qtype: dns.TypeAXFR, Qclass: dns.ClassINET},
		{Name: "web.", Qtype: dns.TypeIXFR, Qclass: dns.ClassINET},
	} {
		if a, ours := z.Answer(q); !ours || a.Rcode != dns.RcodeRefused || len(a.Records)+len(a.Authority) != 0 {
			t.Errorf("Answer(%v) = %v, %t, want refused", q, a, ours)
		}
	}
}

// TestAnswerWithoutAddress: where the range was full nothing is said that a client keeps.
func TestAnswerWithoutAddress(t *testing.T) {
	z, _ := zone(t, shop(), "web.shop.shoal.", "0.web.shop.shoal.", "1.web.shop.shoal.")
	for _, name := range []string{"web.", "tasks.web.", "1.web."} {
		if a, ours := z.Answer(dns.Question{Name: name, Qtype: dns.TypeA, Qclass: dns.ClassINET}); !ours || a.Rcode != dns.RcodeServerFailure || len(a.Authority) != 0 {
			t.Errorf("A of %s = %v, %t, want SERVFAIL", name, a, ours)
		}
	}
	if a, _ := z.Answer(dns.Question{Name: "_80._tcp.web.", Qtype: dns.TypeSRV, Qclass: dns.ClassINET}); a.Rcode != dns.RcodeServerFailure {
		t.Errorf("SRV of a service without an address = %v, want SERVFAIL", a)
	}
	if a, _ := z.Answer(dns.Question{Name: "2.web.", Qtype: dns.TypeA, Qclass: dns.ClassINET}); len(a.Records) != 1 {
		t.Errorf("A of a slot that has an address = %v, want it", a)
	}
}

func TestClashes(t *testing.T) {
	services := append(shop(), names.Service{Name: "web", Project: "blog"}, names.Service{Name: "web", Project: "shop"})
	z, held := zone(t, services)
	want := []names.Clash{
		{Name: "front", Holder: "db.shop.shoal.", Others: []string{"web.shop.shoal."}},
		{Name: "web", Holder: "web.blog.shoal.", Others: []string{"db.shop.shoal.", "web.shop.shoal."}},
	}
	if d := cmp.Diff(want, z.Clashes()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	a, _ := z.Answer(dns.Question{Name: "web.shop.", Qtype: dns.TypeA, Qclass: dns.ClassINET})
	if got := show(a, held); !slices.Equal(got, []string{"web.shop. 30 A @web.shop.shoal."}) {
		t.Errorf("the loser by its full name = %v, want its address", got)
	}
}

// TestAnswerBounds: a service of many replicas gets an answer that TCP can carry.
func TestAnswerBounds(t *testing.T) {
	z := big(t, 5000)
	for name, qtype := range map[string]uint16{"tasks.web.": dns.TypeA, "_tcp.tasks.web.": dns.TypeSRV} {
		a, _ := z.Answer(dns.Question{Name: name, Qtype: qtype, Qclass: dns.ClassINET})
		if len(a.Records) != 1000 {
			t.Errorf("%s has %d records, want 1000", name, len(a.Records))
		}
	}
}

func TestWantedServesServicesFirst(t *testing.T) {
	got := names.Wanted([]names.Service{
		{Name: "b", Project: "p", Slots: []names.Slot{{Index: 1}, {Index: 0}}}, {Name: "A", Slots: []names.Slot{{Index: 0}}},
	})
	want := []string{"a.shoal.", "b.p.shoal.", "0.a.shoal.", "0.b.p.shoal.", "1.b.p.shoal."}
	if !slices.Equal(got, want) {
		t.Errorf("Wanted = %v, want %v", got, want)
	}
}

// big returns a zone of one service of n ready replicas with two ports.
func big(t testing.TB, n int) *names.Zone {
	t.Helper()
	s := names.Service{Name: "web", Project: "shop", Ports: []shoal.Port{{Container: 80, Protocol: "tcp"}, {Container: 81, Protocol: "tcp"}}}
	for i := range n {
		s.Slots = append(s.Slots, names.Slot{Index: i, Ready: true})
	}
	z, _ := zone(t, []names.Service{s})
	return z
}

// FuzzAnswer: no name makes the zone panic, and what it says can be written.
func FuzzAnswer(f *testing.F) {
	z, _ := zone(f, shop())
	for _, s := range []string{"web.", "tasks.web.shop.shoal.", "_80._tcp.web", "..", "_", "_._tcp.web.", "1.128.7.10.in-addr.arpa.", `\.shoal.`} {
		f.Add(s, uint16(dns.TypeA), uint16(dns.ClassINET))
	}
	f.Fuzz(func(t *testing.T, name string, qtype, class uint16) {
		a, ours := z.Answer(dns.Question{Name: name, Qtype: qtype, Qclass: class})
		if !ours && len(a.Records)+len(a.Authority)+a.Rcode != 0 {
			t.Errorf("a foreign name has the answer %v", a)
		}
		if _, ok := dns.IsDomainName(name); ok && strings.HasSuffix(strings.ToLower(name), ".shoal.") && !strings.HasSuffix(strings.ToLower(name), `\.shoal.`) && !ours {
			t.Errorf("%q under the suffix would be forwarded", name)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	for _, c := range []struct{ label, name string }{{"service", "web.shop.shoal."}, {"slot", "7.web."}, {"tasks10", "tasks.web."}, {"foreign", "www.example.com."}} {
		z := big(b, 10)
		b.Run(c.label, func(b *testing.B) {
			b.ReportAllocs()
			q := dns.Question{Name: c.name, Qtype: dns.TypeA, Qclass: dns.ClassINET}
			for b.Loop() {
				z.Answer(q)
			}
		})
	}
}
