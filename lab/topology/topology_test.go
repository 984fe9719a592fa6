// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/shoalnet/shoal/lab/wire"
)

func example(t testing.TB) *Topology {
	t.Helper()
	raw, err := os.ReadFile("testdata/geo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	topo, err := Parse("geo.yaml", raw)
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

func TestExample(t *testing.T) {
	topo := example(t)
	links := topo.Links()
	for pair, want := range map[wire.Pair]wire.Link{
		{Segment: Outside, From: "paris", To: "berlin"}:    {Delay: 200 * time.Microsecond},
		{Segment: Outside, From: "paris", To: "virginia"}:  {Delay: 45 * time.Millisecond, Jitter: 2 * time.Millisecond},
		{Segment: Outside, From: "virginia", To: "paris"}:  {Delay: 45 * time.Millisecond, Jitter: 2 * time.Millisecond},
		{Segment: Outside, From: "router", To: "paris"}:    {Delay: 10 * time.Millisecond, Rate: 20e6},
		{Segment: Outside, From: "paris", To: "router"}:    {Delay: 10 * time.Millisecond, Rate: 100e6},
		{Segment: Outside, From: "router", To: "virginia"}: {Delay: 55 * time.Millisecond, Loss: 0.005, Rate: 20e6},
		{Segment: "router", From: "attic", To: "cellar"}:   {Delay: 10 * time.Millisecond},
		{Segment: "router", From: "attic", To: "router"}:   {Delay: 200 * time.Microsecond},
	} {
		if got, ok := links[pair]; !ok || got != want {
			t.Errorf("link %s = %+v (%v), want %+v", pair, got, ok, want)
		}
	}
	for name, want := range map[string]string{
		"paris": "outside 10.214.0.11/24 - 02:53:0a:d6:00:0b", "virginia": "outside 10.214.0.13/24 - 02:53:0a:d6:00:0d",
		"router": "outside 10.214.0.201/24 - 02:53:0a:d6:00:c9", "cellar": "router 10.214.1.12/24 10.214.1.1 02:53:0a:d6:01:0c",
	} {
		p, ok := topo.Place(name)
		gateway := "-"
		if p.Gateway.IsValid() {
			gateway = p.Gateway.String()
		}
		if got := fmt.Sprint(p.Segment, " ", p.Addr, " ", gateway, " ", p.MAC); !ok || got != want {
			t.Errorf("place of %s = %s, want %s", name, got, want)
		}
	}
	if p, ok := topo.LANPlace("router"); !ok || p.Segment != "router" || p.Addr.String() != "10.214.1.1/24" {
		t.Errorf("the router's place behind it = %+v", p)
	}
	for _, name := range []string{"nosuch", ""} {
		if p, ok := topo.Place(name); ok {
			t.Errorf("place of %q = %+v", name, p)
		}
	}
}

func TestRefusals(t *testing.T) {
	const hosts = "hosts: {a: {}, b: {zone: eu}, c: {behind: r}}\nrouters: {r: {}}\n"
	for what, c := range map[string]struct{ file, want string }{
		"nothing":              {"", "x.yaml: it is empty; it needs hosts"},
		"no hosts":             {"network: 10.0.0.0/16", "x.yaml: a lab has at least one host"},
		"no YAML":              {"hosts: {", "x.yaml:1: it is no YAML: did not find expected node content"},
		"two documents":        {hosts + "---\nhosts: {}", "x.yaml:3: a second document begins, or what follows is no YAML; a file has one"},
		"a list":               {"- a", "x.yaml:1: a topology must be keys and values"},
		"unknown key":          {"host: {a: {}}", `x.yaml:1: a topology has no key "host"; it has routers, network, disk, hosts, default, links`},
		"unknown key of host":  {"hosts:\n  a: {zoen: eu}", `x.yaml:2: a host has no key "zoen"; it has zone, behind, labels`},
		"a host twice":         {"hosts:\n  a: {}\n  a: {}", `x.yaml:3: "a" is named twice; line 2 has it already`},
		"host and router":      {hosts + "routers: {}", `x.yaml:3: "routers" is named twice; line 2 has it already`},
		"the same name":        {"routers: {a: {}}\nhosts: {a: {}}", "x.yaml:2: the name a is taken"},
		"outside":              {"hosts: {outside: {}}", "x.yaml:1: the name outside is taken"},
		"no name":              {"hosts: {A_b: {}}", `x.yaml:1: "A_b" is no host name: small letters, digits and dashes, at most 63`},
		"no such router":       {"hosts: {a: {behind: r}}", `x.yaml:1: a is behind "r", but there is no such router`},
		"no zone":              {"hosts: {a: {zone: 'x y'}}", `x.yaml:1: "x y" is no zone: small letters, digits and dashes, at most 63`},
		"a link twice":         {hosts + "links:\n - {between: [a, b], rtt: 1ms}\n - {between: [b, a], loss: 1%}", "x.yaml:5: the link between b and a is named twice; line 4 has it already"},
		"a link twice one way": {hosts + "links:\n - {between: [a, b], rtt: 1ms}\n - {from: a, to: b, loss: 1%}", "x.yaml:5: the link from a to b is named twice; line 4 has it already"},
		"nobody":               {hosts + "links:\n - {between: [a, x], rtt: 1ms}", `x.yaml:4: there is no host or router "x"; there are a, b, c, r, or zone:NAME, or *`},
		"no such zone":         {hosts + "links:\n - {between: [a, 'zone:x'], rtt: 1ms}", `x.yaml:4: nobody is in the zone "x"`},
		"to itself":            {hosts + "links:\n - {between: [a, a], rtt: 1ms}", "x.yaml:4: a has no link to itself"},
		"behind":               {hosts + "links:\n - {between: [a, c], rtt: 1ms}", "x.yaml:4: c is behind the router r, whose links outside are for all behind it; name r"},
		"says nothing":         {hosts + "links:\n - {between: [a, b]}", "x.yaml:4: the link between a and b says nothing of what is between them"},
		"one end":              {hosts + "links:\n - {from: a, rtt: 1ms}", "x.yaml:4: a link has either between: [A, B], or from: A and to: B for one way"},
		"three ends":           {hosts + "links:\n - {between: [a, b, r], rtt: 1ms}", "x.yaml:4: between must name two: [h1, h2]"},
		"both":                 {hosts + "links:\n - {between: [a, b], rtt: 1ms, delay: 1ms}", "x.yaml:4: the link between a and b: delay and rtt are the same thing; name one"},
		"bad delay":            {hosts + "links:\n - {between: [a, b], delay: 5}", `x.yaml:4: the link between a and b: delay must be a time like 75ms, got "5"`},
		"long delay":           {hosts + "links:\n - {between: [a, b], delay: 5h}", "x.yaml:4: the link between a and b: delay must be 0s-1m0s, got 5h0m0s"},
		"jitter above delay":   {hosts + "links:\n - {between: [a, b], delay: 1ms, jitter: 2ms}", "x.yaml:4: the link between a and b: jitter must be 0s to the delay (1ms), got 2ms"},
		"jitter alone":         {hosts + "links:\n - {between: [a, b], jitter: 2ms}", "x.yaml:4: the link from a to b: jitter must be 0s to the delay (100µs), got 2ms"},
		"bad loss":             {hosts + "links:\n - {between: [a, b], loss: 200%}", `x.yaml:4: the link between a and b: loss must be a share like 2% or 0.02, got "200%"`},
		"unclear loss":         {hosts + "links:\n - {between: [a, b], loss: 1}", "x.yaml:4: the link between a and b: loss 1 could be 1% or all; write 1% or 100%"},
		"bad rate":             {hosts + "links:\n - {between: [a, b], rate: 5mbps}", `x.yaml:4: the link between a and b: rate must be like 20mbit, from 8kbit to 1000gbit, or 0 for no bound, got "5mbps"`},
		"bad cut":              {hosts + "links:\n - {between: [a, b], cut: maybe}", `x.yaml:4: cut must be true or false, got "maybe"`},
		"bad default":          {hosts + "default: {loss: x}", `x.yaml:3: default: loss must be a share like 2% or 0.02, got "x"`},
		"public network":       {hosts + "network: 8.8.0.0/16", "x.yaml:3: the network must be private IPv4 addresses like 10.214.0.0/16, got 8.8.0.0/16"},
		"network inside":       {hosts + "network: 10.1.2.3/16", "x.yaml:3: the network 10.1.2.3/16 does not begin there; it is 10.1.0.0/16"},
		"network too small":    {hosts + "network: 10.1.2.0/24", "x.yaml:3: the network 10.1.2.0/24 has no room for 2 segments of 254 addresses; a /16 has"},
		"no network":           {hosts + "network: here", `x.yaml:3: network must be like 10.214.0.0/16, got "here"`},
		"small disk":           {hosts + "disk: {state: 1MiB}", `x.yaml:3: a disk must have a size like 8GiB, 67108864 bytes at least, got "1MiB"`},
		"too large":            {"#" + strings.Repeat("x", MaxBytes), "x.yaml: it has 262145 bytes, at most 262144 are read"},
	} {
		if _, err := Parse("x.yaml", []byte(c.file)); err == nil || err.Error() != c.want {
			t.Errorf("%s: Parse = %v\nwant %s", what, err, c.want)
		}
	}
	if _, err := Parse("x.yaml", []byte("hosts: {"+manyHosts(MaxHosts+1)+"}")); err == nil || !strings.Contains(err.Error(), "at most 50 hosts, got 51") {
		t.Errorf("too many hosts: Parse = %v", err)
	}
}

func manyHosts(n int) string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("x%d: {}", i))
	}
	return strings.Join(names, ", ")
}

func TestReady(t *testing.T) {
	for _, r := range ReadyNames() {
		for n := 0; n <= MaxHosts+1; n++ {
			topo, err := Ready(r.Name, n)
			want := n
			if n == 0 {
				want = r.Hosts
			}
			if want < r.Least || want > MaxHosts {
				if err == nil || err.Error() != fmt.Sprintf("%s has %d-50 hosts, got %d", r.Name, r.Least, n) {
					t.Errorf("Ready(%s, %d) = %v, want a refusal", r.Name, n, err)
				}
				continue
			}
			if err != nil || topo.Validate() != nil || len(topo.Hosts) != want {
				t.Errorf("Ready(%s, %d) = %v, %v", r.Name, n, err, topo.Validate())
			}
		}
	}
	if _, err := Ready("moon", 3); err == nil || err.Error() != `there is no topology "moon"; there are lan, 3-regions, home-lab, satellite` {
		t.Errorf("Ready(moon) = %v", err)
	}
	topo, _ := Ready("3-regions", 5)
	if l := topo.Links()[wire.Pair{Segment: Outside, From: "h1", To: "h5"}]; l.Delay != 115*time.Millisecond {
		t.Errorf("Europe to Asia has %+v, want half of 230 ms", l)
	}
	topo, _ = Ready("home-lab", 5)
	if p, ok := topo.Place("h5"); !ok || p.Segment != "home2" {
		t.Errorf("h5 of home-lab is at %+v, want behind home2", p)
	}
	if l := topo.Links()[wire.Pair{Segment: Outside, From: "home1", To: "h1"}]; l.Rate != 20e6 || l.Delay != 10*time.Millisecond {
		t.Errorf("a home's upload is %+v, want 20 mbit", l)
	}
}

// TestLinks: there is a link between every two cards of a segment, and no other; Between
// finds exactly these.
func TestLinks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		topo := drawTopology(t)
		links := topo.Links()
		segments := map[string][]string{}
		for _, n := range topo.names() {
			p, ok := topo.Place(n)
			if !ok {
				t.Fatalf("%s has no place", n)
			}
			segments[p.Segment] = append(segments[p.Segment], n)
			if lan, ok := topo.LANPlace(n); ok {
				segments[lan.Segment] = append(segments[lan.Segment], n)
			}
		}
		want := 0
		for segment, on := range segments {
			want += len(on) * (len(on) - 1)
			for _, a := range on {
				for _, b := range on {
					pair, err := topo.Between(a, b)
					if _, ok := links[wire.Pair{Segment: segment, From: a, To: b}]; ok != (a != b) || a != b && (err != nil || pair.Segment != segment) {
						t.Fatalf("%s to %s on %s: link %v, Between %v, %v", a, b, segment, ok, pair, err)
					}
				}
			}
		}
		if len(links) != want {
			t.Fatalf("%d links, want %d", len(links), want)
		}
	})
}

// TestPlaces: no two cards have the same address, and each has its segment's.
func TestPlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		topo := drawTopology(t)
		seen := map[string]bool{}
		for _, n := range topo.names() {
			p, _ := topo.Place(n)
			places := []Place{p}
			if lan, ok := topo.LANPlace(n); ok {
				places = append(places, lan)
			}
			for _, p := range places {
				if seen[p.Addr.String()] || seen[p.MAC.String()] || !topo.Network.Contains(p.Addr.Addr()) {
					t.Fatalf("%s: %+v is taken or outside of %s", n, p, topo.Network)
				}
				seen[p.Addr.String()], seen[p.MAC.String()] = true, true
			}
		}
	})
}

func TestRoundTrip(t *testing.T) {
	same := func(t interface{ Fatalf(string, ...any) }, topo *Topology) {
		back, err := Parse("back.yaml", topo.YAML())
		if err != nil {
			t.Fatalf("Parse(YAML()) = %v of\n%s", err, topo.YAML())
		}
		if diff := cmp.Diff(topo, back, cmpopts.IgnoreFields(Rule{}, "Line"), cmpopts.EquateComparable(topo.Network), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("read back (-written +read):\n%s\nof\n%s", diff, topo.YAML())
		}
	}
	same(t, example(t))
	for _, r := range ReadyNames() {
		topo, _ := Ready(r.Name, 0)
		same(t, topo)
	}
	rapid.Check(t, func(t *rapid.T) { same(t, drawTopology(t)) })
}

func drawTopology(t *rapid.T) *Topology {
	topo := empty(rapid.IntRange(1, 8).Draw(t, "hosts"))
	zones := rapid.SampledFrom([]string{"", "eu", "us"})
	for i := range rapid.IntRange(0, 3).Draw(t, "routers") {
		topo.Routers = append(topo.Routers, Router{Name: fmt.Sprintf("r%d", i), Zone: zones.Draw(t, "zone")})
	}
	for i := range topo.Hosts {
		h := &topo.Hosts[i]
		h.Zone = zones.Draw(t, "zone")
		if n := rapid.IntRange(0, len(topo.Routers)).Draw(t, "behind"); n > 0 {
			h.Behind = topo.Routers[n-1].Name
		}
		if rapid.Bool().Draw(t, "labelled") {
			h.Labels = map[string]string{"yes": "no", "n": rapid.StringMatching(`[a-z0-9: #']{0,8}`).Draw(t, "label")}
		}
	}
	topo.Default.Loss = rapid.SampledFrom([]float64{0, 0.1, 0.07, 1}).Draw(t, "loss")
	topo.Default.Rate = rapid.SampledFrom([]int64{0, 8000, 8001, 20e6, 1.5e9}).Draw(t, "rate")
	isCut := rapid.Bool().Draw(t, "cut")
	for range rapid.IntRange(0, 4).Draw(t, "rules") {
		r := Rule{OneWay: rapid.Bool().Draw(t, "one way"), Change: Change{RTT: "20ms", Jitter: "1ms", Cut: &isCut}}
		selectors := rapid.SampledFrom(append(topo.names(), "*", "zone:eu"))
		r.From, r.To = selectors.Draw(t, "from"), selectors.Draw(t, "to")
		topo.Rules = append(topo.Rules, r)
		if topo.Validate() != nil { // named already, or names nobody
			topo.Rules = topo.Rules[:len(topo.Rules)-1]
		}
	}
	return topo
}

func TestChange(t *testing.T) {
	yes := true
	base := wire.Link{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.5, Rate: 1e6}
	for what, c := range map[string]struct {
		change Change
		want   wire.Link
	}{
		"nothing":       {Change{}, base},
		"delay":         {Change{Delay: "75ms"}, wire.Link{Delay: 75 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.5, Rate: 1e6}},
		"less delay":    {Change{RTT: "4ms"}, wire.Link{Delay: 2 * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 0.5, Rate: 1e6}},
		"everything":    {Change{Delay: "1s", Jitter: "0s", Loss: "2%", Rate: "1.5gbit", Cut: &yes}, wire.Link{Delay: time.Second, Loss: 0.02, Rate: 1.5e9, Cut: true}},
		"no rate, loss": {Change{Loss: "0", Rate: "0"}, wire.Link{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond}},
		"capital units": {Change{Rate: "8Kbit"}, wire.Link{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.5, Rate: 8000}},
	} {
		if got, err := c.change.Apply(base); err != nil || got != c.want {
			t.Errorf("%s: Apply = %+v, %v; want %+v", what, got, err, c.want)
		}
	}
	for _, loss := range []string{"", "%", "-1%", "NaN", "101%", "2 %", "1"} {
		if got, err := ParseLoss(loss); err == nil {
			t.Errorf("ParseLoss(%q) = %v, want a refusal", loss, got)
		}
	}
	for _, rate := range []string{"", "mbit", "NaNmbit", "-1mbit", "7999bit", "1001gbit", "20", "20m", "20mbps", "Infgbit"} {
		if got, err := ParseRate(rate); err == nil {
			t.Errorf("ParseRate(%q) = %v, want a refusal", rate, got)
		}
	}
}

func TestSplit(t *testing.T) {
	topo := example(t)
	sides, err := topo.ParseSplit("paris berlin | virginia, router")
	if err != nil {
		t.Fatal(err)
	}
	if got := topo.Split(sides, false); len(got) != 8 {
		t.Errorf("Split cuts %v, want 8 links", got)
	}
	want := []wire.Pair{
		{Segment: Outside, From: "paris", To: "virginia"},
		{Segment: Outside, From: "paris", To: "router"},
		{Segment: Outside, From: "berlin", To: "virginia"},
		{Segment: Outside, From: "berlin", To: "router"},
	}
	if diff := cmp.Diff(want, topo.Split(sides, true)); diff != "" {
		t.Errorf("one way (-want +got):\n%s", diff)
	}
	if sides, err = topo.ParseSplit("attic|cellar"); err != nil || len(topo.Split(sides, false)) != 2 || topo.Split(sides, false)[0].Segment != "router" {
		t.Errorf("a split behind the router = %v, %v", topo.Split(sides, false), err)
	}
	for s, want := range map[string]string{
		"":                     `a split has names on all its sides, like "h1 h2 | h3", got ""`,
		"paris |":              `a split has names on all its sides, like "h1 h2 | h3", got "paris |"`,
		"paris berlin":         `a split has two sides or more, like "h1 h2 | h3", got "paris berlin"`,
		"paris | rome":         `there is no host or router "rome"; there are paris, berlin, virginia, attic, cellar, router`,
		"paris | paris":        "paris is named twice",
		"paris | attic":        "attic is behind the router router, whose links outside are for all behind it; name router",
		"berlin, berlin|attic": "berlin is named twice",
	} {
		if _, err := topo.ParseSplit(s); err == nil || err.Error() != want {
			t.Errorf("ParseSplit(%q) = %v, want %s", s, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	raw, err := os.ReadFile("testdata/geo.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte("hosts: {a: {behind: r}}\nrouters: {r: }\nlinks: [{between: [a, r], rtt: 1ms}]"))
	f.Add([]byte("hosts: &a {x: {}}\nrouters: *a\n---\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		topo, err := Parse("f", data)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("the error is more than a line: %q", err)
			}
			return
		}
		if _, err := Parse("g", topo.YAML()); err != nil {
			t.Errorf("what was read cannot be read again: %v\n%s", err, topo.YAML())
		}
	})
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{"paris | berlin", "attic|cellar", "||", "router | paris, virginia"} {
		f.Add(s)
	}
	topo := example(f)
	f.Fuzz(func(t *testing.T, s string) {
		sides, err := topo.ParseSplit(s)
		if err == nil && (len(sides) < 2 || len(topo.Split(sides, true)) == 0) {
			t.Errorf("ParseSplit(%q) = %q, which cuts nothing", s, sides)
		}
	})
}
