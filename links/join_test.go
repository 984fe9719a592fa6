// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

// cluster is one member with a store and an open door.
type cluster struct {
	*testPeer
	store *testStore
}

func newCluster(t *testing.T, seed byte) *cluster {
	t.Helper()
	id := founder(t, seed)
	c := &cluster{testPeer: up(t, quiet(), id), store: newTestStore(t, id)}
	c.ServeJoin(c.store, c.store)
	c.SetMembers(c.store.Desired())
	return c
}

// invite opens an invite and returns its token.
func (c *cluster) invite(t *testing.T, opts shoal.TokenOptions) string {
	t.Helper()
	text, err := c.CreateInvite(t.Context(), c.store, opts)
	mustBe(t, "create invite", err)
	c.SetMembers(c.store.Desired())
	return text
}

func newcomer(t *testing.T, seed byte) *testPeer {
	t.Helper()
	return up(t, quiet(), memory(t, seed))
}

func wantJoinFault(t *testing.T, err error, want TokenFault, is error) {
	t.Helper()
	var te *TokenError
	if !errors.As(err, &te) || te.Fault != want || !errors.Is(err, is) {
		t.Errorf("Join = %v, want %q and %v", err, want, is)
	}
}

func TestJoin(t *testing.T) {
	a := newCluster(t, 1)
	b := newcomer(t, 2)
	res, err := b.Join(t.Context(), a.invite(t, shoal.TokenOptions{}), shoal.JoinOptions{Name: "b"})
	mustBe(t, "join", err)
	if res.Cluster != a.id.Cluster() || res.Via != a.id.Self() || res.Role != shoal.RoleOperator || len(res.Members) != 1 || res.Members[0].Peer != a.id.Self() {
		t.Errorf("Join = %+v", res)
	}
	if b.id.Cluster() != a.id.Cluster() || b.id.Role() != shoal.RoleOperator || len(b.id.Chain()) != 2 {
		t.Errorf("newcomer: cluster %s role %s chain of %d", b.id.Cluster(), b.id.Role(), len(b.id.Chain()))
	}
	d := a.store.Desired()
	member, ok := d.Peer(b.id.Self())
	if !ok || member.Role != shoal.RoleOperator || len(d.Invites) != 1 || !slices.Equal(d.Invites[0].RedeemedBy, []shoal.PeerID{b.id.Self()}) {
		t.Errorf("records after the join: member %+v, invites %+v", member, d.Invites)
	}
	if a.store.writes != 2 {
		t.Errorf("%d writes, want one for the invite and one for the join", a.store.writes)
	}
	// Both link anew, as members.
	eventually(t, "a links b", linked(a.testPeer, b.id.Self()))
	eventually(t, "b links a", linked(b, a.id.Self()))
	if _, err := b.Ping(t.Context(), a.id.Self(), false); err != nil {
		t.Errorf("ping after join = %v", err)
	}
}

// TestJoinThird joins through a peer that itself joined, and hears of all members.
func TestJoinThird(t *testing.T) {
	a := newCluster(t, 1)
	bPeer := newcomer(t, 2)
	_, err := bPeer.Join(t.Context(), a.invite(t, shoal.TokenOptions{}), shoal.JoinOptions{})
	mustBe(t, "join b", err)
	b := &cluster{testPeer: bPeer, store: newTestStore(t, bPeer.id)}
	b.store.setAddrs(a.id.Self(), a.Addrs()...)
	b.ServeJoin(b.store, b.store)
	b.SetMembers(b.store.Desired())
	eventually(t, "b links a", linked(b.testPeer, a.id.Self()))

	c := newcomer(t, 3)
	res, err := c.Join(t.Context(), b.invite(t, shoal.TokenOptions{Role: shoal.RolePeer}), shoal.JoinOptions{})
	mustBe(t, "join c", err)
	var told []shoal.PeerID
	for _, m := range res.Members {
		told = append(told, m.Peer)
		if len(m.Addrs) == 0 {
			t.Errorf("member %s came without addresses", m.Peer.Short())
		}
	}
	want := []shoal.PeerID{a.id.Self(), b.id.Self()}
	slices.Sort(told)
	slices.Sort(want)
	if !slices.Equal(told, want) || res.Role != shoal.RolePeer || len(c.id.Chain()) != 3 {
		t.Errorf("told of %v, want %v; role %s, chain of %d", told, want, res.Role, len(c.id.Chain()))
	}
	eventually(t, "c links b", func() bool { return slices.Contains(c.Connected(), b.id.Self()) })
	// a does not know c yet: at most it lets it stand at the door. Once it does, the
	// link is made anew, so that rooms which turned away from a stranger see a member.
	if _, err := c.Ping(t.Context(), a.id.Self(), false); err == nil {
		t.Error("a answered a ping of somebody it does not know")
	}
	for _, env := range c.id.Chain() {
		a.store.take(t, env)
	}
	a.SetMembers(a.store.Desired())
	eventually(t, "all are linked", func() bool {
		return linked(c, a.id.Self(), b.id.Self())() && linked(a.testPeer, b.id.Self(), c.id.Self())()
	})
	eventually(t, "no link is from before", func() bool {
		return !slices.ContainsFunc(a.host.Network().Conns(), a.gate.stale)
	})
	eventually(t, "c pings a", func() bool { _, err := c.Ping(t.Context(), a.id.Self(), false); return err == nil })
}

func TestJoinDryRun(t *testing.T) {
	a := newCluster(t, 1)
	b := newcomer(t, 2)
	token := a.invite(t, shoal.TokenOptions{})
	writes := a.store.writes
	res, err := b.Join(t.Context(), token, shoal.JoinOptions{DryRun: true})
	mustBe(t, "dry run", err)
	if res.Cluster != a.id.Cluster() || res.Via != a.id.Self() || b.id.Cluster() != "" || a.store.writes != writes {
		t.Errorf("dry run = %+v; newcomer in %q; %d writes, want %d", res, b.id.Cluster(), a.store.writes, writes)
	}
	_, err = b.Join(t.Context(), token, shoal.JoinOptions{})
	mustBe(t, "join after the dry run", err)
}

// TestJoinTwice: one use admits one newcomer, who may ask again (its answer may have
// been lost); the next is told that it is used up.
func TestJoinTwice(t *testing.T) {
	a := newCluster(t, 1)
	b := newcomer(t, 2)
	token := a.invite(t, shoal.TokenOptions{})
	_, err := b.Join(t.Context(), token, shoal.JoinOptions{})
	mustBe(t, "join", err)
	_, err = b.Join(t.Context(), token, shoal.JoinOptions{})
	wantJoinFault(t, err, TokenMember, shoal.ErrConflict)

	mustBe(t, "lose the answer", b.id.Forget())
	b.SetMembers(nil)
	writes := a.store.writes
	_, err = b.Join(t.Context(), token, shoal.JoinOptions{})
	mustBe(t, "ask again", err)
	if a.store.writes != writes {
		t.Errorf("asking again wrote %d blocks", a.store.writes-writes)
	}
	_, err = newcomer(t, 3).Join(t.Context(), token, shoal.JoinOptions{})
	wantJoinFault(t, err, TokenUsed, shoal.ErrRefused)
}

func TestJoinSeveralUses(t *testing.T) {
	a := newCluster(t, 1)
	token := a.invite(t, shoal.TokenOptions{Uses: 2})
	for seed := byte(2); seed < 4; seed++ {
		_, err := newcomer(t, seed).Join(t.Context(), token, shoal.JoinOptions{})
		mustBe(t, "join", err)
	}
	_, err := newcomer(t, 4).Join(t.Context(), token, shoal.JoinOptions{})
	wantJoinFault(t, err, TokenUsed, shoal.ErrRefused)
}

func TestJoinExpired(t *testing.T) {
	a := newCluster(t, 1)
	token := a.invite(t, shoal.TokenOptions{TTL: time.Minute})
	b := newcomer(t, 2)
	a.clock.add(2 * time.Minute)
	_, err := b.Join(t.Context(), token, shoal.JoinOptions{}) // by the member's clock, not the newcomer's
	wantJoinFault(t, err, TokenExpired, shoal.ErrRefused)
	if !strings.Contains(err.Error(), "on this peer") {
		t.Errorf("the error does not name the clock: %v", err)
	}
	// Long after, the door is shut and only the newcomer's own clock can tell.
	a.clock.add(2 * doorGrace)
	a.SetMembers(a.store.Desired())
	eventually(t, "the place of the stranger is free", func() bool { _, here := a.gate.nextStranger(); return !here })
	_, err = b.Join(t.Context(), token, shoal.JoinOptions{})
	wantJoinFault(t, err, TokenUnreachable, shoal.ErrUnreachable)
	b.clock.add(3 * doorGrace)
	_, err = b.Join(t.Context(), token, shoal.JoinOptions{})
	wantJoinFault(t, err, TokenExpired, shoal.ErrRefused)
}

// TestJoinSkewedNewcomer: a newcomer whose clock is years ahead is no reason to refuse.
func TestJoinSkewedNewcomer(t *testing.T) {
	a := newCluster(t, 1)
	b := newcomer(t, 2)
	b.clock.add(10 * 365 * 24 * time.Hour)
	_, err := b.Join(t.Context(), a.invite(t, shoal.TokenOptions{}), shoal.JoinOptions{})
	mustBe(t, "join", err)
}

func TestJoinRevoked(t *testing.T) {
	a := newCluster(t, 1)
	token := a.invite(t, shoal.TokenOptions{})
	id := a.store.Desired().Invites[0].ID
	mustBe(t, "revoke", a.RevokeInvite(t.Context(), a.store, id))
	writes := a.store.writes
	mustBe(t, "revoke twice", a.RevokeInvite(t.Context(), a.store, id))
	if a.store.writes != writes {
		t.Error("revoking twice wrote twice")
	}
	inv := a.store.Desired().Invites[0]
	if !inv.Revoked || inv.Uses != 1 || inv.ExpiresAt == 0 {
		t.Errorf("revoked invite = %+v: the issuer's newest record must keep its terms", inv)
	}
	_, err := newcomer(t, 2).Join(t.Context(), token, shoal.JoinOptions{})
	wantJoinFault(t, err, TokenRevoked, shoal.ErrRefused)
	if err := a.RevokeInvite(t.Context(), a.store, "nosuch"); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("revoke of none = %v, want ErrNotFound", err)
	}
}

// TestJoinForeign: the peer the token names has moved to another cluster.
func TestJoinForeign(t *testing.T) {
	a := newCluster(t, 1)
	token := a.invite(t, shoal.TokenOptions{})
	mustBe(t, "leave", a.id.Forget())
	_, err := InitCluster(a.id, time.Unix(2000, 0))
	mustBe(t, "init", err)
	writes := a.store.writes
	b := newcomer(t, 2)
	_, err = b.Join(t.Context(), token, shoal.JoinOptions{})
	wantJoinFault(t, err, TokenForeign, shoal.ErrRefused)
	eventually(t, "a saw it go", func() bool { return strings.Contains(a.logs.String(), "join not finished") })
	if strings.Contains(a.logs.String(), "join asked for") || a.store.writes != writes || b.id.Cluster() != "" {
		t.Error("the newcomer proved its secret to a foreign cluster")
	}
}

func TestJoinUnknown(t *testing.T) {
	a := newCluster(t, 1)
	text := a.invite(t, shoal.TokenOptions{})
	forged, err := ParseToken(text)
	mustBe(t, "parse", err)
	forged.Seed[0] ^= 1
	_, err = newcomer(t, 2).Join(t.Context(), encode(t, forged), shoal.JoinOptions{})
	wantJoinFault(t, err, TokenUnknown, shoal.ErrRefused)
}

func TestJoinOwnAddress(t *testing.T) {
	a := newCluster(t, 1)
	_, err := a.Join(t.Context(), a.invite(t, shoal.TokenOptions{}), shoal.JoinOptions{})
	wantJoinFault(t, err, TokenOwn, shoal.ErrRefused)
}

func TestJoinElsewhere(t *testing.T) {
	a, b := newCluster(t, 1), newCluster(t, 2)
	_, err := b.Join(t.Context(), a.invite(t, shoal.TokenOptions{}), shoal.JoinOptions{})
	wantJoinFault(t, err, TokenElsewhere, shoal.ErrConflict)
	if !strings.Contains(err.Error(), "shoal leave") {
		t.Errorf("the error does not say how to leave: %v", err)
	}
}

func TestJoinUnreachable(t *testing.T) {
	a := newCluster(t, 1)
	token := a.invite(t, shoal.TokenOptions{})
	a.stop()
	_, err := newcomer(t, 2).Join(t.Context(), token, shoal.JoinOptions{})
	wantJoinFault(t, err, TokenUnreachable, shoal.ErrUnreachable)
	// Whether QUIC is refused at once or times out, people read a host and a port.
	if text := err.Error(); strings.ContainsAny(text, "\n/") || !strings.Contains(text, " 127.0.0.1:") {
		t.Errorf("the error reads %q", err)
	}
}

// TestJoinImpostor: somebody else answers at the address in the token.
func TestJoinImpostor(t *testing.T) {
	a, x := newCluster(t, 1), newCluster(t, 9)
	token, err := ParseToken(a.invite(t, shoal.TokenOptions{}))
	mustBe(t, "parse", err)
	x.invite(t, shoal.TokenOptions{})
	token.Peers[0].Addrs = x.Addrs()[:1]
	_, err = newcomer(t, 2).Join(t.Context(), encode(t, token), shoal.JoinOptions{})
	wantJoinFault(t, err, TokenForeign, shoal.ErrRefused)
	if !strings.Contains(err.Error(), x.id.Self().Short()+" answers at 127.0.0.1:") {
		t.Errorf("the error does not say who answers: %v", err)
	}
}

// TestJoinAgain: a member that lost its answer gets it again by the same token; one
// that left needs another token.
func TestJoinAgain(t *testing.T) {
	a := newCluster(t, 1)
	used, other := a.invite(t, shoal.TokenOptions{}), a.invite(t, shoal.TokenOptions{})
	id := memory(t, 2)
	b := up(t, quiet(), id)
	_, err := b.Join(t.Context(), used, shoal.JoinOptions{})
	mustBe(t, "join", err)
	mustBe(t, "forget", id.Forget())
	_, err = b.Join(t.Context(), used, shoal.JoinOptions{})
	mustBe(t, "join again by the same token", err)
	mustBe(t, "forget", id.Forget())
	a.store.mu.Lock()
	a.store.facts[id.Self()] = shoal.PeerFacts{Leaving: true}
	a.store.fold()
	a.store.mu.Unlock()
	_, err = b.Join(t.Context(), used, shoal.JoinOptions{})
	wantJoinFault(t, err, TokenUsed, shoal.ErrRefused)
	_, err = b.Join(t.Context(), other, shoal.JoinOptions{})
	mustBe(t, "join by another token", err)
}

// TestJoinTriesAll: the first peer of the token is down, the second admits.
func TestJoinTriesAll(t *testing.T) {
	a := newCluster(t, 1)
	token, err := ParseToken(a.invite(t, shoal.TokenOptions{}))
	mustBe(t, "parse", err)
	dead := TokenPeer{Peer: memory(t, 8).Self(), Addrs: []string{"/ip4/127.0.0.1/tcp/1"}}
	token.Peers = append([]TokenPeer{dead}, token.Peers...)
	res, err := newcomer(t, 2).Join(t.Context(), encode(t, token), shoal.JoinOptions{})
	if err != nil || res.Via != a.id.Self() {
		t.Errorf("Join = %+v, %v, want via %s", res, err, a.id.Self().Short())
	}
}

func TestJoinNotOperator(t *testing.T) {
	a := newCluster(t, 1)
	token := a.invite(t, shoal.TokenOptions{})
	a.store.setRemoved(a.id.Self()) // its pen has ended
	_, err := newcomer(t, 2).Join(t.Context(), token, shoal.JoinOptions{})
	wantJoinFault(t, err, TokenRefused, shoal.ErrRefused)
	if !strings.Contains(err.Error(), "no operator") {
		t.Errorf("the error reads %q", err)
	}
	if _, err := a.CreateInvite(t.Context(), a.store, shoal.TokenOptions{}); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("CreateInvite by no operator = %v, want ErrRefused", err)
	}
}

func TestJoinStoreFails(t *testing.T) {
	a := newCluster(t, 1)
	token := a.invite(t, shoal.TokenOptions{})
	a.store.fail = shoal.ErrNoSpace
	b := newcomer(t, 2)
	_, err := b.Join(t.Context(), token, shoal.JoinOptions{})
	wantJoinFault(t, err, TokenRefused, shoal.ErrRefused)
	if !strings.Contains(err.Error(), "no space") || b.id.Cluster() != "" {
		t.Errorf("Join = %v; newcomer in %q", err, b.id.Cluster())
	}
}

func TestJoinCancelled(t *testing.T) {
	a := newCluster(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := newcomer(t, 2).Join(ctx, a.invite(t, shoal.TokenOptions{}), shoal.JoinOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Join = %v, want context.Canceled", err)
	}
}

// TestJoinBadProof signs with the wrong key, over the wrong ends, or replays.
func TestJoinBadProof(t *testing.T) {
	self, other, third := memory(t, 1).Self(), memory(t, 2).Self(), memory(t, 3).Self()
	base := string(joinTranscript("c", self, other, []byte("nonce"), "name", false))
	for name, text := range map[string][]byte{
		"other cluster":    joinTranscript("d", self, other, []byte("nonce"), "name", false),
		"other admitter":   joinTranscript("c", third, other, []byte("nonce"), "name", false),
		"other newcomer":   joinTranscript("c", self, third, []byte("nonce"), "name", false),
		"ends swapped":     joinTranscript("c", other, self, []byte("nonce"), "name", false),
		"other nonce":      joinTranscript("c", self, other, []byte("nonc2"), "name", false),
		"dry run":          joinTranscript("c", self, other, []byte("nonce"), "name", true),
		"name moved a bit": joinTranscript("c", self, other, []byte("noncen"), "ame", false),
	} {
		if string(text) == base {
			t.Errorf("%s: the transcript is the same", name)
		}
	}
}

func TestInviteBounds(t *testing.T) {
	a := newCluster(t, 1)
	for _, opts := range []shoal.TokenOptions{
		{TTL: -time.Second}, {TTL: time.Millisecond}, {TTL: maxInviteTTL + 1}, {Uses: -1}, {Uses: maxUses + 1}, {Role: "king"},
	} {
		var invalid *shoal.InvalidError
		if text, err := a.CreateInvite(t.Context(), a.store, opts); !errors.As(err, &invalid) {
			t.Errorf("CreateInvite(%+v) = %q, %v, want InvalidError", opts, text, err)
		}
	}
	if len(a.store.Desired().Invites) != 0 {
		t.Errorf("refused invites were written: %+v", a.store.Desired().Invites)
	}
	lone := newcomer(t, 2)
	if _, err := lone.CreateInvite(t.Context(), newTestStore(t, lone.id), shoal.TokenOptions{}); !errors.Is(err, shoal.ErrNotMember) {
		t.Errorf("CreateInvite outside a cluster = %v, want ErrNotMember", err)
	}
	token, err := ParseToken(a.invite(t, shoal.TokenOptions{}))
	mustBe(t, "parse", err)
	if token.Role != shoal.RoleOperator || token.ExpiresAt != a.clock.Wall().Add(time.Hour).Unix() || token.Peers[0].Peer != a.id.Self() {
		t.Errorf("token = %+v", token)
	}
	if !strings.Contains(token.Peers[0].Addrs[0], "/tcp/") {
		t.Errorf("addresses = %v, want TCP first", token.Peers[0].Addrs)
	}
}

func decodeID(t testing.TB, id shoal.PeerID) peer.ID {
	t.Helper()
	p, err := peer.Decode(string(id))
	mustBe(t, "decode peer ID", err)
	return p
}

// Who comes back begins without the marks and edits it had, whoever made them.
func TestAfresh(t *testing.T) {
	mine, theirs := shoal.Mark{ID: "a/1"}, shoal.Mark{ID: "b/1", Drain: true}
	p := &shoal.Peer{
		ID: "p", Marks: []shoal.Mark{mine, theirs}, Edits: []shoal.Edit{{Value: "osaka", Seq: 3}, {Label: "zone", Gone: true, Seq: 1}},
		By: map[shoal.PeerID]*shoal.MarkBody{"a": {Peer: "p", Laid: []shoal.Mark{mine}, Lifts: []string{"c/9"}}, "b": {Peer: "p", Laid: []shoal.Mark{theirs}}},
	}
	want := &shoal.MarkBody{
		Peer: "p", Lifts: []string{"c/9", "b/1"},
		Edits: []shoal.Edit{{Own: true, Seq: 4}, {Label: "zone", Own: true, Seq: 2}},
	}
	if diff := cmp.Diff(want, afresh(p, "a")); diff != "" {
		t.Errorf("afresh differs (-want +got):\n%s", diff)
	}
}
