// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"fmt"

	"github.com/shoalnet/shoal"
)

// portConflicts tells the services that want a port of every peer and do not have it.
func portConflicts(d *shoal.Desired) []shoal.Conflict {
	var out []shoal.Conflict
	for _, p := range shoal.PublishedPorts(d) {
		winner, _ := d.Service(p.Service) // PublishedPorts names those of d
		for _, name := range p.Losers {
			loser, _ := d.Service(name)
			out = append(out, shoal.Conflict{
				Service: name, Loser: loser.Revision, Winner: winner.Revision,
				Rule: fmt.Sprintf("port %d/%s answers for %s, whose revision is the higher; publish another port for one of them", p.Port, p.Protocol, p.Service),
			})
		}
	}
	return out
}
