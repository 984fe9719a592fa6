// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package lab_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/topology"
)

// Hosts behind routers that translate their addresses are in the cluster; from outside
// nobody reaches them, and without its router a home is on its own.
func TestRouters(t *testing.T) {
	topo := topology.LAN(0)
	topo.Routers = []topology.Router{{Name: "r1", Zone: "town"}, {Name: "r2"}}
	topo.Hosts = []topology.Host{{Name: "a1", Behind: "r1"}, {Name: "vps"}, {Name: "b1", Behind: "r2", Zone: "home"}}
	l := lab.Up(t, lab.On(topo))
	if len(l.Hosts()) != 3 {
		t.Errorf("the hosts are %+v", l.Hosts())
	}
	const connect = "exec 3<>/dev/tcp/$0/4710"
	within(t, l, "a1", "timeout", "10", "bash", "-c", connect, "vps")
	if err := l.Exec(t.Context(), "vps", []string{"timeout", "1", "bash", "-c", connect, "a1"}, lab.Streams{}); err == nil {
		t.Error("a host behind a router was reached from outside")
	}
	if got := must(t)(l.Shoal(t.Context(), "vps", "peer", "ls", "-o", "template={{.name}} {{.zone}}")); !strings.Contains(got, "b1 home") {
		t.Errorf("the peers and their zones are %q", got)
	}
	if h, err := l.Host("r1"); err != nil || !h.IsRouter || !h.IsUp || h.Zone != "town" {
		t.Errorf("a router is %+v, %v", h, err)
	}
	ok(t, l.Kill(t.Context(), "r1"))
	ok(t, client(t, l, "a1").Heard(t.Context(), 1, time.Minute))
	ok(t, client(t, l, "vps").Heard(t.Context(), 2, time.Minute))
	ok(t, l.Boot(t.Context(), "r1"))
	ok(t, client(t, l, "vps").Heard(t.Context(), 3, 2*time.Minute))
}

// Hosts behind two routers, neither of which lets anybody in, reach each other: first
// through the host outside, then straight through both routers. What runs on one is
// served to the other, also when the host outside is gone.
func TestBehindRouters(t *testing.T) {
	topo := topology.LAN(0)
	topo.Routers = []topology.Router{{Name: "r1"}, {Name: "r2"}}
	topo.Hosts = []topology.Host{{Name: "vps"}, {Name: "a1", Behind: "r1", Zone: "a"}, {Name: "b1", Behind: "r2", Zone: "b"}}
	l := lab.Up(t, lab.On(topo), lab.Images(hello(t)))
	path := func(from, to string) string {
		t.Helper()
		for line := range strings.Lines(must(t)(l.Shoal(t.Context(), from, "peer", "ls", "-o", "template={{.name}} {{.path}}"))) {
			if rest, found := strings.CutPrefix(strings.TrimSpace(line), to+" "); found {
				return rest
			}
		}
		return ""
	}
	await := func(what string, limit time.Duration, is func() bool) {
		t.Helper()
		from := time.Now()
		for !is() {
			if time.Since(from) > limit {
				t.Fatalf("%s: not within %s; a1 to b1 %q, b1 to a1 %q\n%s", what, limit, path("a1", "b1"), path("b1", "a1"),
					must(t)(l.Shoal(t.Context(), "a1", "doctor", "b1")))
			}
			time.Sleep(time.Second) // the daemons run in real time
		}
		t.Logf("%s after %s: a1 to b1 %q, b1 to a1 %q", what, time.Since(from).Round(time.Second), path("a1", "b1"), path("b1", "a1"))
	}
	await("linked", time.Minute, func() bool { return path("a1", "b1") != "" && path("b1", "a1") != "" })
	const noUDP = "FORWARD -p udp -j DROP" // no hole without it
	within(t, l, "r1", append([]string{"iptables", "-w", "-I"}, strings.Fields(noUDP)...)...)
	await("relayed", 2*time.Minute, func() bool {
		return path("a1", "b1") == "relayed by vps, tcp" && path("b1", "a1") == "relayed by vps, tcp"
	})
	must(t)(l.Shoal(t.Context(), "a1", "run", "--name", "web", "--constraint", "zone=b", image, "work"))
	_, err := client(t, l, "a1").Exact(t.Context(), "web", 1, time.Minute)
	ok(t, err)
	must(t)(l.Shoal(t.Context(), "a1", "logs", "web"))
	if got := must(t)(l.Shoal(t.Context(), "a1", "exec", "web/0", "--", "/hello", "shout", "--length", "9")); len(got) != 9 {
		t.Error("a command over there says nothing")
	}
	must(t)(l.Shoal(t.Context(), "a1", "run", "--name", "site", "--constraint", "zone=b", "-p", "8080:80", image))
	_, err = client(t, l, "a1").Exact(t.Context(), "site", 1, time.Minute)
	ok(t, err)
	served := func(host string) bool {
		const get = `exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET / HTTP/1.0\r\n\r\n' >&3; timeout 5 head -n 1 <&3 | grep 200`
		return l.Exec(t.Context(), host, []string{"bash", "-c", get}, lab.Streams{}) == nil
	}
	for _, host := range []string{"a1", "b1", "vps"} {
		await("served to "+host, time.Minute, func() bool { return served(host) })
	}
	within(t, l, "r1", append([]string{"iptables", "-w", "-D"}, strings.Fields(noUDP)...)...)
	await("punched", 2*time.Minute, func() bool { return path("a1", "b1") == "punched, quic" })
	if got := path("a1", "vps"); got != "direct, tcp" {
		t.Errorf("a1 reaches vps by %q", got)
	}
	ok(t, l.Kill(t.Context(), "vps"))
	ok(t, client(t, l, "a1").Heard(t.Context(), 2, time.Minute))
	if got := path("a1", "b1"); got != "punched, quic" {
		t.Errorf("without the relay the path is %q", got)
	}
	must(t)(l.Shoal(t.Context(), "a1", "logs", "web"))
	if !served("a1") {
		t.Error("without the relay a1 is not served from b1")
	}
}

// The ready-made topologies with distance come up, too.
func TestReady(t *testing.T) {
	for _, r := range topology.ReadyNames() {
		t.Run(r.Name, func(t *testing.T) {
			topo, err := topology.Ready(r.Name, 0)
			ok(t, err)
			from := time.Now()
			l := lab.Up(t, lab.On(topo))
			t.Logf("%d hosts up in %s", len(l.Hosts()), time.Since(from).Round(time.Millisecond))
			if got := len(l.Hosts()); got != r.Hosts {
				t.Errorf("%d hosts are up, want %d", got, r.Hosts)
			}
		})
	}
}
