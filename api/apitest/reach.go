// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"context"
	"fmt"
	"io"

	"github.com/shoalnet/shoal"
)

// reacher is the part of the twin that is about reach: its replicas say who they are, and
// then what they hear.
type reacher struct{ *Cluster }

// closedPort takes no connection in any replica.
const closedPort = 9

// Ports implements [shoal.Reach].
func (r reacher) Ports() []shoal.PortState {
	v := r.View()
	var out []shoal.PortState
	for _, p := range shoal.PublishedPorts(v.Desired()) {
		st := shoal.PortState{PublishedPort: p, Address: fmt.Sprintf("127.0.0.11:%d", p.Port)}
		st.Traffic = shoal.Traffic{Open: 1, Total: 12, In: 3000, Out: 5 << 20}
		for _, c := range v.ClaimsOf(p.Service) {
			if rep, ok := v.Replica(c.Replica); ok && rep.Phase == shoal.PhaseReady {
				st.Usable++
			}
		}
		if st.Usable == 0 {
			st.Refused = map[string]uint64{"no ready replica": 3}
		}
		out = append(out, st)
	}
	return out
}

// Replicas implements [shoal.Reach].
func (r reacher) Replicas(service string) ([]shoal.ReachRow, error) {
	v := r.View()
	if _, ok := v.Service(service); !ok {
		return nil, shoal.ErrNotFound
	}
	var out []shoal.ReachRow
	for _, c := range v.ClaimsOf(service) {
		row := shoal.ReachRow{Replica: c.Replica, Slot: c.Slot, Holder: c.Holder, Path: "direct", Weight: 1}
		if c.Holder == v.Self() {
			row.Path = "local"
		}
		if rep, ok := v.Replica(c.Replica); ok && rep.Phase == shoal.PhaseReady {
			row.IsUsable = true
		} else if ok {
			row.Why = "not ready: " + rep.Phase.String()
		}
		out = append(out, row)
	}
	return out, nil
}

// Forward implements [shoal.Reach].
func (r reacher) Forward(_ context.Context, at shoal.Target, port uint16, conn io.ReadWriteCloser) error {
	defer func() { _ = conn.Close() }() // nothing is left to be said
	rows, err := r.Replicas(at.Service)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if !row.IsUsable || at.Slot >= 0 && row.Slot != at.Slot {
			continue
		}
		if port == closedPort {
			return fmt.Errorf("%s/%d port %d: connection refused: %w", at.Service, row.Slot, port, shoal.ErrUnreachable)
		}
		if _, err := fmt.Fprintf(conn, "%s/%d:%d\n", at.Service, row.Slot, port); err != nil {
			return err
		}
		if _, err := io.Copy(conn, conn); err != nil {
			return err
		}
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			return half.CloseWrite()
		}
		return nil
	}
	return fmt.Errorf("no replica of %s is ready: %w", at.Service, shoal.ErrNotFound)
}
