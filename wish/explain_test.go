// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
	"github.com/shoalnet/shoal/wish"
)

func only(key, value string) []shoal.Selector {
	return []shoal.Selector{{Key: key, Op: shoal.OpEqual, Values: []string{value}}}
}

func TestExplain(t *testing.T) {
	p := cluster(t, 2)[0]
	s := spec("web", 2)
	s.Constraints = only("zone", "eu")
	w := deploy(s)
	w.Deploy.AllowUnplaced = true
	if got := p.must(t, w); len(got.Unplaced) != 2 || !strings.Contains(got.Unplaced[0], "0 of 2 peers match zone=eu") || len(got.Notes) != 0 {
		t.Errorf("deploy = %+v, want that no peer matches", got)
	}
	got, err := p.Explain(context.Background(), "web")
	if err != nil || len(got.Lines) != 2 || got.Lines[0].Feasible || !strings.Contains(got.Lines[0].Reason, "zone=eu") {
		t.Errorf("Explain = %+v, %v, want two peers that do not match zone=eu", got, err)
	}
	if got.Never != "0 of 2 peers match zone=eu" || len(got.Slots) != 2 || len(got.Slots[1].Waits) != 1 || !strings.Contains(got.Slots[1].Waits[0], "does not decide yet") {
		t.Errorf("Explain = %+v, want that it is never placed, and two slots", got)
	}
	if _, err := p.Explain(context.Background(), "nosuch"); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Explain(nosuch): %v, want ErrNotFound", err)
	}
}

// TestExplainSaysWhatWasDecided: a slot's waits are what this peer's last decision
// said about it; what it said about the service is about slots without a holder.
func TestExplainSaysWhatWasDecided(t *testing.T) {
	p := cluster(t, 2)[0]
	p.must(t, deploy(spec("web", 2)))
	write(t, p.store, &shoal.ClaimBody{Peer: p.self, Service: "web", Holds: []shoal.Holding{{Slot: 0}}})
	desk := wish.New(p.self, p.store, p, nil, func(service string) ([]placement.Reason, bool) {
		return []placement.Reason{
			{Service: service, Slot: -1, Text: "1 open, waiting"}, {Service: service, Slot: 0, Text: "claimed"}, {Service: service, Slot: 1, Text: "open"},
		}, true
	})
	got, err := desk.Explain(context.Background(), "web")
	if err != nil || len(got.Slots) != 2 {
		t.Fatalf("Explain = %+v, %v, want two slots", got, err)
	}
	held, open := got.Slots[0], got.Slots[1]
	if !slices.Equal(held.Holders, []shoal.PeerID{p.self}) || !slices.Equal(held.Waits, []string{"claimed"}) {
		t.Errorf("slot 0 = %+v, want held here, and only its own reason", held)
	}
	if open.Proposed == "" || len(open.Holders) != 0 || !slices.Equal(open.Waits, []string{"1 open, waiting", "open"}) {
		t.Errorf("slot 1 = %+v, want proposed, with both reasons", open)
	}
}

// TestHopelessIsRefused: what no peer could ever run as the cluster is recorded is
// not accepted by a deploy, unless the user says that a peer will come.
func TestHopelessIsRefused(t *testing.T) {
	p := cluster(t, 3)[0]
	picky := spec("picky", 1)
	picky.Constraints = only("region", "eu")
	huge := spec("huge", 1)
	huge.Reservations.MemBytes = 512 << 30
	rude := spec("rude", 1)
	rude.Setup.Privileged = true
	all := spec("all", 0)
	all.Mode, all.Constraints = shoal.ModeGlobal, only("region", "eu")
	for _, c := range []struct {
		spec shoal.Spec
		want string
	}{
		{picky, `service "picky": 0 of 3 peers match region=eu: refused; label a peer (shoal peer label) or use --allow-unplaced`},
		{huge, `service "huge": no peer has 512 GiB (largest 8 GiB): refused; ask for less or use --allow-unplaced`},
		{rude, `service "rude": no peer's owner allows privileged (0 of 3): refused; allow it in the policy.yaml of a machine or use --allow-unplaced`},
		{all, `service "all": 0 of 3 peers match region=eu: refused; label a peer (shoal peer label) or use --allow-unplaced`},
	} {
		before := p.store.Desired().Digest
		_, err := p.Submit(context.Background(), deploy(spec("good", 1), c.spec), shoal.UpdateOptions{})
		if !errors.Is(err, shoal.ErrRefused) || err.Error() != "accept wish: "+c.want {
			t.Errorf("Submit: %v, want %s", err, c.want)
		}
		if p.store.Desired().Digest != before {
			t.Errorf("%s was refused, and something was written", c.spec.Name)
		}
		plan, err := p.Plan(context.Background(), deploy(spec("good", 1), c.spec))
		if err != nil || len(plan.Changes) != 2 || len(plan.Changes[0].Notes) != 0 ||
			len(plan.Changes[1].Notes) != 1 || !strings.HasPrefix(plan.Changes[1].Notes[0], "would be refused: ") {
			t.Errorf("Plan = %+v, %v, want a note that it would be refused", plan, err)
		}
		w := deploy(c.spec)
		w.Deploy.AllowUnplaced = true
		if got := p.must(t, w); got.Kind != shoal.ChangeCreate {
			t.Errorf("with AllowUnplaced: %+v, want +", got)
		}
	}
	p.push(t, "arm:1", digest("a"), "linux/arm64")
	foreign := of("arm:1")
	foreign.Name = "foreign"
	want := `accept wish: service "foreign": image is linux/arm64, peers are linux/amd64: refused; push an image that is for them too or use --allow-unplaced`
	if _, err := p.Submit(context.Background(), deploy(foreign), shoal.UpdateOptions{}); !errors.Is(err, shoal.ErrRefused) || err.Error() != want {
		t.Errorf("Submit of an image for other machines = %v, want %s", err, want)
	}
	p.must(t, scale("picky", 3, false)) // a number changes nothing about it
	none := picky
	none.Name, none.Replicas = "none", 0
	p.must(t, deploy(none)) // asks for nothing yet

	full := spec("full", 5)
	full.Reservations.MemBytes = 6 << 30
	if got := p.must(t, deploy(full)); len(got.Unplaced) != 2 { // three fit: not now is not never
		t.Errorf("a deploy beyond the room there is: %+v, want two unplaced", got)
	}
}

// TestPlanSaysWhatWillNotChange: a plan of an update that no holder can carry out says
// so, and is accepted all the same: a peer that can may come.
func TestPlanSaysWhatWillNotChange(t *testing.T) {
	p := cluster(t, 2)[0]
	out := p.must(t, deploy(spec("web", 2)))
	rev := out.Revision
	write(t, p.store, &shoal.ClaimBody{Peer: p.self, Service: "web", Holds: []shoal.Holding{
		{Slot: 0, Replica: shoal.ReplicaID{1}, Revision: rev}, {Slot: 1, Replica: shoal.ReplicaID{2}, Revision: rev},
	}})
	next := spec("web", 2)
	next.Constraints = only("zone", "eu")
	w := deploy(next)
	w.Deploy.AllowUnplaced = true
	got := p.must(t, w)
	if want := []string{"2 of 2 for now: keeps revision 1: does not match zone=eu"}; !slices.Equal(got.Notes, want) {
		t.Errorf("deploy = %+v, want the notes %q", got, want)
	}
	next.Constraints = nil
	if got := p.must(t, deploy(next)); len(got.Notes) != 0 {
		t.Errorf("deploy of what they can run = %+v, want no notes", got)
	}
}
