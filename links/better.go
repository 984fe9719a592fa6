// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// A better way replaces a worse one. New streams take a straight connection as soon as
// there is one (the swarm prefers it); those on the relayed one are left to end.
const (
	// firstTry: by then what made the dials fail may have passed, and records with new
	// addresses may have come.
	firstTry = 10 * time.Second
	// lastTry: routers and firewalls change rarely, and each try costs both sides up to
	// 16 dials. New addresses in a record are tried at once.
	lastTry = 5 * time.Minute
	// settled is how long a straight connection must hold before a relayed one goes: a
	// stream that was opened on that meanwhile has arrived by then.
	settled = 5 * time.Second
)

// tryPause returns how long to wait for the next try after so many, as part says
// (0 to 1) of the half that is left to chance.
func tryPause(tries int, part float64) time.Duration {
	p := firstTry
	for i := 0; i < tries && p < lastTry; i++ {
		p *= 2
	}
	p = min(p, lastTry)
	return p/2 + time.Duration(part*float64(p/2))
}

// supersede closes relayed connections that nobody needs any more, and returns when to
// look again.
func (d *dialer) supersede(now time.Duration) time.Duration {
	next := now + time.Hour
	for _, p := range d.host.Network().Peers() {
		straight, relayed := d.open(p)
		if len(straight) == 0 || len(relayed) == 0 {
			continue
		}
		held := time.Duration(0)
		for _, c := range straight {
			held = max(held, time.Since(c.Stat().Opened)) // as libp2p stamped it
		}
		for _, c := range relayed {
			if !isSpent(held, c.GetStreams()) {
				next = min(next, now+settled)
				continue
			}
			_ = c.Close() // it is gone either way
			d.log.Debug("relayed link replaced", logkey.Peer, shoal.PeerID(p.String()).Short())
		}
	}
	return next
}

// isSpent reports whether a relayed connection may be closed: a straight one has held
// for a while, and there is no stream left but those that pubsub opens anew by itself.
func isSpent(held time.Duration, left []network.Stream) bool {
	return held >= settled && !slices.ContainsFunc(left, func(s network.Stream) bool { return !movesByItself(s.Protocol()) })
}

func movesByItself(p protocol.ID) bool {
	return strings.HasPrefix(string(p), "/meshsub/") || strings.HasPrefix(string(p), "/floodsub/")
}

// straighten tries for a straight connection to a member that is linked through a
// relay: by its addresses, then through the routers between.
func (l *Links) straighten(ctx context.Context, p peer.ID) dialed {
	out := l.dial(ctx, p, withoutCircuits(l.addrsOf(p)))
	out.isTry = true
	puncher := l.puncher.Load()
	if out.err == nil || puncher == nil || len(l.seenSockets()) == 0 || ctx.Err() != nil {
		return out
	}
	_, relayed := l.open(p)
	for _, c := range relayed {
		if c.Stat().Direction != network.DirInbound {
			continue // the one whom the circuit reached begins
		}
		stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // else it might wait for an answer for a minute
		defer stop()
		start := l.clock.Mono()
		out.err = puncher.DirectConnect(p)
		out.took += l.clock.Mono() - start
		return out
	}
	return out
}
