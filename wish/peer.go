// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// peerStep is the change of one peer while it is stamped.
type peerStep struct {
	*step
	view   *shoal.View
	author shoal.PeerID
	peer   *shoal.Peer
}

// changePeer turns a wish about a peer into a step. Like stamp it is pure: the view
// is its only input.
func changePeer(v *shoal.View, author shoal.PeerID, w *shoal.PeerWish) (*step, error) {
	p, ok := v.Desired().Peer(w.Peer)
	if !ok {
		return nil, fmt.Errorf("no peer %q: %w", w.Peer, shoal.ErrNotFound)
	}
	s := &peerStep{step: &step{change: shoal.Change{Kind: shoal.ChangeNone, Peer: p.ID}}, view: v, author: author, peer: p}
	if p.Removed && w.Change == shoal.PeerRemove {
		s.detail("already removed")
		return s.step, nil
	}
	if p.Removed {
		return nil, fmt.Errorf("peer %s was removed from the cluster: %w", p.Name(), shoal.ErrRefused)
	}
	switch w.Change {
	case shoal.PeerCordon:
		s.cordon()
	case shoal.PeerDrain:
		s.drain()
	case shoal.PeerUncordon:
		s.uncordon()
	case shoal.PeerUndrain:
		s.undrain()
	case shoal.PeerEdit:
		if err := s.edit(w); err != nil {
			return nil, err
		}
	case shoal.PeerRemove:
		if err := s.remove(w.Force); err != nil {
			return nil, err
		}
	default:
		return nil, &shoal.InvalidError{Field: "change", Why: fmt.Sprintf("%q is not known", w.Change)}
	}
	return s.step, nil
}

// word is what the author says of the peer from now on: what it said before, without
// the marks and lifts that no longer matter.
func (s *peerStep) word() *shoal.MarkBody {
	if s.mark != nil {
		return s.mark
	}
	s.change.Kind = shoal.ChangeUpdate
	s.mark = &shoal.MarkBody{Peer: s.peer.ID}
	if mine := s.peer.By[s.author]; mine != nil {
		for _, m := range mine.Laid {
			if slices.Contains(s.peer.Marks, m) {
				s.mark.Laid = append(s.mark.Laid, m)
			}
		}
		for _, id := range mine.Lifts {
			if !s.unlaid(id) {
				s.mark.Lifts = append(s.mark.Lifts, id)
			}
		}
		s.mark.Edits = slices.Clone(mine.Edits)
	}
	return s.mark
}

// unlaid reports whether who laid a mark is known to have taken it back.
func (s *peerStep) unlaid(id string) bool {
	author, _, _ := strings.Cut(id, "/")
	said := s.peer.By[shoal.PeerID(author)]
	return said != nil && !slices.ContainsFunc(said.Laid, func(m shoal.Mark) bool { return m.ID == id })
}

func (s *peerStep) cordon() {
	switch {
	case s.isMarked(false):
		s.detail("already cordoned")
		return
	case s.peer.Draining: // undraining it would leave nothing
		s.detail("cordon, which stays when it is undrained")
	default:
		s.detail("cordon")
	}
	s.word().Laid = append(s.word().Laid, shoal.Mark{})
}

func (s *peerStep) drain() {
	moves, ends, stays := s.held()
	for _, slot := range stays {
		s.change.Notes = append(s.change.Notes, slot+" stays: its data is there")
	}
	s.change.Replicas = moves + ends
	if s.peer.Draining {
		s.detail("already drained")
		return
	}
	s.word().Laid = append(s.word().Laid, shoal.Mark{Drain: true})
	var what []string
	if moves > 0 || ends == 0 {
		what = append(what, counted(moves, "replica moves", "replicas move"))
	}
	if ends > 0 {
		what = append(what, counted(ends, "of a global service ends", "of global services end"))
	}
	s.detail("drain (%s)", strings.Join(what, ", "))
}

func (s *peerStep) uncordon() {
	if len(s.peer.Marks) == 0 {
		s.detail("is not cordoned")
		return
	}
	s.lift(s.peer.Marks...)
	if s.peer.Draining {
		s.detail("undrain")
	}
	s.detail("uncordon")
}

func (s *peerStep) undrain() {
	if !s.peer.Draining {
		s.detail("is not drained")
	} else {
		for _, m := range s.peer.Marks {
			if m.Drain {
				s.lift(m)
			}
		}
		s.detail("undrain")
	}
	if s.isMarked(false) {
		s.change.Notes = append(s.change.Notes, "stays cordoned; shoal uncordon lifts that")
	}
}

// lift takes own marks back, and lifts those of others.
func (s *peerStep) lift(marks ...shoal.Mark) {
	w := s.word()
	for _, m := range marks {
		if i := slices.Index(w.Laid, m); i >= 0 {
			w.Laid = slices.Delete(w.Laid, i, i+1)
			continue
		}
		w.Lifts = append(w.Lifts, m.ID)
	}
	slices.Sort(w.Lifts)
	w.Lifts = slices.Compact(w.Lifts)
}

// isMarked reports whether a drain, or a mere cordon, is in force.
func (s *peerStep) isMarked(drain bool) bool {
	return slices.ContainsFunc(s.peer.Marks, func(m shoal.Mark) bool { return m.Drain == drain })
}

func (s *peerStep) detail(format string, args ...any) {
	s.change.Details = append(s.change.Details, fmt.Sprintf(format, args...))
}

// held counts what a drain would do to the replicas of the peer, and names what it
// does not touch.
func (s *peerStep) held() (moves, ends int, stays []string) {
	for _, c := range s.view.ClaimsBy(s.peer.ID) {
		svc, ok := s.view.Service(c.Service)
		switch {
		case ok && svc.Outcome(c).Over(): // nothing to hand over
		case ok && svc.Spec.Mode.IsGlobal():
			ends++
		case ok && svc.Spec.StaysHome():
			stays = append(stays, fmt.Sprintf("%s/%d", c.Service, c.Slot))
		case s.view.Done(c): // nothing to hand over
		default:
			moves++
		}
	}
	return moves, ends, stays
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
