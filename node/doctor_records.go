// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip"
)

// recordChecks says which members send blocks of records that had to be refused.
func (p *Peer) recordChecks(context.Context) []shoal.Check {
	s, err := p.current()
	if err != nil {
		return nil
	}
	v := s.tracker.View()
	return refusalChecks(s.store.Stats(), func(id shoal.PeerID) string {
		if m, ok := v.Peer(id); ok {
			return m.Name()
		}
		return id.Short()
	})
}

// refusalChecks is one check if all is well, else one for each sender. Everybody
// verifies before passing on, so it is the sender's machine or program that is at fault.
func refusalChecks(st gossip.Stats, name func(shoal.PeerID) string) []shoal.Check {
	reasons := map[shoal.PeerID]map[string]uint64{}
	for r, n := range st.Refused {
		if reasons[r.From] == nil {
			reasons[r.From] = map[string]uint64{}
		}
		reasons[r.From][r.Reason] += n
	}
	if len(reasons) == 0 {
		c := shoal.Check{Area: "records", Name: "refused", State: shoal.CheckOK, Detail: "none"}
		if st.Slowed > 0 {
			c.Detail = fmt.Sprintf("none; %d came too fast and were fetched later", st.Slowed)
		}
		return []shoal.Check{c}
	}
	var out []shoal.Check
	for _, from := range slices.Sorted(maps.Keys(reasons)) {
		total, words := uint64(0), []string(nil)
		by := reasons[from]
		for _, r := range slices.SortedFunc(maps.Keys(by), func(a, b string) int {
			return cmp.Or(cmp.Compare(by[b], by[a]), cmp.Compare(a, b))
		}) {
			total += by[r]
			words = append(words, fmt.Sprintf("%s %d", r, by[r]))
		}
		c := shoal.Check{
			Area: "records", Name: "refused of " + name(from), State: shoal.CheckWarn,
			Detail: fmt.Sprintf("%d in all: %s", total, strings.Join(words, ", ")),
			Remedy: "look at that machine (version, memory, disk); shoal peer rm shuts it out",
		}
		if left, ok := st.Muted[from]; ok {
			c.Detail += fmt.Sprintf("; nothing is taken from it for %s", left.Round(time.Second))
		}
		out = append(out, c)
	}
	return out
}
