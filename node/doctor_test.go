// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/links"
	"github.com/shoalnet/shoal/placement/brake"
)

// The doctor works before a machine is a member, and for itself afterwards.
func TestDoctorOfThisMachine(t *testing.T) {
	id, err := links.OpenIdentity("", nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, stop := runPeer(t, partsOn(id, filepath.Join(dir, "store")))
	states := func() map[string]shoal.CheckState {
		out := map[string]shoal.CheckState{}
		if err := p.Peer(t.Context(), id.Self(), func(c shoal.Check) error {
			out[c.Area+"/"+c.Name] = c.State
			if c.Peer != id.Self() || (c.State == shoal.CheckFail || c.State == shoal.CheckWarn) && c.Remedy == "" {
				t.Errorf("check %+v is of somebody else, or says not what to do", c)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	got := states()
	for name, want := range map[string]shoal.CheckState{
		"engine/answers": shoal.CheckOK, "engine/API": shoal.CheckOK, "disk/room": shoal.CheckOK, "cluster/member": shoal.CheckSkip,
	} {
		if got[name] != want {
			t.Errorf("%s = %q before membership, want %s", name, got[name], want)
		}
	}
	if got["disk/sync"] == "" || got["limits/open files"] == "" {
		t.Errorf("checks are missing: %v", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".doctor-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := p.Init(t.Context(), shoal.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := states(); got["cluster/member"] != shoal.CheckOK || got["cluster/hears others"] != shoal.CheckOK {
		t.Errorf("as a member: %v", got)
	}
	broken := errors.New("no more")
	if err := p.Machine(t.Context(), func(shoal.Check) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("Machine = %v, want the reader's error", err)
	}
	if err := p.Peer(t.Context(), "nobody", nil); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Peer(nobody) = %v, want ErrNotFound", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestAtLeast(t *testing.T) {
	for got, want := range map[string]bool{"1.41": true, "1.51": true, "2.0": true, "1.40": false, "0.99": false, "": false, "old": false} {
		if atLeast(got, "1.41") != want {
			t.Errorf("atLeast(%q, 1.41) = %v, want %v", got, !want, want)
		}
	}
}

// What is at fault is a finding, with what to do; and who takes no new slots for it.
func TestDoctorOnWhatIsAtFault(t *testing.T) {
	d := &shoal.Desired{Peers: []shoal.Peer{{ID: "a", Facts: shoal.PeerFacts{Name: "osaka"}}, {ID: "b", Facts: shoal.PeerFacts{Name: "kyoto"}}}}
	lives := map[shoal.PeerID]shoal.Life{"b": {State: shoal.LifeAlive}}
	v := shoal.NewView("a", d, lives, map[shoal.PeerID]*shoal.PeerState{"b": {Trouble: "3 services fail on it"}})
	got := faultChecks(v, brake.Verdicts{
		{Cause: brake.Application, Service: "web", Image: "web:1", Failing: 2, Of: 3},
		{Cause: brake.Machine, Peer: "b"},
		{Cause: brake.Cluster, Failing: 3, Of: 3, Shares: 4, All: 5},
	})
	want := []string{
		"service web: web:1 of web fails on 2 of 3 holders within 60s; its replicas restart slowly everywhere",
		"what all share: 4 of 5 services that were fine fail, on 3 of 3 peers: it must be what they share; nothing is undone meanwhile",
		"peer kyoto: takes no new slots: 3 services fail on it",
	}
	if len(got) != len(want) {
		t.Fatalf("%d checks: %+v, want %d", len(got), got, len(want))
	}
	for i, c := range got {
		if text := c.Name + ": " + c.Detail; text != want[i] || c.State != shoal.CheckWarn || c.Remedy == "" {
			t.Errorf("check %+v, want %q", c, want[i])
		}
	}
}

// A store that was damaged is a finding until what was set aside is removed.
func TestDoctorOnDamagedRecords(t *testing.T) {
	id, err := links.OpenIdentity("", nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "store")
	p, stop := runPeer(t, partsOn(id, dir))
	if _, err := p.Init(t.Context(), shoal.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	if c := p.recordCheck(); c.State != shoal.CheckOK {
		t.Errorf("check of a good store = %+v", c)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	lists, err := filepath.Glob(filepath.Join(dir, "db", "MANIFEST-*"))
	if err != nil || len(lists) == 0 {
		t.Fatalf("no list of tables in %s: %v", dir, err)
	}
	for _, name := range lists {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	p, stop = runPeer(t, partsOn(id, dir))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := p.awaitStack(ctx); err != nil {
		t.Fatal(err)
	}
	c := p.recordCheck()
	if want := "were damaged, and set aside as " + dir + ".broken-0; "; c.State != shoal.CheckWarn || !strings.HasPrefix(c.Detail, want) || c.Remedy == "" {
		t.Errorf("check = %+v, want %q and what to do", c, want)
	}
	if got := p.Status(); got.Self != id.Self() || got.Cluster != id.Cluster() || got.Store == nil || got.Store.Records == 0 {
		t.Errorf("status = %+v, want the same member with its records", got)
	}
	if err := os.RemoveAll(dir + ".broken-0"); err != nil {
		t.Fatal(err)
	}
	if c := p.recordCheck(); c.State != shoal.CheckOK {
		t.Errorf("check when it is removed = %+v", c)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// Who sends refused blocks is named, with why, and for how long nothing is taken.
func TestDoctorNamesWhoSendsRefusedBlocks(t *testing.T) {
	name := func(id shoal.PeerID) string { return "name of " + string(id) }
	if got := refusalChecks(gossip.Stats{Slowed: 3}, name); len(got) != 1 || got[0].State != shoal.CheckOK || !strings.Contains(got[0].Detail, "3 came too fast") {
		t.Errorf("checks of a store that refused nothing = %+v", got)
	}
	got := refusalChecks(gossip.Stats{
		Refused: map[gossip.Refusal]uint64{{Reason: "form", From: "a"}: 1, {Reason: "signature", From: "a"}: 16, {Reason: "height", From: "b"}: 1},
		Muted:   map[shoal.PeerID]time.Duration{"a": 40 * time.Second},
	}, name)
	if len(got) != 2 {
		t.Fatalf("checks = %+v, want one for each sender", got)
	}
	for i, want := range []string{"17 in all: signature 16, form 1; nothing is taken from it for 40s", "1 in all: height 1"} {
		if got[i].Detail != want || got[i].State != shoal.CheckWarn || got[i].Remedy == "" || got[i].Name != "refused of name of "+string('a'+rune(i)) {
			t.Errorf("check %d = %+v, want %q", i, got[i], want)
		}
	}
}
