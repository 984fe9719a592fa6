// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
)

func TestRollouts(t *testing.T) {
	cluster := apitest.New("tokyo", "osaka")
	c := dial(t, apitest.Serve(t, cluster))
	ctx := t.Context()
	steer := func(w shoal.RolloutWish, opts api.WishOptions) api.Outcome {
		t.Helper()
		w.Service = "web"
		out, err := c.SteerRollout(ctx, w, opts)
		if err != nil || len(out.Changes) != 1 {
			t.Fatalf("SteerRollout(%+v) = %+v, %v, want one change", w, out, err)
		}
		return out
	}
	deploy(t, c, spec("web", "hello:1", 2))
	cluster.Settle("web")
	deploy(t, c, spec("web", "slow:2", 2))
	first, second := "1@"+string(apitest.PeerID("tokyo")), "2@"+string(apitest.PeerID("tokyo"))

	now, history, err := c.Rollout(ctx, "web")
	if err != nil || now.State != "watching" || now.Revision != second || now.Slots != 2 || now.Current != 2 || now.Healthy != 0 || now.Image != "slow:2" {
		t.Errorf("Rollout(web) = %+v, %v, want revision 2 watching, none of 2 healthy", now, err)
	}
	if h := history.Items; len(h) != 2 || h[0].State != "current" || h[1].Revision != first || h[1].State != "good" || h[1].By.Name != "tokyo" {
		t.Errorf("history = %+v, want the current one and a good one", h)
	}
	x, err := c.Explain(ctx, "web", -1)
	if err != nil || x.Rollout == nil || x.Rollout.Revision != second {
		t.Errorf("Explain(web).Rollout = %+v, %v, want that of revision 2", x.Rollout, err)
	}

	steer(shoal.RolloutWish{Change: shoal.RolloutPause}, api.WishOptions{PlanOnly: true})
	if now, _, _ := c.Rollout(ctx, "web"); now.Paused {
		t.Error("a plan paused it")
	}
	steer(shoal.RolloutWish{Change: shoal.RolloutPause}, api.WishOptions{})
	if now, _, err := c.Rollout(ctx, "web"); err != nil || !now.Paused || now.State != "paused" { // also read-your-writes
		t.Errorf("Rollout after a pause = %+v, %v", now, err)
	}
	steer(shoal.RolloutWish{Change: shoal.RolloutResume}, api.WishOptions{})

	of, err := shoal.ParseRevisionID(first)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.SteerRollout(ctx, shoal.RolloutWish{Service: "web", Change: shoal.RolloutBack, Of: of}, api.WishOptions{})
	wantError(t, err, api.CodeConflict, `service "web" is at revision `+second+`, not at `+first+`; look at it again`)
	steer(shoal.RolloutWish{Change: shoal.RolloutBack, To: "1"}, api.WishOptions{})
	now, history, err = c.Rollout(ctx, "web")
	if err != nil || now.State != "complete" || now.Undoes != second || now.Restores != first {
		t.Errorf("Rollout after going back = %+v, %v, want it to undo 2 and restore 1", now, err)
	}
	if h := history.Items; len(h) != 3 || h[0].Why != "goes back from 2 to 1" || h[1].State != "undone" || h[1].UndoneBy != now.Revision || h[1].Why != "a user went back" {
		t.Errorf("history after going back = %+v", h)
	}

	_, err = c.SteerRollout(ctx, shoal.RolloutWish{Service: "web", Change: shoal.RolloutSettle}, api.WishOptions{})
	wantError(t, err, api.CodeInvalid, `change must be pause, resume, promote or rollback, got "settle"`)
	_, err = c.SteerRollout(ctx, shoal.RolloutWish{Service: "web", Change: shoal.RolloutPause, To: "1"}, api.WishOptions{})
	wantError(t, err, api.CodeInvalid, `to goes with rollback`)
	_, err = c.SteerRollout(ctx, shoal.RolloutWish{Service: "web", Change: shoal.RolloutBack, To: strings.Repeat("9", 1000)}, api.WishOptions{})
	wantError(t, err, api.CodeInvalid, `to must be the number of a revision, or its whole ID`)
	const unknown = `no service "nosuch" (known here: web); this peer last synced 0 s ago`
	_, err = c.SteerRollout(ctx, shoal.RolloutWish{Service: "nosuch", Change: shoal.RolloutPause}, api.WishOptions{})
	wantError(t, err, api.CodeNotFound, unknown)
	_, _, err = c.Rollout(ctx, "nosuch")
	wantError(t, err, api.CodeNotFound, unknown)
}

// A watch of named services tells of their rollouts, one of all does not: that would look
// at every slot there is whenever anything changes.
func TestWatchTellsOfRollouts(t *testing.T) {
	c := dial(t, apitest.Serve(t, apitest.New("tokyo")))
	deploy(t, c, spec("web", "hello:1", 1))
	for _, names := range [][]string{{"web"}, nil} {
		stop := errors.New("seen")
		err := c.Watch(t.Context(), names, func(all []api.Progress, _ api.Freshness) error {
			if len(all) != 1 || (all[0].Rollout != nil) != (names != nil) {
				t.Errorf("Watch(%q) = %+v", names, all)
			}
			return stop
		})
		if !errors.Is(err, stop) {
			t.Errorf("Watch(%q) = %v", names, err)
		}
	}
}

// A daemon that does not follow rollouts says so.
func TestNoRollouts(t *testing.T) {
	cluster := apitest.New("tokyo")
	deps := cluster.Deps()
	with := deps.Cluster
	deps.Cluster = func() (*api.Cluster, bool) {
		out, ok := with()
		out.Rollouts = nil
		return out, ok
	}
	socket := t.TempDir() + "/s"
	t.Cleanup(apitest.Start(t, deps, socket))
	c := dial(t, socket)
	deploy(t, c, spec("web", "hello:1", 1))
	_, _, err := c.Rollout(t.Context(), "web")
	wantError(t, err, api.CodeRefused, "this daemon does not follow rollouts")
}
