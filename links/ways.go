// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/shoalnet/shoal"
)

// Limits of what the doctor calls well.
const (
	waysPings  = 5                // of which the fastest counts
	clockWarn  = time.Second      // of difference: ages and times that people compare are off
	clockFail  = 60 * time.Second // a peer never lets others push its clock further (DESIGN section 3)
	rttWarn    = 500 * time.Millisecond
	leastMTU   = 1280 // QUIC needs datagrams of 1,200 bytes, IPv6 links of 1,280 (RFC 9000 section 14)
	reachArea  = "reach"
	clockArea  = "clock"
	tokenArea  = "token"
	addrsBound = 20
)

// Ways checks every way to a member: each address it is known by, with a handshake of
// its own beside any link; then the link in use. fn gets the checks one by one; its
// error ends it and is returned. ErrNotFound: no such member.
func (l *Links) Ways(ctx context.Context, id shoal.PeerID, fn func(shoal.Check) error) error {
	p, err := peer.Decode(string(id))
	if err != nil || !l.gate.isMember(p) {
		return fmt.Errorf("ways to peer %s: %w", id.Short(), shoal.ErrNotFound)
	}
	checks, works := l.dialEach(ctx, p, l.addrsOf(p))
	if len(checks) == 0 {
		checks = append(checks, shoal.Check{
			Area: reachArea, Name: "addresses", State: shoal.CheckSkip, Detail: "it told none that may be dialled from here; it has to dial this machine",
		})
	}
	if works || l.host.Network().Connectedness(p) == network.Connected {
		checks = append(append(checks, l.linkChecks(ctx, p)...), l.pathCheck(id))
	} else {
		checks = append(checks, shoal.Check{
			Area: reachArea, Name: "link", State: shoal.CheckFail, Detail: "there is none", Remedy: "see the ways above; one that works is enough",
		})
	}
	return report(ctx, id, checks, fn)
}

func report(ctx context.Context, id shoal.PeerID, checks []shoal.Check, fn func(shoal.Check) error) error {
	for _, c := range checks {
		c.Peer = id
		if err := fn(c); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// dialEach shakes hands by every address at once and reports in their order. A way
// that fails while another works is only worth a warning.
func (l *Links) dialEach(ctx context.Context, p peer.ID, addrs []ma.Multiaddr) (out []shoal.Check, works bool) {
	sw, ok := l.host.Network().(transports)
	if !ok {
		return []shoal.Check{{Area: reachArea, Name: "dial", State: shoal.CheckSkip, Detail: "this network cannot force a connection"}}, false
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.DialTimeout)
	defer cancel()
	addrs = addrs[:min(len(addrs), addrsBound)]
	l.locateRelays(addrs)
	out = make([]shoal.Check, len(addrs))
	done := make(chan int, len(addrs))
	for i, a := range addrs {
		go func() {
			start := l.clock.Mono()
			err := shake(ctx, sw, a, p)
			out[i] = dialCheck(a, l.clock.Mono()-start, l.cfg.DialTimeout, err)
			done <- i
		}()
	}
	for range addrs {
		works = out[<-done].State == shoal.CheckOK || works
	}
	for i := range out {
		if works && out[i].State == shoal.CheckFail {
			out[i].State = shoal.CheckWarn
		}
	}
	return out, works
}

// dialCheck says how one way fared.
func dialCheck(a ma.Multiaddr, took, limit time.Duration, err error) shoal.Check {
	where, port := wayOf(a)
	c := shoal.Check{Area: reachArea, Name: "dial " + where, State: shoal.CheckOK, Detail: "handshake in " + took.Round(100*time.Microsecond).String()}
	if err == nil {
		return c
	}
	c.State, c.Detail = shoal.CheckFail, oneLine(err)
	var other sec.ErrPeerIDMismatch
	switch {
	case errors.As(err, &other):
		c.Detail = fmt.Sprintf("another peer answers there: %s", shoal.PeerID(other.Actual.String()).Short())
		c.Remedy = "its address was given to another machine; restart shoald there, it tells its new address"
	case errors.Is(err, syscall.ECONNREFUSED):
		c.Detail, c.Remedy = "connection refused: nothing listens there", "start shoald there, or see its --listen"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		c.Detail, c.Remedy = "no route to it from here", "see the routes of this machine, or let it --advertise an address that is reachable"
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(err.Error(), "timeout"), strings.Contains(err.Error(), "no recent network activity"):
		c.Detail = fmt.Sprintf("no answer within %s", limit)
		c.Remedy = fmt.Sprintf("open %s in the firewalls between; behind NAT forward it, and start shoald there with --advertise", port)
	}
	return c
}

// wayOf names an address for people: "192.0.2.1:4710 by tcp", and "port 4710/tcp".
func wayOf(a ma.Multiaddr) (where, port string) {
	if relay, ok := relayOf(a); ok {
		return "through relay " + shoal.PeerID(relay.String()).Short(), "its port"
	}
	kind, at, err := manet.DialArgs(a)
	if err != nil {
		return a.String(), "its port"
	}
	kind = strings.TrimRight(kind, "46")
	_, number, _ := net.SplitHostPort(at)
	name := kind
	if kind == "udp" {
		name = "quic"
	}
	return at + " by " + name, "port " + number + "/" + kind
}

// linkChecks asks over the link that is there: time, clock, translation, size.
func (l *Links) linkChecks(ctx context.Context, p peer.ID) []shoal.Check {
	var best, offset time.Duration
	observed, answered := "", 0
	var last error
	for range waysPings {
		sent := l.clock.Wall()
		rtt, echo, err := l.pingStream(ctx, p)
		if err != nil {
			last = err
			continue
		}
		if answered++; answered == 1 || rtt < best {
			best, observed = rtt, echo.GetObserved()
			offset = 0
			if n := echo.GetUnixNano(); n != 0 {
				offset = time.Unix(0, n).Sub(sent.Add(rtt / 2))
			}
		}
	}
	if answered == 0 {
		return []shoal.Check{{
			Area: reachArea, Name: "link", State: shoal.CheckFail, Detail: "it is open but does not answer: " + oneLine(last),
			Remedy: "see whether shoald hangs there; its journal tells",
		}}
	}
	out := []shoal.Check{rttCheck(best, answered), clockCheck(offset, best), l.natCheck(observed)}
	if c, ok := mtuCheck(l.linkAddr(p)); ok {
		out = append(out, c)
	}
	return out
}

func rttCheck(rtt time.Duration, answered int) shoal.Check {
	c := shoal.Check{
		Area: reachArea, Name: "link", State: shoal.CheckOK,
		Detail: fmt.Sprintf("%d of %d pings, fastest %s", answered, waysPings, rtt.Round(100*time.Microsecond)),
	}
	switch {
	case answered < waysPings:
		c.State, c.Remedy = shoal.CheckWarn, "the link loses packets or stalls; look at the network between"
	case rtt > rttWarn:
		c.State, c.Remedy = shoal.CheckWarn, "far away: start every shoald with --profile wan"
	}
	return c
}

// clockCheck judges the difference of two wall clocks, known to half a round trip; to the
// hundredth of a second, for nobody acts on less.
func clockCheck(offset, rtt time.Duration) shoal.Check {
	c := shoal.Check{
		Area: clockArea, Name: "offset", State: shoal.CheckOK,
		Detail: fmt.Sprintf("its clock is %s %s ours, give or take %s", offset.Abs().Round(10*time.Millisecond), aheadOrBehind(offset), (rtt / 2).Round(100*time.Microsecond)),
	}
	doubt := offset.Abs() - rtt/2
	switch {
	case doubt > clockFail:
		c.State = shoal.CheckFail
	case doubt > clockWarn:
		c.State = shoal.CheckWarn
	}
	if c.State != shoal.CheckOK {
		c.Remedy = "run an NTP client on both machines; nothing in Shoal breaks, but times people compare are wrong and tokens expire early or late"
	}
	return c
}

func aheadOrBehind(offset time.Duration) string {
	if offset < 0 {
		return "behind"
	}
	return "ahead of"
}

// natCheck compares where the other end sees this machine with what it has.
func (l *Links) natCheck(observed string) shoal.Check {
	c := shoal.Check{Area: reachArea, Name: "address translation", State: shoal.CheckOK}
	host, _, err := net.SplitHostPort(observed)
	ip := net.ParseIP(host)
	if err != nil || ip == nil {
		c.State, c.Detail = shoal.CheckSkip, "it did not say where it sees this machine"
		return c
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		c.State, c.Detail = shoal.CheckSkip, "the addresses of this machine are not known: "+err.Error()
		return c
	}
	if slices.ContainsFunc(own, func(a net.Addr) bool { n, ok := a.(*net.IPNet); return ok && n.IP.Equal(ip) }) {
		c.Detail = "none: it sees this machine as " + host
		return c
	}
	c.Detail = fmt.Sprintf("NAT: it sees this machine as %s, which is none of its addresses", host)
	if slices.ContainsFunc(l.host.Addrs(), func(a ma.Multiaddr) bool { at, err := manet.ToIP(a); return err == nil && at.Equal(ip) }) {
		c.Detail += ", and is advertised"
		return c
	}
	c.State = shoal.CheckWarn
	c.Remedy = "members cannot dial this machine: it dials them, and those that cannot be dialled either reach it through one that can; for straight links forward the port there and start shoald with --advertise " + host
	return c
}

// linkAddr returns where the link in use leads, nil if there is none.
func (l *Links) linkAddr(p peer.ID) net.IP {
	straight, _ := l.open(p)
	for _, c := range straight {
		if ip, err := manet.ToIP(c.RemoteMultiaddr()); err == nil {
			return ip
		}
	}
	return nil
}

// mtuCheck says what the kernel knows of the largest packet on the way; false where
// it does not say.
func mtuCheck(to net.IP) (shoal.Check, bool) {
	if to == nil {
		return shoal.Check{}, false
	}
	mtu := pathMTU(to)
	if mtu == 0 {
		return shoal.Check{}, false
	}
	c := shoal.Check{Area: reachArea, Name: "packet size", State: shoal.CheckOK, Detail: fmt.Sprintf("%d bytes, as far as the kernel knows", mtu)}
	if mtu < leastMTU {
		c.State, c.Remedy = shoal.CheckWarn, fmt.Sprintf("QUIC needs %d; TCP is used instead, or raise the MTU of the tunnel between", leastMTU)
	}
	return c, true
}

// TokenWays checks every way to the peers a token names, and asks one of them whether
// it would admit this peer; nothing is redeemed. The error is a *TokenError of a
// token that is none, or one that this peer cannot use.
func (l *Links) TokenWays(ctx context.Context, token string, fn func(shoal.Check) error) error {
	t, err := ParseToken(token)
	if err != nil {
		return err
	}
	if err := l.mayJoin(t); err != nil {
		return err
	}
	for _, via := range t.Peers {
		p, err := peer.Decode(string(via.Peer))
		if err != nil || p == l.self {
			continue
		}
		done := l.gate.visit(p)
		checks, _ := l.dialEach(ctx, p, pick(l.gate.loopback, maxTokenAddrs, parseAddrs(via.Addrs)))
		done()
		if err := report(ctx, via.Peer, checks, fn); err != nil {
			return err
		}
	}
	c := shoal.Check{Area: tokenArea, Name: "admission", State: shoal.CheckOK, Detail: fmt.Sprintf("this machine could join as %s", cmp.Or(t.Role, shoal.RoleOperator))}
	if _, err := l.Join(ctx, token, shoal.JoinOptions{DryRun: true}); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.State, c.Detail = shoal.CheckFail, oneLine(err)
	}
	return report(ctx, l.id.Self(), []shoal.Check{c}, fn)
}
