// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// table holds values that many entries share; entries pick a row by its 1-based
// number, 0 is the zero value.
type table[T comparable] struct {
	rows []T
	at   map[T]uint32
}

func (t *table[T]) pick(v T) uint32 {
	var zero T
	if v == zero {
		return 0
	}
	if n, ok := t.at[v]; ok {
		return n
	}
	if t.at == nil {
		t.at = make(map[T]uint32)
	}
	t.rows = append(t.rows, v)
	t.at[v] = uint32(len(t.rows))
	return t.at[v]
}

func (t *table[T]) row(n uint32) (T, error) {
	var zero T
	if n == 0 {
		return zero, nil
	}
	if int64(n) > int64(len(t.rows)) {
		return zero, invalid("table", "has no row %d", n)
	}
	return t.rows[n-1], nil
}

func proposalMessage(p shoal.Proposal) *shoalv1.Proposal {
	if p.From == 0 && len(p.Peers) == 0 {
		return nil
	}
	m := &shoalv1.Proposal{From: int32(p.From)}
	peers := table[string]{}
	for _, id := range p.Peers {
		m.Picks = append(m.Picks, peers.pick(string(id)))
	}
	m.Peers = peers.rows
	return m
}

func proposalOf(m *shoalv1.Proposal) (shoal.Proposal, error) {
	p := shoal.Proposal{From: int(m.GetFrom())}
	peers := table[string]{rows: m.GetPeers()}
	for _, n := range m.GetPicks() {
		id, err := peers.row(n)
		if err != nil {
			return shoal.Proposal{}, err
		}
		p.Peers = append(p.Peers, shoal.PeerID(id))
	}
	return p, nil
}

func revisionMessage(r shoal.RevisionID) *shoalv1.RevisionID {
	if r.IsZero() {
		return nil
	}
	return &shoalv1.RevisionID{Seq: r.Seq, Author: string(r.Author)}
}

func revisionOf(m *shoalv1.RevisionID) shoal.RevisionID {
	return shoal.RevisionID{Seq: m.GetSeq(), Author: shoal.PeerID(m.GetAuthor())}
}

func revisionMessages(s []shoal.RevisionID) []*shoalv1.RevisionID {
	var out []*shoalv1.RevisionID
	for _, r := range s {
		out = append(out, revisionMessage(r))
	}
	return out
}

func revisionsOf(s []*shoalv1.RevisionID) []shoal.RevisionID {
	var out []shoal.RevisionID
	for _, m := range s {
		out = append(out, revisionOf(m))
	}
	return out
}

func resourcesMessage(r shoal.Resources) *shoalv1.Resources {
	if r == (shoal.Resources{}) {
		return nil
	}
	return &shoalv1.Resources{CpuMilli: r.CPUMilli, MemBytes: r.MemBytes}
}

func resourcesOf(m *shoalv1.Resources) shoal.Resources {
	return shoal.Resources{CPUMilli: m.GetCpuMilli(), MemBytes: m.GetMemBytes()}
}

func hlcMessage(t shoal.HLC) *shoalv1.Hlc {
	if t.IsZero() {
		return nil
	}
	return &shoalv1.Hlc{WallMilli: t.WallMilli, Counter: t.Counter}
}

func hlcOf(m *shoalv1.Hlc) shoal.HLC {
	return shoal.HLC{WallMilli: m.GetWallMilli(), Counter: m.GetCounter()}
}

func replicaBytes(id shoal.ReplicaID) []byte {
	if id.IsZero() {
		return nil
	}
	return id[:]
}

func replicaOf(raw []byte) (shoal.ReplicaID, error) {
	var id shoal.ReplicaID
	if len(raw) != 0 && len(raw) != len(id) {
		return id, invalid("replica", "is %d bytes, not %d", len(raw), len(id))
	}
	copy(id[:], raw)
	return id, nil
}

func portOf(v uint32) (uint16, error) {
	if v > 65535 {
		return 0, invalid("ports", "%d is not a port", v)
	}
	return uint16(v), nil
}

func texts(ids []shoal.PeerID) []string {
	var out []string
	for _, id := range ids {
		out = append(out, string(id))
	}
	return out
}

func peersOf(s []string) []shoal.PeerID {
	var out []shoal.PeerID
	for _, id := range s {
		out = append(out, shoal.PeerID(id))
	}
	return out
}
