// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

const (
	pingSize  = 32
	maxPing   = 64
	pingFrame = 256
)

// Ping asks a member for a sign of life and returns how long it took. It opens a
// fresh stream that must be answered within PingTimeout: an open connection proves
// nothing. With fresh set, silence is not believed yet: a new connection with a full
// handshake is forced beside the old one, within another PingTimeout; if that
// succeeds the peer lives, and the old, dead links are replaced. Without it silence
// on the stream is the answer. With fresh set and nothing open the connection is
// forced at once, and where all TCP addresses refuse it only a quarter of PingTimeout
// is given to QUIC. ErrNotFound: no such member. A nil error proves that the peer
// lived after the call began; an error proves nothing but silence.
func (l *Links) Ping(ctx context.Context, id shoal.PeerID, fresh bool) (time.Duration, error) {
	if id == l.id.Self() {
		return 0, nil
	}
	p, err := peer.Decode(string(id))
	if err != nil || !l.gate.isMember(p) {
		return 0, fmt.Errorf("ping %s: %w", id.Short(), shoal.ErrNotFound)
	}
	linked := l.host.Network().Connectedness(p) == network.Connected
	var rtt time.Duration
	err = errors.New("there is no connection")
	if linked || !fresh {
		rtt, _, err = l.pingStream(ctx, p)
	}
	if linked && (err == nil || ctx.Err() == nil) {
		l.pinged(p, err == nil, rtt)
	}
	if err == nil {
		l.doubt(p, false)
	}
	if err == nil || !fresh || ctx.Err() != nil {
		return rtt, wrapPing(id, err)
	}
	rtt, again := l.handshake(ctx, p)
	if again != nil {
		l.doubt(p, true)
		l.poke() // the dial loop goes on asking
		return 0, fmt.Errorf("ping %s: %w (%w)", id.Short(), err, again)
	}
	// It lives but did not answer on what was open: those links are dead.
	l.doubt(p, false)
	_ = l.host.Network().ClosePeer(p)
	if d := l.dial(ctx, p, l.addrsOf(p)); d.err != nil {
		l.poke() // the dial loop goes on trying
	}
	return rtt, nil
}

func wrapPing(id shoal.PeerID, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("ping %s: %w", id.Short(), err)
}

// pingStream asks over a fresh stream of whatever connection there is, dialling if
// there is none. It returns how long the answer took, and the answer.
func (l *Links) pingStream(ctx context.Context, p peer.ID) (time.Duration, *shoalv1.Ping, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.PingTimeout)
	defer cancel()
	nonce := make([]byte, pingSize)
	if err := l.id.draw(nonce); err != nil {
		return 0, nil, err
	}
	start := l.clock.Mono()
	if l.host.Network().Connectedness(p) != network.Connected {
		if d := l.dial(ctx, p, l.addrsOf(p)); d.err != nil {
			return 0, nil, d.err
		}
	}
	s, err := l.host.NewStream(network.WithNoDial(ctx, "ping"), p, ProtocolPing)
	if err != nil {
		return 0, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := frame.Write(s, &shoalv1.Ping{Nonce: nonce}, pingFrame); err != nil {
		_ = s.Reset() // err says it all
		return 0, nil, err
	}
	var echo shoalv1.Ping
	if err := frame.Read(s, &echo, pingFrame); err != nil {
		_ = s.Reset() // err says it all
		return 0, nil, err
	}
	if !bytes.Equal(echo.GetNonce(), nonce) {
		_ = s.Reset()
		return 0, nil, errors.New("answered something else")
	}
	_ = s.Close() // answered; how it ends does not matter
	return l.clock.Mono() - start, &echo, nil
}

// servePing answers one ping.
func (l *Links) servePing(_ context.Context, s network.Stream) {
	var ask shoalv1.Ping
	err := s.SetDeadline(time.Now().Add(10 * time.Second))
	if err == nil {
		err = frame.Read(s, &ask, pingFrame)
	}
	if err == nil && len(ask.GetNonce()) > maxPing {
		err = frame.ErrTooLarge
	}
	if err == nil {
		echo := &shoalv1.Ping{Nonce: ask.GetNonce(), UnixNano: l.clock.Wall().UnixNano(), Observed: seenFrom(s.Conn())}
		err = frame.Write(s, echo, pingFrame)
	}
	if err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// seenFrom returns where the other end of a connection is seen, as HOST:PORT; "": it is
// not seen.
func seenFrom(c network.Conn) string {
	if isRelayed(c) {
		return "" // that would be the relay's
	}
	_, at, err := manet.DialArgs(c.RemoteMultiaddr())
	if err != nil {
		return ""
	}
	return at
}

// dialer of one transport; the swarm has this method.
type transports interface {
	TransportForDialing(ma.Multiaddr) transport.Transport
}

// handshake makes a connection of its own to p, beside any other, and closes it: the
// kernel of a frozen or half-dead machine may accept, but only a living daemon signs
// a handshake. All addresses are tried at once, at most 16.
func (l *Links) handshake(ctx context.Context, p peer.ID) (time.Duration, error) {
	sw, ok := l.host.Network().(transports)
	if !ok {
		return 0, errors.New("this network cannot force a connection")
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.PingTimeout)
	defer cancel()
	type result struct {
		took time.Duration
		err  error
	}
	addrs := l.addrsOf(p)
	l.locateRelays(addrs)
	hasCircuit := slices.ContainsFunc(addrs, isCircuit) // nothing is known of where that ends
	results := make(chan result, len(addrs))
	start := l.clock.Mono()
	for _, a := range addrs {
		go func() {
			err := shake(ctx, sw, a, p)
			results <- result{l.clock.Mono() - start, err}
		}()
	}
	errs := errors.New("no address is known")
	best := time.Duration(-1)
	open := len(streams(addrs))
	for i := range addrs { // all of them: nobody is left behind
		r := <-results
		switch {
		case r.err != nil && i == 0:
			errs = r.err
		case r.err == nil && (best < 0 || r.took < best):
			best = r.took
			cancel()
		}
		if errors.Is(r.err, syscall.ECONNREFUSED) {
			if open--; open == 0 && !hasCircuit {
				defer time.AfterFunc(l.cfg.PingTimeout/4, cancel).Stop()
			}
		}
	}
	if best < 0 {
		return 0, fmt.Errorf("forced connection: %w", errs)
	}
	return best, nil
}

// streams returns the TCP addresses among addrs. Where every one of them is refused
// the machine is there and the daemon is not: what UDP, which refuses nothing, may
// still answer is waited for only a little longer.
func streams(addrs []ma.Multiaddr) []ma.Multiaddr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool {
		_, err := a.ValueForProtocol(ma.P_TCP)
		return err != nil
	})
}

func shake(ctx context.Context, sw transports, a ma.Multiaddr, p peer.ID) error {
	t := sw.TransportForDialing(a)
	if t == nil {
		return fmt.Errorf("no transport for %s", a)
	}
	c, err := t.Dial(ctx, a, p)
	if err != nil {
		return err
	}
	return c.Close()
}
