// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shoalnet/shoal"
)

// spliceBytes is how much moves inside the kernel before one buffer is read as usual: so
// an idle connection holds no pipe, and counts follow within a part of a second.
const spliceBytes = 1 << 20

// join carries bytes between a client, or the stream it comes by, and a replica, or the
// stream to its holder.
type join struct {
	near, far end
	pools     *pools
	clock     shoal.Clock
	counts    *counts
	// first, if set, is told once how long after the client's first byte the answer began.
	first func(took, now time.Duration)
	idle  *idleTimer // nil: silence breaks nothing

	asked atomic.Int64 // when the client's first byte had gone on
	once  sync.Once
	err   error // why it broke; valid once both ways have ended
}

// run carries until both ways have ended, or one has broken, or ctx ends, and closes both
// ends. nil: both ended as their senders wished. The calling goroutine is one of two.
func (j *join) run(ctx context.Context) error {
	j.asked.Store(int64(j.clock.Mono()))
	stop := context.AfterFunc(ctx, func() { j.breakOff(because(Ended, context.Cause(ctx))) })
	defer stop()
	back := make(chan struct{})
	go func() {
		defer close(back)
		j.carry(j.near, j.far, &j.counts.out, ReplicaBroke, ClientBroke, j.answered)
	}()
	j.carry(j.far, j.near, &j.counts.in, ClientBroke, ReplicaBroke, func() { j.asked.Store(int64(j.clock.Mono())) })
	<-back
	// Both ways have ended, so nothing is lost, or they were reset and are closed already.
	_ = j.near.Close()
	_ = j.far.Close()
	j.once.Do(func() {}) // err is settled
	return j.err
}

func (j *join) answered() {
	if j.first != nil {
		now := j.clock.Mono()
		j.first(now-time.Duration(j.asked.Load()), now)
	}
}

// breakOff resets both ends; the first reason counts.
func (j *join) breakOff(err *Refusal) {
	j.once.Do(func() {
		j.err = err
		j.near.reset()
		j.far.reset()
	})
}

// carry carries one way until its end, which it passes on. began is called after the first
// bytes have gone on.
func (j *join) carry(to, from end, count *atomic.Uint64, ifFrom, ifTo Reason, began func()) {
	isFirst, more := true, false
	for {
		n, isFull, err := j.step(to, from, more)
		if n > 0 {
			count.Add(uint64(n))
			j.idle.touch()
			if isFirst {
				isFirst = false
				began()
			}
		}
		more = isFull
		if err == nil && isFull && j.idle == nil {
			var moved int64
			moved, err = splice(to, from)
			count.Add(uint64(moved))
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			if err := to.CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) {
				j.breakOff(because(ifTo, err))
			}
			return
		case isWrite(err):
			j.breakOff(because(ifTo, err))
			return
		default:
			j.breakOff(because(ifFrom, err))
			return
		}
	}
}

// step carries what there is. isFull: there may be more.
func (j *join) step(to, from end, more bool) (n int, isFull bool, err error) {
	p, err := from.next(j.pools, more)
	defer p.put()
	if err != nil {
		return 0, false, err
	}
	if n, err = to.Write(p.bytes()); err != nil {
		err = &writeError{err}
	}
	return n, p.isFull(), err
}

// splice moves bytes inside the kernel if both ends are its sockets, until there were many
// or the sender has ended.
func splice(to, from end) (int64, error) {
	t, ok := to.(*tcpEnd)
	if !ok {
		return 0, nil
	}
	f, ok := from.(*tcpEnd)
	if !ok {
		return 0, nil
	}
	n, err := t.ReadFrom(&io.LimitedReader{R: f.TCPConn, N: spliceBytes}) // splice(2) on Linux
	if err == nil && n < spliceBytes {
		err = io.EOF
	}
	return n, err
}

// writeError says that it was the receiving end that broke.
type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

func isWrite(err error) bool {
	_, ok := errors.AsType[*writeError](err)
	return ok || errors.Is(err, syscall.EPIPE)
}

// portOf returns the address of a socket; zero if it has none with a port.
func portOf(a net.Addr) (addr netip.AddrPort) {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok && a.AddrPort().IsValid() {
		addr = plain(a.AddrPort())
	}
	return addr
}
