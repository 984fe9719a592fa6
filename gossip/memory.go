// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip/fold"
	codec "github.com/shoalnet/shoal/proto"
)

// Memory is the memory twin of the store: it is for simulation and tests, and
// forgets everything with the process. It passes the same contract suite as the
// real one, with real signatures, and knows no network: whoever uses it carries
// records from one twin's [Memory.Since] to another's [Memory.Deliver], with
// whatever delay, loss and splits it likes. It starts no goroutine, and the same
// calls give the same state. Safe for concurrent use.
type Memory struct {
	cluster shoal.PeerID
	clock   shoal.Clock
	signer  Signer
	seq     *memorySequence
	stamper *Stamper

	mu       sync.Mutex // guards what follows, and orders updates
	state    fold.State
	resolver *fold.Resolver
	log      []*shoal.Record
	held     map[string]bool // envelopes in log
	refused  int

	desired atomic.Pointer[shoal.Desired]
	signal  signal
}

var _ shoal.Store = (*Memory)(nil)

// NewMemory returns an empty twin that writes as signer, in a cluster with this
// key. Deliver it the admissions first: until then nothing it writes counts.
func NewMemory(cluster shoal.PeerID, clock shoal.Clock, signer Signer) *Memory {
	seq := &memorySequence{}
	m := &Memory{
		cluster: cluster, clock: clock, signer: signer, seq: seq, stamper: NewStamper(cluster, clock, signer, seq),
		resolver: fold.NewResolver(cluster), held: map[string]bool{},
	}
	m.desired.Store(m.resolver.Desired())
	return m
}

// Restart returns the twin that a daemon finds which is started again on the same
// disk: all records, no number used twice. This one must not be used any more.
func (m *Memory) Restart() *Memory {
	out := NewMemory(m.cluster, m.clock, m.signer)
	records, _ := m.Since(0)
	out.Backfill(records)
	return out
}

// Update implements [shoal.Store]. No other peer confirms: asking for confirmations
// gives shoal.ErrTooFewAcks at once, and the records stand.
func (m *Memory) Update(ctx context.Context, fn func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error), opts shoal.UpdateOptions) (shoal.Ack, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return shoal.Ack{}, fmt.Errorf("write records: %w", err)
	}
	stamp := m.stamper.Stamp()
	drafts, err := fn(m.desired.Load(), stamp)
	if err != nil {
		return shoal.Ack{}, err
	}
	ack := shoal.Ack{HLC: stamp.HLC}
	if len(drafts) == 0 {
		return ack, nil
	}
	entries, err := m.stamper.Seal(stamp, drafts, m.resolver.Complete)
	if err != nil {
		return shoal.Ack{}, fmt.Errorf("write records: %w", err)
	}
	m.take(entries)
	ack.Wrote = true
	if opts.Acks > 0 {
		return ack, fmt.Errorf("0 of %d: %w", opts.Acks, shoal.ErrTooFewAcks)
	}
	return ack, nil
}

// Desired implements [shoal.Store].
func (m *Memory) Desired() *shoal.Desired { return m.desired.Load() }

// Changed implements [shoal.Store].
func (m *Memory) Changed() <-chan struct{} { return m.signal.wait() }

// Deliver merges records of others as if they had just been pushed over a live
// link. A record that is out of bounds or not signed by its author is refused and
// counted, and stops none of the others.
func (m *Memory) Deliver(records []*shoal.Record) { m.merge(records, true) }

// Backfill merges records of others as if they came by a sync: wishes among them
// are not fresh.
func (m *Memory) Backfill(records []*shoal.Record) { m.merge(records, false) }

// Refused returns how many records were refused.
func (m *Memory) Refused() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refused
}

// Since returns the records that came in, written here or delivered, after the
// first n, and how many there are now: what to give as n the next time.
func (m *Memory) Since(n int) ([]*shoal.Record, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.log[n:len(m.log):len(m.log)], len(m.log)
}

func (m *Memory) merge(records []*shoal.Record, pushed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var entries []fold.Entry
	for _, in := range records {
		env := codec.EncodeRecord(in)
		if m.held[string(env)] {
			continue
		}
		r, err := codec.DecodeRecord(env)
		if err == nil {
			err = VerifyRecord(m.cluster, r)
		}
		if err == nil {
			err = m.stamper.Observe(r)
		}
		if err != nil {
			m.refused++
			continue
		}
		entries = append(entries, fold.Entry{Record: r, Envelope: env, Pushed: pushed})
	}
	m.take(entries)
}

// take adds entries to the state and publishes what it comes to. Under mu.
func (m *Memory) take(entries []fold.Entry) {
	for _, e := range entries {
		if !m.held[string(e.Envelope)] {
			m.held[string(e.Envelope)] = true
			m.log = append(m.log, e.Record)
		}
	}
	state, changed := m.state.Add(entries...)
	if !changed {
		return
	}
	m.state = state
	m.desired.Store(m.resolver.Resolve(state))
	m.signal.fire()
}

// memorySequence is a Sequence that a process's life is long enough for.
type memorySequence struct {
	mu   sync.Mutex
	last uint64 // guarded by mu
}

// Next implements [Sequence].
func (s *memorySequence) Next() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return s.last, nil
}

// Skip implements [Sequence].
func (s *memorySequence) Skip(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, n)
	return nil
}

// signal tells any number of waiters that something changed. The zero value is
// ready. Safe for concurrent use.
type signal struct {
	mu sync.Mutex
	ch chan struct{} // guarded by mu; nil: nobody waits
}

// wait returns a channel that the next fire closes.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

// fire closes the channel that waiters hold.
func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
