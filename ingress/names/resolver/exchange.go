// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// outgoing is the message that a resolver gets: what the client asked, and nothing else of it.
func outgoing(k flightKey, name string) *dns.Msg {
	m := &dns.Msg{
		MsgHdr:   dns.MsgHdr{RecursionDesired: k.rd, CheckingDisabled: k.cd, AuthenticatedData: k.ad},
		Question: []dns.Question{{Name: name, Qtype: k.qtype, Qclass: dns.ClassINET}},
	}
	if k.edns {
		m.SetEdns0(maxDatagram, k.do)
	}
	return m
}

// exchange asks one resolver, by TCP too if the answer is too long for a datagram.
func (f *Forwarder) exchange(ctx context.Context, addr netip.Addr, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Try)
	defer cancel()
	answer, err := f.exchangeOver(ctx, "udp", addr, m)
	if err != nil || !answer.Truncated {
		return answer, err
	}
	if whole, err := f.exchangeOver(ctx, "tcp", addr, m); err == nil {
		return whole, nil
	}
	return answer, nil // with its mark that it is cut, better than nothing
}

// exchangeOver sends the question once, under an id of its own from a port of its own, and
// takes the first message that answers it; others are not for us or forged.
func (f *Forwarder) exchangeOver(ctx context.Context, network string, addr netip.Addr, m *dns.Msg) (*dns.Msg, error) {
	socket, err := f.outside.Dial(ctx, network, netip.AddrPortFrom(addr, 53).String())
	if err != nil {
		return nil, fmt.Errorf("reach resolver %s: %w", addr, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer func() {
		stop()
		_ = socket.Close()
	}()
	query := *m
	query.Id = dns.Id()
	answer, err := converse(&dns.Conn{Conn: socket, UDPSize: maxQuestion}, &query)
	if err != nil {
		return nil, fmt.Errorf("ask resolver %s by %s: %w", addr, network, cmp.Or(ctx.Err(), err))
	}
	return answer, nil
}

func converse(conn *dns.Conn, query *dns.Msg) (*dns.Msg, error) {
	if err := conn.WriteMsg(query); err != nil {
		return nil, err
	}
	for {
		raw, err := conn.ReadMsgHeader(nil)
		if err != nil {
			return nil, err
		}
		unmark(raw)
		answer := new(dns.Msg)
		if answer.Unpack(raw) == nil && answers(answer, query) {
			return stripped(answer), nil
		}
	}
}

// stripped takes the options off an answer: they were between the resolver and us.
func stripped(m *dns.Msg) *dns.Msg {
	m.Extra = slices.DeleteFunc(m.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
	return m
}

func answers(m, query *dns.Msg) bool {
	return m.Response && m.Id == query.Id && m.Opcode == dns.OpcodeQuery && len(m.Question) == 1 &&
		m.Question[0].Qtype == query.Question[0].Qtype && m.Question[0].Qclass == query.Question[0].Qclass &&
		strings.EqualFold(m.Question[0].Name, query.Question[0].Name)
}

// unmark takes our mix of case off a message before it is read: every name in it that
// ends like the one asked for may point into the question.
func unmark(raw []byte) {
	for i := headerSize; i < len(raw) && raw[i] != 0; i++ { // lengths of labels are below 'A'
		if c := raw[i]; c >= 'A' && c <= 'Z' {
			raw[i] = c - 'A' + 'a'
		}
	}
}
