// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/wish"
)

// key signs as one author.
type key struct {
	id   shoal.PeerID
	priv ed25519.PrivateKey
}

func newKey(t rapid.TB, n byte) key {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	priv := ed25519.NewKeyFromSeed(seed)
	pub, err := crypto.UnmarshalEd25519PublicKey(priv.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return key{shoal.PeerID(id.String()), priv}
}

func (k key) PeerID() shoal.PeerID { return k.id }

func (k key) Sign(message []byte) ([]byte, error) { return ed25519.Sign(k.priv, message), nil }

// place is one peer with a desk, on the memory store.
type place struct {
	*wish.Desk
	store  *gossip.Memory
	self   shoal.PeerID
	states map[shoal.PeerID]*shoal.PeerState // what it heard
}

func (p *place) View() *shoal.View {
	lives := map[shoal.PeerID]shoal.Life{}
	for _, q := range p.store.Desired().Peers {
		lives[q.ID] = shoal.Life{State: shoal.LifeAlive}
	}
	return shoal.NewView(p.self, p.store.Desired(), lives, p.states)
}

func (p *place) Changed() <-chan struct{} { return p.store.Changed() }

// cluster makes n peers with these roles (operators if none are given) that know
// each other; what they write travels when exchange is called.
func cluster(t rapid.TB, n int, roles ...shoal.Role) []*place {
	t.Helper()
	root := newKey(t, 200)
	admitting := gossip.NewMemory(root.id, shoal.NewSystemClock(), root)
	var peers []*place
	for i := range n {
		k := newKey(t, byte(i+1))
		role := shoal.RoleOperator
		if i < len(roles) {
			role = roles[i]
		}
		write(t, admitting, &shoal.MemberBody{Peer: k.id, Role: role})
		p := &place{store: gossip.NewMemory(root.id, shoal.NewSystemClock(), k), self: k.id}
		p.Desk = wish.New(k.id, p.store, p, wish.Known{Store: p.store, Views: p}, nil)
		peers = append(peers, p)
	}
	admissions, _ := admitting.Since(0)
	for i, p := range peers {
		p.store.Deliver(admissions)
		write(t, p.store, &shoal.PeerBody{Peer: p.self, Facts: shoal.PeerFacts{
			Name: string(rune('a' + i)), Capacity: shoal.Resources{CPUMilli: 4000, MemBytes: 8 << 30}, Platforms: []string{"linux/amd64"},
		}})
	}
	exchange(peers)
	return peers
}

func write(t rapid.TB, s *gossip.Memory, bodies ...shoal.Body) {
	t.Helper()
	if _, err := s.Update(context.Background(), func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error) { return bodies, nil }, shoal.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// exchange carries all records of these peers to all of them.
func exchange(peers []*place) {
	for _, from := range peers {
		records, _ := from.store.Since(0)
		for _, to := range peers {
			if to != from {
				to.store.Deliver(records)
			}
		}
	}
}

func spec(name string, replicas int) shoal.Spec {
	return shoal.Spec{
		Name: name, Project: "shop", Image: "hello:1", Mode: shoal.ModeReplicated, Replicas: replicas,
		Strategy: shoal.StrategySpread, OnPartition: shoal.PartitionAvailable, Restart: shoal.Restart{Condition: shoal.RestartAny},
	}
}

func (p *place) must(t rapid.TB, w shoal.Wish) shoal.Change {
	t.Helper()
	out, err := p.Submit(context.Background(), w, shoal.UpdateOptions{})
	if err != nil {
		t.Fatalf("Submit: %v", err)
	}
	return out.Changes[0]
}

func deploy(s ...shoal.Spec) shoal.Wish { return shoal.Wish{Deploy: &shoal.DeployWish{Specs: s}} }

func scale(name string, n int, relative bool) shoal.Wish {
	return shoal.Wish{Scale: &shoal.ScaleWish{Targets: []shoal.ScaleTarget{{Service: name, N: n, Relative: relative}}}}
}

func operate(op shoal.Operation, names ...string) shoal.Wish {
	return shoal.Wish{Operate: &shoal.OperateWish{Services: names, Op: op}}
}

func remove(name string) shoal.Wish {
	return shoal.Wish{Remove: &shoal.RemoveWish{Services: []string{name}}}
}

// replicas returns a service's number as p sees it, -1 if there is none.
func (p *place) replicas(name string) int {
	s, ok := p.store.Desired().Service(name)
	if !ok {
		return -1
	}
	return s.Replicas
}

func TestDeployProposesAndIsIdempotent(t *testing.T) {
	peers := cluster(t, 3)
	p := peers[0]
	got := p.must(t, deploy(spec("web", 3)))
	if got.Kind != shoal.ChangeCreate || len(got.Slots) != 3 || slices.Contains(got.Slots, "") || len(slices.Compact(slices.Sorted(slices.Values(got.Slots)))) != 3 {
		t.Errorf("deploy 3 on 3 peers: %+v, want + and a slot on each", got)
	}
	s, _ := p.store.Desired().Service("web")
	if diff := cmp.Diff(got.Slots, s.Proposed); diff != "" {
		t.Errorf("the record's proposal differs from the plan:\n%s", diff)
	}
	before, _ := p.store.Since(0)
	if again := p.must(t, deploy(spec("web", 3))); again.Kind != shoal.ChangeNone {
		t.Errorf("the same deploy again: %+v, want no change", again)
	}
	if after, _ := p.store.Since(0); len(after) != len(before) {
		t.Errorf("the same deploy again wrote %d records", len(after)-len(before))
	}
	changed := spec("web", 3)
	changed.Image = "hello:2"
	if got := p.must(t, deploy(changed)); got.Kind != shoal.ChangeUpdate || !slices.Contains(got.Details, "image hello:1 -> hello:2") || got.Revision.Seq != 2 {
		t.Errorf("another image: %+v, want ~ with the image and revision 2", got)
	}
}

func TestDeployKeepsManualScale(t *testing.T) {
	p := cluster(t, 3)[0]
	p.must(t, deploy(spec("web", 3)))
	p.must(t, scale("web", 6, false))
	if got := p.must(t, deploy(spec("web", 3))); got.Kind != shoal.ChangeNone || len(got.Notes) != 1 || p.replicas("web") != 6 {
		t.Errorf("the same file after a scale: %+v and %d replicas, want a note and 6", got, p.replicas("web"))
	}
	rev, _ := p.store.Desired().Service("web")
	if p.must(t, deploy(spec("web", 4))); p.replicas("web") != 4 {
		t.Errorf("a file with another number: %d replicas, want 4", p.replicas("web"))
	}
	if now, _ := p.store.Desired().Service("web"); now.Revision != rev.Revision {
		t.Errorf("another number made revision %s of %s: it must restart nothing", now.Revision, rev.Revision)
	}
	p.must(t, scale("web", 9, false))
	w := deploy(spec("web", 4))
	w.Deploy.ResetScale = true
	if p.must(t, w); p.replicas("web") != 4 {
		t.Errorf("--reset-scale: %d replicas, want 4", p.replicas("web"))
	}
}

func TestScaleOnBothSidesAdds(t *testing.T) {
	peers := cluster(t, 2)
	peers[0].must(t, deploy(spec("web", 3)))
	exchange(peers)
	peers[0].must(t, scale("web", 1, true))
	peers[1].must(t, scale("web", 1, true))
	exchange(peers)
	for i, p := range peers {
		if got := p.replicas("web"); got != 5 {
			t.Errorf("peer %d: %d replicas after +1 on both sides of a split, want 5", i, got)
		}
	}
}

func TestRemoveThenDeployAgain(t *testing.T) {
	peers := cluster(t, 2)
	for round := 1; round <= 3; round++ {
		who := peers[round%2]
		who.must(t, deploy(spec("web", round)))
		exchange(peers)
		who.must(t, scale("web", 1, true))
		exchange(peers)
		for i, p := range peers {
			if got := p.replicas("web"); got != round+1 {
				t.Errorf("round %d, peer %d: %d replicas, want %d", round, i, got, round+1)
			}
		}
		peers[(round+1)%2].must(t, remove("web"))
		exchange(peers)
		for i, p := range peers {
			if got := p.replicas("web"); got != -1 {
				t.Errorf("round %d, peer %d: web is still there with %d", round, i, got)
			}
		}
	}
}

// TestRefusals: nothing is written, and the message says what and why.
func TestRefusals(t *testing.T) {
	peers := cluster(t, 2, shoal.RoleOperator, shoal.RolePeer)
	p := peers[0]
	p.must(t, deploy(spec("web", 3)))
	exchange(peers)
	elsewhere := spec("web", 3)
	elsewhere.Project = "other"
	global := spec("all", 1)
	global.Mode = shoal.ModeGlobal
	p.must(t, deploy(global))
	create := deploy(spec("web", 3))
	create.Deploy.Create = true
	stale := deploy(spec("web", 3))
	stale.Deploy.IfRevision = map[string]shoal.RevisionID{"web": {Seq: 7, Author: p.self}}
	absent := deploy(spec("new", 3))
	absent.Deploy.IfRevision = map[string]shoal.RevisionID{"new": {Seq: 7, Author: p.self}}
	published := func(name string, port uint16) shoal.Spec {
		s := spec(name, 1)
		s.Ports = []shoal.Port{{Container: 80, Published: port, Protocol: "tcp"}}
		return s
	}
	p.must(t, deploy(published("front", 8080)))
	for name, c := range map[string]struct {
		at   *place
		wish shoal.Wish
		kind error
		want string
	}{
		"a taken port":     {p, deploy(published("back", 8080)), shoal.ErrConflict, `port 8080/tcp of service "back" is published by service "front": conflict; publish another, or say mode: host`},
		"a taken port too": {p, deploy(published("web", 8080)), shoal.ErrConflict, `port 8080/tcp of service "web" is published by service "front"`},
		"one port for two": {p, deploy(published("b", 9090), published("c", 9090)), shoal.ErrConflict, "port 9090/tcp of service"},
		"negative":         {p, scale("web", -1, false), nil, "replicas must be 0–10000, got -1"},
		"too many":         {p, scale("web", 10001, false), nil, "replicas must be 0–10000, got 10001"},
		"below nothing":    {p, scale("web", -4, true), nil, "replicas must be 0–10000, got -1"},
		"overflow":         {p, scale("web", math.MaxInt, true), nil, "replicas must be 0–10000"},
		"no such service":  {p, scale("nosuch", 3, false), shoal.ErrNotFound, `no service "nosuch" (known here: all, front, web)`},
		"global":           {p, scale("all", 3, false), shoal.ErrRefused, "is global"},
		"other project":    {p, deploy(elsewhere), shoal.ErrConflict, `belongs to project "shop", not to project "other": conflict; give one of them another name, or remove`},
		"exists":           {p, create, shoal.ErrConflict, `service "web" already exists`},
		"stale revision":   {p, stale, shoal.ErrConflict, "not at the one you saw: conflict; look at it again"},
		"seen, now gone":   {p, absent, shoal.ErrConflict, "is at revision none"},
		"remove nothing":   {p, remove("nosuch"), shoal.ErrNotFound, `no service "nosuch"`},
		"twice":            {p, deploy(spec("a", 1), spec("a", 1)), nil, `name "a" twice`},
		"one bad of two":   {p, deploy(spec("good", 1), spec("Bad", 1)), nil, "name must match"},
		"stop nothing":     {p, operate(shoal.OpStop, "web", "nosuch"), shoal.ErrNotFound, `no service "nosuch"`},
		"operate how":      {p, operate("explode", "web"), nil, `operation must be stop, start or restart, got "explode"`},
		"nothing":          {p, deploy(), nil, "must name at least one"},
		"not an operator":  {peers[1], scale("web", 4, false), shoal.ErrRefused, "this peer is not an operator"},
		"names operators":  {peers[1], scale("web", 4, false), shoal.ErrRefused, "ask an operator (a)"},
		"no wish whatever": {p, shoal.Wish{}, nil, "wish is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			before := c.at.store.Desired().Digest
			_, err := c.at.Submit(context.Background(), c.wish, shoal.UpdateOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) || c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("Submit: %v, want %q (%v)", err, c.want, c.kind)
			}
			if _, planErr := c.at.Plan(context.Background(), c.wish); planErr == nil {
				t.Error("Plan accepts what Submit refuses")
			}
			if c.at.store.Desired().Digest != before {
				t.Error("a refused wish changed the state")
			}
		})
	}
}

// TestAnyWishesConverge: whatever is asked where, in whatever splits, peers that
// exchange everything agree, and a deploy of what is there changes nothing.
func TestAnyWishesConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		peers := cluster(t, 3)
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			p := peers[rapid.IntRange(0, 2).Draw(t, "peer")]
			name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "service")
			n := rapid.IntRange(0, 9).Draw(t, "n")
			var w shoal.Wish
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				w = deploy(spec(name, n))
			case 1:
				w = scale(name, n, false)
			case 2:
				w = scale(name, n-4, true)
			case 3:
				w = remove(name)
			case 4:
				exchange(peers)
				continue
			case 5:
				w = operate(rapid.SampledFrom([]shoal.Operation{shoal.OpStop, shoal.OpStart, shoal.OpRestart}).Draw(t, "operation"), name)
			}
			_, err := p.Submit(context.Background(), w, shoal.UpdateOptions{})
			var invalid *shoal.InvalidError
			if err != nil && !errors.Is(err, shoal.ErrNotFound) && !errors.As(err, &invalid) {
				t.Fatalf("Submit: %v", err)
			}
			if w.Scale != nil && err == nil && !w.Scale.Targets[0].Relative && p.replicas(name) != n {
				t.Fatalf("scale %s=%d gave %d", name, n, p.replicas(name))
			}
			if w.Remove != nil && err == nil && p.replicas(name) != -1 {
				t.Fatalf("%s was removed and is there", name)
			}
		}
		exchange(peers)
		for _, p := range peers[1:] {
			if a, b := peers[0].store.Desired().Digest, p.store.Desired().Digest; a != b {
				t.Fatalf("digests differ: %s and %s", a, b)
			}
		}
		for _, s := range peers[0].store.Desired().Services {
			if s.Stopped {
				continue // a deploy starts it
			}
			if got := peers[0].must(t, deploy(s.Spec)); got.Kind != shoal.ChangeNone && s.Scale.File == s.Spec.Replicas {
				t.Fatalf("deploying what is there: %+v", got)
			}
		}
	})
}
