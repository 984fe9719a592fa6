// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/shoalnet/shoal/lab/wire"
)

// ParseSplit reads the sides of a split: "h1 h2 | h3 h4 h5". Who is on no side keeps all
// links. What is behind a router cannot be parted from the outside without the others
// behind it: an error says so.
func (t *Topology) ParseSplit(s string) ([][]string, error) {
	var sides [][]string
	seen := map[string]bool{}
	for side := range strings.SplitSeq(s, "|") {
		names := strings.FieldsFunc(side, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
		if len(names) == 0 {
			return nil, fmt.Errorf("a split has names on all its sides, like \"h1 h2 | h3\", got %q", s)
		}
		for _, n := range names {
			if !slices.Contains(t.names(), n) {
				return nil, t.unknown(n)
			}
			if seen[n] {
				return nil, fmt.Errorf("%s is named twice", n)
			}
			seen[n] = true
		}
		sides = append(sides, names)
	}
	if len(sides) < 2 {
		return nil, fmt.Errorf("a split has two sides or more, like \"h1 h2 | h3\", got %q", s)
	}
	_, err := t.parted(sides, false)
	return sides, err
}

// Split returns the links between the sides that ParseSplit has read: of every two sides,
// both ways, or one way only those from the first side to the others.
func (t *Topology) Split(sides [][]string, oneWay bool) []wire.Pair {
	out, _ := t.parted(sides, oneWay) // ParseSplit has tried it
	return out
}

func (t *Topology) parted(sides [][]string, oneWay bool) ([]wire.Pair, error) {
	var out []wire.Pair
	for i, from := range sides {
		for j, to := range sides {
			if i == j || oneWay && i > 0 {
				continue
			}
			for _, a := range from {
				for _, b := range to {
					p, err := t.Between(a, b)
					if err != nil {
						return nil, err
					}
					out = append(out, p)
				}
			}
		}
	}
	return out, nil
}
