// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"crypto/ed25519"
	"log/slog"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/wish"
)

// author signs as one peer.
type author struct {
	id   shoal.PeerID
	priv ed25519.PrivateKey
}

func newAuthor(t *testing.T, n byte) author {
	t.Helper()
	priv := ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(n)), ed25519.SeedSize)))
	pub, err := crypto.UnmarshalEd25519PublicKey(priv.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return author{shoal.PeerID(id.String()), priv}
}

func (a author) PeerID() shoal.PeerID { return a.id }

func (a author) Sign(message []byte) ([]byte, error) { return ed25519.Sign(a.priv, message), nil }

// views shows what the store holds, everybody alive.
type views struct {
	*gossip.Memory
	self shoal.PeerID
}

func (v views) View() *shoal.View { return shoal.NewView(v.self, v.Desired(), nil, nil) }

// realDesk is a member of one whose wishes become records in the memory store.
func realDesk(t *testing.T) (*api.Client, shoal.PeerID) {
	t.Helper()
	clock, root, self := shoal.NewSystemClock(), newAuthor(t, 'r'), newAuthor(t, 's')
	admitting, store := gossip.NewMemory(root.id, clock, root), gossip.NewMemory(root.id, clock, self)
	put := func(m *gossip.Memory, b shoal.Body) {
		_, err := m.Update(t.Context(), func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error) { return []shoal.Body{b}, nil }, shoal.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	put(admitting, &shoal.MemberBody{Peer: self.id, Role: shoal.RoleOperator})
	admissions, _ := admitting.Since(0)
	store.Deliver(admissions)
	put(store, &shoal.PeerBody{Peer: self.id, Facts: shoal.PeerFacts{Name: "tokyo", Capacity: shoal.Resources{CPUMilli: 4000, MemBytes: 8 << 30}}})
	v := views{store, self.id}
	ports := &api.Cluster{Wishes: wish.New(self.id, store, v, nil, nil), Views: v, Remote: apitest.New()}
	socket := t.TempDir()
	socket = socket[:min(len(socket), 80)] + ".sock"
	stop := apitest.Start(t, api.Deps{
		Membership: apitest.New("tokyo"), Doctor: apitest.New(), Clock: clock, Log: slog.New(slog.DiscardHandler), Cluster: func() (*api.Cluster, bool) { return ports, true },
	}, socket)
	t.Cleanup(stop)
	return dial(t, socket), self.id
}

// What the real desk answers reaches the user in one line with the right code.
func TestWithTheRealDesk(t *testing.T) {
	c, self := realDesk(t)
	ctx := t.Context()
	web := spec("web", "hello:1", 3)
	web.Project, web.Constraints = "shop", nil
	out := deploy(t, c, web)
	if ch := out.Changes[0]; ch.Kind != "+" || ch.Replicas != 3 || ch.Revision != "1@"+string(self) {
		t.Errorf("Deploy(web) = %+v, want + with three replicas", ch)
	}
	if out := deploy(t, c, web); out.Changes[0].Kind != "=" {
		t.Errorf("Deploy(web) again = %+v, want =", out.Changes[0])
	}
	if _, err := c.Scale(ctx, []shoal.ScaleTarget{{Service: "web", N: 5}}, api.WishOptions{}); err != nil {
		t.Fatal(err)
	}
	if l, err := c.Services(ctx); err != nil || l.Items[0].Replicas != 5 {
		t.Errorf("Services() right after Scale = %+v, %v, want 5 replicas", l.Items, err)
	}
	_, err := c.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{web}, Create: true}, api.WishOptions{})
	e := asError(t, err)
	if e.Code != api.CodeConflict || !strings.HasPrefix(e.What, `service "web" already exists`) {
		t.Errorf("Deploy(create) = %+v, want a conflict", e)
	}
	other := web
	other.Project = "other"
	_, err = c.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{other}}, api.WishOptions{})
	e = asError(t, err)
	if e.Code != api.CodeConflict || !strings.HasPrefix(e.What, `service "web" belongs to `) || strings.HasSuffix(e.What, "conflict") {
		t.Errorf("Deploy(other project) = %+v, want a conflict", e)
	}
	bad := web
	bad.Name = "x/y"
	_, err = c.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{bad}}, api.WishOptions{})
	wantError(t, err, api.CodeInvalid, `service x/y: name must match [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?, got "x/y"`)
	_, err = c.Scale(ctx, []shoal.ScaleTarget{{Service: "web", Relative: true, N: -6}}, api.WishOptions{})
	wantError(t, err, api.CodeInvalid, `replicas must be 0–10000, got -1`)
	_, err = c.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{web}, Remove: map[string]shoal.RevisionID{"gone": {Seq: 1, Author: self}}}, api.WishOptions{})
	if err != nil {
		t.Errorf("Deploy that removes what is gone: %v", err)
	}
	old := web
	old.Name = "old"
	deploy(t, c, old)
	_, err = c.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{web}, Remove: map[string]shoal.RevisionID{"old": {Seq: 7, Author: self}}}, api.WishOptions{})
	wantError(t, err, api.CodeConflict, `service "old" changed while you were asked; look at it again`)
	_, err = c.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{web}, Remove: map[string]shoal.RevisionID{"old": {Seq: 1, Author: self}}}, api.WishOptions{})
	if l, lerr := c.Services(ctx); err != nil || lerr != nil || len(l.Items) != 1 {
		t.Errorf("Services() after a deploy that removes old = %+v, %v, %v, want web alone", l.Items, lerr, err)
	}
	picky := web
	picky.Name, picky.Constraints = "picky", []shoal.Selector{{Key: "region", Op: shoal.OpEqual, Values: []string{"eu"}}}
	_, err = c.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{picky}}, api.WishOptions{})
	wantError(t, err, api.CodeRefused, `service "picky": 0 of 1 peers match region=eu; label a peer (shoal peer label) or use --allow-unplaced`)
	if _, err := c.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{picky}, AllowUnplaced: true}, api.WishOptions{}); err != nil {
		t.Errorf("Deploy(picky) with AllowUnplaced: %v", err)
	}
	if _, err := c.Remove(ctx, shoal.RemoveWish{Services: []string{"picky"}}, api.WishOptions{}); err != nil {
		t.Fatal(err)
	}
	d, err := c.Service(ctx, "web", true)
	if err != nil || d.Unplaced != 5 || len(d.Rows) != 5 || d.Rows[0].State != "unplaced" || d.Rows[0].Reason == "" {
		t.Errorf("Service(web) = %+v, %v, want five slots without a holder, with reasons", d, err)
	}
	if _, err := c.Remove(ctx, shoal.RemoveWish{Services: []string{"web"}}, api.WishOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = c.Service(ctx, "web", false)
	wantError(t, err, api.CodeNotFound, `no service "web" (known here: none); this peer is the only member`)
}

func asError(t *testing.T, err error) *api.Error {
	t.Helper()
	e, ok := err.(*api.Error) //nolint:errorlint // clients return it unwrapped
	if !ok {
		t.Fatalf("error = %v (%T), want an *api.Error", err, err)
	}
	return e
}
