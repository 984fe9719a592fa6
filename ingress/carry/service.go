// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/balance"
)

// Service is what connections are carried to: its replicas, and what was counted of it.
// All doors to it share one. It is safe for concurrent use.
type Service struct {
	name   string
	counts counts

	mu    sync.Mutex // guards what follows
	table *balance.Table
	next  chan struct{} // closed at the next snapshot
}

// NewService returns a service without replicas. The seed is that of [balance.New].
func NewService(name string, seed uint64) *Service {
	return &Service{name: name, table: balance.New(seed), next: make(chan struct{})}
}

// Name returns the service's name.
func (s *Service) Name() string { return s.name }

// Update takes a new snapshot of the replicas. Open connections go on.
func (s *Service) Update(snap balance.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.Update(snap)
	close(s.next)
	s.next = make(chan struct{})
}

// changed returns a channel that is closed at the next snapshot after the call.
func (s *Service) changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// Rows returns all replicas as they are balanced at now.
func (s *Service) Rows(now time.Duration) []balance.Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.Rows(now)
}

// Stats returns what was counted. It takes no lock: the numbers may be some connections
// apart.
func (s *Service) Stats() Stats { return s.counts.stats() }

// Dest is where a door leads.
type Dest struct {
	Service *Service
	Port    uint16 // of its containers
	Via     Via
	Replica shoal.ReplicaID // this one only, ready or not; zero: whichever balance chooses
	// OfSlot: only who fills Slot, a ready one first. It need not be ready.
	OfSlot bool
	Slot   int
	// IsGuess: nobody said that replicas listen there, so one that does not take the
	// connection is as good as before.
	IsGuess bool
}

// lease is one place in a service's table. It ends with refused or closed, once.
type lease struct {
	service *Service
	backend balance.Backend
	isUDP   bool
	isGuess bool
	done    func() // nil, or called when it ends
}

// take picks a replica. false: nobody is left to try.
func (d *Dest) take(client netip.Addr, tried []shoal.ReplicaID, now time.Duration) (balance.Backend, bool) {
	s := d.Service
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.Replica.IsZero() && !d.OfSlot {
		return s.table.Pick(client, tried, now)
	}
	var best *balance.Row
	rows := s.table.Rows(now)
	for i := range rows {
		row := &rows[i]
		if d.names(row) && !slices.Contains(tried, row.Replica) && (best == nil || row.Ready && !best.Ready) {
			best = row
		}
	}
	if best == nil {
		return balance.Backend{}, false
	}
	s.table.Opened(best.Replica)
	return best.Backend, true
}

// names reports whether a replica is one that d asks for by itself.
func (d *Dest) names(row *balance.Row) bool {
	if d.OfSlot {
		return row.Slot == d.Slot && row.Alive && !row.Releasing
	}
	return row.Replica == d.Replica
}

// refused ends the lease of one that did not take the connection.
func (l *lease) refused(now time.Duration) {
	if l.isGuess {
		l.closed()
		return
	}
	l.end()
	l.service.mu.Lock()
	defer l.service.mu.Unlock()
	l.service.table.Refused(l.backend.Replica, now)
}

func (l *lease) end() {
	if l.done != nil {
		l.done()
	}
}

func (l *lease) closed() {
	l.end()
	l.service.mu.Lock()
	defer l.service.mu.Unlock()
	l.service.table.Closed(l.backend.Replica)
}

// connected says that the replica took the connection, which over UDP is not known.
func (l *lease) connected(took, now time.Duration) {
	if l.isUDP {
		return
	}
	l.service.mu.Lock()
	defer l.service.mu.Unlock()
	l.service.table.Connected(l.backend.Replica, took, now)
}

func (l *lease) firstByte(took, now time.Duration) {
	l.service.counts.first.add(took)
	l.service.mu.Lock()
	defer l.service.mu.Unlock()
	l.service.table.FirstByte(l.backend.Replica, took, now)
}
