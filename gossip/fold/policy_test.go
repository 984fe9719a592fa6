// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
)

// wants says what an author wants outside to be, having seen these.
func wants(author shoal.PeerID, upstream string, replaces ...shoal.RevisionID) *shoal.PolicyBody {
	id := rev(1, author)
	for _, r := range replaces {
		id.Seq = max(id.Seq, r.Seq+1)
	}
	return &shoal.PolicyBody{ID: id, Replaces: replaces, Upstream: upstream}
}

func TestPolicy(t *testing.T) {
	const first, none = shoal.UpstreamPeersFirst, shoal.UpstreamNone
	a1, b1 := rev(1, "A"), rev(1, "B")
	tests := map[string]struct {
		entries []Entry
		want    string // the word, whether outside is asked, the heads
		void    int
	}{
		"nobody said anything":   {nil, " true", 0},
		"one":                    {[]Entry{at("A", 9, wants("A", none))}, "none false 1-A", 0},
		"a later one":            {[]Entry{at("A", 9, wants("A", none)), at("B", 9, wants("B", first, a1))}, "peers-first true 2-B", 0},
		"the strictest of two":   {[]Entry{at("A", 9, wants("A", none)), at("B", 9, wants("B", first))}, "none false 1-A 1-B", 0},
		"the same the other way": {[]Entry{at("A", 9, wants("A", first)), at("B", 9, wants("B", none))}, "none false 1-A 1-B", 0},
		"somebody who saw both": {
			[]Entry{at("A", 9, wants("A", none)), at("B", 9, wants("B", first)), at("C", 9, wants("C", first, a1, b1))}, "peers-first true 2-C", 0,
		},
		"a word of a later version": {[]Entry{at("A", 9, wants("A", "weekends"))}, "weekends false 1-A", 0},
		"by a peer that may not":    {[]Entry{at("P", 9, wants("P", none))}, " true", 1},
		"another's ID":              {[]Entry{at("A", 9, wants("B", none))}, " true", 1},
		"its author was removed":    {[]Entry{at("B", 9, wants("B", none)), at("A", 10, removal("B", 8))}, " true", 1},
	}
	for label, tt := range tests {
		t.Run(label, func(t *testing.T) {
			d := fold(t, with(tt.entries...)...)
			got := []string{d.Policy.Upstream, fmt.Sprint(d.Policy.AsksOutside())}
			for _, h := range d.Policy.Heads {
				got = append(got, fmt.Sprintf("%d-%s", h.Seq, h.Author))
			}
			if got := strings.Join(got, " "); got != tt.want || d.Void != tt.void {
				t.Errorf("policy = %q, %d void, want %q, %d", got, d.Void, tt.want, tt.void)
			}
		})
	}
}
