// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"fmt"
	"maps"
	"slices"

	"github.com/shoalnet/shoal"
)

// operate stops, starts or restarts one service. A restart is a new revision that
// differs in nothing but a count, so that replicas are replaced as by any other; of a job
// with a schedule it is a run.
func operate(d *shoal.Desired, author shoal.PeerID, name string, what shoal.Operation, now int64) (*step, error) {
	if pre, ok := d.Service(name); ok && pre.IsPre && what == shoal.OpRestart {
		return preAgain(d, author, name)
	}
	old, err := existing(d, name)
	if err != nil {
		return nil, err
	}
	s := &step{change: shoal.Change{
		Kind: shoal.ChangeUpdate, Service: name, Revision: old.Revision, Replicas: old.Replicas, Details: []string{string(what)},
	}}
	switch what {
	case shoal.OpStop:
		s.change.Stopped = true
		if old.Stopped {
			s.change.Kind, s.change.Details = shoal.ChangeNone, []string{"is stopped already"}
			return s, nil
		}
		s.op = &shoal.OpBody{Service: name, Seq: old.OpSeq + 1, Stopped: true, Of: old.Revision}
	case shoal.OpStart:
		s.spec = &old.Spec
		if !old.Stopped {
			s.change.Kind, s.change.Details = shoal.ChangeNone, []string{"is not stopped"}
			return s, nil
		}
		s.start(old)
	case shoal.OpRestart:
		if old.Spec.Schedule != nil {
			s.runNow(d, author, old, now)
			break
		}
		spec := old.Spec
		spec.Restarts++
		s.spec = &spec
		s.revise(d, author, old)
	default:
		return nil, &shoal.InvalidError{Field: "operation", Why: fmt.Sprintf("must be stop, start or restart, got %q", what)}
	}
	return s, nil
}

// start writes that a stopped service is wanted again.
func (s *step) start(old *shoal.Service) {
	s.op = &shoal.OpBody{Service: old.Spec.Name, Seq: old.OpSeq + 1, Of: old.Revision}
}

// again makes a deploy start a service that was stopped: a new revision does, and
// without one it is said.
func (s *step) again(old *shoal.Service) {
	s.change.Kind = shoal.ChangeUpdate
	s.change.Details = append(s.change.Details, "start")
	if s.rev == nil {
		s.start(old)
	}
}

// removeSeen adds the removal of the services that the wish names for it, as the user
// saw them.
func removeSeen(d *shoal.Desired, steps []*step, w *shoal.DeployWish) ([]*step, error) {
	for _, name := range slices.Sorted(maps.Keys(w.Remove)) {
		if slices.ContainsFunc(w.Specs, func(s shoal.Spec) bool { return s.Name == name }) {
			return nil, &shoal.InvalidError{Field: "remove", Why: fmt.Sprintf("names %q, which is to be deployed", name)}
		}
		if s, ok := d.Service(name); ok && s.Revision != w.Remove[name] {
			return nil, &shoal.AdviceError{
				Err:    fmt.Errorf("service %q changed while you were asked: %w", name, shoal.ErrConflict),
				Advice: "look at it again",
			}
		}
		out, err := remove(d, name, true)
		if err != nil {
			return nil, err
		}
		steps = append(steps, out)
	}
	return steps, nil
}

// prune adds the removal of every service of a project that the wish does not name.
func prune(d *shoal.Desired, steps []*step, w *shoal.DeployWish) ([]*step, error) {
	if w.Prune == "" {
		return steps, nil
	}
	named := append(slices.Clone(w.Keep), slices.Collect(maps.Keys(w.Remove))...)
	for i := range w.Specs {
		named = append(named, w.Specs[i].Name)
	}
	for i := range d.Services {
		s := &d.Services[i].Spec
		if s.Project != w.Prune || slices.Contains(named, s.Name) || d.Services[i].IsPre {
			continue
		}
		out, err := remove(d, s.Name, false)
		if err != nil {
			return nil, err
		}
		steps = append(steps, out)
	}
	return steps, nil
}
