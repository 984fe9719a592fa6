// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
)

// stage is a small cluster in lockstep for the text scenarios: every 10 ms each
// player whose view changed, or whose plan asked for it, decides; what it wrote
// arrives everywhere one tick later; a container is ready one second after its
// start; who is not heard for 5.1 s is dead. Nothing is random.
type stage struct {
	now     time.Duration
	cfg     Config
	peers   []shoal.Peer
	players []*player
	cut     map[[2]string]time.Duration // healed links: since; cut ones: -1
	minted  int
	out     strings.Builder
}

const tick = 10 * time.Millisecond

// player is one peer on the stage.
type player struct {
	id      shoal.PeerID
	up      bool
	mem     Memory
	records map[string]note
	heard   map[shoal.PeerID]time.Duration
	seenUp  map[shoal.PeerID]time.Duration // booted at, as heard
	states  map[shoal.PeerID]*shoal.PeerState
	bootAt  time.Duration
	boxes   map[shoal.ReplicaID]*box
	images  []string // nil: not known
	unknown []string // what stands for that: a full list
	refuses []shoal.Refusal
	dirty   bool
	wake    time.Duration
	said    map[string]string // last wait per service/slot
}

// note is a record: the highest seq of a key counts.
type note struct {
	seq    uint64
	author shoal.PeerID
	fresh  bool
	svc    *shoal.Service
	gone   bool
	scale  *int // "=n"
	add    int  // "+n"; its proposal starts at from
	stop   bool // of "op/"
	from   int
	holds  []shoal.Claim
	let    []shoal.Release
	data   []shoal.Home
	prop   []shoal.PeerID
}

type box struct {
	shoal.ReplicaStatus
	readyAt time.Duration
}

func newStage(names []string) *stage {
	s := &stage{now: later, cfg: LAN(), cut: make(map[[2]string]time.Duration)}
	for _, n := range names {
		name, zone, _ := strings.Cut(n, "/")
		p := shoal.Peer{ID: shoal.PeerID(name), Role: shoal.RoleOperator, Facts: shoal.PeerFacts{
			Name: name, Labels: map[string]string{}, Capacity: shoal.Resources{CPUMilli: 8000, MemBytes: 16 * gib},
		}}
		if zone != "" {
			p.Facts.Labels["zone"] = zone
		}
		s.peers = append(s.peers, p)
	}
	for _, p := range s.peers {
		a := &player{
			id: p.ID, up: true, mem: NewMemory(later - time.Hour), records: make(map[string]note),
			bootAt: later - time.Hour, boxes: make(map[shoal.ReplicaID]*box), dirty: true,
			unknown: make([]string, maxImages),
		}
		a.forget()
		s.players = append(s.players, a)
	}
	s.run(5 * time.Second)
	for _, a := range s.players {
		a.mem.returnedAt, a.mem.graceUntil = never, never
	}
	s.now = later
	return s
}

// forget empties what a peer knows by beats only.
func (a *player) forget() {
	a.heard = make(map[shoal.PeerID]time.Duration)
	a.seenUp = make(map[shoal.PeerID]time.Duration)
	a.states = make(map[shoal.PeerID]*shoal.PeerState)
	a.said = make(map[string]string)
}

func (s *stage) player(id shoal.PeerID) *player {
	i := slices.IndexFunc(s.players, func(a *player) bool { return a.id == id })
	if i < 0 {
		return nil
	}
	return s.players[i]
}

func link(a, b shoal.PeerID) [2]string {
	return [2]string{string(min(a, b)), string(max(a, b))}
}

func (s *stage) linked(a, b *player) bool {
	at, known := s.cut[link(a.id, b.id)]
	return a.up && b.up && (!known || at >= 0)
}

// live reports whether what travels between a and b now is a push, not a sync.
func (s *stage) live(a, b *player) bool {
	since := max(s.cut[link(a.id, b.id)], a.bootAt, b.bootAt)
	return s.now-since > 100*time.Millisecond
}

func (s *stage) log(a *player, format string, args ...any) {
	fmt.Fprintf(&s.out, "%8.2fs %s %s\n", (s.now - later).Seconds(), a.id, fmt.Sprintf(format, args...))
}

// run lets time pass.
func (s *stage) run(d time.Duration) {
	for end := s.now + d; s.now < end; s.now += tick {
		s.beats()
		for _, a := range s.players {
			if a.up && (a.dirty || a.wake > 0 && s.now >= a.wake) {
				a.dirty, a.wake = false, 0
				s.act(a)
			}
		}
		s.share()
	}
}

// beats lets containers become ready and peers hear each other.
func (s *stage) beats() {
	for _, a := range s.players {
		ids := slices.SortedFunc(maps.Keys(a.boxes), func(x, y shoal.ReplicaID) int { return slices.Compare(x[:], y[:]) })
		for _, id := range ids {
			if b := a.boxes[id]; a.up && b.Phase == shoal.PhaseStarting && s.now >= b.readyAt {
				b.Phase = shoal.PhaseReady
				s.log(a, "ready %s/%d", b.Service, b.Slot)
				a.dirty = true
			}
		}
		for _, o := range s.players {
			if a == o || !a.up {
				continue
			}
			before := a.life(o.id, s.now-tick).State
			if s.linked(a, o) {
				a.heard[o.id], a.seenUp[o.id] = s.now, o.bootAt
			}
			if a.life(o.id, s.now).State != before {
				a.dirty = true
			}
		}
	}
}

// life is what a thinks of another.
func (a *player) life(id shoal.PeerID, now time.Duration) shoal.Life {
	heard, ok := a.heard[id]
	if !ok {
		return shoal.Life{}
	}
	l := shoal.Life{State: shoal.LifeAlive, Heard: heard, Uptime: heard - a.seenUp[id]}
	switch silent := now - heard; {
	case silent >= 5100*time.Millisecond:
		l.State = shoal.LifeDead
	case silent >= 3*time.Second:
		l.State = shoal.LifeSuspect
	}
	return l
}

// share copies records and states between peers that reach each other.
func (s *stage) share() {
	type parcel struct {
		to    *player
		from  shoal.PeerID
		key   string
		note  note
		state *shoal.PeerState
	}
	var post []parcel
	for _, a := range s.players {
		a.states[a.id] = a.state()
		for _, o := range s.players {
			if a == o || !s.linked(a, o) {
				continue
			}
			for key, n := range a.records {
				if n.newer(o.records[key]) {
					n.fresh = s.live(a, o)
					post = append(post, parcel{to: o, key: key, note: n})
				}
			}
			post = append(post, parcel{to: o, from: a.id, state: a.states[a.id]})
		}
	}
	for _, p := range post {
		switch {
		case p.state != nil:
			if !sameState(p.to.states[p.from], p.state) {
				p.to.states[p.from] = p.state
				p.to.dirty = true
			}
		case p.note.newer(p.to.records[p.key]):
			p.to.records[p.key] = p.note
			p.to.dirty = true
		}
	}
}

func (n note) newer(o note) bool {
	return cmp.Or(cmp.Compare(n.seq, o.seq), cmp.Compare(n.author, o.author)) > 0
}

func sameState(a, b *shoal.PeerState) bool {
	return a != nil && len(a.Images) == len(b.Images) && (len(a.Images) == maxImages || slices.Equal(a.Images, b.Images)) &&
		slices.Equal(a.Refusals, b.Refusals) && slices.EqualFunc(a.Replicas, b.Replicas, func(x, y shoal.ReplicaStatus) bool {
		return x.ID == y.ID && x.Phase == y.Phase && x.Slot == y.Slot
	})
}

func (a *player) state() *shoal.PeerState {
	st := &shoal.PeerState{Images: a.images, Refusals: a.refuses}
	if a.images == nil {
		st.Images = a.unknown
	}
	for _, b := range a.boxes {
		st.Replicas = append(st.Replicas, b.ReplicaStatus)
	}
	slices.SortFunc(st.Replicas, func(x, y shoal.ReplicaStatus) int { return slices.Compare(x.ID[:], y.ID[:]) })
	return st
}

// view is what a sees.
func (s *stage) view(a *player) *shoal.View {
	k := &kit{peers: s.peers, lives: make(map[shoal.PeerID]shoal.Life), states: maps.Clone(a.states)}
	k.states[a.id] = a.state()
	for _, o := range s.players {
		k.lives[o.id] = a.life(o.id, s.now)
	}
	for key, n := range a.records {
		k.claims = append(k.claims, n.holds...)
		k.releases = append(k.releases, n.let...)
		k.homes = append(k.homes, n.data...)
		if n.gone {
			k.gone = append(k.gone, shoal.GoneBody{Service: strings.TrimPrefix(key, "service/")})
		}
		if n.svc != nil {
			k.services = append(k.services, a.fold(n))
		}
	}
	slices.SortFunc(k.releases, func(x, y shoal.Release) int {
		return cmp.Or(cmp.Compare(x.Service, y.Service), cmp.Compare(x.Slot, y.Slot), cmp.Compare(x.Holder, y.Holder))
	})
	return k.view(a.id)
}

// fold joins a service's record with the newest "=n" of it and every "+n".
func (a *player) fold(n note) shoal.Service {
	svc := *n.svc
	svc.Wish, svc.Fresh, svc.Proposed = shoal.RevisionID{Seq: n.seq, Author: n.author}, n.fresh, n.prop
	base := n
	if sc, ok := a.records["scale/"+svc.Spec.Name]; ok && sc.seq > n.seq {
		svc.Replicas, svc.Proposed, base = *sc.scale, sc.prop, sc
	}
	var adds []note
	for key, o := range a.records {
		if strings.HasPrefix(key, "add/"+svc.Spec.Name+"/") {
			svc.Replicas += o.add
			adds = append(adds, o)
		}
	}
	slices.SortFunc(adds, func(x, y note) int {
		return cmp.Or(cmp.Compare(x.seq, y.seq), cmp.Compare(x.author, y.author))
	})
	for _, o := range adds {
		if o.newer(base) {
			base = o
		}
		svc.Proposed = append(slices.Clone(svc.Proposed[:min(o.from, len(svc.Proposed))]), o.prop...)
	}
	if op, ok := a.records["op/"+svc.Spec.Name]; ok && op.newer(n) {
		svc.Stopped = op.stop
		if op.newer(base) {
			base = op
		}
	}
	svc.Fresh, svc.Wish = base.fresh, shoal.RevisionID{Seq: base.seq, Author: base.author}
	return svc
}

var spans = regexp.MustCompile(`\d+(\.\d+)?(ms|s|µs)+(\d+(\.\d+)?(ms|s))*|1m[0-9.]+s`)

// act lets a decide and carries its plan out.
func (s *stage) act(a *player) {
	plan, mem := Decide(s.view(a), a.mem, a.id, s.now, s.cfg)
	a.mem, a.wake = mem, plan.Wake
	why := func(service string, slot int) string { return strings.Join(sentences(plan, service, slot), "; ") }
	spoken := make(map[string]bool)
	for _, c := range plan.Claims {
		s.claim(a, c, why(c.Service, c.Slot))
		spoken[fmt.Sprintf("%s/%d", c.Service, c.Slot)] = true
	}
	for _, d := range plan.Releases {
		s.release(a, d, why(d.Service, d.Slot))
		spoken[fmt.Sprintf("%s/%d", d.Service, d.Slot)] = true
	}
	for _, id := range plan.Start {
		s.start(a, id)
	}
	for _, r := range plan.Reasons {
		key := fmt.Sprintf("%s/%d", r.Service, r.Slot)
		if text := spans.ReplaceAllString(r.Text, "_"); !spoken[key] && a.said[key] != text {
			a.said[key] = text
			s.log(a, "waits %s: %s", strings.TrimSuffix(key, "/-1"), r.Text)
		}
	}
	for _, from := range plan.Pulls {
		s.pull(a, from)
	}
}

func (s *stage) pull(a *player, from shoal.PeerID) {
	for _, o := range s.players {
		if o == a || !s.linked(a, o) || from != "" && o.id != from {
			continue
		}
		s.log(a, "pulls from %s", cmp.Or(string(from), "two others"))
		for key, n := range o.records {
			if n.newer(a.records[key]) {
				n.fresh = false
				a.records[key] = n
			}
		}
		a.mem = a.mem.Pulled(from, s.now)
		a.dirty = true
		return
	}
	s.log(a, "pulls from %s in vain", cmp.Or(string(from), "two others"))
}

// draft returns a's claim record of a service, to be changed and written.
func (a *player) draft(service string) note {
	n := a.records["claim/"+service+"/"+string(a.id)]
	n.holds, n.let, n.data = slices.Clone(n.holds), slices.Clone(n.let), slices.Clone(n.data)
	n.seq, n.author = n.seq+1, a.id
	return n
}

// keep notes whether a slot's data is here: a claim only adds, a release decides.
func (n *note) keep(self shoal.PeerID, service string, slot int, data, let bool) {
	h := shoal.Home{Peer: self, Service: service, Slot: slot}
	if data || let {
		n.data = slices.DeleteFunc(n.data, func(o shoal.Home) bool { return o == h })
	}
	if data {
		n.data = append(n.data, h)
	}
}

func (a *player) write(service string, n note) {
	a.records["claim/"+service+"/"+string(a.id)] = n
	a.dirty = true
}

func (s *stage) claim(a *player, c NewClaim, why string) {
	n := a.draft(c.Service)
	made := shoal.Claim{
		Holder: a.id, Service: c.Service, Slot: c.Slot, Revision: c.Revision, Replica: c.Reuse,
		Since: shoal.HLC{WallMilli: s.now.Milliseconds()},
	}
	how := ""
	switch {
	case !c.Reuse.IsZero():
		how = fmt.Sprintf(" with the replica of slot %d", c.LeavesSlot)
		n.let = append(n.let, shoal.Release{Holder: a.id, Service: c.Service, Slot: c.LeavesSlot, Replica: c.Reuse, YieldTo: c.YieldTo})
		a.boxes[c.Reuse].Slot = c.Slot
	default:
		s.minted++
		made.Replica[0], made.Replica[1] = byte(s.minted>>8), byte(s.minted)
		made.Outcome = c.Outcome
	}
	if !c.Replaces.IsZero() {
		how = fmt.Sprintf(" at revision %d", c.Revision.Seq)
		delete(a.boxes, c.Replaces)
	}
	n.holds = slices.DeleteFunc(n.holds, func(o shoal.Claim) bool {
		if o.Replica == c.Reuse {
			made.Outcome = o.Outcome
		}
		return o.Replica == c.Reuse || o.Replica == c.Replaces
	})
	n.holds = append(n.holds, made)
	n.keep(a.id, c.Service, c.Slot, c.Data, false)
	a.write(c.Service, n)
	s.log(a, "claims %s/%d%s: %s", c.Service, c.Slot, how, why)
}

func (s *stage) release(a *player, d Drop, why string) {
	n := a.draft(d.Service)
	n.holds = slices.DeleteFunc(n.holds, func(o shoal.Claim) bool { return o.Replica == d.Replica })
	n.let = append(n.let, shoal.Release{Holder: a.id, Service: d.Service, Slot: d.Slot, Replica: d.Replica, YieldTo: d.YieldTo})
	delete(a.boxes, d.Replica)
	n.keep(a.id, d.Service, d.Slot, d.Data, true)
	a.write(d.Service, n)
	s.log(a, "drops  %s/%d: %s", d.Service, d.Slot, strings.TrimPrefix(why, "released: "))
}

func (s *stage) start(a *player, id shoal.ReplicaID) {
	if a.boxes[id] != nil {
		return
	}
	for _, n := range a.records {
		for _, c := range n.holds {
			if c.Holder == a.id && c.Replica == id {
				a.boxes[id] = &box{readyAt: s.now + time.Second, ReplicaStatus: shoal.ReplicaStatus{
					ID: id, Service: c.Service, Slot: c.Slot, Revision: c.Revision, Phase: shoal.PhaseStarting,
				}}
				s.log(a, "starts %s/%d", c.Service, c.Slot)
				a.dirty = true
				return
			}
		}
	}
}
