// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package names

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// How long an answer may be kept, in seconds.
const (
	// ServiceTTL is for the address of a service and the name of an address: they change
	// only when the service goes. It bounds how long a client that keeps answers talks to
	// an address that is no longer the service's, so quarantine must be longer.
	ServiceTTL = 30
	// ReplicaTTL is for what changes when a replica becomes ready or stops being so. Below
	// it, a client that asks for each connection costs more than it learns.
	ReplicaTTL = 5
	// AbsentTTL is for what does not exist (RFC 2308): who asks for a service just before
	// it is deployed does not wait for it long.
	AbsentTTL = 5
)

// maxRecords bounds one answer: 1,000 addresses are 16 KB.
const maxRecords = 1000

// Answer is what a question gets.
type Answer struct {
	Records   []dns.RR
	Authority []dns.RR // the SOA record that says how long absence holds
	Extra     []dns.RR // the addresses of what SRV records name
	Rcode     int
}

// Answer answers a question, or reports false: it is not about a name of ours, ask the
// machine's resolvers. Records carry the name as the question writes it. Lists are in the
// order of slots, then ports, at most 1,000 long.
func (z *Zone) Answer(q dns.Question) (Answer, bool) {
	switch {
	case q.Qclass != dns.ClassINET, q.Qtype == dns.TypeAXFR, q.Qtype == dns.TypeIXFR:
		return Answer{Rcode: dns.RcodeRefused}, true
	}
	m, ours := z.mean(q.Name)
	switch {
	case !ours:
		return Answer{}, false
	case !m.exists:
		return absent(q, dns.RcodeNameError), true
	}
	a := m.answer(q)
	if a.Rcode == dns.RcodeSuccess && len(a.Records) == 0 {
		return absent(q, dns.RcodeSuccess), true
	}
	return a, true
}

// answer gives the records of q's type that a name has.
func (m meaning) answer(q dns.Question) Answer {
	switch {
	case q.Qtype == dns.TypeANY:
		return Answer{Records: []dns.RR{&dns.HINFO{Hdr: header(q.Name, dns.TypeHINFO, ServiceTTL), Cpu: "RFC8482"}}}
	case m.apex && q.Qtype == dns.TypeSOA:
		return Answer{Records: []dns.RR{soa(q.Name)}}
	case m.ptr != "" && q.Qtype == dns.TypePTR:
		return Answer{Records: []dns.RR{&dns.PTR{Hdr: header(q.Name, dns.TypePTR, ServiceTTL), Ptr: m.ptr}}}
	case m.svc == nil:
		return Answer{}
	case m.ports == nil && q.Qtype == dns.TypeA:
		return m.addresses(q)
	case m.ports != nil && q.Qtype == dns.TypeSRV:
		return m.services(q)
	}
	return Answer{}
}

// place is where a name leads: an address, and the full name that stands for it.
type place struct {
	full string
	addr netip.Addr
	ttl  uint32
}

// places returns where the name leads, and false if one of them got no address: then
// nothing may be said that a client would keep.
func (m meaning) places() ([]place, bool) {
	switch m.of {
	case partWhole:
		return []place{{m.svc.full, m.svc.addr, ServiceTTL}}, m.svc.addr.IsValid()
	case partSlot:
		return []place{{m.slot.full, m.slot.addr, ReplicaTTL}}, m.slot.addr.IsValid()
	case partReady:
	}
	var out []place
	for _, s := range m.svc.slots {
		if !s.ready || len(out) == maxRecords {
			continue
		}
		if !s.addr.IsValid() {
			return nil, false
		}
		out = append(out, place{s.full, s.addr, ReplicaTTL})
	}
	return out, true
}

func (m meaning) addresses(q dns.Question) Answer {
	places, ok := m.places()
	if !ok {
		return Answer{Rcode: dns.RcodeServerFailure}
	}
	a := Answer{Records: make([]dns.RR, len(places))}
	for i, p := range places {
		a.Records[i] = address(q.Name, p)
	}
	return a
}

func (m meaning) services(q dns.Question) Answer {
	places, ok := m.places()
	if !ok {
		return Answer{Rcode: dns.RcodeServerFailure}
	}
	var a Answer
	for _, p := range places {
		if len(a.Records)+len(m.ports) > maxRecords {
			break
		}
		for _, port := range m.ports {
			// Priority and weight are the same for all: who is preferred is balanced behind
			// the address.
			a.Records = append(a.Records, &dns.SRV{
				Hdr: header(q.Name, dns.TypeSRV, p.ttl), Priority: 1, Weight: 1, Port: port.Container, Target: p.full,
			})
		}
		a.Extra = append(a.Extra, address(p.full, p))
	}
	return a
}

func address(name string, p place) dns.RR {
	return &dns.A{Hdr: header(name, dns.TypeA, p.ttl), A: p.addr.AsSlice()}
}

func header(name string, t uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
}

// absent says that a name (NXDOMAIN) or a type of it (NODATA) does not exist. Outside our
// suffix the name itself is as good as a zone: what is above it belongs to others.
func absent(q dns.Question, rcode int) Answer {
	zone := q.Name
	if name := strings.ToLower(q.Name); name == Suffix || strings.HasSuffix(name, "."+Suffix) {
		zone = Suffix
	}
	return Answer{Authority: []dns.RR{soa(zone)}, Rcode: rcode}
}

func soa(zone string) dns.RR {
	return &dns.SOA{
		Hdr: header(zone, dns.TypeSOA, AbsentTTL), Ns: "ns." + Suffix, Mbox: "hostmaster." + Suffix,
		// Nobody transfers the zone; only Minttl is ever used.
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: AbsentTTL,
	}
}
