// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// hearTime is how long holders may take to tell what their replicas had said; it is all
// in their memory.
const hearTime = 3 * time.Second

// failure is what a report says of the first failure at the current revision.
func (p *pane) failure(svc *shoal.Service, f shoal.Failure, text string) *shoalv1.ReplicaFailure {
	if f.IsZero() {
		return nil
	}
	return &shoalv1.ReplicaFailure{
		Service: svc.Spec.Name, Slot: int32(f.Slot), Peer: p.place(f.Peer), Replica: f.Replica.String(), Revision: revision(svc.Revision),
		AfterSeconds: f.After.Seconds(), Reason: f.Reason, Text: text,
	}
}

// pastFailure is the first failure at an earlier revision, which is why it was undone.
func (p *pane) pastFailure(name string, past *shoal.PastRevision) *shoalv1.ReplicaFailure {
	then := &shoal.Service{Spec: shoal.Spec{Name: name}, Revision: past.Revision}
	return p.failure(then, past.Failure, past.Failure.Text(then, p.name))
}

// undoneFailure is the first failure at the revision that a service went back from.
func (p *pane) undoneFailure(svc *shoal.Service) *shoalv1.ReplicaFailure {
	for i := range svc.Past {
		if past := &svc.Past[i]; past.Revision == svc.Undoes {
			return p.pastFailure(svc.Spec.Name, past)
		}
	}
	return nil
}

// hear asks the holders of replicas that failed what those had said, all at once. Why a
// holder does not tell is said in place of it.
func (s *Server) hear(ctx context.Context, c *Cluster, m *moment, service string, failures ...*shoalv1.ReplicaFailure) {
	ctx, cancel := context.WithTimeout(ctx, hearTime)
	defer cancel()
	byHolder := map[shoal.PeerID][]*shoalv1.ReplicaFailure{}
	for _, f := range failures {
		if f != nil {
			id := shoal.PeerID(f.GetPeer().GetPeer())
			byHolder[id] = append(byHolder[id], f)
		}
	}
	var g errgroup.Group
	for id, all := range byHolder {
		g.Go(func() error {
			words, err := s.wordsOf(ctx, c, m, id, service)
			for _, f := range all {
				fill(f, words, err)
			}
			return nil
		})
	}
	_ = g.Wait() // nothing in it fails
}

// wordsOf asks one holder. One that is known to be gone is not asked.
func (s *Server) wordsOf(ctx context.Context, c *Cluster, m *moment, id shoal.PeerID, service string) ([]shoal.LastWords, error) {
	p, member := m.view.Peer(id)
	switch {
	case !member || p.Removed:
		return nil, errors.New(m.name(id) + " is no member any more")
	case m.view.Life(id).State == shoal.LifeDead:
		return nil, errors.New(m.name(id) + " kept them, and is not reachable: " + m.unheard(id))
	}
	words, err := c.Remote.LastWords(ctx, id, service)
	switch {
	case errors.Is(err, shoal.ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
		return nil, errors.New(m.name(id) + " kept them, and is not reachable")
	case err != nil:
		return nil, errors.New(m.name(id) + " does not tell them: " + describe(err).What)
	}
	return words, nil
}

// fill puts what a holder told of a replica, or why it told nothing, beside its failure.
func fill(f *shoalv1.ReplicaFailure, words []shoal.LastWords, err error) {
	if err != nil {
		f.Missing = err.Error()
		return
	}
	i := slices.IndexFunc(words, func(w shoal.LastWords) bool {
		return w.Replica.String() == f.GetReplica() && w.Revision.Seq == f.GetRevision().GetSeq() && string(w.Revision.Author) == f.GetRevision().GetAuthor()
	})
	if i < 0 {
		f.Missing = f.GetPeer().GetName() + " kept nothing of it"
		return
	}
	w := &words[i]
	w.Bound()
	f.Check, f.LastLines, f.Missing = w.Check, w.Lines, w.Missing
	if !w.Time.IsZero() {
		f.Time = timestamppb.New(w.Time)
	}
}

// Failure is the replica of a revision that failed first, and what it had said.
type Failure struct {
	Service  string    `json:"service"`
	Slot     int       `json:"slot"`
	Peer     string    `json:"peer"` // its holder
	PeerName string    `json:"peer_name"`
	Replica  string    `json:"replica"`
	Revision string    `json:"revision"`
	After    float64   `json:"after_seconds"` // since the revision was first seen; negative: not known
	Reason   string    `json:"reason"`
	Text     string    `json:"text"` // all that in one line
	Time     time.Time `json:"time,omitzero"`
	Check    string    `json:"check,omitempty"`   // what its health check said last
	Lines    []string  `json:"last_lines"`        // the oldest first
	Missing  string    `json:"missing,omitempty"` // why there are no lines; "": those are all
}

// failureOf returns nil where nothing is known.
func failureOf(m *shoalv1.ReplicaFailure) *Failure {
	if m == nil {
		return nil
	}
	at := placeOf(m.GetPeer())
	return &Failure{
		Service: m.GetService(), Slot: int(m.GetSlot()), Peer: at.Peer, PeerName: at.Name, Replica: m.GetReplica(), Revision: revisionOf(m.GetRevision()),
		After: m.GetAfterSeconds(), Reason: m.GetReason(), Text: m.GetText(), Time: timeOf(m.GetTime()), Check: m.GetCheck(),
		Lines: append([]string{}, m.GetLastLines()...), Missing: m.GetMissing(),
	}
}
