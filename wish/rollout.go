// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalnet/shoal"
)

// changeRollout pauses, resumes or promotes a rollout, or goes back to an earlier revision.
func changeRollout(d *shoal.Desired, author shoal.PeerID, w *shoal.RolloutWish, now int64) (*step, error) {
	old, err := existing(d, w.Service)
	if err != nil {
		return nil, err
	}
	if !w.Of.IsZero() && w.Of != old.Revision {
		return nil, &shoal.AdviceError{
			Err:    fmt.Errorf("service %q is at revision %s, not at %s: %w", w.Service, old.Revision, w.Of, shoal.ErrConflict),
			Advice: "look at it again",
		}
	}
	s := &step{change: shoal.Change{
		Kind: shoal.ChangeUpdate, Service: w.Service, Revision: old.Revision, Replicas: old.Replicas, Stopped: old.Stopped,
	}}
	if old.Spec.Mode.IsJob() && w.Change != shoal.RolloutBack {
		return nil, &shoal.AdviceError{
			Err:    fmt.Errorf("service %q is a %s, which has no waves to %s: %w", w.Service, old.Spec.Mode, w.Change, shoal.ErrConflict),
			Advice: fmt.Sprintf("shoal stop %[1]s ends its runs, shoal restart %[1]s begins anew", w.Service),
		}
	}
	st := old.Rollout
	word := &shoal.RolloutBody{
		Service: w.Service, Of: old.Revision, Seq: st.Seq + 1, Paused: st.Paused, Promoted: st.Promoted, Why: st.Why, Settled: st.Settled,
	}
	already := ""
	switch w.Change {
	case shoal.RolloutPause:
		if st.Paused {
			already = "is paused already"
		}
		word.Paused, word.Why = true, w.Why
	case shoal.RolloutResume:
		if !st.Paused {
			already = "is not paused"
		}
		word.Paused, word.Why = false, ""
	case shoal.RolloutPromote:
		if old.Revise().Canary == (shoal.Canary{}) {
			return nil, &shoal.AdviceError{
				Err:    fmt.Errorf("revision %d of service %q has no canary: %w", old.Revision.Seq, w.Service, shoal.ErrConflict),
				Advice: "x-shoal.canary says how many slots try a revision first",
			}
		}
		if st.Promoted {
			already = "is promoted already"
		}
		word.Promoted = true
	case shoal.RolloutSettle:
		if st.Settled {
			already = "has settled already"
		}
		word.Settled = true
	case shoal.RolloutBack:
		return s.back(d, author, old, w, now)
	default:
		return nil, &shoal.InvalidError{Field: "rollout", Why: fmt.Sprintf("must be pause, resume, promote or rollback, got %q", w.Change)}
	}
	if already != "" {
		s.change.Kind, s.change.Details = shoal.ChangeNone, []string{already}
		return s, nil
	}
	s.rollout, s.change.Details = word, []string{string(w.Change)}
	return s, nil
}

// back writes an earlier revision anew.
func (s *step) back(d *shoal.Desired, author shoal.PeerID, old *shoal.Service, w *shoal.RolloutWish, now int64) (*step, error) {
	to, err := earlier(old, w.To)
	if err != nil {
		return nil, err
	}
	spec := to.Spec
	carryRun(&spec, old, now)
	withoutPre(&spec)
	s.spec = &spec
	s.revise(d, author, old)
	s.rev.Undoes, s.rev.Why = old.Revision, w.Why
	if len(s.rev.Past) > 0 { // a large spec may leave no room for it
		s.rev.Past[0].UndoneBy, s.rev.Past[0].Why, s.rev.Past[0].Failure = s.rev.Revision, w.Why, w.Failure
	}
	s.change.Details = append([]string{fmt.Sprintf("back to revision %d", to.Revision.Seq)}, differences(&old.Spec, &spec)...)
	if !to.Good {
		s.note(fmt.Sprintf("revision %d is not known to have been healthy", to.Revision.Seq))
	}
	return s, nil
}

// earlier finds the revision to go back to.
func earlier(old *shoal.Service, to string) (*shoal.PastRevision, error) {
	if len(old.Past) == 0 {
		return nil, &shoal.AdviceError{
			Err:    fmt.Errorf("service %q has no earlier revision: %w", old.Spec.Name, shoal.ErrNotFound),
			Advice: "deploy what it should be",
		}
	}
	if to == "" {
		if good := old.LastGood(); good != nil {
			return good, nil
		}
		return &old.Past[0], nil
	}
	at := slices.IndexFunc(old.Past, func(p shoal.PastRevision) bool {
		return p.Revision.String() == to || strconv.FormatUint(p.Revision.Seq, 10) == to
	})
	if at < 0 {
		var known []string
		for _, p := range old.Past {
			known = append(known, strconv.FormatUint(p.Revision.Seq, 10))
		}
		return nil, &shoal.AdviceError{
			Err:    fmt.Errorf("revision %s of service %q is not remembered: %w", to, old.Spec.Name, shoal.ErrNotFound),
			Advice: "revisions that are: " + strings.Join(known, ", "),
		}
	}
	return &old.Past[at], nil
}
