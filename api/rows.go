// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// States of a row that are no phase.
const (
	stateSilent   = "silent"
	stateUnplaced = "unplaced"
	stateWaiting  = "waiting"   // for another service, or the slot of a job for others to end
	stateDone     = "completed" // of a job
)

// pane is one view read for listings, with what takes a pass over everything.
type pane struct {
	view  *shoal.View
	now   time.Duration    // own monotonic clock
	wall  time.Time        // the machine's civil time; zero: not asked for
	runs  map[string][]run // every replica that peers tell of, by service
	names map[shoal.PeerID]string
}

// run is a replica as its holder tells of it.
type run struct {
	holder shoal.PeerID
	status *shoal.ReplicaStatus
}

func newPane(view *shoal.View, now time.Duration) *pane {
	p := &pane{view: view, now: now, runs: map[string][]run{}, names: map[shoal.PeerID]string{}}
	for i := range view.Peers() {
		peer := &view.Peers()[i]
		p.names[peer.ID] = peer.Name()
		state := view.State(peer.ID)
		if state == nil {
			continue
		}
		for j := range state.Replicas {
			st := &state.Replicas[j]
			p.runs[st.Service] = append(p.runs[st.Service], run{peer.ID, st})
		}
	}
	return p
}

func (p *pane) name(id shoal.PeerID) string {
	if id == "" {
		return ""
	}
	return cmp.Or(p.names[id], id.Short())
}

// freshness says how much of the cluster this view is made of.
func (p *pane) freshness(trouble string) *shoalv1.Freshness {
	f := &shoalv1.Freshness{NewestSeconds: -1, Trouble: trouble, Agree: 1}
	own := p.view.Desired().Digest
	for i := range p.view.Peers() {
		peer := &p.view.Peers()[i]
		if peer.Removed || peer.Left() {
			continue
		}
		f.Members++
		if peer.ID == p.view.Self() {
			f.Heard++
			continue
		}
		life := p.view.Life(peer.ID)
		age := p.seen(peer.ID)
		if life.State != shoal.LifeUnknown && (f.NewestSeconds < 0 || age < f.NewestSeconds) {
			f.NewestSeconds = age
		}
		if life.State == shoal.LifeAlive {
			f.Heard++
			f.OldestSeconds = max(f.OldestSeconds, age)
			if life.Digest == own {
				f.Agree++
			} else {
				f.Differ = append(f.Differ, peer.Name())
			}
			continue
		}
		f.Silent = append(f.Silent, &shoalv1.SilentPeer{
			Id: string(peer.ID), Name: peer.Name(), State: life.State.String(), AgeSeconds: age,
		})
	}
	slices.Sort(f.Differ)
	slices.SortFunc(f.Silent, func(a, b *shoalv1.SilentPeer) int { return cmp.Compare(a.Name, b.Name) })
	return f
}

// seen returns the seconds since a peer's newest news, -1 if there never was any.
func (p *pane) seen(id shoal.PeerID) float64 {
	life := p.view.Life(id)
	switch {
	case id == p.view.Self():
		return 0
	case life.State == shoal.LifeUnknown:
		return -1
	}
	return max(0, p.now-life.Heard).Seconds()
}

// service makes a service's row. want is the number of replicas it should have.
func (p *pane) service(s *shoal.Service, want int) *shoalv1.ServiceRow {
	row := &shoalv1.ServiceRow{
		Name: s.Spec.Name, Mode: string(s.Spec.Mode), Project: s.Spec.Project, Image: s.Spec.Image,
		Want: int32(want), Revision: revision(s.Revision), Labels: s.Spec.Labels, Accepted: stamp(s.Accepted.WallMilli),
		IsStopped: s.Stopped,
	}
	if s.Spec.Mode.IsJob() {
		row.Job = p.job(s)
	}
	held, ready := map[int]bool{}, map[int]bool{}
	for _, c := range p.view.ClaimsOf(s.Spec.Name) {
		if !p.view.Alive(c.Holder) && !p.over(s, c) {
			continue
		}
		held[c.Slot] = true
	}
	for _, c := range p.ready(s.Spec.Name) {
		ready[c.Slot] = true
	}
	row.Ready = int32(min(want, len(ready)))
	if p.view.Waits(s) == "" {
		row.Unplaced = int32(max(0, want-len(held)-len(p.shut(s, want))))
	}
	for _, port := range s.Spec.Ports {
		row.Ports = append(row.Ports, &shoalv1.Port{
			Container: uint32(port.Container), Published: uint32(port.Published), Protocol: port.Protocol, Host: port.Host,
		})
	}
	for _, c := range p.view.Desired().Conflicts {
		if c.Service == s.Spec.Name {
			row.Conflicts++
		}
	}
	return row
}

// replicas makes the rows of a service: one per claim, one per wanted slot that
// nobody claims. The service may be gone while its last claims are.
func (p *pane) replicas(name string, want int, why func(slot int) string) []*shoalv1.ReplicaRow {
	svc, known := p.view.Service(name)
	var rows []*shoalv1.ReplicaRow
	held := map[int]bool{}
	for _, c := range p.view.ClaimsOf(name) {
		held[c.Slot] = true
		rows = append(rows, p.replica(svc, c))
	}
	if !known || svc.Spec.Mode.IsGlobal() {
		return rows
	}
	waits, shut := p.view.Waits(svc), p.shut(svc, want)
	for slot := range want {
		if held[slot] {
			continue
		}
		row := &shoalv1.ReplicaRow{
			Service: name, Slot: int32(slot), State: stateUnplaced,
			Image: svc.Spec.Image, Digest: svc.Spec.Digest, Revision: revision(svc.Revision), IsCurrent: true,
		}
		switch {
		case waits != "":
			row.State, row.Reason = stateWaiting, waits
		case shut[slot]:
			row.State, row.Reason = stateWaiting, fmt.Sprintf("waits for its turn: %d at once", svc.Spec.Job.Parallelism)
		default:
			row.Reason = why(slot)
		}
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b *shoalv1.ReplicaRow) int { return cmp.Compare(a.Slot, b.Slot) })
	return rows
}

func (p *pane) replica(svc *shoal.Service, c shoal.Claim) *shoalv1.ReplicaRow {
	row := &shoalv1.ReplicaRow{
		Service: c.Service, Slot: int32(c.Slot), Replica: c.Replica.String(),
		Peer: string(c.Holder), PeerName: p.name(c.Holder), State: shoal.PhasePending.String(), Revision: revision(c.Revision),
	}
	if svc != nil {
		row.IsCurrent = c.Revision == svc.Revision
		row.Image = svc.Spec.Image
	}
	if row.GetIsCurrent() {
		row.Digest = svc.Spec.Digest
	}
	if st, ok := p.view.Replica(c.Replica); ok {
		if !row.GetIsCurrent() && st.Image != "" { // the spec that named it is not kept
			row.Image = st.Image
		}
		row.State, row.Health, row.Reason = st.Phase.String(), st.Health, st.Reason
		row.Restarts, row.ExitCode = int32(st.Restarts), int32(st.ExitCode)
		row.Addr, row.Container = st.Addr, st.Container
		row.Digest = cmp.Or(row.GetDigest(), st.Image) // the engine's ID of an image that has none
		row.Ports = bindings(st.Ports)
		row.Started = stamp(st.StartedAt * 1000)
	}
	switch {
	case p.over(svc, c):
		p.ended(row, svc, c)
	case !p.view.Alive(c.Holder):
		row.Reason = fmt.Sprintf("%s %s; last said %s", row.PeerName, p.silence(c.Holder), row.State)
		if p.awaits(svc, c) {
			row.Reason = fmt.Sprintf("waits for its data on %s, %s; last said %s", row.PeerName, p.unheard(c.Holder), row.State)
		}
		row.State = stateSilent
	}
	return row
}

// awaits reports whether a slot stays with a holder that is not heard: its data is
// there, the holder did not go for good, and nobody else holds the slot too.
func (p *pane) awaits(svc *shoal.Service, c shoal.Claim) bool {
	holder, ok := p.view.Peer(c.Holder)
	if svc == nil || !svc.Spec.StaysHome() || !ok || holder.Removed || holder.Facts.Leaving {
		return false
	}
	return !slices.ContainsFunc(p.view.ClaimsOf(c.Service), func(o shoal.Claim) bool { return o.Slot == c.Slot && p.view.Alive(o.Holder) })
}

func (p *pane) silence(id shoal.PeerID) string { return p.silentFor(id, "silent ") }

// unheard is silence in the words of a sentence.
func (p *pane) unheard(id shoal.PeerID) string { return p.silentFor(id, "not heard for ") }

func (p *pane) silentFor(id shoal.PeerID, since string) string {
	age := p.seen(id)
	if age < 0 {
		return "not heard since this daemon's start"
	}
	return since + (time.Duration(age) * time.Second).String()
}

// peer makes a member's row.
func (p *pane) peer(m *shoal.Peer) *shoalv1.PeerRow {
	life := p.view.Life(m.ID)
	row := &shoalv1.PeerRow{
		Id: string(m.ID), Name: m.Name(), State: peerState(m, life), IsSelf: m.ID == p.view.Self(),
		SeenSeconds: p.seen(m.ID), RttSeconds: life.RTT.Seconds(), Role: string(m.Role), Zone: m.Zone(), Labels: m.Facts.Labels,
		Used:   resources(shoal.Resources{}),
		Engine: m.Facts.Engine, EngineApi: m.Facts.EngineAPI, Version: m.Facts.Version,
		IsCordoned: m.Cordoned, IsDraining: m.Draining, Platforms: m.Facts.Platforms, Addrs: plainAddrs(m.Facts.Addrs), PublishAddr: m.Facts.PublishAddr,
		AllowedPolicy: m.Facts.AllowedPolicy,
		Replicas:      int32(len(p.view.ClaimsBy(m.ID))),
	}
	st := p.view.State(m.ID)
	row.Capacity, row.Allocatable, row.Free = room(&m.Facts, st)
	if st != nil {
		row.Used, row.Trouble = resources(st.Used), st.Trouble
		if st.Engine.Down {
			row.EngineTrouble = cmp.Or(st.Engine.Reason, "does not answer")
		}
	}
	return row
}

// room says how much a peer has, how much of it is for containers, and what is free of
// that; nil while its records do not tell. Its beats (st, nil if it is not heard) may
// have come before the records, or before a change of them.
func room(f *shoal.PeerFacts, st *shoal.PeerState) (capacity, alloc, free *shoalv1.Resources) {
	if f.Capacity == (shoal.Resources{}) {
		return nil, nil, nil
	}
	has := f.Allocatable()
	var taken shoal.Resources
	if st != nil {
		taken = positive(has.Sub(st.Free))
	}
	has = positive(has)
	return resources(f.Capacity), resources(has), resources(has.Sub(taken))
}

func positive(r shoal.Resources) shoal.Resources {
	return shoal.Resources{CPUMilli: max(0, r.CPUMilli), MemBytes: max(0, r.MemBytes)}
}

// said tells which marks and edits of a peer count, and whose they are.
func (p *pane) said(m *shoal.Peer) (marks []*shoalv1.PeerMark, edits []*shoalv1.PeerEdit) {
	by := func(has func(*shoal.MarkBody) bool) *shoalv1.Place {
		out := &shoalv1.Place{}
		for _, author := range slices.Sorted(maps.Keys(m.By)) { // of equal edits the last one counts
			if has(m.By[author]) {
				out = &shoalv1.Place{Peer: string(author), Name: p.name(author)}
			}
		}
		return out
	}
	for _, x := range m.Marks {
		marks = append(marks, &shoalv1.PeerMark{Drain: x.Drain, By: by(func(b *shoal.MarkBody) bool { return slices.Contains(b.Laid, x) })})
	}
	for _, x := range m.Edits {
		if x.Own {
			continue
		}
		own := m.Own.Labels[x.Label]
		if x.Label == "" {
			own = m.Own.Name
		}
		edits = append(edits, &shoalv1.PeerEdit{
			Label: x.Label, Value: x.Value, Gone: x.Gone, Own: own, By: by(func(b *shoal.MarkBody) bool { return slices.Contains(b.Edits, x) }),
		})
	}
	return marks, edits
}

func peerState(m *shoal.Peer, life shoal.Life) string {
	switch {
	case m.Removed:
		return "removed"
	case m.Left():
		return "left"
	case m.Facts.Leaving:
		return "leaving"
	}
	return life.State.String()
}

func revision(r shoal.RevisionID) *shoalv1.RevisionID {
	if r.IsZero() {
		return nil
	}
	return &shoalv1.RevisionID{Seq: r.Seq, Author: string(r.Author)}
}

func resources(r shoal.Resources) *shoalv1.Resources {
	return &shoalv1.Resources{CpuMilli: r.CPUMilli, MemBytes: r.MemBytes}
}

func bindings(in []shoal.PortBinding) []*shoalv1.PortBinding {
	out := make([]*shoalv1.PortBinding, len(in))
	for i, b := range in {
		out[i] = &shoalv1.PortBinding{Container: uint32(b.Container), Protocol: b.Protocol, HostIp: b.HostIP, HostPort: uint32(b.HostPort)}
	}
	return out
}

// stamp returns nil for the time that means "never".
func stamp(milli int64) *timestamppb.Timestamp {
	if milli == 0 {
		return nil
	}
	return timestamppb.New(time.UnixMilli(milli))
}

// masked returns a spec's message whose environment shows names only.
func masked(spec *shoal.Spec, show bool) *shoalv1.Spec {
	m := proto.SpecMessage(spec)
	if show {
		return m
	}
	hide := func(env map[string]string) map[string]string {
		out := maps.Clone(env)
		for k := range out {
			out[k] = "***"
		}
		return out
	}
	m.Env = hide(m.Env)
	if m.PreDeploy != nil { // made for this message
		m.PreDeploy.Env = hide(m.PreDeploy.Env)
	}
	return m
}

// plainAddrs turns multiaddresses into the HOST:PORT that people know, each once:
// TCP and QUIC share a port.
func plainAddrs(in []string) []string {
	var out []string
	for _, a := range in {
		plain := a
		switch p := strings.Split(a, "/"); {
		case len(p) >= 5 && (p[3] == "tcp" || p[3] == "udp"): // "", ip4, HOST, tcp, PORT
			plain = net.JoinHostPort(p[2], p[4])
		case len(p) == 4 && p[3] == "p2p-circuit": // "", p2p, RELAY, p2p-circuit
			plain = "through " + shoal.PeerID(p[2]).Short()
		}
		if !slices.Contains(out, plain) {
			out = append(out, plain)
		}
	}
	return out
}
