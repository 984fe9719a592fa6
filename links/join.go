// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// JoinResult is what a newcomer got.
type JoinResult struct {
	Cluster shoal.PeerID
	Role    shoal.Role
	Via     shoal.PeerID  // who admitted it
	Invite  string        // ID of the one it redeemed
	Members []KnownMember // whom it may link to; their chains were checked
}

// Join redeems a token: it asks the peers the token names until one admits this
// peer, and makes it a member durably. Each must show an admission chain to the
// token's cluster before it learns anything. With opts.DryRun nothing is redeemed
// and nothing changes, and Members is empty. The error is a *TokenError, or ctx's.
func (l *Links) Join(ctx context.Context, token string, opts shoal.JoinOptions) (JoinResult, error) {
	t, err := ParseToken(token)
	if err != nil {
		return JoinResult{}, err
	}
	if err := l.mayJoin(t); err != nil {
		return JoinResult{}, err
	}
	var worst error
	for _, p := range t.Peers {
		if p.Peer == l.id.Self() {
			continue
		}
		res, err := l.joinVia(ctx, t, p, opts)
		if err == nil {
			return res, nil
		}
		if ctx.Err() != nil {
			return JoinResult{}, fmt.Errorf("join: %w", ctx.Err())
		}
		var te *TokenError
		if errors.As(err, &te) && te.Fault.final() {
			return JoinResult{}, err
		}
		if !errors.As(err, &te) {
			err = tokenError(TokenRefused, "%v", err)
		}
		if worst == nil || isUnreachable(worst) {
			worst = err
		}
	}
	if isUnreachable(worst) && l.clock.Wall().Unix() >= t.ExpiresAt {
		return JoinResult{}, tokenError(TokenExpired, "by this machine's clock, and no peer of it answers")
	}
	return JoinResult{}, worst
}

// final reports whether no other peer of the token would say anything else.
func (f TokenFault) final() bool {
	return f == TokenExpired || f == TokenUsed || f == TokenRevoked
}

func isUnreachable(err error) bool {
	var te *TokenError
	return errors.As(err, &te) && te.Fault == TokenUnreachable
}

// mayJoin refuses what needs no peer to be known.
func (l *Links) mayJoin(t *Token) error {
	others := 0
	for _, p := range t.Peers {
		if p.Peer != l.id.Self() {
			others++
		}
	}
	cluster := l.id.Cluster()
	switch {
	case len(t.Peers) == 0:
		return tokenError(TokenMalformed, "it names no peer")
	case others == 0:
		return tokenError(TokenOwn, "")
	case cluster == t.Cluster:
		return tokenError(TokenMember, "")
	case cluster != "":
		return tokenError(TokenElsewhere, "%s", cluster.Short())
	}
	return nil
}

func (l *Links) joinVia(ctx context.Context, t *Token, via TokenPeer, opts shoal.JoinOptions) (JoinResult, error) {
	p, err := peer.Decode(string(via.Peer))
	if err != nil {
		return JoinResult{}, tokenError(TokenMalformed, "%v", err)
	}
	done := l.gate.visit(p)
	defer func() {
		done()
		l.cut() // this connection only: the admitting peer may have linked anew already
	}()
	if err := l.reach(ctx, p, via.Addrs); err != nil {
		return JoinResult{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	s, err := l.host.NewStream(network.WithNoDial(ctx, "join"), p, ProtocolJoin)
	if err != nil {
		return JoinResult{}, tokenError(TokenUnreachable, "%s hung up: %s", via.Peer.Short(), oneLine(err))
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	defer func() { _ = s.Close() }() // everything was read by then, or does not matter
	res, err := l.converse(s, t, via.Peer, opts)
	if err != nil || opts.DryRun {
		return res, err
	}
	return res, l.becomeMember(s, &res)
}

// reach connects to a peer of a token by the token's addresses. The error is a
// *TokenError.
func (l *Links) reach(ctx context.Context, p peer.ID, texts []string) error {
	addrs := pick(l.gate.loopback, maxTokenAddrs, withoutCircuits(parseAddrs(texts)))
	if len(addrs) == 0 {
		return tokenError(TokenUnreachable, "none of its addresses may be dialled from here: %s", places(parseAddrs(texts)))
	}
	err := l.dial(ctx, p, addrs).err
	var other sec.ErrPeerIDMismatch
	switch {
	case err == nil:
		return nil
	case errors.Is(err, swarm.ErrDialToSelf):
		return tokenError(TokenOwn, "it answers at %s itself", places(addrs))
	case errors.As(err, &other): // its address was given to another, or its key is gone
		return tokenError(TokenForeign, "%s answers at %s", shoal.PeerID(other.Actual.String()).Short(), places(addrs))
	case errors.Is(err, context.DeadlineExceeded):
		return tokenError(TokenUnreachable, "no answer within %s from %s", l.cfg.DialTimeout, places(addrs))
	}
	return tokenError(TokenUnreachable, "%s", oneLine(err))
}

// converse is the newcomer's side of /shoal/join/1 up to the answer.
func (l *Links) converse(s network.Stream, t *Token, via shoal.PeerID, opts shoal.JoinOptions) (JoinResult, error) {
	if err := s.SetDeadline(time.Now().Add(joinTime)); err != nil {
		return JoinResult{}, err
	}
	in := io.LimitReader(s, joinBytes)
	var hello shoalv1.JoinHello
	if err := frame.Read(in, &hello, joinFrame); err != nil {
		return JoinResult{}, tokenError(TokenUnreachable, "%s hung up: %s", via.Short(), oneLine(err))
	}
	if _, err := VerifyChain(t.Cluster, via, hello.GetChain()); err != nil || len(hello.GetNonce()) != nonceSize {
		return JoinResult{}, tokenError(TokenForeign, "%v", err)
	}
	key := t.key()
	name := clip(opts.Name)
	proof := &shoalv1.JoinProof{PublicKey: key.Public().(ed25519.PublicKey), Name: name, DryRun: opts.DryRun}
	proof.Signature = ed25519.Sign(key, joinTranscript(t.Cluster, via, l.id.Self(), hello.GetNonce(), name, opts.DryRun))
	if err := frame.Write(s, proof, joinFrame); err != nil {
		return JoinResult{}, fmt.Errorf("ask %s: %w", via.Short(), err)
	}
	var answer shoalv1.JoinAnswer
	if err := frame.Read(in, &answer, joinFrame); err != nil {
		return JoinResult{}, fmt.Errorf("wait for the answer of %s: %w", via.Short(), err)
	}
	if err := faultOf(&answer, via); err != nil {
		return JoinResult{}, err
	}
	res := JoinResult{Cluster: t.Cluster, Role: t.Role, Via: via, Invite: inviteID(proof.PublicKey)}
	if opts.DryRun {
		return res, nil
	}
	return l.readMembers(in, &answer, res)
}

// readMembers checks this peer's own chain and those of the members it is told of.
func (l *Links) readMembers(in io.Reader, answer *shoalv1.JoinAnswer, res JoinResult) (JoinResult, error) {
	role, err := VerifyChain(res.Cluster, l.id.Self(), answer.GetChain())
	if err != nil {
		return JoinResult{}, fmt.Errorf("check the answer of %s: %w", res.Via.Short(), err)
	}
	res.Role = role
	res.Members = []KnownMember{{Peer: l.id.Self(), Chain: answer.GetChain()}}
	for range min(answer.GetMembers(), joinMembers) {
		var m shoalv1.JoinMember
		if err := frame.Read(in, &m, joinFrame); err != nil {
			return JoinResult{}, fmt.Errorf("read members from %s: %w", res.Via.Short(), err)
		}
		id := shoal.PeerID(m.GetPeer())
		if _, err := VerifyChain(res.Cluster, id, m.GetChain()); err == nil {
			addrs := m.GetAddrs()
			res.Members = append(res.Members, KnownMember{Peer: id, Chain: m.GetChain(), Addrs: addrs[:min(len(addrs), maxAddrs)]})
		}
	}
	return res, nil
}

// becomeMember makes the membership durable, then lets the admitting peer go.
func (l *Links) becomeMember(s network.Stream, res *JoinResult) error {
	if err := l.id.SetMembership(res.Cluster, res.Members[0].Chain); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	res.Members = res.Members[1:]
	if err := l.id.Remember(res.Members...); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	l.mu.Lock()
	d := l.desired
	l.mu.Unlock()
	// First know the members, then let the admitting peer go: it links anew at once,
	// and would be a stranger.
	l.admitMembers(d)
	_ = s.CloseWrite() // how it ends does not matter any more
	return nil
}

// faultOf turns a refusal into the error the user sees; nil: admitted.
func faultOf(a *shoalv1.JoinAnswer, via shoal.PeerID) error {
	why := clip(a.GetWhy())
	switch a.GetVerdict() {
	case shoalv1.JoinVerdict_JOIN_VERDICT_ADMITTED:
		return nil
	case shoalv1.JoinVerdict_JOIN_VERDICT_EXPIRED:
		return tokenError(TokenExpired, "%s", why)
	case shoalv1.JoinVerdict_JOIN_VERDICT_USED:
		return tokenError(TokenUsed, "%s", why)
	case shoalv1.JoinVerdict_JOIN_VERDICT_REVOKED:
		return tokenError(TokenRevoked, "%s", why)
	case shoalv1.JoinVerdict_JOIN_VERDICT_UNKNOWN:
		return tokenError(TokenUnknown, "%s", why)
	default:
		return tokenError(TokenRefused, "%s: %s", via.Short(), why)
	}
}

// oneLine makes libp2p's many-line dial errors fit one.
func oneLine(err error) string {
	var de *swarm.DialError
	if !errors.As(err, &de) || len(de.DialErrors) == 0 {
		return clip(strings.Join(strings.Fields(err.Error()), " "))
	}
	var parts []string
	for _, e := range de.DialErrors[:min(len(de.DialErrors), 3)] {
		cause := e.Cause
		for next := errors.Unwrap(cause); next != nil; next = errors.Unwrap(cause) {
			cause = next
		}
		parts = append(parts, fmt.Sprintf("%s: %v", places([]ma.Multiaddr{e.Address}), cause))
	}
	return clip(strings.Join(parts, ", "))
}
