// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalnet/shoal"
)

// TestZoneFollows the view: names come, their slots become ready, they change networks and
// go; an address is given to nobody else for a while.
func TestZoneFollows(t *testing.T) {
	inIsland(t, nil, func(t *testing.T, i *island) {
		web := shoal.Spec{
			Name: "web", Project: "shop", Ports: []shoal.Port{{Container: 80}, {Container: 53, Protocol: "udp"}},
			Networks: []shoal.Attachment{{Network: "front", Aliases: []string{"www"}}},
		}
		nets, _ := i.attach(web)
		const client = "10.213.4.9"
		ask := func(name string) string { return i.machine.ask(t, "front", client, name) }
		if got := ask("web."); got != "SERVFAIL" { // it is asked elsewhere, and there is nobody
			t.Errorf("web = %s before it is there", got)
		}
		i.deploy(2, web)
		at := ask("web.")
		if !nets[0].Virtual.Contains(netipAddr(t, at)) || ask("www.") != at || ask("web.shop.shoal.") != at || ask("tasks.web.") == ask("0.web.") {
			t.Errorf("web = %s, www = %s, tasks.web = %s", at, ask("www."), ask("tasks.web."))
		}
		want := []string{"tcp " + at + ":80", "udp " + at + ":53"}
		for _, slot := range []string{"0.web.", "1.web."} {
			want = append(want, "tcp "+ask(slot)+":80", "udp "+ask(slot)+":53")
		}
		slices.Sort(want)
		if got := i.machine.at("front").endpoints; !slices.Equal(got, want) {
			t.Errorf("endpoints = %v, want %v", got, want)
		}
		i.change(func() { i.state.Replicas[0].Phase = shoal.PhaseStarting })
		if got := ask("tasks.web."); got != ask("1.web.") || ask("0.web.") == "NXDOMAIN" {
			t.Errorf("tasks.web = %s, want the ready slot only, and both by number", got)
		}
		i.change(func() { i.desired.Services[0].Replicas = 1 })
		if got := ask("1.web."); got != "NXDOMAIN" {
			t.Errorf("1.web = %s of one slot", got)
		}
		i.change(func() { i.desired.Services[0].Spec.Networks = on("other") })
		if got := ask("web."); got != "SERVFAIL" || len(i.machine.at("front").endpoints) != 0 {
			t.Errorf("web = %s on a network that it is not on", got)
		}
		i.change(func() { i.desired.Services = nil })
		i.deploy(1, web)
		if got := ask("web."); got != at {
			t.Errorf("web = %s, was %s", got, at)
		}
	})
}

// TestZoneOfGlobal has a slot for each claim.
func TestZoneOfGlobal(t *testing.T) {
	inIsland(t, nil, func(t *testing.T, i *island) {
		agent := shoal.Spec{Name: "agent", Mode: shoal.ModeGlobal}
		i.attach(agent)
		i.deploy(2, agent)
		for name, exists := range map[string]bool{"0.agent.": true, "1.agent.": true, "2.agent.": false} {
			if got := i.machine.ask(t, "default", "10.213.4.9", name); (got != "NXDOMAIN") != exists {
				t.Errorf("%s = %s, want it there: %v", name, got, exists)
			}
		}
		i.change(func() { i.desired.Services[0].Stopped = true })
		if got := i.machine.ask(t, "default", "10.213.4.9", "agent."); got == "NXDOMAIN" {
			t.Error("a stopped service has lost its address")
		}
	})
}

// TestGuests: a container asks its first network's resolver about all of its networks, and
// about no other; as long as it is not known, about those that it may be on.
func TestGuests(t *testing.T) {
	inIsland(t, nil, func(t *testing.T, i *island) {
		web := shoal.Spec{Name: "web", Networks: on("front", "back")}
		lone, db, far := shoal.Spec{Name: "lone", Networks: on("front")}, shoal.Spec{Name: "db", Networks: on("back")}, shoal.Spec{Name: "far", Networks: on("far")}
		var back shoal.Network
		for _, s := range []shoal.Spec{web, lone, db, far} {
			nets, _ := i.attach(s)
			back = nets[len(nets)-1]
			i.deploy(1, s)
		}
		nets, _ := i.attach(web)
		back = nets[1]
		i.change(func() {
			for j := range i.state.Replicas {
				r := &i.state.Replicas[j]
				r.Addr = map[string]string{"web": "10.213.4.2", "lone": "10.213.4.3"}[r.Service]
			}
		})
		for _, c := range []struct {
			client, name string
			resolves     bool
		}{
			{"10.213.4.2", "db.", true},
			{"10.213.4.3", "db.", false},
			{"10.213.4.7", "db.", true},
			{"10.213.4.2", "lone.", true},
			{"10.213.4.3", "web.", true},
			{"10.213.4.2", "far.", false},
			{"10.213.4.7", "far.", false},
		} {
			got := i.machine.ask(t, "front", c.client, c.name)
			if (got != "SERVFAIL") != c.resolves || c.resolves && c.name == "db." && !back.Virtual.Contains(netipAddr(t, got)) {
				t.Errorf("%s for %s = %s, want it to resolve: %v", c.name, c.client, got, c.resolves)
			}
		}
		// A replica of an older revision may be on networks that nobody remembers.
		i.change(func() {
			for j := range i.desired.Services {
				i.desired.Services[j].Revision.Seq = 7
			}
		})
		if got := i.machine.ask(t, "front", "10.213.4.3", "db."); got == "SERVFAIL" {
			t.Errorf("db = %s for an old replica", got)
		}
	})
}

// TestZoneIsFull tells who has no address, and gives one as soon as there is room.
func TestZoneIsFull(t *testing.T) {
	inIsland(t, nil, func(t *testing.T, i *island) {
		big := shoal.Spec{Name: "big", Networks: on("a")}
		i.attach(big)
		i.deploy(600, big)
		has := func(want bool) {
			t.Helper()
			all := i.room.NameChecks(t.Context())
			is := slices.ContainsFunc(all, func(c shoal.Check) bool {
				return c.Name == "a has room" && c.State == shoal.CheckFail && strings.Contains(c.Detail, "are all in use") && c.Remedy != ""
			})
			if is != want {
				t.Errorf("checks = %+v, want trouble: %v", all, want)
			}
		}
		has(true)
		i.change(func() { i.desired.Services[0].Replicas = 4 })
		has(false)
		web := shoal.Spec{Name: "web", Networks: on("a")}
		i.deploy(3, web)
		has(true) // addresses of names that are gone are not given away at once
		if got := i.machine.ask(t, "a", "10.213.4.9", "web."); got != "SERVFAIL" {
			t.Errorf("web = %s, want it told that there is none now", got)
		}
		time.Sleep(quarantine + again)
		synctest.Wait()
		has(false)
		if got := i.machine.ask(t, "a", "10.213.4.9", "2.web."); got == "SERVFAIL" {
			t.Errorf("2.web = %s", got)
		}
	})
}

// TestClash is told by the doctor.
func TestClash(t *testing.T) {
	inIsland(t, nil, func(t *testing.T, i *island) {
		for _, name := range []string{"one", "two"} {
			spec := shoal.Spec{Name: name, Networks: []shoal.Attachment{{Network: "a", Aliases: []string{"db"}}}}
			i.attach(spec)
			i.deploy(1, spec)
		}
		all := i.room.NameChecks(t.Context())
		want := "is wanted by several: one.shoal. has it, not two.shoal."
		if len(all) != 3 || all[2].Name != "db on a" || all[2].State != shoal.CheckWarn || all[2].Detail != want {
			t.Errorf("checks = %+v, want %q", all, want)
		}
		i.machine.at("a").stats.TurnedAway = 3
		if all = i.room.NameChecks(t.Context()); !strings.Contains(all[1].Detail, "3 packets of other networks turned away") {
			t.Errorf("checks = %+v, want what was turned away", all)
		}
	})
}

// TestPortsStayBounded: who tries every port of every address makes two entries.
func TestPortsStayBounded(t *testing.T) {
	inIsland(t, nil, func(t *testing.T, i *island) {
		web := shoal.Spec{Name: "web", Ports: []shoal.Port{{Container: 80, Protocol: "tcp"}}, Networks: on("a")}
		i.attach(web)
		i.deploy(1, web)
		l := i.room.networks.all()[0]
		at := netipAddr(t, i.machine.ask(t, "a", "10.213.4.9", "web."))
		var ends []func()
		for port := range 1000 {
			to, ok := l.destOf(addrPort(at, port+1), "tcp")
			if !ok || to.IsGuess != (port+1 != 80) || int(to.Port) != port+1 {
				t.Fatalf("port %d leads to %+v, %v", port+1, to.Dest, ok)
			}
			ends = append(ends, to.end)
		}
		if _, ok := l.destOf(addrPort(at.Next(), 80), "tcp"); ok {
			t.Error("an address of nobody leads somewhere")
		}
		count := func() string {
			i.room.mu.Lock()
			defer i.room.mu.Unlock()
			return fmt.Sprint(len(i.room.services))
		}
		if got := count(); got != "2" {
			t.Errorf("%s entries, want 2", got)
		}
		if rows, err := i.room.Replicas("web"); err != nil || len(rows) != 1 {
			t.Errorf("replicas = %+v, %v", rows, err)
		}
		i.change(func() { i.desired.Services = nil })
		if got := count(); got != "2" {
			t.Errorf("%s entries, want those in use kept", got)
		}
		for _, end := range ends {
			end()
		}
		i.change(func() {})
		if got := count(); got != "0" {
			t.Errorf("%s entries, want none", got)
		}
	})
}

func netipAddr(t testing.TB, s string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func addrPort(a netip.Addr, port int) netip.AddrPort { return netip.AddrPortFrom(a, uint16(port)) }
