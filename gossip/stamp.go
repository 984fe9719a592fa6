// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip/fold"
	codec "github.com/shoalnet/shoal/proto"
)

// maxAhead is how far others may push this peer's HLC ahead of its own wall clock
// (DESIGN.md section 3).
const maxAhead = 60 * time.Second

// Completer fills in what only the store knows of a draft (fold.Resolver.Complete).
type Completer func(draft shoal.Body, as shoal.Stamp, seq uint64) shoal.Body

// Stamper gives this peer's records their hybrid logical time, author sequence
// number and signature. Safe for concurrent use.
type Stamper struct {
	cluster shoal.PeerID
	clock   shoal.Clock
	signer  Signer
	seq     Sequence

	mu   sync.Mutex
	last shoal.HLC // guarded by mu; the highest reading given out or taken in
}

// NewStamper returns a stamper whose HLC starts at the wall clock.
func NewStamper(cluster shoal.PeerID, clock shoal.Clock, signer Signer, seq Sequence) *Stamper {
	return &Stamper{cluster: cluster, clock: clock, signer: signer, seq: seq}
}

// Stamp returns who writes and a reading above all it gave out and all it observed.
func (s *Stamper) Stamp() shoal.Stamp {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch wall := s.clock.Wall().UnixMilli(); {
	case wall > s.last.WallMilli:
		s.last = shoal.HLC{WallMilli: wall}
	case s.last.Counter == math.MaxUint32:
		s.last = shoal.HLC{WallMilli: s.last.WallMilli + 1}
	default:
		s.last.Counter++
	}
	return shoal.Stamp{Author: s.signer.PeerID(), HLC: s.last}
}

// Observe takes a record into account: readings to come lie above its own, though
// never more than 60 s ahead of the wall clock for another's. For a record of this
// peer's own there is no limit, and its sequence number is not used again.
func (s *Stamper) Observe(r *shoal.Record) error {
	own := r.Author == s.signer.PeerID()
	s.observe(r.HLC, own)
	if !own {
		return nil
	}
	if err := s.seq.Skip(r.AuthorSeq); err != nil {
		return fmt.Errorf("skip sequence number %d: %w", r.AuthorSeq, err)
	}
	return nil
}

func (s *Stamper) observe(t shoal.HLC, own bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := shoal.HLC{WallMilli: s.clock.Wall().Add(maxAhead).UnixMilli()}
	if !own && t.Compare(limit) > 0 {
		t = limit
	}
	if t.Compare(s.last) > 0 {
		s.last = t
	}
}

// Seal makes signed records of drafts, in order, each completed, numbered and with
// the same time. *shoal.InvalidError: a draft breaks a bound of the codec.
func (s *Stamper) Seal(as shoal.Stamp, drafts []shoal.Body, complete Completer) ([]fold.Entry, error) {
	out := make([]fold.Entry, 0, len(drafts))
	for _, draft := range drafts {
		seq, err := s.seq.Next()
		if err != nil {
			return nil, fmt.Errorf("take a sequence number: %w", err)
		}
		r, err := NewRecord(s.cluster, s.signer, seq, as.HLC, complete(draft, as, seq))
		if err != nil {
			return nil, err
		}
		out = append(out, fold.Entry{Record: r, Envelope: codec.EncodeRecord(r), Pushed: true})
	}
	return out, nil
}

// NewRecord makes a record signed for a cluster. It is read back from its envelope, which proves
// that every peer will take it, and makes its Body what they will see rather than
// what the caller may still hold. *shoal.InvalidError: body breaks a bound.
func NewRecord(cluster shoal.PeerID, signer Signer, seq uint64, at shoal.HLC, body shoal.Body) (*shoal.Record, error) {
	raw, err := codec.EncodeBody(body)
	if err != nil {
		return nil, err
	}
	r := &shoal.Record{
		Schema: shoal.Schema, Kind: body.Kind(), Name: body.About(), Author: signer.PeerID(),
		AuthorSeq: seq, HLC: at, Raw: raw,
	}
	if r.Signature, err = signer.Sign(codec.SigningBytes(cluster, r)); err != nil {
		return nil, fmt.Errorf("sign %s: %w", r.Key(), err)
	}
	if r, err = codec.DecodeRecord(codec.EncodeRecord(r)); err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	return r, nil
}
