// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// libp2p's AutoRelay is not used: it waits for AutoNAT's word that a peer is private,
// which never comes here (see newHost), takes its relays away again when that word
// changes, and believes that every address of its own is useless meanwhile. Here it is
// only asked whether some member is out of reach.
const (
	// maxRelays is on how many relays a peer reserves: if one goes, the other carries.
	maxRelays = 2
	// shortAfter is after how many failed dials in a row a member is out of reach: one
	// may just be starting.
	shortAfter = 2
	// renewEvery heals a reservation that the relay lost, long before it ends.
	renewEvery = 10 * time.Minute
	// lookEvery: that a linked member begins to relay is told by identify, which wakes
	// nobody here.
	lookEvery = 10 * time.Second
)

// reservation is what this peer has, or wants, on one relay.
type reservation struct {
	isHeld bool
	isBusy bool
	fails  int
	due    time.Duration // own clock; when to ask, again
}

// reserved is the outcome of asking for one.
type reserved struct {
	relay peer.ID
	seen  ma.Multiaddr // where the relay sees our QUIC socket; nil: not known
	err   error
}

// reserve keeps reservations while some member is out of reach, and returns when to
// look again. What was once needed is kept: the member may be back tomorrow, and a
// reservation costs a stream in renewEvery.
func (d *dialer) reserve(now time.Duration, start func(func(context.Context) reserved)) time.Duration {
	next := now + time.Hour
	d.isShort = d.isShort || d.short()
	fit := d.relays()
	for p := range d.held {
		if !slices.Contains(fit, p) && !d.held[p].isBusy {
			delete(d.held, p) // with the connection the relay has forgotten it, too
		}
	}
	d.publish()
	if !d.isShort {
		return next
	}
	chosen := chooseRelays(d.self, fit, d.usable(now), maxRelays)
	if len(chosen) < maxRelays {
		next = now + lookEvery
	}
	for _, p := range chosen {
		r := d.held[p]
		if r == nil {
			r = &reservation{due: now}
			d.held[p] = r
		}
		if r.isBusy {
			continue
		}
		if r.due > now {
			next = min(next, r.due)
			continue
		}
		r.isBusy = true
		start(func(ctx context.Context) reserved { return d.reserveOn(ctx, p) })
	}
	for _, r := range d.held { // a relay that refused is asked again some time
		if !r.isBusy && r.due > now {
			next = min(next, r.due)
		}
	}
	return next
}

// short reports whether some member is out of reach: linked through a relay only, or
// not at all after some tries. In clusters too large for a full mesh members are
// dialled when they are needed, so there a peer to which nobody linked by itself may be
// out of reach of anybody.
func (d *dialer) short() bool {
	for p, t := range d.targets {
		if t.up && !d.isStraight(p) || !t.up && t.fails >= shortAfter {
			return true
		}
	}
	return d.isLarge && !d.gate.loopback && d.carrying.service == nil
}

// relays returns the members that relay and are linked straight.
func (d *dialer) relays() []peer.ID {
	var out []peer.ID
	for _, p := range d.host.Network().Peers() {
		if !d.gate.isMember(p) || !d.isStraight(p) {
			continue
		}
		if can, err := d.host.Peerstore().SupportsProtocols(p, proto.ProtoIDv2Hop); err == nil && len(can) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// usable says how each relay fared: true, it holds a reservation; false, it refused one
// and is not asked yet. Of others nothing is said.
func (d *dialer) usable(now time.Duration) map[peer.ID]bool {
	out := map[peer.ID]bool{}
	for p, r := range d.held {
		switch {
		case r.isHeld, r.isBusy:
			out[p] = true
		case r.due > now:
			out[p] = false
		}
	}
	return out
}

// chooseRelays returns up to n of the fit relays for self: first those it has, so that
// its addresses change as little as can be, then by rendezvous rank, which spreads
// peers over relays and moves few of them when a relay comes or goes. A relay of which
// had says false is left out.
func chooseRelays(self peer.ID, fit []peer.ID, had map[peer.ID]bool, n int) []peer.ID {
	rank := func(p peer.ID) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(self)) // never fails
		_, _ = h.Write([]byte(p))
		x := h.Sum64() // whose high bits hardly differ for ends that do
		x ^= x >> 33
		x *= 0xff51afd7ed558ccd // finaliser of MurmurHash3
		return x ^ x>>33
	}
	out := slices.DeleteFunc(slices.Clone(fit), func(p peer.ID) bool { has, known := had[p]; return known && !has })
	slices.SortFunc(out, func(a, b peer.ID) int {
		return cmp.Or(boolRank(had[a])-boolRank(had[b]), cmp.Compare(rank(b), rank(a)), cmp.Compare(a, b))
	})
	return out[:min(len(out), n)]
}

// reserveOn asks one relay for a reservation, and where it sees us.
func (l *Links) reserveOn(ctx context.Context, relay peer.ID) reserved {
	asked, cancel := context.WithTimeout(ctx, l.cfg.DialTimeout)
	defer cancel()
	out := reserved{relay: relay}
	if _, out.err = client.Reserve(asked, l.host, peer.AddrInfo{ID: relay}); out.err == nil {
		out.seen = l.observe(asked, relay)
	}
	return out
}

// wasReserved takes the outcome.
func (d *dialer) wasReserved(got reserved) {
	r := d.held[got.relay]
	if r == nil {
		return
	}
	now := d.clock.Mono()
	r.isBusy = false
	name := shoal.PeerID(got.relay.String()).Short()
	if got.err != nil {
		r.isHeld = false
		r.fails++
		r.due = now + d.pause(r.fails)
		d.log.Debug("relay refused", logkey.Peer, name, logkey.Err, got.err)
		return
	}
	if !r.isHeld {
		d.log.Info("reachable through a relay", logkey.Peer, name)
	}
	r.isHeld, r.fails = true, 0
	r.due = now + renewEvery - time.Duration(d.rand.Int64N(int64(renewEvery/4)))
	d.publish()
	d.sawUs(got.relay, got.seen)
	d.startPunching()
}

// publish makes the reservations part of Addrs.
func (d *dialer) publish() {
	var via []peer.ID
	for p, r := range d.held {
		if r.isHeld {
			via = append(via, p)
		}
	}
	slices.Sort(via)
	d.mu.Lock()
	isSame := slices.Equal(via, d.via)
	d.via = via
	d.mu.Unlock()
	if !isSame {
		d.announce()
	}
}

// reservedOn returns the relays through which this peer is reachable, sorted.
func (l *Links) reservedOn() []peer.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.via
}
