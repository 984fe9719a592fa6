// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
)

// Bounds of an invite.
const (
	inviteTTL    = time.Hour
	maxInviteTTL = 30 * 24 * time.Hour
	maxUses      = 1000
)

// CreateInvite opens an invite and returns its token's text: a secret, to be shown
// once. *shoal.InvalidError: opts are out of bounds. shoal.ErrRefused: this peer is
// no operator.
func (l *Links) CreateInvite(ctx context.Context, store shoal.Store, opts shoal.TokenOptions) (string, error) {
	if opts.TTL == 0 {
		opts.TTL = inviteTTL
	}
	if opts.Uses == 0 {
		opts.Uses = 1
	}
	if opts.Role == "" {
		opts.Role = shoal.RoleOperator
	}
	if err := checkInvite(opts); err != nil {
		return "", err
	}
	t := &Token{
		Cluster: l.id.Cluster(), Role: opts.Role,
		ExpiresAt: l.clock.Wall().Add(opts.TTL).Unix(), Peers: l.entrances(store.Desired()),
	}
	if t.Cluster == "" {
		return "", fmt.Errorf("create token: %w", shoal.ErrNotMember)
	}
	if len(t.Peers[0].Addrs) == 0 {
		return "", &shoal.AdviceError{
			Err:    fmt.Errorf("create token: this peer has no address that others could dial: %w", shoal.ErrRefused),
			Advice: "give one with --advertise",
		}
	}
	if err := l.id.draw(t.Seed[:]); err != nil {
		return "", err
	}
	body := &shoal.InviteBody{
		ID: t.InviteID(), Role: t.Role, PublicKey: t.key().Public().(ed25519.PublicKey), ExpiresAt: t.ExpiresAt, Uses: opts.Uses,
	}
	_, err := store.Update(ctx, func(d *shoal.Desired, s shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{body}, mayAdmit(d, s.Author)
	}, shoal.UpdateOptions{})
	if err != nil {
		return "", fmt.Errorf("create token: %w", err)
	}
	return t.Encode()
}

func checkInvite(opts shoal.TokenOptions) error {
	switch {
	case opts.TTL < time.Second || opts.TTL > maxInviteTTL:
		return &shoal.InvalidError{Field: "ttl", Why: fmt.Sprintf("must be 1s to %s, got %s", maxInviteTTL, opts.TTL)}
	case opts.Uses < 1 || opts.Uses > maxUses:
		return &shoal.InvalidError{Field: "uses", Why: fmt.Sprintf("must be 1-%d, got %d", maxUses, opts.Uses)}
	case opts.Role != shoal.RoleOperator && opts.Role != shoal.RolePeer:
		return &shoal.InvalidError{Field: "role", Why: fmt.Sprintf("must be %s or %s, got %q", shoal.RoleOperator, shoal.RolePeer, opts.Role)}
	}
	return nil
}

// RevokeInvite ends an invite. shoal.ErrNotFound: there is none with this ID.
// Revoking it twice is no error and writes nothing.
func (l *Links) RevokeInvite(ctx context.Context, store shoal.Store, id string) error {
	_, err := store.Update(ctx, func(d *shoal.Desired, s shoal.Stamp) ([]shoal.Body, error) {
		inv, ok := findInvite(d, id)
		switch {
		case !ok:
			return nil, &shoal.AdviceError{Err: fmt.Errorf("no token has the ID %q: %w", id, shoal.ErrNotFound), Advice: "see \"shoal token ls\""}
		case inv.Revoked:
			return nil, nil
		}
		body := ownPart(inv, s.Author)
		body.Revoked = true
		return []shoal.Body{body}, mayAdmit(d, s.Author)
	}, shoal.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("revoke token: %w", err)
	}
	return nil
}

// mayAdmit returns shoal.ErrRefused unless peer is an operator and still a member.
func mayAdmit(d *shoal.Desired, peer shoal.PeerID) error {
	me, ok := d.Peer(peer)
	if !ok || me.Removed || me.Role != shoal.RoleOperator {
		return fmt.Errorf("this peer is no operator: %w", shoal.ErrRefused)
	}
	return nil
}

func findInvite(d *shoal.Desired, id string) (*shoal.Invite, bool) {
	i, ok := slices.BinarySearchFunc(d.Invites, id, func(inv shoal.Invite, id string) int { return strings.Compare(inv.ID, id) })
	if !ok {
		return nil, false
	}
	return &d.Invites[i], true
}

// ownPart returns what author has to repeat of an invite, since only its newest
// record counts: all it opened the invite with, if it did, and the redemptions. The
// fold joins redemptions as a set, so that naming another's is harmless.
func ownPart(inv *shoal.Invite, author shoal.PeerID) *shoal.InviteBody {
	b := &shoal.InviteBody{ID: inv.ID, RedeemedBy: slices.Clone(inv.RedeemedBy)}
	if inv.Issuer == author {
		b.Role, b.PublicKey, b.ExpiresAt, b.Uses = inv.Role, inv.PublicKey, inv.ExpiresAt, inv.Uses
	}
	return b
}

// entrances returns whom a newcomer may ask: this peer first, then operators it is
// linked to, with some addresses each.
func (l *Links) entrances(d *shoal.Desired) []TokenPeer {
	own := addrTexts(withoutCircuits(parseAddrs(l.Addrs()))) // nobody joins through a relay
	slices.SortStableFunc(own, func(a, b string) int { return boolRank(isTCP(a)) - boolRank(isTCP(b)) })
	out := []TokenPeer{{Peer: l.id.Self(), Addrs: own[:min(len(own), maxTokenAddrs)]}}
	linked := l.Connected()
	for i := range d.Peers {
		p := &d.Peers[i]
		if len(out) == maxTokenPeers || p.Removed || p.Role != shoal.RoleOperator || !slices.Contains(linked, p.ID) {
			continue
		}
		if addrs := addrTexts(pick(l.gate.loopback, 2, withoutCircuits(parseAddrs(p.Facts.Addrs)))); len(addrs) > 0 {
			out = append(out, TokenPeer{Peer: p.ID, Addrs: addrs})
		}
	}
	return out
}

func isTCP(addr string) bool { return strings.Contains(addr, "/tcp/") }

// boolRank sorts true before false.
func boolRank(b bool) int {
	if b {
		return 0
	}
	return 1
}
