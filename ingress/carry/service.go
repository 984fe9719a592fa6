// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"net/netip"
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

	mu    sync.Mutex // guards table
	table *balance.Table
}

// NewService returns a service without replicas. The seed is that of [balance.New].
func NewService(name string, seed uint64) *Service {
	return &Service{name: name, table: balance.New(seed)}
}

// Name returns the service's name.
func (s *Service) Name() string { return s.name }

// Update takes a new snapshot of the replicas. Open connections go on.
func (s *Service) Update(snap balance.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.Update(snap)
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
}

// lease is one place in a service's table. It ends with refused or closed, once.
type lease struct {
	service *Service
	backend balance.Backend
	isUDP   bool
	via     Via
}

// take picks a replica. false: nobody is left to try.
func (d *Dest) take(client netip.Addr, tried []shoal.ReplicaID, now time.Duration) (balance.Backend, bool) {
	s := d.Service
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.Replica.IsZero() {
		return s.table.Pick(client, tried, now)
	}
	if len(tried) > 0 {
		return balance.Backend{}, false
	}
	for _, row := range s.table.Rows(now) {
		if row.Replica == d.Replica {
			s.table.Opened(d.Replica)
			return row.Backend, true
		}
	}
	return balance.Backend{}, false
}

// refused ends the lease of one that did not take the connection. Who forwards a port may
// try one that nobody listens on: that is no word about the replica.
func (l *lease) refused(now time.Duration) {
	if l.via == ViaForward {
		l.closed()
		return
	}
	l.service.mu.Lock()
	defer l.service.mu.Unlock()
	l.service.table.Refused(l.backend.Replica, now)
}

func (l *lease) closed() {
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
