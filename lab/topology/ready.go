// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/shoalnet/shoal/lab/wire"
)

// What a topology has that says nothing else.
const (
	defaultState  = 512 << 20 // bytes: records of years
	defaultEngine = 8 << 30   // bytes
	minDisk       = 64 << 20  // bytes: less is no file system for an engine
)

// defaultNetwork is beside the range that peers cut the networks of services from.
var defaultNetwork = netip.MustParsePrefix("10.214.0.0/16")

// ReadyMade is a topology by name.
type ReadyMade struct {
	Name  string
	Hosts int // unless asked otherwise
	Least int // with fewer it is not what its name says
	About string

	build func(t *Topology, n int)
}

// ReadyNames are the ready-made topologies.
func ReadyNames() []ReadyMade {
	return []ReadyMade{
		{"lan", 3, 1, "all in one place, 0.2 ms apart", lan},
		{"3-regions", 6, 3, "Europe, America, Asia: 90, 150 and 230 ms apart", regions},
		{"home-lab", 5, 3, "a rented host, and two homes behind routers with slow upload", homeLab},
		{"satellite", 4, 2, "half of the hosts behind a satellite: 600 ms, 1 % loss, 2 mbit up", satellite},
	}
}

// LAN returns n hosts in one place.
func LAN(n int) *Topology {
	t := empty(n)
	lan(t, n)
	return t
}

// Ready returns a ready-made topology of n hosts, named h1, h2, ...; n 0 is its own
// number.
func Ready(name string, n int) (*Topology, error) {
	var names []string
	for _, r := range ReadyNames() {
		names = append(names, r.Name)
		if r.Name != name {
			continue
		}
		if n == 0 {
			n = r.Hosts
		}
		if n < r.Least || n > MaxHosts {
			return nil, fmt.Errorf("%s has %d-%d hosts, got %d", name, r.Least, MaxHosts, n)
		}
		t := empty(n)
		r.build(t, n)
		return t, nil
	}
	return nil, fmt.Errorf("there is no topology %q; there are %s", name, strings.Join(names, ", "))
}

func empty(n int) *Topology {
	t := &Topology{
		Network: defaultNetwork, Disk: Disk{State: defaultState, Engine: defaultEngine},
		Default: wire.Link{Delay: 100 * time.Microsecond}, // a switch and two cables
	}
	for i := range n {
		t.Hosts = append(t.Hosts, Host{Name: fmt.Sprintf("h%d", i+1)})
	}
	return t
}

func lan(*Topology, int) {}

// regions has the round trips between public clouds' regions that their operators and
// public monitors show, rounded: Frankfurt, Virginia, Tokyo.
func regions(t *Topology, n int) {
	zones := []string{"eu", "us", "asia"}
	for i := range t.Hosts {
		t.Hosts[i].Zone = zones[i*len(zones)/n]
	}
	t.Default.Delay = 500 * time.Microsecond // buildings of one region
	apart := func(a, b, rtt string) Rule {
		return Rule{From: zonePrefix + a, To: zonePrefix + b, Change: Change{RTT: rtt, Jitter: "1ms"}}
	}
	t.Rules = []Rule{apart("eu", "us", "90ms"), apart("us", "asia", "150ms"), apart("eu", "asia", "230ms")}
}

func homeLab(t *Topology, n int) {
	t.Routers = []Router{{Name: "home1", Zone: "home1"}, {Name: "home2", Zone: "home2"}}
	t.Hosts[0].Zone = "cloud"
	for i := 1; i < n; i++ {
		home := t.Routers[(i-1)*2/(n-1)]
		t.Hosts[i].Behind, t.Hosts[i].Zone = home.Name, home.Name
	}
	t.Rules = []Rule{
		{From: "home1", To: "*", OneWay: true, Change: Change{Delay: "10ms", Jitter: "1ms", Rate: "20mbit"}},
		{From: "home2", To: "*", OneWay: true, Change: Change{Delay: "20ms", Jitter: "2ms", Rate: "20mbit"}},
		{From: "*", To: "home1", OneWay: true, Change: Change{Delay: "10ms", Jitter: "1ms", Rate: "100mbit"}},
		{From: "*", To: "home2", OneWay: true, Change: Change{Delay: "20ms", Jitter: "2ms", Rate: "100mbit"}},
		{From: "home1", To: "home2", Change: Change{Delay: "30ms", Jitter: "2ms", Rate: "20mbit"}},
		{From: "home1", To: "zone:home1", Change: Change{Delay: "200us", Jitter: "0s", Rate: "1gbit"}},
		{From: "home2", To: "zone:home2", Change: Change{Delay: "200us", Jitter: "0s", Rate: "1gbit"}},
	}
}

// satellite is a geostationary one: 36,000 km up and down, twice, are 480 ms at the speed
// of light.
func satellite(t *Topology, n int) {
	for i := range t.Hosts {
		t.Hosts[i].Zone = []string{"ground", "remote"}[i*2/n]
	}
	t.Rules = []Rule{
		{From: "zone:ground", To: "zone:remote", OneWay: true, Change: Change{Delay: "300ms", Jitter: "10ms", Loss: "1%", Rate: "10mbit"}},
		{From: "zone:remote", To: "zone:ground", OneWay: true, Change: Change{Delay: "300ms", Jitter: "10ms", Loss: "1%", Rate: "2mbit"}},
	}
}
