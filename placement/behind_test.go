// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"slices"
	"testing"

	"github.com/shoalnet/shoal"
)

// TestSlotsSayWhatKeepsAnOldRevision: only where the holder cannot change and nobody
// else could take over; a replica whose turn has not come says nothing.
func TestSlotsSayWhatKeepsAnOldRevision(t *testing.T) {
	const missing = "keeps revision 1: image web:2 is not there (shoal image push it where docker has it)"
	for _, c := range []struct {
		name string
		edit func(k *kit, s *shoal.Service)
		want []string
	}{
		{"no peer has the image", func(*kit, *shoal.Service) {}, []string{missing, missing}},
		{"a third could take over", func(k *kit, _ *shoal.Service) { k.states["p002"].Images = []string{"web:2"} }, []string{"", ""}},
		{"the third takes nothing", func(k *kit, _ *shoal.Service) {
			k.states["p002"].Images = []string{"web:2"}
			k.peers[2].Cordoned = true
		}, []string{missing, missing}},
		{"its data keeps it there", func(k *kit, s *shoal.Service) {
			k.states["p000"].Images = []string{"web:2"}
			s.Spec.Setup.Mounts = []shoal.Mount{{Kind: shoal.MountVolume, Source: "d", Target: "/d"}}
		}, []string{"", missing}},
		{"all is new", func(_ *kit, s *shoal.Service) { s.Revision.Seq = 1 }, []string{"", ""}},
		{"no room for what it asks", func(k *kit, s *shoal.Service) {
			for _, st := range k.states {
				st.Images = []string{"web:2"}
			}
			s.Spec.Reservations.MemBytes = 100 * gib
			k.peers[2].Cordoned = true
		}, []string{"", ""}}, // an open peer has the image: who cannot change hands over
		{"the holder is not heard", func(k *kit, _ *shoal.Service) { k.dead("p001", 0) }, []string{missing, ""}},
	} {
		k := newKit(3)
		s := k.service("web", 2)
		s.Spec.Image, s.Revision.Seq = "web:2", 2
		k.hold("web", 0, "p000")
		k.hold("web", 1, "p001")
		k.states["p002"] = &shoal.PeerState{}
		c.edit(k, s)
		v := k.view("p000")
		if now, ok := v.Service("web"); ok && s.Revision.Seq == 2 { // as if web:2 were only planned
			before := *now
			before.Spec.Image, before.Revision.Seq = "web:1", 1
			d := *v.Desired()
			d.Services = []shoal.Service{before}
			if got := Keeps(v.With(&d), &now.Spec); !slices.Equal(got, c.want) {
				t.Errorf("%s: Keeps = %q, want %q", c.name, got, c.want)
			}
		}
		for i, x := range Slots(v, "web")[:2] {
			if x.Behind != c.want[i] || x.Behind != "" && !slices.Contains(x.Waits, x.Behind) {
				t.Errorf("%s: slot %d = behind %q, waits %q, want %q", c.name, i, x.Behind, x.Waits, c.want[i])
			}
		}
	}
}
