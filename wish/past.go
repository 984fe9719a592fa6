// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"encoding/json"
	"math"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
	"github.com/shoalnet/shoal/placement/rollout"
)

// What a revision carries of earlier ones, alone and with its own spec, as JSON, which is
// longer than what is written. With a proposal it stays below the 128 KiB of a block.
const (
	pastBytes = 48 << 10
	specBytes = 80 << 10
)

// past returns what a revision of spec that comes after old remembers: the newest first, as
// many as may be and fit.
func past(spec *shoal.Spec, old *shoal.Service) []shoal.PastRevision {
	if old == nil {
		return nil
	}
	all := []shoal.PastRevision{{Revision: old.Revision, Spec: old.Spec, Accepted: old.Accepted, Good: old.Rollout.Settled}}
	all = append(all, old.Past...)
	var out []shoal.PastRevision
	room := pastBytes
	if raw, err := json.Marshal(spec); err == nil {
		room = min(room, specBytes-len(raw))
	}
	for _, p := range all[:min(len(all), shoal.MaxPast)] {
		if slices.ContainsFunc(out, func(o shoal.PastRevision) bool { return o.Revision == p.Revision }) {
			continue
		}
		raw, err := json.Marshal(p.Spec)
		if room -= len(raw); err != nil || room < 0 {
			break
		}
		out = append(out, p)
	}
	return out
}

// judgePast marks the revision that each step replaces as good where this peer sees that it
// has come to all slots, and none has failed since: a user who is quick does not wait until
// it has settled, and has something to go back to all the same.
func judgePast(v *shoal.View, steps []*step) {
	for _, s := range steps {
		if s.rev == nil || len(s.rev.Past) == 0 || s.rev.Past[0].Good {
			continue
		}
		if now, ok := v.Service(s.change.Service); !ok || now.Revision != s.rev.Past[0].Revision { // a run replaces none
			continue
		}
		slots, rules := placement.Rollout(v, s.change.Service, func(shoal.ReplicaID) time.Duration { return math.MaxInt64 })
		st := rules.StatusOf(slots)
		s.rev.Past[0].Good = len(slots) > 0 && st.State == rollout.Complete && st.Failed == 0
	}
}
