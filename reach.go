// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"cmp"
	"context"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"
)

// LB says which of the replicas that may be taken serves a connection. "" is LBP2C.
type LB string

// The policies. Weights count for weighted, and for least-conn and p2c, which compare
// open connections a weight.
const (
	// LBRoundRobin takes the one that was taken longest ago.
	LBRoundRobin LB = "rr"
	// LBWeighted takes each in proportion to its weight, and spreads the turns of a heavy
	// one over the cycle.
	LBWeighted LB = "weighted"
	// LBLeastConn takes the one with the fewest open connections.
	LBLeastConn LB = "least-conn"
	// LBLeastTime takes the one that connects and answers soonest, times its open
	// connections.
	LBLeastTime LB = "least-time"
	// LBHash takes the same one for the same client address while it is there and not full.
	LBHash LB = "hash"
	// LBRandom takes any.
	LBRandom LB = "random"
	// LBP2C draws two and takes the one with fewer open connections. It is the default: it
	// needs no state that goes stale, does not send everybody to a newcomer at once as
	// least-conn does, and its fullest replica is nearly as good.
	LBP2C LB = "p2c"
)

// Prefer says which replicas go before others, whatever the policy; farther ones are
// taken when no nearer one may be. "" is PreferAny.
type Prefer string

// The preferences.
const (
	// PreferLocal: those on this peer, then those in its zone, then any.
	PreferLocal Prefer = "local"
	// PreferZone: those in this peer's zone, itself included, then any. Peers that name
	// no zone are one zone, as in placement.
	PreferZone Prefer = "zone"
	// PreferAny: all alike. It is the default: placement does not know where clients are,
	// so a preference loads a replica by how many clients are near it, and one near most
	// of them drowns while others idle. Who knows better asks for it; least-time finds
	// distance by measuring.
	PreferAny Prefer = "any"
)

func (s *Spec) checkReach() error {
	switch s.LB {
	case "", LBRoundRobin, LBWeighted, LBLeastConn, LBLeastTime, LBHash, LBRandom, LBP2C:
	default:
		return oneOf("lb", s.LB, LBP2C, LBRoundRobin, LBWeighted, LBLeastConn, LBLeastTime, LBHash, LBRandom)
	}
	switch s.Prefer {
	case "", PreferLocal, PreferZone, PreferAny:
	default:
		return oneOf("prefer", s.Prefer, PreferLocal, PreferZone, PreferAny)
	}
	for i, p := range s.Ports {
		if s.ProxyProtocol && p.IsIngress() && p.Protocol == "udp" {
			return &InvalidError{Field: "proxy_protocol", Why: "is for tcp, and ports[" + strconv.Itoa(i) + "] is udp"}
		}
	}
	return nil
}

// IsIngress reports whether the port answers on every peer; else the engine publishes it
// on the peer that holds a replica.
func (p Port) IsIngress() bool { return p.Published != 0 && !p.Host }

// IsHost reports whether the port takes a fixed one of the peer that holds a replica.
func (p Port) IsHost() bool { return p.Published != 0 && p.Host }

// PublishedPort is a port that answers on every peer, and who wants it.
type PublishedPort struct {
	Port     uint16
	Protocol string // "tcp" or "udp"
	Service  string // that has it
	Target   uint16 // in its containers
	Losers   []string
}

// PublishedPorts returns the ports that the services of d want on every peer, sorted by
// port and protocol. Of several that want one, because peers did not hear each other,
// the service with the higher current revision has it, by the order in which revisions
// win; the others are its losers, sorted. A stopped service wants none.
func PublishedPorts(d *Desired) []PublishedPort {
	type key struct {
		port     uint16
		protocol string
	}
	type want struct {
		service *Service
		target  uint16
	}
	wants := map[key][]want{}
	for i := range d.Services {
		s := &d.Services[i]
		if s.Stopped || s.Spec.Setup.HostNetwork || s.Spec.Setup.NoNetwork {
			continue
		}
		for _, p := range s.Spec.Ports {
			if p.IsIngress() {
				k := key{p.Published, cmp.Or(p.Protocol, "tcp")}
				wants[k] = append(wants[k], want{s, p.Container})
			}
		}
	}
	out := make([]PublishedPort, 0, len(wants))
	for k, all := range wants {
		best := slices.MaxFunc(all, func(a, b want) int {
			return cmp.Or(a.service.Revision.Compare(b.service.Revision), cmp.Compare(b.service.Spec.Name, a.service.Spec.Name))
		})
		p := PublishedPort{Port: k.port, Protocol: k.protocol, Service: best.service.Spec.Name, Target: best.target}
		for _, w := range all {
			if w.service != best.service {
				p.Losers = append(p.Losers, w.service.Spec.Name)
			}
		}
		slices.Sort(p.Losers)
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b PublishedPort) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out
}

// Histogram counts durations by how long they were. The zero value counted none.
type Histogram struct {
	Bounds []time.Duration // where buckets end, rising; shared, nobody writes to it
	Counts []uint64        // of each bucket those shorter than its bound and in none before; one more for the rest
	Sum    time.Duration
}

// Count returns how many durations there are.
func (h Histogram) Count() (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Plus returns what both counted, which have the same bounds unless one counted none.
func (h Histogram) Plus(o Histogram) Histogram {
	switch {
	case len(h.Counts) == 0:
		return o
	case len(o.Counts) == 0:
		return h
	}
	out := Histogram{Bounds: h.Bounds, Counts: slices.Clone(h.Counts), Sum: h.Sum + o.Sum}
	for i, n := range o.Counts {
		out.Counts[i] += n
	}
	return out
}

// Traffic counts what was carried since the daemon started.
type Traffic struct {
	Open      int               // connections now; of UDP: clients that sent something lately
	Total     uint64            // connections
	In, Out   uint64            // bytes from clients, and to them
	Refused   map[string]uint64 // what went wrong, by reason; also where another replica made it good
	Retries   uint64            // tries on one more replica
	Connect   Histogram         // from the first try to the connected replica
	FirstByte Histogram         // from the client's first byte to that of the answer
}

// Plus returns what both counted.
func (t Traffic) Plus(o Traffic) Traffic {
	out := Traffic{
		Open: t.Open + o.Open, Total: t.Total + o.Total, In: t.In + o.In, Out: t.Out + o.Out, Retries: t.Retries + o.Retries,
		Connect: t.Connect.Plus(o.Connect), FirstByte: t.FirstByte.Plus(o.FirstByte),
	}
	if len(t.Refused)+len(o.Refused) > 0 {
		out.Refused = maps.Clone(t.Refused)
		if out.Refused == nil {
			out.Refused = map[string]uint64{}
		}
		for why, n := range o.Refused {
			out.Refused[why] += n
		}
	}
	return out
}

// PortState is a published port as one peer serves it.
type PortState struct {
	PublishedPort
	Address string // where it listens; "": it does not
	Trouble string // why it does not, one line
	Usable  int    // replicas that may be given a connection now
	Traffic
}

// ReachRow is one replica of a service as one peer sees it when it chooses.
type ReachRow struct {
	Replica   ReplicaID
	Slot      int
	Holder    PeerID
	IsUsable  bool
	Why       string // it is not, or not preferred; one line
	Path      string // "local", "direct", "relayed by osaka"
	Weight    int
	Open      int           // connections from here
	Connect   time.Duration // moving average; 0: never measured
	FirstByte time.Duration // the same
}

// Reach carries connections to services on this peer, and tells how. It is safe for
// concurrent use.
type Reach interface {
	// Ports returns the published ports, sorted by port and protocol.
	Ports() []PortState
	// Replicas returns those of a service by slot. ErrNotFound: there is no such service.
	Replicas(service string) ([]ReachRow, error)
	// Forward carries conn to a TCP port of a replica until both ends are done; slot -1:
	// of any ready one. Where conn has a CloseWrite, it tells that the replica sends no
	// more. It closes conn. ErrNotFound: there is no such replica, ErrRefused:
	// its holder does not let this peer, ErrUnreachable: nothing takes the connection.
	Forward(ctx context.Context, at Target, port uint16, conn io.ReadWriteCloser) error
}
