// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	selectorKey   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$`)
	selectorValue = regexp.MustCompile(`^[A-Za-z0-9._:/-]{0,128}$`)
	selectorSet   = regexp.MustCompile(`^(\S+)\s+(in|notin)\s*\(([^()]*)\)$`)
)

// ParseSelector reads one of the six forms: k=v, k!=v, k in (a,b), k notin (a,b),
// k, !k. Errors are *InvalidError.
func ParseSelector(text string) (Selector, error) {
	text = strings.TrimSpace(text)
	if m := selectorSet.FindStringSubmatch(text); m != nil {
		sel := Selector{Key: m[1], Op: Op(m[2])}
		for v := range strings.SplitSeq(m[3], ",") {
			sel.Values = append(sel.Values, strings.TrimSpace(v))
		}
		return sel, sel.check(text)
	}
	if k, v, ok := strings.Cut(text, "!="); ok {
		sel := Selector{Key: strings.TrimSpace(k), Op: OpNotEqual, Values: []string{strings.TrimSpace(v)}}
		return sel, sel.check(text)
	}
	if k, v, ok := strings.Cut(text, "="); ok {
		sel := Selector{Key: strings.TrimSpace(k), Op: OpEqual, Values: []string{strings.TrimSpace(v)}}
		return sel, sel.check(text)
	}
	if k, ok := strings.CutPrefix(text, "!"); ok {
		sel := Selector{Key: strings.TrimSpace(k), Op: OpNotExists}
		return sel, sel.check(text)
	}
	sel := Selector{Key: text, Op: OpExists}
	return sel, sel.check(text)
}

func (s Selector) check(text string) error {
	if !selectorKey.MatchString(s.Key) {
		return &InvalidError{Field: "selector", Why: fmt.Sprintf("%q is none of k=v, k!=v, k in (a,b), k notin (a,b), k, !k", text)}
	}
	for _, v := range s.Values {
		if !selectorValue.MatchString(v) {
			return &InvalidError{Field: "selector", Why: fmt.Sprintf("%q has the value %q; letters, digits and . _ : / - are allowed", text, v)}
		}
	}
	return nil
}

// String returns the form that [ParseSelector] reads.
func (s Selector) String() string {
	switch s.Op {
	case OpEqual, OpNotEqual:
		return s.Key + string(s.Op) + strings.Join(s.Values, "")
	case OpIn, OpNotIn:
		return s.Key + " " + string(s.Op) + " (" + strings.Join(s.Values, ",") + ")"
	case OpNotExists:
		return "!" + s.Key
	case OpExists:
	}
	return s.Key
}

// Matches reports whether a value (and whether there is one) satisfies the selector.
func (s Selector) Matches(value string, ok bool) bool {
	switch s.Op {
	case OpEqual, OpIn:
		return ok && slices.Contains(s.Values, value)
	case OpNotEqual, OpNotIn:
		return !ok || !slices.Contains(s.Values, value)
	case OpNotExists:
		return !ok
	case OpExists:
		return ok
	}
	return false // an operator of a later version
}

// Label returns the value of a label of the peer, or of a pseudo-label with one value.
func (p *Peer) Label(key string) (string, bool) {
	switch key {
	case "peer":
		return p.Name(), true
	case "peer.id":
		return string(p.ID), true
	}
	v, ok := p.Facts.Labels[key]
	return v, ok
}

// Matches reports whether the peer satisfies a selector. A key that the peer does not
// have is unequal to everything, as in Kubernetes.
func (p *Peer) Matches(s Selector) bool {
	if s.Key == "platform" {
		return s.matchesAny(p.Facts.Platforms)
	}
	value, ok := p.Label(s.Key)
	return s.Matches(value, ok)
}

// MatchesAll reports whether the peer satisfies all selectors.
func (p *Peer) MatchesAll(constraints []Selector) bool {
	return !slices.ContainsFunc(constraints, func(s Selector) bool { return !p.Matches(s) })
}

// matchesAny is Matches for a key with several values.
func (s Selector) matchesAny(have []string) bool {
	found := slices.ContainsFunc(s.Values, func(v string) bool { return slices.Contains(have, v) })
	switch s.Op {
	case OpEqual, OpIn:
		return found
	case OpNotEqual, OpNotIn:
		return !found
	case OpNotExists:
		return len(have) == 0
	case OpExists:
		return len(have) > 0
	}
	return false
}
