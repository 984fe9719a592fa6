// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// loadFactor is how far above the average of its tier the open connections of a replica
// may be when hash gives it one more. Nearer to 1 more clients move, farther the fullest
// is fuller; 1.25 moves few.
const loadFactor = 1.25

// calm are open connections that fill nobody, however low the average is: a browser opens
// six at once, which should go to the same replica.
const calm = 8

// Pick returns the replica that a new connection of client goes to, and counts it as
// open: each pick ends with one Closed or Refused. tried are those that refused this
// connection before; they are not returned. false: nobody is eligible, or all of them
// were tried.
//
// When all that could be picked are left out because of refusals, the one whose wait ends
// first is returned, near or far: a service whose replicas all refused a moment ago should
// answer as soon as one of them does.
//
// client counts for hash only. now is this peer's monotonic time. The tried are searched
// one by one, so a caller bounds its attempts.
func (t *Table) Pick(client netip.Addr, tried []shoal.ReplicaID, now time.Duration) (Backend, bool) {
	e := t.choose(t.candidates(tried, now), client, now)
	if e == nil {
		e = t.leastBad(tried)
	}
	if e == nil {
		return Backend{}, false
	}
	t.turn++
	e.turn = t.turn
	e.open++
	e.trial = e.trial || e.refusals > 0 && now >= e.until
	return e.Backend, true
}

// candidates returns those of the nearest tier that may be picked.
func (t *Table) candidates(tried []shoal.ReplicaID, now time.Duration) []*entry {
	begin := 0
	for _, end := range t.ends {
		tier := t.eligible[begin:end]
		begin = end
		if t.refusing > 0 || len(tried) > 0 {
			t.scratch = t.scratch[:0]
			for _, e := range tier {
				if e.able(now) && !slices.Contains(tried, e.Replica) {
					t.scratch = append(t.scratch, e)
				}
			}
			tier = t.scratch
		}
		if len(tier) > 0 {
			return tier
		}
	}
	return nil
}

// able reports whether e is not left out. After the wait one connection goes ahead to see,
// and the others follow when it is accepted: where a dead one does not refuse but is silent
// until a deadline, one client waits for that and not many. nginx does the same since it
// found up to 23 % of its requests at one dead server (the change that brought smooth).
func (e *entry) able(now time.Duration) bool {
	return e.refusals == 0 || now >= e.until && !e.trial
}

// leastBad returns the eligible one that was not tried whose wait ends first.
func (t *Table) leastBad(tried []shoal.ReplicaID) *entry {
	var best *entry
	for _, e := range t.eligible {
		if slices.Contains(tried, e.Replica) {
			continue
		}
		if best == nil || e.until < best.until || e.until == best.until && e.turn < best.turn {
			best = e
		}
	}
	return best
}

// choose applies the policy; nil if there is nobody to choose from.
func (t *Table) choose(from []*entry, client netip.Addr, now time.Duration) *entry {
	if len(from) == 0 {
		return nil
	}
	switch t.policy {
	case shoal.LBRoundRobin:
		return longestAgo(from)
	case shoal.LBWeighted:
		return smooth(from)
	case shoal.LBLeastConn:
		return lightest(from)
	case shoal.LBLeastTime:
		return soonest(from, now)
	case shoal.LBHash:
		return hashed(from, client)
	case shoal.LBRandom:
		return from[t.rand.below(len(from))]
	default: // shoal.LBP2C
		return t.ofTwo(from)
	}
}

func longestAgo(from []*entry) *entry {
	best := from[0]
	for _, e := range from[1:] {
		if e.turn < best.turn {
			best = e
		}
	}
	return best
}

// smooth is the smooth weighted round robin of nginx (2012, ngx_http_upstream_round_robin.c):
// all are credited their weight, and who has most is taken and pays what was handed out.
// Over a cycle, as many picks as the sum of the weights, each has its share exactly, and
// weights of 5, 1, 1 give a a b a c a a.
func smooth(from []*entry) *entry {
	var total int64
	best := from[0]
	for _, e := range from {
		e.current += int64(e.Weight)
		total += int64(e.Weight)
		if e.current > best.current {
			best = e
		}
	}
	best.current -= total
	return best
}

func lightest(from []*entry) *entry {
	best := from[0]
	for _, e := range from[1:] {
		if e.lighter(best) {
			best = e
		}
	}
	return best
}

// lighter reports whether e would have fewer open connections a weight than o with one
// more each; among equals the one picked longest ago is lighter.
func (e *entry) lighter(o *entry) bool {
	a, b := (e.open+1)*o.Weight, (o.open+1)*e.Weight
	return a < b || a == b && e.turn < o.turn
}

// ofTwo draws two and takes the lighter. The fullest of n is then about ln ln n above the
// average, however high that is; with one draw it is above by some sqrt(average * 2 ln n)
// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001; Berenbrink
// et al., "Balanced Allocations: The Heavily Loaded Case", 2006).
func (t *Table) ofTwo(from []*entry) *entry {
	i := t.rand.below(len(from))
	if len(from) == 1 {
		return from[i]
	}
	j := t.rand.below(len(from) - 1)
	if j >= i {
		j++
	}
	if from[j].lighter(from[i]) {
		return from[j]
	}
	return from[i]
}

func soonest(from []*entry, now time.Duration) *entry {
	best, least := from[0], from[0].delay(now)
	for _, e := range from[1:] {
		d := e.delay(now)
		if d < least || d == least && e.turn < best.turn {
			best, least = e, d
		}
	}
	return best
}

// delay is what one more connection may cost, in nanoseconds: connect and first byte,
// times the connections there would be. Of one that was never measured nothing is known:
// one connection goes there to see, and no more before it is.
func (e *entry) delay(now time.Duration) float64 {
	switch {
	case e.connect.known || e.first.known:
		return (e.connect.read(now) + e.first.read(now)) * float64(e.open+1)
	case e.open > 0:
		return math.Inf(1)
	}
	return 0
}

// hashed gives a client the replica that ranks highest for its address and is not full
// (rendezvous: Thaler and Ravishankar, 1998; full: Mirrokni, Thorup and Zadimoghaddam,
// "Consistent Hashing with Bounded Loads", 2016). Rendezvous and not a ring: it needs no
// table, what a replica that goes leaves is spread over all others and not heaped on the
// next, and looking at all of some ten replicas costs less than searching a ring.
//
// It ranks slots, so that a client comes back to its slot after the replica in it was
// replaced; two replicas of one slot share its clients. No seed is in it: a client finds
// the same replica through every peer. Who chooses addresses that meet in one replica
// fills it, and goes elsewhere.
func hashed(from []*entry, client netip.Addr) *entry {
	total := 1
	for _, e := range from {
		total += e.open
	}
	// Not all are full: their sum would be above total.
	full := max(calm, int(math.Ceil(loadFactor*float64(total)/float64(len(from)))))
	raw := client.As16() // IPv4 and the same in IPv6 are equal; zones do not count
	key := mix(binary.BigEndian.Uint64(raw[:8]) ^ mix(binary.BigEndian.Uint64(raw[8:])))
	var best *entry
	var bestSlot, bestID uint64
	for _, e := range from {
		if e.open >= full {
			continue
		}
		slot, id := mix(key^e.slotHash), mix(key^e.idHash)
		if best == nil || slot > bestSlot || slot == bestSlot && id > bestID {
			best, bestSlot, bestID = e, slot, id
		}
	}
	return best
}
