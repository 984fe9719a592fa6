// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

const (
	headerSize = 12
	// maxQuestion bounds what a client sends: a name of 255 bytes, and options.
	maxQuestion = 4096
	// maxDatagram is the largest answer by UDP that no network has to cut in pieces
	// (dnsflagday.net/2020), whatever the client says it takes.
	maxDatagram = 1232
)

// ask is a question that may be answered.
type ask struct {
	msg *dns.Msg // one question, its name as it was written
	opt *dns.OPT // nil: the client does not speak EDNS
	tcp bool
}

func (a *ask) question() dns.Question { return a.msg.Question[0] }

// limit is how many bytes the answer may have.
func (a *ask) limit() int {
	switch {
	case a.tcp:
		return dns.MaxMsgSize
	case a.opt == nil:
		return dns.MinMsgSize
	}
	return min(max(int(a.opt.UDPSize()), dns.MinMsgSize), maxDatagram)
}

// screen reads a message. If it is not a question that may be answered then ask is nil and
// reply says so, or is nil too: that is for what is no question at all, since answering
// answers is how two servers keep each other busy for ever.
func screen(packet []byte, tcp bool) (a *ask, reply []byte, why Reason) {
	if len(packet) < headerSize || packet[2]&0x80 != 0 {
		return nil, nil, Malformed
	}
	if opcode := packet[2] >> 3 & 0xf; opcode != dns.OpcodeQuery {
		return nil, bare(packet, dns.RcodeNotImplemented), Unsupported
	}
	count := func(at int) uint16 { return binary.BigEndian.Uint16(packet[at:]) }
	// One question, no answers, options and a signature at most: what else is there would
	// only be work to read.
	if count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > 2 {
		return nil, bare(packet, dns.RcodeFormatError), Malformed
	}
	m := new(dns.Msg)
	if err := m.Unpack(packet); err != nil || len(m.Question) != 1 {
		return nil, bare(packet, dns.RcodeFormatError), Malformed
	}
	a = &ask{msg: m, opt: m.IsEdns0(), tcp: tcp}
	switch t := m.Question[0].Qtype; {
	case a.opt != nil && a.opt.Version() != 0:
		return nil, a.pack(&dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeBadVers}}), Unsupported
	case t == dns.TypeOPT, t == dns.TypeNone, t >= dns.TypeTKEY && t < dns.TypeANY:
		// Zone transfers and what is no type of any name.
		return nil, a.fail(dns.RcodeRefused), Unsupported
	}
	return a, nil, 0
}

// bare is a reply with a header and nothing else.
func bare(packet []byte, rcode int) []byte {
	out := make([]byte, headerSize)
	copy(out, packet[:2])
	out[2] = 0x80 | packet[2]&0x79 // a response, to the same operation and wish for recursion
	out[3] = 0x80 | byte(rcode)    // recursion is available
	return out
}

// fail is an answer without records.
func (a *ask) fail(rcode int) []byte {
	return a.pack(&dns.Msg{MsgHdr: dns.MsgHdr{Rcode: rcode}})
}

// pack makes the answer m the client's: its id and question, no more bytes than it takes.
// It changes m. The result is nil if m cannot be written at all.
func (a *ask) pack(m *dns.Msg) []byte {
	m.Id, m.Response, m.Opcode = a.msg.Id, true, dns.OpcodeQuery
	m.RecursionDesired, m.RecursionAvailable, m.CheckingDisabled = a.msg.RecursionDesired, true, a.msg.CheckingDisabled
	m.Question = a.msg.Question
	if a.opt != nil {
		m.SetEdns0(maxDatagram, a.opt.Do())
	}
	m.Truncate(a.limit())
	m.Compress = true
	out, err := m.Pack()
	if err != nil || len(out) > a.limit() {
		return bare(append(binary.BigEndian.AppendUint16(nil, a.msg.Id), 0, 0), dns.RcodeServerFailure)
	}
	return out
}
