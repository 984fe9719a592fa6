// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"cmp"
	"context"
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

const (
	// maxDials bounds how many peers are dialled at a time.
	maxDials = 16
	// stableLink is how long a link must hold before its loss counts as a first
	// failure again; until then a peer that lets us in and throws us out is one that
	// does not know us yet.
	stableLink = 5 * time.Second
	// hopeless is after how many failures a chosen peer no longer counts against
	// Degree; it is still dialled at the longest pause.
	hopeless = 4
)

// target is what the dial loop knows of one member it wants a link to.
type target struct {
	fails   int
	due     time.Duration // own clock; no dial before
	up      bool
	since   time.Duration // of up
	dialing bool
	tries   int            // for a straight way, while linked through a relay
	better  time.Duration  // own clock; no such try before
	addrs   []ma.Multiaddr // by its record and as found, to notice new ones
}

type dialed struct {
	peer peer.ID
	err  error
	took time.Duration

	isTry bool // for a straight way beside a relayed one
}

// dialer is the state of the dial loop; only its goroutine touches it.
type dialer struct {
	*Links
	rand    *rand.Rand
	targets map[peer.ID]*target
	busy    int
	results chan dialed

	held    map[peer.ID]*reservation
	asked   chan reserved
	isShort bool // some member was out of reach once
	isLarge bool // the cluster has too many members to link to all
}

func newDialer(l *Links) *dialer {
	return &dialer{
		Links: l, targets: map[peer.ID]*target{}, results: make(chan dialed, maxDials),
		held: map[peer.ID]*reservation{}, asked: make(chan reserved),
		rand: rand.New(rand.NewPCG(l.id.Boot().Nonce, l.id.Boot().Counter)),
	}
}

// dialLoop keeps links to the members this peer should have, by all addresses it
// knows, with a jittered pause after each failure, and cuts the links of everybody
// who may not be here. It ends with ctx, after its last dial.
func (l *Links) dialLoop(ctx context.Context) {
	d := newDialer(l)
	var dials sync.WaitGroup
	defer dials.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		case r := <-d.results:
			d.finished(r)
		case r := <-d.asked:
			d.wasReserved(r)
		}
		d.cut()
		d.tell(func(c network.Conn) { dials.Go(func() { d.tellRemoved(ctx, c) }) })
		d.remember()
		next := d.look(func(p peer.ID, reach func(context.Context, peer.ID) dialed) {
			dials.Go(func() { d.results <- reach(ctx, p) })
		})
		timer.Reset(min(next, d.detours(ctx, &dials)))
	}
}

// detours does what is to be done about relays: offering one, reserving on others,
// closing connections through them. It returns when to look again.
func (d *dialer) detours(ctx context.Context, dials *sync.WaitGroup) time.Duration {
	d.offer()
	now := d.clock.Mono()
	next := d.reserve(now, func(ask func(context.Context) reserved) {
		dials.Go(func() {
			select {
			case d.asked <- ask(ctx):
			case <-ctx.Done():
			}
		})
	})
	return max(min(next, d.supersede(now))-now, 0)
}

// cut closes the connections of everybody who may not be here: removed members, and
// strangers whose time is up. Those that began too early go too; see gate.stale.
func (l *Links) cut() {
	for _, c := range l.host.Network().Conns() {
		switch p := c.RemotePeer(); {
		case l.gate.stale(c): // a new one is dialled
		case !l.gate.mayStay(p):
			l.log.Debug("link cut", logkey.Peer, shoal.PeerID(p.String()).Short(), logkey.Reason, "not a member")
		default:
			continue
		}
		_ = c.Close() // it is gone either way
	}
}

// remember writes what the records say about members beside the key, when it changed.
func (d *dialer) remember() {
	known, gone := d.news()
	if d.id.Cluster() == "" || len(known)+len(gone) == 0 {
		return
	}
	err := d.id.ForgetMembers(gone...)
	if err == nil {
		err = d.id.Remember(known...)
	}
	if err != nil {
		d.log.Warn("members not remembered", logkey.Err, err)
	}
}

// news returns the members as the records and our own eyes have them, and the removed.
func (d *dialer) news() (known []KnownMember, gone []shoal.PeerID) {
	d.mu.Lock()
	desired, door := d.desired, d.door
	d.mu.Unlock()
	if desired == nil {
		return nil, nil
	}
	old := map[shoal.PeerID]bool{}
	for _, m := range d.id.Members() {
		old[m.Peer] = len(m.Chain) > 0
	}
	for i := range desired.Peers {
		m := &desired.Peers[i]
		p, err := peer.Decode(string(m.ID))
		switch {
		case err != nil || p == d.self:
		case m.Removed:
			gone = append(gone, m.ID)
		default:
			k := KnownMember{Peer: m.ID, Addrs: addrTexts(pick(d.gate.loopback, maxAddrs, d.seenAt(p), parseAddrs(m.Facts.Addrs)))}
			if !old[m.ID] && door != nil {
				k.Chain = door.chains.Chain(m.ID)
			}
			known = append(known, k)
		}
	}
	return known, gone
}

// look updates every target, starts the dials that are due and returns when to look again.
func (d *dialer) look(start func(peer.ID, func(context.Context, peer.ID) dialed)) time.Duration {
	now := d.clock.Mono()
	next := now + time.Hour
	if at, ok := d.gate.nextStranger(); ok {
		next = min(next, at)
	}
	wanted := d.choose()
	for p := range d.targets {
		if !wanted[p] && !d.targets[p].dialing {
			delete(d.targets, p)
			d.doubt(p, false)
		}
	}
	for p := range wanted {
		t := d.targets[p]
		if t == nil {
			t = &target{due: now}
			d.targets[p] = t
		}
		d.refresh(p, t, now)
		doubted := d.isDoubted(p)
		if t.dialing {
			continue
		}
		if t.up && !doubted {
			if at := d.straightenAt(p, t); at > now || d.busy >= maxDials {
				next = min(next, max(at, now+d.cfg.DialMin/2))
				continue
			}
		} else if t.due > now || d.busy >= maxDials {
			next = min(next, max(t.due, now+d.cfg.DialMin/2))
			continue
		}
		t.dialing = true
		d.busy++
		reach := d.redial
		switch {
		case t.up && doubted:
			reach = d.recheck
		case t.up:
			reach = d.straighten
		}
		start(p, reach)
	}
	return max(next-d.clock.Mono(), 0)
}

// refresh notices that a link came or went, and that the records name new addresses.
func (d *dialer) refresh(p peer.ID, t *target, now time.Duration) {
	up := d.host.Network().Connectedness(p) == network.Connected
	switch {
	case up && !t.up:
		t.since = now
		t.tries, t.better = 0, now+tryPause(0, d.rand.Float64())
	case !up && t.up:
		d.doubt(p, false)
		if now-t.since >= stableLink {
			t.fails = 0
		} else {
			t.fails++
		}
		t.due = now + d.pause(t.fails)
	}
	t.up = up
	addrs := pick(d.gate.loopback, maxAddrs, parseAddrs(d.recorded(p)), d.seenAt(p))
	if !slices.EqualFunc(addrs, t.addrs, ma.Multiaddr.Equal) {
		t.addrs, t.due, t.better = addrs, min(t.due, now), min(t.better, now)
	}
}

// straightenAt returns when to try for a straight way to a linked member; an hour from
// now if it has one.
func (d *dialer) straightenAt(p peer.ID, t *target) time.Duration {
	if d.isStraight(p) {
		return d.clock.Mono() + time.Hour
	}
	return t.better
}

func (d *dialer) finished(r dialed) {
	d.busy--
	t := d.targets[r.peer]
	if t == nil {
		return
	}
	t.dialing = false
	if r.isTry {
		t.tries++
		t.better = d.clock.Mono() + tryPause(t.tries, d.rand.Float64())
		return
	}
	if r.err == nil && t.up {
		t.fails = 0 // it was doubted, and answers
	}
	if r.err == nil {
		return // refresh sees the link, or that it is gone again
	}
	t.fails++
	t.due = d.clock.Mono() + d.pause(t.fails)
	d.log.Debug("peer not reached", logkey.Peer, shoal.PeerID(r.peer.String()).Short(), logkey.Took, r.took, logkey.Err, r.err)
}

// pause returns how long to wait after so many failures in a row: DialMin doubled by
// each but the first, at most DialMax, of which a random half is taken off.
func (d *dialer) pause(fails int) time.Duration {
	p := d.cfg.DialMin
	for i := 1; i < fails && p < d.cfg.DialMax; i++ {
		p *= 2
	}
	p = min(p, d.cfg.DialMax)
	return p/2 + time.Duration(d.rand.Int64N(int64(p/2)+1))
}

// choose returns the members this peer opens links to. Up to FullMesh members it is
// all of them. Above, it is the Degree that come first in an order of this boot's
// own: random to everybody else, so that the union of all choices is a random graph
// with about twice that degree (connected with near certainty), and every restart
// draws again. One that cannot be reached makes room for the next.
func (d *dialer) choose() map[peer.ID]bool {
	d.gate.mu.Lock()
	all := make([]peer.ID, 0, len(d.gate.members))
	for p := range d.gate.members {
		all = append(all, p)
	}
	d.gate.mu.Unlock()
	wanted := make(map[peer.ID]bool, len(all))
	d.isLarge = len(all) >= d.cfg.FullMesh
	if !d.isLarge {
		for _, p := range all {
			wanted[p] = true
		}
		return wanted
	}
	rank := make(map[peer.ID]uint64, len(all))
	for _, p := range all {
		h := fnv.New64a()
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, d.id.Boot().Nonce)) // never fails
		_, _ = h.Write([]byte(p))
		rank[p] = h.Sum64()
	}
	slices.SortFunc(all, func(a, b peer.ID) int {
		return cmp.Or(cmp.Compare(rank[a], rank[b]), cmp.Compare(a, b))
	})
	taken := 0
	for _, p := range all {
		if taken == d.cfg.Degree {
			break
		}
		wanted[p] = true
		if t := d.targets[p]; t == nil || t.fails < hopeless {
			taken++
		}
	}
	return wanted
}

// recorded returns the addresses a member's own record names.
func (l *Links) recorded(p peer.ID) []string {
	l.mu.Lock()
	d := l.desired
	l.mu.Unlock()
	if d == nil {
		return nil
	}
	if m, ok := d.Peer(shoal.PeerID(p.String())); ok {
		return m.Facts.Addrs
	}
	return nil
}

// addrsOf returns where a member may be: where it was last reached, what its record
// says, what is remembered beside the key, what identify told; at most 16 addresses,
// then at most 4 circuits.
func (l *Links) addrsOf(p peer.ID) []ma.Multiaddr {
	all := pick(l.gate.loopback, 4*maxAddrs,
		l.seenAt(p), parseAddrs(l.recorded(p)), parseAddrs(l.id.addrsOf(shoal.PeerID(p.String()))), l.host.Peerstore().Addrs(p))
	straight, circuits := withoutCircuits(all), slices.DeleteFunc(all, func(a ma.Multiaddr) bool { return !isCircuit(a) })
	return append(straight[:min(len(straight), maxAddrs)], circuits[:min(len(circuits), 2*maxRelays)]...)
}

func (l *Links) seenAt(p peer.ID) []ma.Multiaddr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[p]
}

// redial links to a member by every address known.
func (l *Links) redial(ctx context.Context, p peer.ID) dialed { return l.dial(ctx, p, l.addrsOf(p)) }

// recheck asks a doubted member again.
func (l *Links) recheck(ctx context.Context, p peer.ID) dialed {
	start := l.clock.Mono()
	_, err := l.Ping(ctx, shoal.PeerID(p.String()), true)
	return dialed{peer: p, err: err, took: l.clock.Mono() - start}
}

// dial tries all addresses of one peer. The swarm has a back-off of its own, which
// would keep us from a peer that just came back: a forced dial skips it. A forced one
// takes no circuits, so where there are some the back-off is made to forget.
func (l *Links) dial(ctx context.Context, p peer.ID, addrs []ma.Multiaddr) dialed {
	start := l.clock.Mono()
	ctx, cancel := context.WithTimeout(ctx, l.cfg.DialTimeout)
	defer cancel()
	if slices.ContainsFunc(addrs, isCircuit) {
		l.locateRelays(addrs)
		if sw, ok := l.host.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
			sw.Backoff().Clear(p)
		}
	} else {
		ctx = network.WithForceDirectDial(ctx, "shoal")
	}
	err := l.host.Connect(ctx, peer.AddrInfo{ID: p, Addrs: addrs})
	return dialed{peer: p, err: err, took: l.clock.Mono() - start}
}

// locateRelays tells the swarm where the relays of circuits are.
func (l *Links) locateRelays(addrs []ma.Multiaddr) {
	for _, a := range addrs {
		if relay, ok := relayOf(a); ok && relay != l.self && l.gate.isMember(relay) && !l.isStraight(relay) {
			l.host.Peerstore().AddAddrs(relay, withoutCircuits(l.addrsOf(relay)), peerstore.TempAddrTTL)
		}
	}
}
