// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"fmt"
	"io"
	"net/netip"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// maxMessage bounds a request and a response.
const maxMessage = 4 << 10

// The protocols of [Ask.Protocol], as in shoal.Port.
const (
	TCP = "tcp"
	UDP = "udp"
)

// Via says by which door a client came in.
type Via uint8

// The doors.
const (
	ViaPublished Via = iota + 1 // a published port
	ViaForward                  // shoal port-forward; whether the port answers says nothing of the replica
	ViaName                     // a name, from inside a container
)

// Ask names a port of a replica, and who wants it.
type Ask struct {
	Service  string
	Replica  shoal.ReplicaID
	Port     uint16 // of the container
	Protocol string // TCP or UDP
	Via      Via
	Client   netip.AddrPort // zero: it has none
	Reached  netip.AddrPort // that the client connected to; zero: none
}

// Place is where a port of a replica is.
type Place struct {
	Addr  netip.AddrPort
	Proxy bool // a connection begins with a PROXY header; TCP only
}

func (a *Ask) message() *shoalv1.ReachRequest {
	m := &shoalv1.ReachRequest{
		Service: a.Service, Replica: a.Replica[:], Port: uint32(a.Port),
		Protocol: shoalv1.ReachProtocol_REACH_PROTOCOL_TCP, Via: shoalv1.ReachVia(a.Via),
		Client: addrText(a.Client), Reached: addrText(a.Reached),
	}
	if a.Protocol == UDP {
		m.Protocol = shoalv1.ReachProtocol_REACH_PROTOCOL_UDP
	}
	return m
}

// askFrom is the inverse of Ask.message. A *Refusal: it makes no sense.
func askFrom(m *shoalv1.ReachRequest) (Ask, error) {
	a, err := parseAsk(m)
	if err != nil {
		return Ask{}, &Refusal{Reason: Invalid, Text: clip(err.Error()), cause: err}
	}
	return a, nil
}

func parseAsk(m *shoalv1.ReachRequest) (a Ask, err error) {
	a = Ask{Service: m.GetService(), Protocol: TCP, Via: Via(m.GetVia())}
	if err := shoal.CheckName("service", a.Service); err != nil {
		return a, err
	}
	if len(m.GetReplica()) != len(a.Replica) {
		return a, fmt.Errorf("replica has %d bytes, want %d", len(m.GetReplica()), len(a.Replica))
	}
	copy(a.Replica[:], m.GetReplica())
	if m.GetPort() < 1 || m.GetPort() > 65535 {
		return a, fmt.Errorf("port must be 1-65535, got %d", m.GetPort())
	}
	a.Port = uint16(m.GetPort())
	switch m.GetProtocol() {
	case shoalv1.ReachProtocol_REACH_PROTOCOL_TCP:
	case shoalv1.ReachProtocol_REACH_PROTOCOL_UDP:
		a.Protocol = UDP
	default:
		return a, fmt.Errorf("no protocol %d", m.GetProtocol())
	}
	if v := m.GetVia(); v < shoalv1.ReachVia_REACH_VIA_PUBLISHED || v > shoalv1.ReachVia_REACH_VIA_NAME {
		return a, fmt.Errorf("no door %d", v)
	}
	if a.Client, err = addrFrom(m.GetClient()); err != nil {
		return a, fmt.Errorf("client: %w", err)
	}
	if a.Reached, err = addrFrom(m.GetReached()); err != nil {
		return a, fmt.Errorf("reached: %w", err)
	}
	return a, nil
}

// addrText returns "" for the zero address. Zones mean nothing elsewhere.
func addrText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return plain(a).String()
}

func addrFrom(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	a, err := netip.ParseAddrPort(s)
	return plain(a), err
}

// plain is an address without a zone, and IPv4 as such.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// hearAsk reads what is asked. A *Refusal: it makes no sense.
func hearAsk(r io.Reader) (Ask, error) {
	var m shoalv1.ReachRequest
	if err := frame.Read(r, &m, maxMessage); err != nil {
		return Ask{}, because(Invalid, err)
	}
	return askFrom(&m)
}

// answer says whether the replica is connected: refusal nil.
func answer(w io.Writer, refusal *Refusal) error {
	m := &shoalv1.ReachResponse{}
	if refusal != nil {
		m.Refusal, m.Text = shoalv1.ReachRefusal(refusal.Reason), clip(refusal.Text)
	}
	return frame.Write(w, m, maxMessage)
}

// hearAnswer is the inverse of answer: a *Refusal if there was one. LinkDown: there was
// no answer.
func hearAnswer(r io.Reader) error {
	var m shoalv1.ReachResponse
	if err := frame.Read(r, &m, maxMessage); err != nil {
		return because(LinkDown, err)
	}
	switch reason := m.GetRefusal(); {
	case reason == shoalv1.ReachRefusal_REACH_REFUSAL_UNSPECIFIED:
		return nil
	case reason < 0 || reason > shoalv1.ReachRefusal_REACH_REFUSAL_INVALID: // of a later version
		return &Refusal{Reason: NotAllowed, Text: clip(m.GetText())}
	default:
		return &Refusal{Reason: Reason(reason), Text: clip(m.GetText())}
	}
}
