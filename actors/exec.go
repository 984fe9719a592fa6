// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"context"
	"fmt"
	"io"

	"github.com/shoalnet/shoal"
)

// Exec runs a command in this peer's replica of a slot, as [shoal.Console] does in a
// container. ErrNotFound: it holds none, or one without a container. ErrConflict: the
// container does not run.
func (s *System) Exec(ctx context.Context, at shoal.Target, opts shoal.ExecOptions, t shoal.Terminal) (int, error) {
	container, err := s.containerOf(at)
	if err != nil {
		return 0, closing(t, err)
	}
	return s.deps.Console.Exec(ctx, container, opts, t)
}

// CopyFrom copies out of this peer's replica of a slot, as [shoal.Console] does out of a
// container. ErrNotFound as for Exec.
func (s *System) CopyFrom(ctx context.Context, at shoal.Target, path string, stat func(shoal.PathStat) error, w io.Writer) error {
	container, err := s.containerOf(at)
	if err != nil {
		return err
	}
	return s.deps.Console.CopyFrom(ctx, container, path, stat, w)
}

// CopyTo is CopyFrom's other direction.
func (s *System) CopyTo(ctx context.Context, at shoal.Target, dir string, archive io.ReadCloser) error {
	container, err := s.containerOf(at)
	if err != nil {
		_ = archive.Close() // nobody reads it
		return err
	}
	return s.deps.Console.CopyTo(ctx, container, dir, archive)
}

// closing ends the input of a command that does not run.
func closing(t shoal.Terminal, err error) error {
	if t.In != nil {
		_ = t.In.Close() // nobody reads it
	}
	return err
}

// containerOf returns the container of the replica in a slot that does best: while a
// slot is handed over there may be two.
func (s *System) containerOf(at shoal.Target) (string, error) {
	statuses, _ := s.board.of(at.Service)
	var best *shoal.ReplicaStatus
	for i := range statuses {
		if st := &statuses[i]; st.Slot == at.Slot && (best == nil || worth(st) > worth(best)) {
			best = st
		}
	}
	switch {
	case best == nil:
		return "", fmt.Errorf("%s has no replica here: %w", at, shoal.ErrNotFound)
	case best.Container == "":
		why := ""
		if best.Reason != "" {
			why = " (" + best.Reason + ")"
		}
		return "", fmt.Errorf("%s has no container: it is %s%s: %w", at, best.Phase, why, shoal.ErrNotFound)
	}
	return best.Container, nil
}

// worth orders replicas: ready, running, with a container, the rest.
func worth(st *shoal.ReplicaStatus) int {
	switch {
	case st.Phase == shoal.PhaseReady:
		return 3
	case st.Phase == shoal.PhaseRunning:
		return 2
	case st.Container != "":
		return 1
	}
	return 0
}
