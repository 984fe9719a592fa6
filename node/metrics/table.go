// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"maps"
	"slices"
	"strconv"

	"github.com/shoalnet/shoal"
)

// kind is what Prometheus calls the type of a metric.
type kind string

const (
	gauge     kind = "gauge"     // goes up and down
	counter   kind = "counter"   // only grows, and begins at 0 with the daemon
	histogram kind = "histogram" // durations, by buckets
)

// family is one metric: a row of the table, and how its values are read off a snapshot.
// One of numbers and durations is set.
type family struct {
	name   string
	kind   kind
	labels []string
	help   string // one sentence, without a full stop

	numbers   func(s *Snapshot, add func(value float64, labels ...string))
	durations func(s *Snapshot, add func(h shoal.Histogram, labels ...string))
}

// adder takes one value with those of its labels.
type adder = func(value float64, labels ...string)

// families are all metrics of ours, in the order of docs/metrics.md.
var families = slices.Concat(aboutPeers, aboutStore, aboutReplicas, aboutServices, aboutIngress, aboutImages)

var aboutPeers = []family{
	{
		name: "shoal_build_info", kind: gauge, labels: []string{"version"},
		help:    "Always 1; the label is the version of this daemon",
		numbers: func(s *Snapshot, add adder) { add(1, s.Status.Version) },
	},
	{
		name: "shoal_self_info", kind: gauge, labels: []string{"peer", "peer_id", "cluster"},
		help: "Always 1; the labels name this peer and its cluster, and are empty where there is none",
		numbers: func(s *Snapshot, add adder) {
			add(1, s.name(s.Status.Self), string(s.Status.Self), string(s.Status.Cluster))
		},
	},
	{
		name: "shoal_self_in_trouble", kind: gauge,
		help:    "1 while this peer takes no slots because something is wrong with it itself, or others removed it; shoal doctor says what",
		numbers: func(s *Snapshot, add adder) { add(truth(s.Status.Trouble != "")) },
	},
	{
		name: "shoal_peers", kind: gauge, labels: []string{"state"},
		help:    "Members by what this peer believes of them (alive, suspect, dead, returning, unknown), itself included",
		numbers: peersByState,
	},
	{
		name: "shoal_peer_rtt_seconds", kind: gauge, labels: []string{"peer", "peer_id"},
		help: "Round trip of the last ping of a member that was answered",
		numbers: ofLinks(func(s *Snapshot, l Link, add adder) {
			if l.RTT > 0 {
				add(l.RTT.Seconds())
			}
		}),
	},
	{
		name: "shoal_peer_ping_loss_ratio", kind: gauge, labels: []string{"peer", "peer_id"},
		help: "Part of the last 20 pings of a member that was not answered in time, 0 to 1",
		numbers: ofLinks(func(s *Snapshot, l Link, add adder) {
			if l.Pings > 0 {
				add(float64(l.Lost) / float64(l.Pings))
			}
		}),
	},
	{
		name: "shoal_peer_path_info", kind: gauge, labels: []string{"peer", "peer_id", "path", "by", "transport"},
		help: "Always 1; the labels say how this peer reaches a member: path is direct, punched, relayed or none, by is the relay's name, transport is tcp or quic",
		numbers: ofLinks(func(s *Snapshot, l Link, add adder) {
			if l.Path == "" {
				add(1, "none", "", "")
				return
			}
			add(1, l.Path, s.name(l.By), l.Transport)
		}),
	},
}

var aboutStore = []family{
	{
		name: "shoal_store_records", kind: gauge, help: "Records that this peer holds, superseded ones included",
		numbers: ofStore(func(s *shoal.StoreStatus) float64 { return float64(s.Records) }),
	},
	{
		name: "shoal_store_live_records", kind: gauge, help: "Records that count: no newer one replaced them",
		numbers: ofStore(func(s *shoal.StoreStatus) float64 { return float64(s.Live) }),
	},
	{
		name: "shoal_store_blocks", kind: gauge, help: "Blocks that this peer holds records in",
		numbers: ofStore(func(s *shoal.StoreStatus) float64 { return float64(s.Blocks) }),
	},
	{
		name: "shoal_store_refused_blocks_total", kind: counter, labels: []string{"reason"}, help: "Blocks from other peers that were not taken, by reason",
		numbers: func(s *Snapshot, add adder) {
			if s.Status.Store != nil {
				byReason(s.Status.Store.Refused, add)
			}
		},
	},
	{
		name: "shoal_store_agreeing_peers", kind: gauge,
		help:    "Members heard whose records are the same as this peer's, itself included",
		numbers: func(s *Snapshot, add adder) { agreement(s, add, true) },
	},
	{
		name: "shoal_store_differing_peers", kind: gauge,
		help:    "Members heard whose records are not the same as this peer's; for a moment after a change that is as it should be",
		numbers: func(s *Snapshot, add adder) { agreement(s, add, false) },
	},
}

var aboutReplicas = []family{
	{
		name: "shoal_engine_up", kind: gauge, help: "1 if the container engine answered when this peer asked it last, 0 if it did not",
		numbers: ofOwn(func(st *shoal.PeerState, add adder) { add(truth(!st.Engine.Down)) }),
	},
	{
		name: "shoal_replicas", kind: gauge, labels: []string{"service", "phase"}, help: "Replicas that this peer holds, by service and phase",
		numbers: ofOwn(replicasByPhase),
	},
	{
		name: "shoal_replica_restarts", kind: gauge, labels: []string{"service"},
		help:    "How often the replicas that this peer holds now were started again, summed by service; it falls when one of them goes",
		numbers: ofOwn(restarts),
	},
}

// ofLinks reads a metric of every other member; the peer's two labels go first.
func ofLinks(read func(s *Snapshot, l Link, add adder)) func(*Snapshot, adder) {
	return func(s *Snapshot, add adder) {
		for _, p := range s.members() {
			if p.ID == s.Status.Self {
				continue
			}
			read(s, s.Links[p.ID], func(value float64, labels ...string) {
				add(value, append([]string{p.Name(), string(p.ID)}, labels...)...)
			})
		}
	}
}

func ofStore(read func(*shoal.StoreStatus) float64) func(*Snapshot, adder) {
	return func(s *Snapshot, add adder) {
		if s.Status.Store != nil {
			add(read(s.Status.Store))
		}
	}
}

// ofOwn reads what this peer tells about itself, once it does.
func ofOwn(read func(*shoal.PeerState, adder)) func(*Snapshot, adder) {
	return func(s *Snapshot, add adder) {
		if s.View == nil {
			return
		}
		if st := s.View.State(s.View.Self()); st != nil {
			read(st, add)
		}
	}
}

// members are those that are neither removed nor gone by themselves.
func (s *Snapshot) members() (out []*shoal.Peer) {
	if s.View == nil {
		return nil
	}
	for i := range s.View.Peers() {
		if p := &s.View.Peers()[i]; !p.Removed && !p.Left() {
			out = append(out, p)
		}
	}
	return out
}

// name is how users know a peer; "" for none.
func (s *Snapshot) name(id shoal.PeerID) string {
	if s.View == nil || id == "" {
		return ""
	}
	if p, ok := s.View.Peer(id); ok {
		return p.Name()
	}
	return id.Short()
}

// peersByState has a value for every state, so that an alert need not ask whether there is one.
func peersByState(s *Snapshot, add adder) {
	if s.View == nil {
		return
	}
	n := map[shoal.LifeState]int{}
	for _, p := range s.members() {
		n[s.View.Life(p.ID).State]++
	}
	for _, state := range []shoal.LifeState{shoal.LifeAlive, shoal.LifeSuspect, shoal.LifeDead, shoal.LifeReturning, shoal.LifeUnknown} {
		add(float64(n[state]), state.String())
	}
}

// agreement counts the members heard that do, or do not, hold the same records.
func agreement(s *Snapshot, add adder, isAgreeing bool) {
	if s.View == nil {
		return
	}
	n := 0
	for _, p := range s.members() {
		life := s.View.Life(p.ID)
		same := p.ID == s.View.Self() || life.Digest == s.View.Desired().Digest
		if life.State == shoal.LifeAlive && same == isAgreeing {
			n++
		}
	}
	add(float64(n))
}

func replicasByPhase(st *shoal.PeerState, add adder) {
	type row struct{ service, phase string }
	n := map[row]int{}
	for i := range st.Replicas {
		n[row{st.Replicas[i].Service, st.Replicas[i].Phase.String()}]++
	}
	for at, count := range n {
		add(float64(count), at.service, at.phase)
	}
}

func restarts(st *shoal.PeerState, add adder) {
	n := map[string]int{}
	for i := range st.Replicas {
		n[st.Replicas[i].Service] += st.Replicas[i].Restarts
	}
	for service, count := range n {
		add(float64(count), service)
	}
}

func byReason(counts map[string]uint64, add adder) {
	for _, why := range slices.Sorted(maps.Keys(counts)) {
		add(float64(counts[why]), why)
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func port(n uint16) string { return strconv.Itoa(int(n)) }
