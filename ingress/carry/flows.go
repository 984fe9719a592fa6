// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"container/list"
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
)

// flow is what one client address sends to a service, and gets back.
type flow struct {
	client netip.AddrPort
	queue  chan []byte // datagrams, each with room for its length ahead
	idle   *idleTimer
	cancel context.CancelCauseFunc

	at, own *list.Element // its places in flowTable.recent, and of its client; nil: it is out
}

// flowTable is the flows of one door. It bounds them: a newcomer takes the place of the
// one that was silent longest.
type flowTable struct {
	most, mostPerClient int
	mostBytes           int64
	lost                func() // is called for each datagram that waited in a flow when it ended

	mu       sync.Mutex // guards what follows
	flows    map[netip.AddrPort]*flow
	recent   *list.List // of *flow; who sent last comes first
	byClient map[netip.Addr]*list.List

	queued atomic.Int64 // bytes in all queues
}

func newFlowTable(cfg *Config, lost func()) *flowTable {
	return &flowTable{
		most: cfg.Flows, mostPerClient: cfg.FlowsPerClient, mostBytes: cfg.FlowBytes, lost: lost,
		flows: map[netip.AddrPort]*flow{}, recent: list.New(), byClient: map[netip.Addr]*list.List{},
	}
}

// put queues a datagram in its client's flow. made makes a flow if there is none; evicted
// is one that had to go for it, or nil. false: the datagram was dropped.
func (t *flowTable) put(client netip.AddrPort, data []byte, made func() *flow) (evicted *flow, isQueued bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.flows[client]
	if f == nil {
		evicted = t.makeRoom(client)
		f = made()
		t.add(f)
	} else {
		t.recent.MoveToFront(f.at)
		t.byClient[clientOf(client.Addr())].MoveToFront(f.own)
	}
	f.idle.touch()
	size := int64(lengthBytes + len(data))
	if t.queued.Add(size) > t.mostBytes {
		t.queued.Add(-size)
		return evicted, false
	}
	b := make([]byte, size)
	copy(b[lengthBytes:], data)
	select {
	case f.queue <- b:
		return evicted, true
	default:
		t.queued.Add(-size)
		return evicted, false
	}
}

func (t *flowTable) add(f *flow) {
	key := clientOf(f.client.Addr())
	own := t.byClient[key]
	if own == nil {
		own = list.New()
		t.byClient[key] = own
	}
	t.flows[f.client] = f
	f.at, f.own = t.recent.PushFront(f), own.PushFront(f)
}

// makeRoom takes a flow out if there are as many as there may be: of the same client if it
// is that which has too many.
func (t *flowTable) makeRoom(client netip.AddrPort) *flow {
	own := t.byClient[clientOf(client.Addr())]
	switch {
	case own != nil && own.Len() >= t.mostPerClient:
		return t.drop(quietest(own))
	case len(t.flows) >= t.most:
		return t.drop(quietest(t.recent))
	}
	return nil
}

// quietest returns the flow of a list that was silent longest, near enough: the list knows
// when clients sent, and answers count too. It looks at few, for floods come here.
func quietest(l *list.List) *flow {
	const looks = 8
	e := l.Back()
	out := e.Value.(*flow)
	for range looks {
		if e = e.Prev(); e == nil {
			break
		}
		if f := e.Value.(*flow); f.idle.touched() < out.idle.touched() {
			out = f
		}
	}
	return out
}

// remove takes a flow out that has ended, unless it is out.
func (t *flowTable) remove(f *flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(f)
}

func (t *flowTable) drop(f *flow) *flow {
	if f.at == nil {
		return nil
	}
	key := clientOf(f.client.Addr())
	t.recent.Remove(f.at)
	t.byClient[key].Remove(f.own)
	if t.byClient[key].Len() == 0 {
		delete(t.byClient, key)
	}
	delete(t.flows, f.client)
	f.at, f.own = nil, nil
	for { // nobody puts any more
		select {
		case b := <-f.queue:
			t.taken(b)
			t.lost()
		default:
			return f
		}
	}
}

// taken says that a datagram is out of its queue.
func (t *flowTable) taken(b []byte) { t.queued.Add(-int64(len(b))) }

// clientOf is what the bounds of one client are for: an IPv6 host has all of a /64.
func clientOf(a netip.Addr) netip.Addr {
	if a.Is6() && !a.Is4In6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a.Unmap()
}
