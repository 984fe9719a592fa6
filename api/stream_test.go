// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
)

var errEnough = errors.New("enough")

func TestLogsMergeByTime(t *testing.T) {
	cluster := apitest.New("tokyo", "osaka", "kyoto")
	c := dial(t, apitest.Serve(t, cluster))
	deploy(t, c, spec("web", "hello:1", 6), spec("db", "hello:1", 2))
	var got []string
	var last time.Time
	q := api.LogRequest{LogQuery: shoal.LogQuery{Service: "web", Slot: -1, LogOptions: shoal.LogOptions{Tail: -1}}}
	collect := func(l api.LogLine) error {
		if l.Time.Before(last) {
			t.Errorf("%s comes after %s", l.Time, last)
		}
		last = l.Time
		got = append(got, l.Text)
		return nil
	}
	lost := map[string]string{}
	note := func(peer, why string) { lost[peer] = why }
	if err := c.Logs(t.Context(), q, collect, note); err != nil {
		t.Fatal(err)
	}
	if len(got) != 18 || got[0] != "line 0 of web/0" || got[5] != "line 0 of web/5" || got[17] != "line 2 of web/5" || len(lost) != 0 {
		t.Errorf("Logs(web) = %q, lost %v, want three lines of six slots in order", got, lost)
	}

	got, last = nil, time.Time{}
	q.Slot, q.Tail = 4, 1
	if err := c.Logs(t.Context(), q, collect, note); err != nil || !slices.Equal(got, []string{"line 2 of web/4"}) {
		t.Errorf("Logs(web/4, tail 1) = %q, %v, want its last line", got, err)
	}

	got, last = nil, time.Time{}
	cluster.Silence("osaka", 41*time.Second)
	q.Slot, q.Tail = -1, -1
	if err := c.Logs(t.Context(), q, collect, note); err != nil {
		t.Fatal(err)
	}
	if len(got) != 12 || lost["osaka"] != "not heard for 41s" {
		t.Errorf("Logs(web) without osaka = %d lines, lost %v, want 12 and osaka with its reason", len(got), lost)
	}
	_, err := c.Service(t.Context(), "web", false)
	if err != nil {
		t.Fatal(err)
	}
	q.Service = "nosuch"
	wantError(t, c.Logs(t.Context(), q, collect, note), api.CodeNotFound, `no service "nosuch" (known here: db, web); this peer last synced 0 s ago`)
	q.Service, q.Slot = "web", 77
	wantError(t, c.Logs(t.Context(), q, collect, note), api.CodeNotFound, `no replica of web/77 is known here; this peer last synced 0 s ago; see shoal ps`)
}

// Following, a holder that appears later is asked too, and one that is lost is told
// of once and asked again.
func TestLogsFollow(t *testing.T) {
	cluster := apitest.New("tokyo", "osaka")
	c := dial(t, apitest.Serve(t, cluster))
	deploy(t, c, spec("web", "hello:1", 1))
	q := api.LogRequest{LogQuery: shoal.LogQuery{Service: "web", Slot: -1, LogOptions: shoal.LogOptions{Tail: -1, Follow: true}}}
	holders := map[string]bool{}
	lines := 0
	err := c.Logs(t.Context(), q, func(l api.LogLine) error {
		lines++
		holders[l.PeerName] = true
		switch {
		case lines == 3 && len(holders) == 1:
			cluster.Silence("tokyo", time.Minute)
			cluster.Wake("tokyo")
			if _, err := c.Scale(t.Context(), []shoal.ScaleTarget{{Service: "web", N: 2}}, api.WishOptions{}); err != nil {
				return err
			}
		case len(holders) == 2:
			return errEnough
		}
		return nil
	}, func(string, string) {})
	if !errors.Is(err, errEnough) {
		t.Errorf("Logs(follow) = %v after %d lines of %v, want lines of both holders", err, lines, holders)
	}
}

func TestWatchUntilSettled(t *testing.T) {
	cluster := apitest.New("tokyo", "osaka")
	c := dial(t, apitest.Serve(t, cluster))
	deploy(t, c, spec("web", "slow:1", 2), spec("bad", "crash:1", 1), spec("lonely", "absent:1", 1))
	var seen []string
	err := c.Watch(t.Context(), []string{"web", "bad", "lonely", "gone"}, func(all []api.Progress, f api.Freshness) error {
		if f.Members != 2 || len(all) != 4 {
			return fmt.Errorf("%d services, freshness %+v", len(all), f)
		}
		web, bad, lonely, gone := all[0], all[1], all[2], all[3]
		if bad.Settled || bad.Trouble != "bad/0 on "+bad.Replicas[0].PeerName+" failed: exit 1" {
			return fmt.Errorf("bad = %+v", bad)
		}
		if r := lonely.Replicas[0]; lonely.Settled || r.State != "unplaced" || r.Reason != "2 peers: image absent:1 is not there (shoal image push it where docker has it)" {
			return fmt.Errorf("lonely = %+v", lonely)
		}
		if gone.Exists || !gone.Settled {
			return fmt.Errorf("gone = %+v", gone)
		}
		seen = append(seen, fmt.Sprintf("%d/%d %v", web.Service.Ready, web.Service.Replicas, web.Settled))
		switch len(seen) {
		case 1:
			cluster.Set("web", 0, shoal.PhaseReady, "")
		case 2:
			cluster.Set("web", 1, shoal.PhaseReady, "")
		case 3:
			return errEnough
		}
		return nil
	})
	if want := []string{"0/2 false", "1/2 false", "2/2 true"}; !errors.Is(err, errEnough) || !slices.Equal(seen, want) {
		t.Errorf("Watch saw %q, %v, want %q", seen, err, want)
	}
}

// Events are remembered and replayed, then followed.
func TestEvents(t *testing.T) {
	cluster := apitest.New("tokyo", "osaka")
	c := dial(t, apitest.Serve(t, cluster))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	poke := make(chan struct{}, 1)
	var got []string
	go func() { // changes until the recorder, which starts beside the server, has seen one
		for n := 1; ; n++ {
			select {
			case <-poke:
				return
			case <-time.After(100 * time.Millisecond):
				s := spec("web", fmt.Sprintf("hello:%d", n), 1)
				if _, err := c.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{s}}, api.WishOptions{}); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	err := c.Events(ctx, 0, time.Time{}, true, func(e api.Event) error {
		got = append(got, e.Text)
		if e.Kind == "replica" {
			poke <- struct{}{}
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("Events(follow) = %v after %q, want an event of a replica", err, got)
	}
	var again []string
	if err := c.Events(ctx, -1, time.Time{}, false, func(e api.Event) error { again = append(again, e.Text); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(again) < len(got) || !slices.Equal(again[:len(got)], got) {
		t.Errorf("Events() = %q, want to begin with what was followed: %q", again, got)
	}
	var one []string
	if err := c.Events(ctx, 1, time.Time{}, false, func(e api.Event) error { one = append(one, e.Text); return nil }); err != nil || len(one) != 1 {
		t.Errorf("Events(tail 1) = %q, %v, want one", one, err)
	}
}
