// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// Verdict says whether one peer could take a slot, and why not.
type Verdict struct {
	Peer     shoal.PeerID
	Feasible bool
	Never    bool   // it could not, whatever is freed, lifted or loaded: labels, its owner, platform or size forbid it
	Reason   string // "" if feasible; a sentence about the peer without its name
	// Score is what spread and binpack compare: "2 held, 31% full after", and "75% of its
	// image here" of one that moves between peers; "2 held" while its room is not known.
	Score string
}

// Explain returns a verdict for every member that was not removed, by ID, on one
// more replica of spec beside all that is claimed.
func Explain(v *shoal.View, spec *shoal.Spec) []Verdict {
	w, s := explainWorld(v, spec)
	w.measure(s)
	r := w.newListRow(s, nil)
	var out []Verdict
	for p := range w.peers {
		row := &w.peers[p]
		if row.removed {
			continue
		}
		x := Verdict{Peer: row.peer.ID, Never: w.never(p, s)}
		x.Score = fmt.Sprintf("%d held", r.held[p])
		if row.knowsRoom() {
			x.Score += fmt.Sprintf(", %.0f%% full after", 100*share(row.load.Add(s.nominal), row.alloc))
		}
		x.Score += w.layersText(p, s)
		x.Reason = w.verdict(p, s, int(r.held[p]))
		x.Feasible = x.Reason == ""
		out = append(out, x)
	}
	return out
}

// Hopeless returns the sentence why no member could ever run spec, as the cluster
// is recorded: "no peer has 512 GiB (largest 24 GiB)", "0 of 5 peers match
// region=eu", "no peer's owner allows privileged (0 of 5)", "image is linux/arm64,
// peers are linux/amd64"; "" if some peer could, now or later. A member that is not
// heard counts as it is recorded.
func Hopeless(v *shoal.View, spec *shoal.Spec) string {
	w, s := explainWorld(v, spec)
	return w.hopeless(s)
}

func explainWorld(v *shoal.View, spec *shoal.Spec) (*world, *serviceRow) {
	svc := shoal.Service{Spec: *spec}
	if old, ok := v.Service(spec.Name); ok {
		svc = *old
		svc.Spec = *spec
	}
	w := newWorld(v, []shoal.Service{svc})
	w.setStandings()
	return w, w.service(spec.Name)
}

// verdict returns the first reason against a peer, lasting ones first.
func (w *world) verdict(p int, s *serviceRow, held int) string {
	row := &w.peers[p]
	if sel, no := unmatched(row.peer, s.spec.Constraints); no {
		return "does not match " + selectorText(sel)
	}
	if rule := w.forbidden(p, s); rule != "" {
		return "its owner does not allow " + rule
	}
	if w.foreign(p, s) {
		return w.foreignText(p, s)
	}
	if w.tooSmall(p, s) {
		return row.roomText(row.alloc, s.size)
	}
	if why := w.barred(p); why != "" {
		return why
	}
	if why := w.unable(p, s); why != "" {
		return why
	}
	return w.cramped(p, s, held)
}

// never reports whether labels, its owner, platform or size alone forbid the peer.
func (w *world) never(p int, s *serviceRow) bool {
	_, no := unmatched(w.peers[p].peer, s.spec.Constraints)
	return no || w.forbidden(p, s) != "" || w.foreign(p, s) || w.tooSmall(p, s)
}

// tooSmall reports whether a whole peer has too little room for one replica, as far as
// it is known.
func (w *world) tooSmall(p int, s *serviceRow) bool {
	row := &w.peers[p]
	return row.knowsRoom() && !fits(row.alloc, s.size)
}

// blank reports whether a member's facts have not arrived yet: it was admitted, and
// might be able to do anything.
func (w *world) blank(p int) bool {
	f := &w.peers[p].peer.Facts
	return f.Name == "" && f.Capacity == (shoal.Resources{})
}

func (w *world) hopeless(s *serviceRow) string {
	members := slices.DeleteFunc(w.indices(), func(p int) bool { return w.peers[p].removed })
	if slices.ContainsFunc(members, w.blank) {
		return ""
	}
	matching := slices.DeleteFunc(slices.Clone(members), func(p int) bool {
		_, no := unmatched(w.peers[p].peer, s.spec.Constraints)
		return no
	})
	if len(matching) == 0 {
		words := make([]string, len(s.spec.Constraints))
		for i, sel := range s.spec.Constraints {
			words[i] = selectorText(sel)
		}
		return fmt.Sprintf("0 of %d peers match %s", len(members), strings.Join(words, " and "))
	}
	willing := slices.DeleteFunc(slices.Clone(matching), func(p int) bool { return w.forbidden(p, s) != "" })
	if len(willing) == 0 {
		return w.disallowed(s, matching)
	}
	native := slices.DeleteFunc(slices.Clone(willing), func(p int) bool { return w.foreign(p, s) })
	if len(native) == 0 {
		return w.allForeign(s, willing)
	}
	var largest shoal.Resources
	for _, p := range native {
		if !w.tooSmall(p, s) {
			return ""
		}
		alloc := w.peers[p].alloc
		largest.CPUMilli = max(largest.CPUMilli, alloc.CPUMilli)
		largest.MemBytes = max(largest.MemBytes, alloc.MemBytes)
	}
	switch {
	case s.size.MemBytes > largest.MemBytes:
		return fmt.Sprintf("no peer has %s (largest %s)", bytesText(s.size.MemBytes), bytesText(largest.MemBytes))
	case s.size.CPUMilli > largest.CPUMilli:
		return fmt.Sprintf("no peer has %s CPUs (largest %s)", cpuText(s.size.CPUMilli), cpuText(largest.CPUMilli))
	}
	return fmt.Sprintf("no peer has %s CPUs and %s together", cpuText(s.size.CPUMilli), bytesText(s.size.MemBytes))
}

// disallowed says what no owner of these peers allows: one thing, or what each lacks
// together.
func (w *world) disallowed(s *serviceRow, peers []int) string {
	lacks := s.demands
	for _, demand := range s.demands {
		if !slices.ContainsFunc(peers, func(p int) bool {
			return shoal.Forbidden(w.peers[p].peer.Facts.AllowedPolicy, []string{demand}) == ""
		}) {
			lacks = []string{demand}
			break
		}
	}
	return fmt.Sprintf("no peer's owner allows %s (0 of %d)", strings.Join(lacks, " and "), len(peers))
}

func (w *world) indices() []int {
	out := make([]int, len(w.peers))
	for i := range out {
		out[i] = i
	}
	return out
}

// nobody says why no peer takes one more replica: the hopeless reason, or each
// distinct reason with how many peers have it, most frequent first.
func (w *world) nobody(s *serviceRow, r *listRow) string {
	if why := w.hopeless(s); why != "" {
		return why
	}
	var reasons []string
	count := make(map[string]int)
	total := 0
	for p := range w.peers {
		if w.peers[p].removed {
			continue
		}
		total++
		why := w.verdict(p, s, int(r.held[p]))
		if why == "" {
			continue
		}
		if count[why] == 0 {
			reasons = append(reasons, why)
		}
		count[why]++
	}
	slices.SortStableFunc(reasons, func(a, b string) int { return count[b] - count[a] })
	const most = 3
	var words []string
	for i, why := range reasons {
		if i == most {
			words = append(words, fmt.Sprintf("and %d more reasons", len(reasons)-most))
			break
		}
		words = append(words, fmt.Sprintf("%d of %d peers: %s", count[why], total, why))
	}
	if len(words) == 0 {
		return "no peer takes it now"
	}
	return strings.Join(words, "; ")
}
