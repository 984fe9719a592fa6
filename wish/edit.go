// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// edit changes a peer's name and labels, as far as they are not so already.
func (s *peerStep) edit(w *shoal.PeerWish) error {
	if w.Name == "" && len(w.Set)+len(w.Unset) == 0 {
		return &shoal.InvalidError{Field: "name", Why: "or labels must be given"}
	}
	if w.Name != "" {
		if err := s.rename(w.Name); err != nil {
			return err
		}
	}
	for _, k := range slices.Sorted(maps.Keys(w.Set)) {
		if slices.Contains(w.Unset, k) {
			return &shoal.InvalidError{Field: "label", Why: fmt.Sprintf("%q is both set and taken away", k)}
		}
		if err := s.label(k, w.Set[k]); err != nil {
			return err
		}
	}
	for _, k := range slices.Compact(slices.Sorted(slices.Values(w.Unset))) {
		if _, has := s.peer.Facts.Labels[k]; has {
			s.say(shoal.Edit{Label: k, Gone: true})
			s.detail("label %s-", k)
		}
	}
	if s.mark == nil {
		s.detail("already so")
	}
	return nil
}

// rename refuses a name that another member has.
func (s *peerStep) rename(name string) error {
	if err := shoal.CheckName("name", name); err != nil {
		return err
	}
	if name == s.peer.Facts.Name {
		return nil
	}
	all := s.view.Peers()
	for i := range all {
		if p := &all[i]; p.Facts.Name == name && p.ID != s.peer.ID && !p.Removed && !p.Left() {
			return &shoal.AdviceError{
				Err:    fmt.Errorf("the name %q is taken by peer %s: %w", name, p.ID.Short(), shoal.ErrConflict),
				Advice: "choose another one, or rename that peer first",
			}
		}
	}
	s.say(shoal.Edit{Value: name})
	s.detail("name %s -> %s", s.peer.Name(), name)
	return nil
}

// pseudo are the labels that every peer has by itself.
var pseudo = []string{"peer", "peer.id", "platform"}

func (s *peerStep) label(key, value string) error {
	sel, err := shoal.ParseSelector(key + "=" + value)
	if err != nil || sel.Op != shoal.OpEqual || sel.Key != key || sel.Values[0] != value {
		return &shoal.InvalidError{Field: "label", Why: fmt.Sprintf("%q is not KEY=VALUE of letters, digits and . _ : / -", key+"="+value)}
	}
	if slices.Contains(pseudo, key) {
		return &shoal.InvalidError{Field: "label", Why: fmt.Sprintf("%s is given by the machine and cannot be set", key)}
	}
	switch old, has := s.peer.Facts.Labels[key]; {
	case has && old == value:
		return nil
	case has:
		s.detail("label %s %s -> %s", key, old, value)
	default:
		s.detail("label %s=%s", key, value)
	}
	s.say(shoal.Edit{Label: key, Value: value})
	return nil
}

// say puts an edit over what counts now.
func (s *peerStep) say(e shoal.Edit) {
	e.Seq = 1
	for _, old := range s.peer.Edits {
		if old.Label == e.Label {
			e.Seq = old.Seq + 1
		}
	}
	w := s.word()
	at, found := slices.BinarySearchFunc(w.Edits, e.Label, func(x shoal.Edit, label string) int { return strings.Compare(x.Label, label) })
	if found {
		w.Edits[at] = e
		return
	}
	w.Edits = slices.Insert(w.Edits, at, e)
}
