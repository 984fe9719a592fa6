// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/balance"
	"github.com/shoalnet/shoal/ingress/carry"
	"github.com/shoalnet/shoal/ingress/plan"
)

// targets says where the replicas of this peer are.
type targets struct{ room *Room }

// Target implements carry.Targets.
func (t targets) Target(_ context.Context, asker shoal.PeerID, a carry.Ask) (carry.Place, error) {
	v := t.room.deps.Views.View()
	if v == nil {
		return carry.Place{}, &carry.Refusal{Reason: carry.NotReady}
	}
	q := plan.Question{Asker: asker, Service: a.Service, Replica: a.Replica, Port: a.Port, Protocol: a.Protocol}
	no := carry.NotPublished
	switch a.Via {
	case carry.ViaPublished:
		q.Via = plan.ViaPublished
	case carry.ViaForward:
		q.Via, no = plan.ViaForward, carry.NotAllowed
	case carry.ViaName:
		q.Via, no = plan.ViaName, carry.NotAllowed
	}
	got, err := plan.Target(v, q)
	switch {
	case errors.Is(err, shoal.ErrRefused):
		return carry.Place{}, &carry.Refusal{Reason: no, Text: err.Error()}
	case err != nil:
		return carry.Place{}, &carry.Refusal{Reason: carry.NotReady, Text: err.Error()}
	}
	return carry.Place{Addr: got.Addr, Proxy: got.Proxy}, nil
}

// Ports implements shoal.Reach.
func (r *Room) Ports() []shoal.PortState {
	now := r.deps.Clock.Mono()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]shoal.PortState, 0, len(r.doors))
	for _, d := range r.doors {
		st := shoal.PortState{PublishedPort: d.PublishedPort, Trouble: d.trouble}
		if d.isOpen() {
			st.Address = d.listeners[0].Addr().String()
		}
		if s := r.services[doorService(d.Service, d.Target)]; s != nil {
			st.Traffic = traffic(s.Stats())
			for _, row := range s.Rows(now) {
				if row.Usable {
					st.Usable++
				}
			}
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b shoal.PortState) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out
}

func traffic(s carry.Stats) shoal.Traffic {
	out := shoal.Traffic{
		Open: int(s.Open), Total: s.Total, In: s.In, Out: s.Out, Retries: s.Retries, Connect: s.Connect, FirstByte: s.FirstByte,
	}
	for reason, n := range s.Errors {
		if n == 0 {
			continue
		}
		if out.Refused == nil {
			out.Refused = map[string]uint64{}
		}
		out.Refused[carry.Reason(reason).String()] = n
	}
	return out
}

// Replicas implements shoal.Reach.
func (r *Room) Replicas(name string) ([]shoal.ReachRow, error) {
	whole, _, err := r.known(name)
	if err != nil {
		return nil, err
	}
	var out []shoal.ReachRow
	now := r.deps.Clock.Mono()
	for _, row := range whole.Rows(now) {
		x := shoal.ReachRow{Replica: row.Replica, Slot: row.Slot, Holder: row.Holder, Path: "local", Weight: max(row.Weight, 1)}
		if row.Holder != r.deps.Self {
			x.Path = r.deps.Path(row.Holder)
		}
		join(&x, row)
		out = append(out, x)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, s := range r.services {
		if key.name != name || key == (serviceKey{name: name}) {
			continue
		}
		for _, row := range s.Rows(now) {
			i := slices.IndexFunc(out, func(x shoal.ReachRow) bool { return x.Replica == row.Replica })
			if i >= 0 {
				join(&out[i], row)
			}
		}
	}
	return out, nil
}

// join adds how a replica is seen by way of one of its ports.
func join(x *shoal.ReachRow, row balance.Row) {
	if x.IsUsable = row.Usable && x.Why == ""; !row.Usable {
		x.Why = row.Why
	}
	x.Open += row.Open
	x.Connect, x.FirstByte = max(x.Connect, row.Connect), max(x.FirstByte, row.FirstByte)
}

// known returns a service of the view, with its replicas as they are now.
func (r *Room) known(name string) (*service, *shoal.View, error) {
	v := r.deps.Views.View()
	if v == nil {
		return nil, nil, shoal.ErrNotMember
	}
	if _, ok := v.Service(name); !ok {
		return nil, nil, fmt.Errorf("service %q: %w", name, shoal.ErrNotFound)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.service(serviceKey{name: name})
	s.update(plan.Backends(v, name))
	return s, v, nil
}

// Forward implements shoal.Reach.
func (r *Room) Forward(ctx context.Context, at shoal.Target, port uint16, conn io.ReadWriteCloser) error {
	s, v, err := r.known(at.Service)
	if err != nil {
		_ = conn.Close() // it was not begun with
		return err
	}
	to := carry.Dest{Service: s.Service, Port: port, Via: carry.ViaForward}
	if at.Slot >= 0 {
		if to.Replica = inSlot(v, at); to.Replica == (shoal.ReplicaID{}) {
			_ = conn.Close() // the same
			return fmt.Errorf("no replica of %s is known here: %w", at, shoal.ErrNotFound)
		}
	}
	err = r.carrier.TCP(ctx, plainConn{conn}, to)
	no, ok := errors.AsType[*carry.Refusal](err)
	switch {
	case !ok:
		return err
	case no.Reason == carry.NotAllowed:
		return fmt.Errorf("forward to %s: %w: %w", at.Service, no, shoal.ErrRefused)
	case no.Reason == carry.NoReplica:
		return fmt.Errorf("forward to %s: %w: %w", at.Service, no, shoal.ErrNotFound)
	}
	return fmt.Errorf("forward to %s: %w: %w", at.Service, no, shoal.ErrUnreachable)
}

// Carried reports whether a connection to a replica of this peer is open, or one was
// carried there in the last 10 s, for whomever: it may be about to get another.
func (r *Room) Carried(id shoal.ReplicaID) bool { return r.carrier.Carried(id) || r.named.Carried(id) }

// inSlot returns the replica of a slot, a ready one first; zero: there is none.
func inSlot(v *shoal.View, at shoal.Target) (best shoal.ReplicaID) {
	for _, c := range v.ClaimsOf(at.Service) {
		if c.Slot != at.Slot || !v.Alive(c.Holder) {
			continue
		}
		st, ok := v.Replica(c.Replica)
		if best == (shoal.ReplicaID{}) || ok && st.Phase == shoal.PhaseReady {
			best = c.Replica
		}
	}
	return best
}

// plainConn makes a net.Conn of what only reads, writes and closes: it has no addresses,
// and deadlines do nothing.
type plainConn struct{ io.ReadWriteCloser }

// CloseWrite says that nothing more is written, if that can be said.
func (c plainConn) CloseWrite() error {
	if half, ok := c.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// LocalAddr implements net.Conn.
func (plainConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPort{}) }

// RemoteAddr implements net.Conn.
func (plainConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPort{}) }

// SetDeadline implements net.Conn.
func (plainConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (plainConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (plainConn) SetWriteDeadline(time.Time) error { return nil }
