// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// door is a socket on which datagrams of clients come in.
type door struct {
	c     *Carrier
	pc    net.PacketConn
	to    Dest
	table *flowTable
	flows sync.WaitGroup
}

// UDP carries the datagrams that come in on pc, those of each client address to one
// replica for as long as neither is silent for Config.FlowIdle. It returns nil when ctx
// ends or pc is closed, after all flows have ended; it does not close pc. Answers go out
// by pc, so that should be bound to the address that clients know. What cannot be
// delivered at once waits in short queues or is dropped and counted; the loop that reads
// pc waits for nothing else.
func (c *Carrier) UDP(ctx context.Context, pc net.PacketConn, to Dest) error {
	ctx, cancel := context.WithCancel(ctx)
	d := &door{c: c, pc: pc, to: to, table: newFlowTable(&c.cfg, func() { to.Service.counts.fail(Dropped) })}
	defer d.flows.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = pc.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, packetBytes)
	var wait backOff
	for {
		n, client, err := readFrom(pc, buf)
		switch {
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			wait.pause(ctx)
			continue
		}
		wait.reset()
		if client.IsValid() {
			d.take(ctx, client, buf[:n])
		}
	}
}

// take queues a datagram in its flow.
func (d *door) take(ctx context.Context, client netip.AddrPort, data []byte) {
	evicted, isQueued := d.table.put(client, data, func() *flow {
		f := &flow{client: client, queue: make(chan []byte, d.c.cfg.FlowQueue)}
		ctx, cancel := context.WithCancelCause(ctx)
		f.cancel = cancel
		f.idle = newIdleTimer(d.c.deps.Clock, d.c.cfg.FlowIdle, func() { cancel(nil) })
		d.flows.Go(func() { d.run(ctx, f) })
		return f
	})
	if evicted != nil {
		evicted.cancel(&Refusal{Reason: TooMany, Text: "flows, and it was silent longest"})
	}
	if !isQueued {
		d.to.Service.counts.fail(Dropped)
	}
}

// run carries a flow until it ends, and counts why.
func (d *door) run(ctx context.Context, f *flow) {
	counts := &d.to.Service.counts
	counts.begin()
	defer counts.end()
	defer d.table.remove(f)
	defer f.idle.stop()
	defer f.cancel(nil)
	far, held, err := d.c.connect(ctx, &d.to, Ask{Protocol: UDP, Client: f.client, Reached: portOf(d.pc.LocalAddr())})
	if err != nil {
		_ = d.c.failed(&d.to, f.client, err)
		return
	}
	isAnswered := d.exchange(ctx, f, far.packets(), held)
	why, ok := errors.AsType[*Refusal](context.Cause(ctx))
	switch {
	case ok && why.Reason == ReplicaBroke && !isAnswered: // nothing else says that nobody listens
		why.Reason = Unreachable
		held.refused(d.c.deps.Clock.Mono())
	default:
		held.closed()
	}
	if ok {
		_ = d.c.failed(&d.to, f.client, why)
	}
}

// exchange passes datagrams both ways until ctx ends, which it ends itself if the replica
// breaks.
func (d *door) exchange(ctx context.Context, f *flow, far packets, held *lease) (isAnswered bool) {
	counts, clock := &d.to.Service.counts, d.c.deps.Clock
	stop := context.AfterFunc(ctx, far.end)
	defer stop()
	asked := clock.Mono()
	client := &clientPackets{d: d, client: f.client}
	var back sync.WaitGroup
	back.Go(func() {
		f.cancel(d.c.passOn(client, far, ReplicaBroke, ClientBroke, counts, func(n int) {
			if !isAnswered {
				isAnswered = true
				now := clock.Mono()
				held.firstByte(now-asked, now)
			}
			f.idle.touch()
			counts.out.Add(uint64(n))
		}))
	})
	d.sendOn(ctx, f, far)
	far.end()
	back.Wait()
	return isAnswered
}

// sendOn sends what is queued until ctx ends.
func (d *door) sendOn(ctx context.Context, f *flow, far packets) {
	counts := &d.to.Service.counts
	for {
		select {
		case b := <-f.queue:
			d.table.taken(b)
			switch err := far.send(b); {
			case err == nil:
				counts.in.Add(uint64(len(b) - lengthBytes))
			case errors.Is(err, errDropped):
				counts.fail(Dropped)
			default:
				f.cancel(because(ReplicaBroke, err))
			}
		case <-ctx.Done():
			return
		}
	}
}

// clientPackets is the client's side of a flow, which is only sent to.
type clientPackets struct {
	d      *door
	client netip.AddrPort
}

func (p *clientPackets) send(b []byte) error {
	var err error
	if u, ok := p.d.pc.(plainSocket); ok {
		_, err = u.WriteToUDPAddrPort(b[lengthBytes:], p.client)
	} else {
		_, err = p.d.pc.WriteTo(b[lengthBytes:], net.UDPAddrFromAddrPort(p.client))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errDropped, err)
	}
	return nil
}

func (p *clientPackets) recv(*pools) (piece, error) { return piece{}, io.EOF }

func (p *clientPackets) end() {}

// plainSocket is what a net.UDPConn can do without allocating.
type plainSocket interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

// readFrom reads a datagram. The address is not valid if it has no port.
func readFrom(pc net.PacketConn, buf []byte) (int, netip.AddrPort, error) {
	if u, ok := pc.(plainSocket); ok {
		n, from, err := u.ReadFromUDPAddrPort(buf)
		return n, from, err
	}
	n, from, err := pc.ReadFrom(buf)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	return n, portOf(from), nil
}
