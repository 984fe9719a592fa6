// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// noteNames says of new revisions which of their names other services want on the same
// network. It is no reason to refuse them: rules decide, and other names are left.
func noteNames(after *shoal.Desired, steps []*step) {
	known := map[string]map[string][]string{}
	for _, s := range steps {
		if s.rev == nil {
			continue
		}
		for _, a := range s.spec.Attachments() {
			if known[a.Network] == nil {
				known[a.Network] = shoal.NetworkNames(a.Network, after.Services)
			}
			names := append([]string{s.spec.Name}, a.Aliases...)
			slices.Sort(names)
			for _, name := range slices.Compact(names) {
				if all := known[a.Network][name]; len(all) > 1 {
					s.note(fmt.Sprintf("on network %s the name %s is that of %s, though %s has it as an alias", a.Network, name, all[0], strings.Join(all[1:], ", ")))
				}
			}
		}
	}
}
