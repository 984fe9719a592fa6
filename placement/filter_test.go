// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"slices"
	"testing"

	"github.com/shoalnet/shoal"
)

func TestSelectors(t *testing.T) {
	peer := &shoal.Peer{ID: "12D3Koo", Facts: shoal.PeerFacts{
		Name: "osaka", Labels: map[string]string{"region": "jp", "zone": "a", "empty": ""},
		Platforms: []string{"linux/amd64", "linux/386"},
	}}
	for _, c := range []struct {
		key    string
		op     shoal.Op
		values []string
		want   bool
		text   string
	}{
		{"region", shoal.OpEqual, []string{"jp"}, true, "region=jp"},
		{"region", shoal.OpEqual, []string{"eu"}, false, "region=eu"},
		{"nosuch", shoal.OpEqual, []string{""}, false, "nosuch="},
		{"empty", shoal.OpEqual, []string{""}, true, "empty="},
		{"region", shoal.OpNotEqual, []string{"jp"}, false, "region!=jp"},
		{"region", shoal.OpNotEqual, []string{"eu"}, true, "region!=eu"},
		{"nosuch", shoal.OpNotEqual, []string{"eu"}, true, "nosuch!=eu"},
		{"region", shoal.OpIn, []string{"eu", "jp"}, true, "region in (eu,jp)"},
		{"region", shoal.OpIn, []string{"eu", "us"}, false, "region in (eu,us)"},
		{"nosuch", shoal.OpIn, []string{"eu"}, false, "nosuch in (eu)"},
		{"region", shoal.OpNotIn, []string{"eu", "us"}, true, "region notin (eu,us)"},
		{"region", shoal.OpNotIn, []string{"jp"}, false, "region notin (jp)"},
		{"nosuch", shoal.OpNotIn, []string{"jp"}, true, "nosuch notin (jp)"},
		{"region", shoal.OpExists, nil, true, "region"},
		{"empty", shoal.OpExists, nil, true, "empty"},
		{"nosuch", shoal.OpExists, nil, false, "nosuch"},
		{"region", shoal.OpNotExists, nil, false, "!region"},
		{"nosuch", shoal.OpNotExists, nil, true, "!nosuch"},
		{"peer", shoal.OpEqual, []string{"osaka"}, true, "peer=osaka"},
		{"peer", shoal.OpNotEqual, []string{"osaka"}, false, "peer!=osaka"},
		{"peer.id", shoal.OpEqual, []string{"12D3Koo"}, true, "peer.id=12D3Koo"},
		{"zone", shoal.OpIn, []string{"a", "b"}, true, "zone in (a,b)"},
		{"platform", shoal.OpEqual, []string{"linux/386"}, true, "platform=linux/386"},
		{"platform", shoal.OpNotEqual, []string{"linux/386"}, false, "platform!=linux/386"},
		{"platform", shoal.OpIn, []string{"linux/arm64"}, false, "platform in (linux/arm64)"},
		{"platform", shoal.OpNotIn, []string{"linux/arm64"}, true, "platform notin (linux/arm64)"},
		{"platform", shoal.OpExists, nil, true, "platform"},
		{"platform", shoal.OpNotExists, nil, false, "!platform"},
		{"region", "~", []string{"jp"}, false, "region~jp"},
	} {
		s := shoal.Selector{Key: c.key, Op: c.op, Values: c.values}
		if got := peer.Matches(s); got != c.want {
			t.Errorf("Matches(%s) = %v, want %v", c.text, got, c.want)
		}
		if got := selectorText(s); got != c.text {
			t.Errorf("selectorText = %q, want %q", got, c.text)
		}
	}
}

// TestScoreOfUnknownRoom: of what is not known there is no percentage.
func TestScoreOfUnknownRoom(t *testing.T) {
	k := newKit(1)
	k.service("web", 0)
	k.peers[0].Facts.Capacity = shoal.Resources{}
	spec := k.services[0].Spec
	spec.Reservations, spec.Limits = shoal.Resources{}, shoal.Resources{}
	if got := Explain(k.view("judge"), &spec); len(got) != 1 || !got[0].Feasible || got[0].Score != "0 held" {
		t.Errorf("Explain = %+v, want it feasible, 0 held", got)
	}
}

func TestImageSpellings(t *testing.T) {
	many := make([]string, maxImages)
	for i := range many {
		many[i] = fmt.Sprintf("x%04d:1", i)
	}
	for _, c := range []struct {
		have []string
		ref  string
		want bool
	}{
		{[]string{"hello:1"}, "hello:1", true},
		{[]string{"hello:1"}, "hello:2", false},
		{[]string{"hello:latest"}, "hello", true},
		{[]string{"hello:latest"}, "docker.io/library/hello", true},
		{[]string{"docker.io/library/hello:1"}, "hello:1", true},
		{[]string{"docker.io/acme/hello:1"}, "acme/hello:1", true},
		{[]string{"127.0.0.1:5050/hello:latest"}, "127.0.0.1:5050/hello", true},
		{[]string{"127.0.0.1:5050/hello:latest"}, "hello", false},
		{[]string{"hello@sha256:00"}, "hello@sha256:00", true},
		{[]string{}, "hello:1", false},
		{many, "hello:1", true}, // a full list proves nothing
	} {
		if got := hasImage(&shoal.PeerState{Images: c.have}, spellings(c.ref)); got != c.want {
			t.Errorf("hasImage(%.40v, %q) = %v, want %v", c.have, c.ref, got, c.want)
		}
	}
	if !hasImage(nil, spellings("hello:1")) {
		t.Error("a peer of which nothing is known counts as without the image")
	}
}

// TestLeftIsNobody: a peer that left is not counted, explained or waited for.
func TestLeftIsNobody(t *testing.T) {
	left := shoal.Peer{ID: "b", Role: shoal.RoleOperator, Facts: shoal.PeerFacts{Name: "b", Leaving: true}}
	here := shoal.Peer{ID: "a", Role: shoal.RoleOperator, Facts: shoal.PeerFacts{
		Name: "a", Capacity: shoal.Resources{CPUMilli: 1000, MemBytes: 1 << 30}, Addrs: []string{"/ip4/192.0.2.1/tcp/4710"},
	}}
	v := shoal.NewView("a", &shoal.Desired{Peers: []shoal.Peer{here, left}}, nil, nil)
	spec := shoal.Spec{Name: "web", Image: "hello:1", Mode: shoal.ModeReplicated, Constraints: []shoal.Selector{{Key: "zone", Op: shoal.OpEqual, Values: []string{"eu"}}}}
	if got := Explain(v, &spec); len(got) != 1 || got[0].Peer != "a" {
		t.Errorf("Explain = %+v, want a only", got)
	}
	if got, want := Hopeless(v, &spec), "0 of 1 peers match zone=eu"; got != want {
		t.Errorf("Hopeless = %q, want %q", got, want)
	}
}

func TestFilters(t *testing.T) {
	image := func(refs ...string) func(*kit, *shoal.Peer, *shoal.Spec) {
		return func(k *kit, p *shoal.Peer, s *shoal.Spec) {
			s.Image = "hello:1"
			k.states[p.ID] = &shoal.PeerState{Images: refs}
		}
	}
	for _, c := range []struct {
		name  string
		set   func(*kit, *shoal.Peer, *shoal.Spec)
		want  string
		never bool
	}{
		{"nothing against it", func(*kit, *shoal.Peer, *shoal.Spec) {}, "", false},
		{"role peer runs containers too", func(_ *kit, p *shoal.Peer, _ *shoal.Spec) { p.Role = shoal.RolePeer }, "", false},
		{"dead", func(k *kit, p *shoal.Peer, _ *shoal.Spec) { k.dead(p.ID, 0) }, "is not heard", false},
		{"unknown", func(k *kit, p *shoal.Peer, _ *shoal.Spec) { delete(k.lives, p.ID) }, "is not heard", false},
		{"suspect", func(k *kit, p *shoal.Peer, _ *shoal.Spec) { k.lives[p.ID] = shoal.Life{State: shoal.LifeSuspect} }, "", false},
		{"cordoned", func(_ *kit, p *shoal.Peer, _ *shoal.Spec) { p.Cordoned = true }, "is cordoned", false},
		{"draining", func(_ *kit, p *shoal.Peer, _ *shoal.Spec) { p.Cordoned, p.Draining = true, true }, "is draining", false},
		{"leaving", func(_ *kit, p *shoal.Peer, _ *shoal.Spec) {
			p.Facts.Leaving, p.Facts.Addrs = true, []string{"/ip4/192.0.2.1/tcp/4710"}
		}, "is leaving", false},
		{"label", func(_ *kit, _ *shoal.Peer, s *shoal.Spec) {
			s.Constraints = []shoal.Selector{{Key: "region", Op: shoal.OpEqual, Values: []string{"eu"}}}
		}, "does not match region=eu", true},
		{"engine down", func(k *kit, p *shoal.Peer, _ *shoal.Spec) {
			k.states[p.ID] = &shoal.PeerState{Engine: shoal.EngineStatus{Down: true, Reason: "no answer for 12s"}}
		}, "its engine is down: no answer for 12s", false},
		{"refusal", func(k *kit, p *shoal.Peer, _ *shoal.Spec) {
			k.states[p.ID] = &shoal.PeerState{Refusals: []shoal.Refusal{{
				Service: "web", Revision: shoal.RevisionID{Seq: 1, Author: "op"}, Reason: "restarted 5 times in a minute",
			}}}
		}, "restarted 5 times in a minute", false},
		{"refusal of another revision", func(k *kit, p *shoal.Peer, _ *shoal.Spec) {
			k.states[p.ID] = &shoal.PeerState{Refusals: []shoal.Refusal{{Service: "web", Revision: shoal.RevisionID{Seq: 9}, Reason: "x"}}}
		}, "", false},
		{"image there", image("hello:1", "other:1"), "", false},
		{"image missing", image("other:1"), "image hello:1 is not there (shoal image push it where docker has it)", false},
		{"a digest comes from any peer", func(k *kit, p *shoal.Peer, s *shoal.Spec) {
			image("other:1")(k, p, s)
			s.Digest = "sha256:aa"
		}, "", false},
		{"platform", func(_ *kit, p *shoal.Peer, s *shoal.Spec) {
			p.Facts.Platforms, s.Platforms = []string{"linux/amd64"}, []string{"linux/arm64"}
		}, "image is linux/arm64, this peer is linux/amd64", true},
		{"one of the platforms", func(_ *kit, p *shoal.Peer, s *shoal.Spec) {
			p.Facts.Platforms, s.Platforms = []string{"linux/arm64"}, []string{"linux/amd64", "linux/arm64/v8"}
		}, "", false},
		{"an earlier variant", func(_ *kit, p *shoal.Peer, s *shoal.Spec) {
			p.Facts.Platforms, s.Platforms = []string{"linux/arm/v7"}, []string{"linux/arm/v6"}
		}, "", false},
		{"a later variant", func(_ *kit, p *shoal.Peer, s *shoal.Spec) {
			p.Facts.Platforms, s.Platforms = []string{"linux/arm/v6"}, []string{"linux/arm/v7"}
		}, "image is linux/arm/v7, this peer is linux/arm/v6", true},
		{"a platform that is not known", func(_ *kit, _ *shoal.Peer, s *shoal.Spec) { s.Platforms = []string{"linux/arm64"} }, "", false},
		{"memory", func(k *kit, p *shoal.Peer, s *shoal.Spec) {
			s.Reservations = shoal.Resources{MemBytes: 24 * gib}
			for slot := range 2 {
				k.hold("web", slot, p.ID)
			}
		}, "has 16 GiB of 64 GiB free, needs 24 GiB", false},
		{"memory never", func(_ *kit, _ *shoal.Peer, s *shoal.Spec) {
			s.Reservations = shoal.Resources{MemBytes: 512 * gib}
		}, "has 64 GiB of 64 GiB free, needs 512 GiB", true},
		{"reserved for the machine", func(_ *kit, p *shoal.Peer, s *shoal.Spec) {
			p.Facts.Reserved = shoal.Resources{CPUMilli: 63500}
			s.Reservations = shoal.Resources{CPUMilli: 1000}
		}, "has 0.5 of 0.5 CPUs free, needs 1", true},
		{"limits count where nothing is reserved", func(_ *kit, _ *shoal.Peer, s *shoal.Spec) {
			s.Reservations, s.Limits = shoal.Resources{}, shoal.Resources{MemBytes: 65 * gib}
		}, "has 64 GiB of 64 GiB free, needs 65 GiB", true},
		{"how much it has is not known yet", func(k *kit, p *shoal.Peer, s *shoal.Spec) {
			p.Facts.Capacity, s.Reservations = shoal.Resources{}, shoal.Resources{MemBytes: gib}
			k.states[p.ID] = &shoal.PeerState{Engine: shoal.EngineStatus{Down: true, Reason: "no answer for 1s"}}
		}, "its engine is down: no answer for 1s", false},
		{"nor when the engine answers", func(_ *kit, p *shoal.Peer, s *shoal.Spec) {
			p.Facts.Capacity, p.Facts.Reserved = shoal.Resources{}, shoal.Resources{CPUMilli: 500, MemBytes: gib}
			s.Reservations = shoal.Resources{CPUMilli: 1000, MemBytes: gib}
		}, "has not told yet how much room it has", false},
		{"more is reserved than there is", func(_ *kit, p *shoal.Peer, s *shoal.Spec) {
			p.Facts.Reserved = shoal.Resources{MemBytes: 65 * gib}
			s.Reservations = shoal.Resources{MemBytes: gib}
		}, "has 0 B of 0 B free, needs 1 GiB", true},
		{"no need fits even where all is taken", func(_ *kit, p *shoal.Peer, s *shoal.Spec) {
			p.Facts.Capacity, s.Reservations = shoal.Resources{}, shoal.Resources{}
		}, "", false},
		{"port", func(k *kit, p *shoal.Peer, s *shoal.Spec) {
			k.service("other", 1).Spec.Ports = []shoal.Port{{Container: 1, Published: 8080, Host: true}}
			k.hold("other", 0, p.ID)
			s.Ports = []shoal.Port{{Container: 80, Published: 8080, Protocol: "tcp", Host: true}}
		}, "port 8080/tcp is taken", false},
		{"port of its own", func(k *kit, p *shoal.Peer, s *shoal.Spec) {
			s.Ports = []shoal.Port{{Container: 80, Published: 8080, Protocol: "tcp", Host: true}}
			k.hold("web", 0, p.ID)
		}, "has one of them on port 8080/tcp already", false},
		{"a port that answers on every peer takes none", func(k *kit, p *shoal.Peer, s *shoal.Spec) {
			s.Ports = []shoal.Port{{Container: 80, Published: 8080, Protocol: "tcp"}}
			k.hold("web", 0, p.ID)
		}, "", false},
		{"other protocol", func(k *kit, p *shoal.Peer, s *shoal.Spec) {
			k.service("other", 1).Spec.Ports = []shoal.Port{{Container: 1, Published: 8080, Protocol: "udp", Host: true}}
			k.hold("other", 0, p.ID)
			s.Ports = []shoal.Port{{Container: 80, Published: 8080, Protocol: "tcp", Host: true}}
		}, "", false},
		{"engine picks the port", func(k *kit, p *shoal.Peer, s *shoal.Spec) {
			s.Ports = []shoal.Port{{Container: 80}}
			k.hold("web", 0, p.ID)
		}, "", false},
		{"max per peer", func(k *kit, p *shoal.Peer, s *shoal.Spec) {
			s.MaxPerPeer = 2
			k.hold("web", 0, p.ID)
			k.hold("web", 1, p.ID)
		}, "has 2 of them already (max per peer 2)", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKit(1)
			k.service("web", 0)
			spec := k.services[0].Spec
			c.set(k, &k.peers[0], &spec)
			k.services[0].Spec = spec
			got := Explain(k.view("judge"), &spec)
			if len(got) != 1 || got[0].Reason != c.want || got[0].Never != c.never || got[0].Feasible != (c.want == "") {
				t.Errorf("Explain = %+v, want reason %q, never %v", got, c.want, c.never)
			}
		})
	}
}

func TestHopeless(t *testing.T) {
	k := newKit(5)
	for i := range k.peers {
		k.peers[i].Facts.Capacity = shoal.Resources{CPUMilli: 4000, MemBytes: int64(i+20) * gib}
	}
	eu := []shoal.Selector{{Key: "region", Op: shoal.OpEqual, Values: []string{"eu"}}, {Key: "gpu", Op: shoal.OpExists}}
	for _, c := range []struct {
		size        shoal.Resources
		constraints []shoal.Selector
		want        string
	}{
		{shoal.Resources{MemBytes: 512 * gib}, nil, "no peer has 512 GiB (largest 24 GiB)"},
		{shoal.Resources{MemBytes: 24*gib + gib/2}, nil, "no peer has 24.5 GiB (largest 24 GiB)"},
		{shoal.Resources{CPUMilli: 4500}, nil, "no peer has 4.5 CPUs (largest 4)"},
		{shoal.Resources{}, eu[:1], "0 of 5 peers match region=eu"},
		{shoal.Resources{}, eu, "0 of 5 peers match region=eu and gpu"},
		{shoal.Resources{MemBytes: 24 * gib}, nil, ""},
	} {
		spec := shoal.Spec{Name: "web", Reservations: c.size, Constraints: c.constraints}
		if got := Hopeless(k.view("p000"), &spec); got != c.want {
			t.Errorf("Hopeless(%+v) = %q, want %q", spec, got, c.want)
		}
	}
	k.dead("p004", 0) // the largest is away: not never
	spec := shoal.Spec{Name: "web", Mode: shoal.ModeReplicated, Reservations: shoal.Resources{MemBytes: 24 * gib}}
	if got := Hopeless(k.view("p000"), &spec); got != "" {
		t.Errorf("Hopeless with the only fitting peer away = %q, want none", got)
	}
	placed := Propose(k.view("p000"), []Wanted{{Spec: spec, Replicas: 1}})[0]
	want := "slot 0: 1 of 5 peers: has 20 GiB of 20 GiB free, needs 24 GiB; 1 of 5 peers: has 21 GiB of 21 GiB free, needs 24 GiB; " +
		"1 of 5 peers: has 22 GiB of 22 GiB free, needs 24 GiB; and 2 more reasons"
	if !slices.Equal(placed.Unplaced, []string{want}) || placed.Slots[0] != "" {
		t.Errorf("Propose = %+v, want unplaced %q", placed, want)
	}
}

// TestHopelessPlatform is item 37 of the bad inputs.
func TestHopelessPlatform(t *testing.T) {
	k := newKit(3)
	for i := range k.peers {
		k.peers[i].Facts.Platforms = []string{"linux/amd64"}
	}
	spec := shoal.Spec{Name: "web", Mode: shoal.ModeReplicated, Image: "app:v1", Digest: "sha256:aa", Platforms: []string{"linux/arm64"}}
	const want = "image is linux/arm64, peers are linux/amd64"
	if got := Hopeless(k.view("p000"), &spec); got != want {
		t.Errorf("Hopeless = %q, want %q", got, want)
	}
	if got := Propose(k.view("p000"), []Wanted{{Spec: spec, Replicas: 1}})[0]; !slices.Equal(got.Unplaced, []string{"slot 0: " + want}) {
		t.Errorf("Propose = %+v, want unplaced %q", got, want)
	}
	k.peers[2].Facts.Platforms = []string{"linux/arm64"}
	k.peers[2].Cordoned = true // not never
	if got := Hopeless(k.view("p000"), &spec); got != "" {
		t.Errorf("Hopeless with an arm64 peer = %q, want none", got)
	}
	got := Propose(k.view("p000"), []Wanted{{Spec: spec, Replicas: 1}})[0]
	if want := "slot 0: 2 of 3 peers: image is linux/arm64, this peer is linux/amd64; 1 of 3 peers: is cordoned"; !slices.Equal(got.Unplaced, []string{want}) {
		t.Errorf("Propose = %+v, want unplaced %q", got, want)
	}
}

func TestHopelessPolicy(t *testing.T) {
	k := newKit(3)
	spec := shoal.Spec{Name: "web", Setup: shoal.Setup{
		Privileged: true, Mounts: []shoal.Mount{{Kind: shoal.MountBind, Source: "/etc", Target: "/host"}},
	}}
	check := func(want string) {
		t.Helper()
		if got := Hopeless(k.view("p000"), &spec); got != want {
			t.Errorf("Hopeless = %q, want %q", got, want)
		}
	}
	check("no peer's owner allows mount:/etc (0 of 3)")
	k.peers[0].Facts.AllowedPolicy = []string{"mount:/"}
	check("no peer's owner allows privileged (0 of 3)")
	k.peers[1].Facts.AllowedPolicy = []string{"privileged"}
	check("no peer's owner allows mount:/etc and privileged (0 of 3)")
	if v := Explain(k.view("p000"), &spec)[1]; !v.Never || v.Reason != "its owner does not allow mount:/etc" {
		t.Errorf("Explain of p001 = %+v", v)
	}
	k.dead("p001", 0) // away, but recorded: nothing is more hopeless by that
	k.peers[1].Facts.AllowedPolicy = []string{"mount-ro:/etc", "mount:/etc", "privileged"}
	check("")
	k.peers[1].Facts.AllowedPolicy = nil
	k.peers = append(k.peers, shoal.Peer{ID: "p003", Role: shoal.RoleOperator})
	check("") // just admitted: what it allows is not known yet
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 512: "512 B", 1024: "1 KiB", 1536: "1.5 KiB", 64 << 20: "64 MiB", 3 * gib / 2: "1.5 GiB", 5 << 40: "5 TiB", 9000 << 40: "9000 TiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", n, got, want)
		}
	}
}
