// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress"
	"github.com/shoalnet/shoal/links"
	"github.com/shoalnet/shoal/runtime"
)

// A peer that leaves, or was removed, leaves no network behind; the doctor tells of names.
func TestLeaveRemovesNetworks(t *testing.T) {
	for _, how := range []string{"leave", "expelled"} {
		t.Run(how, func(t *testing.T) {
			id, err := links.OpenIdentity("", nil)
			if err != nil {
				t.Fatal(err)
			}
			parts := partsOn(id, t.TempDir())
			reach := ingress.Defaults()
			reach.NoNames = true // the twin's bridges are nowhere
			parts.Ingress = &reach
			var twin *runtime.Twin
			parts.Engine = func(cluster, self shoal.PeerID) (Engines, error) {
				twin = runtime.NewTwin(runtime.TwinConfig{Cluster: cluster, Peer: self}, parts.Clock)
				return Engines{Engine: twin, Machine: twin, Console: twin, Puller: twin, Networks: twin}, nil
			}
			p, stop := runPeer(t, parts)
			if _, err := p.Init(t.Context(), shoal.InitOptions{}); err != nil {
				t.Fatal(err)
			}
			s, err := p.awaitStack(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			nets, dns, err := s.reach.Attach(t.Context(), &shoal.Spec{Name: "web"})
			if err != nil || len(nets) != 1 || dns.IsValid() {
				t.Fatalf("Attach = %+v, %s, %v", nets, dns, err)
			}
			told := false
			if err := p.Machine(t.Context(), func(c shoal.Check) error {
				told = told || c.Area == "names" && c.State == shoal.CheckSkip
				return nil
			}); err != nil || !told {
				t.Errorf("the doctor tells of names: %v, %v", told, err)
			}
			if how == "leave" {
				err = p.Leave(t.Context(), shoal.LeaveOptions{Force: true})
			} else {
				s.removed = "osaka" // by whom
				s.cancel()
			}
			if err := errors.Join(err, stop()); err != nil {
				t.Fatal(err)
			}
			if left, err := twin.ListNetworks(t.Context()); err != nil || len(left) != 0 {
				t.Errorf("left behind: %+v, %v", left, err)
			}
		})
	}
}
