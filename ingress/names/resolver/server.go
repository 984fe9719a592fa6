// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/names"
	"github.com/shoalnet/shoal/internal/logkey"
)

// Deps are what a server is given.
type Deps struct {
	Log *slog.Logger
	// Packets and Listeners are where it serves, at least one in all. Run closes them.
	Packets   []net.PacketConn
	Listeners []net.Listener
	// Allowed reports whether a client is of this network; others are not answered. It is
	// called for every message, from many goroutines.
	Allowed func(netip.Addr) bool
	// Beyond returns the zones of the other networks that a client is on, best first: a
	// container asks the server of its first network only. It is called for questions that
	// the zone does not know, from many goroutines. nil: clients are on no other.
	Beyond func(client netip.Addr) []*names.Zone
	// Forward asks for what is not ours.
	Forward *Forwarder
}

// Server answers for one network. Make it with New.
type Server struct {
	cfg     Config
	deps    Deps
	zone    atomic.Pointer[names.Zone]
	turn    atomic.Uint32
	loops   rate.Sometimes // limits what is said of loops
	clients *clients
	count   counters
}

// New makes a server with an empty zone. The error is a *shoal.InvalidError.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if len(deps.Packets)+len(deps.Listeners) == 0 {
		return nil, &shoal.InvalidError{Field: "listeners", Why: "are none"}
	}
	s := &Server{cfg: cfg, deps: deps, clients: newClients(cfg), loops: rate.Sometimes{Interval: sayEvery}}
	s.SetZone(names.NewZone(names.Network{}))
	return s, nil
}

// SetZone answers from z from now on. Any goroutine may call it.
func (s *Server) SetZone(z *names.Zone) { s.zone.Store(z) }

// Stats returns what was counted since New. Any goroutine may call it.
func (s *Server) Stats() Stats { return s.count.stats() }

// Run serves until ctx ends, which is not an error, or a socket fails for good. All
// sockets are closed and all questions are over when it returns. Call it once.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done() // the caller's end, or the first socket that failed
		s.close()
		return nil
	})
	for _, pc := range s.deps.Packets {
		g.Go(func() error { return s.servePackets(ctx, pc) })
	}
	for _, l := range s.deps.Listeners {
		g.Go(func() error { return s.serveConns(ctx, l) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("serve names: %w", err)
	}
	return nil
}

func (s *Server) close() {
	for _, pc := range s.deps.Packets {
		_ = pc.Close()
	}
	for _, l := range s.deps.Listeners {
		_ = l.Close()
	}
}

// admit reports whether a message of a client may be read at all.
func (s *Server) admit(client netip.Addr) bool {
	s.count.asked.Add(1)
	if !s.deps.Allowed(client) {
		s.count.refuse(Stranger)
		return false
	}
	ok, say := s.clients.ask(client, time.Now())
	if !ok {
		s.count.refuse(Flood)
	}
	if say {
		s.deps.Log.Warn("a container asks for names too often; what is above the limit is dropped",
			logkey.Reason, Flood.String(), "client", client.String(), "per_second", s.cfg.Rate)
	}
	return ok
}

// local answers what needs nobody else. If it returns an ask, then that has to be
// forwarded; if neither, there is no answer.
func (s *Server) local(client netip.Addr, packet []byte, tcp bool) ([]byte, *ask) {
	a, reply, why := screen(packet, tcp)
	if a == nil {
		s.count.refuse(why)
		return reply, nil
	}
	answer, ours := s.answer(client, a.question())
	switch {
	case !ours:
		return nil, a
	case answer.Rcode == dns.RcodeRefused:
		s.count.refuse(Unsupported)
	default:
		s.count.ours.Add(1)
	}
	s.rotate(answer.Records)
	return a.pack(&dns.Msg{
		MsgHdr: dns.MsgHdr{Authoritative: true, Rcode: answer.Rcode},
		Answer: answer.Records, Ns: answer.Authority, Extra: answer.Extra,
	}), nil
}

// answer asks our zone, and the others of the client for what ours does not know.
func (s *Server) answer(client netip.Addr, q dns.Question) (names.Answer, bool) {
	answer, ours := s.zone.Load().Answer(q)
	if s.deps.Beyond == nil || ours && answer.Rcode != dns.RcodeNameError {
		return answer, ours
	}
	for _, z := range s.deps.Beyond(client) {
		switch other, its := z.Answer(q); {
		case its && other.Rcode != dns.RcodeNameError:
			return other, true
		case its && !ours:
			answer, ours = other, true
		}
	}
	return answer, ours
}

// rotate begins a list at another record each time: many clients take the first one.
func (s *Server) rotate(rrs []dns.RR) {
	if len(rrs) < 2 {
		return
	}
	k := int(s.turn.Add(1)) % len(rrs)
	turned := append(append(make([]dns.RR, 0, len(rrs)), rrs[k:]...), rrs[:k]...)
	copy(rrs, turned)
}

// lift takes a question of a client under way; when it is over, call land. If it may not
// be, reply is what the client gets.
func (s *Server) lift(client netip.Addr, a *ask) (land func(), reply []byte) {
	if s.deps.Forward.own(client) {
		s.looped(client, a)
		return nil, a.fail(dns.RcodeServerFailure)
	}
	mine, ok := s.clients.fly(client, time.Now())
	if !ok {
		s.count.refuse(Busy)
		return nil, a.fail(dns.RcodeServerFailure)
	}
	if !s.deps.Forward.enter() {
		mine()
		s.count.refuse(Busy)
		return nil, a.fail(dns.RcodeServerFailure)
	}
	return func() { s.deps.Forward.leave(); mine() }, nil
}

// looped counts a question of our own that came back, and says so now and then.
func (s *Server) looped(client netip.Addr, a *ask) {
	s.count.refuse(Loop)
	s.loops.Do(func() {
		s.deps.Log.Warn("a question that we passed on came back: one of the machine's resolvers asks us",
			logkey.Reason, Loop.String(), "client", client.String(), "name", a.question().Name)
	})
}

// foreign asks the machine's resolvers.
func (s *Server) foreign(ctx context.Context, client netip.Addr, a *ask) []byte {
	m, err := s.deps.Forward.resolve(ctx, a)
	switch {
	case err == nil:
		s.count.forwarded.Add(1)
		return a.pack(m)
	case errors.Is(err, errLoop):
		s.looped(client, a)
	default:
		s.count.refuse(Unresolved)
	}
	s.deps.Log.Debug("no answer from the machine's resolvers", logkey.Err, err, "name", a.question().Name)
	return a.fail(dns.RcodeServerFailure)
}

// clientOf returns the address behind a socket's; the zero Addr if it is not an IP one.
func clientOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
