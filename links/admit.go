// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Bounds of the join protocol (DESIGN section 11): 10 s, 1 MiB.
const (
	joinTime    = 10 * time.Second
	joinBytes   = 1 << 20
	joinFrame   = 64 << 10
	nonceSize   = 32
	joinMembers = 512 // told to a newcomer; the records tell the rest
)

// Chains knows admission chains: those that the records held prove.
type Chains interface {
	// Chain returns peer's admission chain as signed envelopes from the cluster key
	// to it, nil if it is not known. It is not written to.
	Chain(peer shoal.PeerID) [][]byte
}

// door is who admits newcomers here.
type door struct {
	store  shoal.Store
	chains Chains
}

// ServeJoin lets this peer admit newcomers by the invites in store, from now on. It
// may be called before or during Run; nil, nil ends it (after leaving a cluster).
func (l *Links) ServeJoin(store shoal.Store, chains Chains) {
	l.mu.Lock()
	l.door = nil
	if store != nil {
		l.door = &door{store: store, chains: chains}
	}
	d := l.desired
	l.mu.Unlock()
	l.admitMembers(d)
}

// joinTranscript is what a newcomer signs with the invite's key: the domain, then
// each part preceded by its length (4 bytes). It names both ends of the secure
// channel and the admitting peer's nonce, so that it proves nothing anywhere else.
func joinTranscript(cluster, admitting, newcomer shoal.PeerID, nonce []byte, name string, dryRun bool) []byte {
	out := []byte("shoal/join/1")
	dry := "join"
	if dryRun {
		dry = "dry run"
	}
	for _, part := range []string{string(cluster), string(admitting), string(newcomer), string(nonce), name, dry} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
		out = append(out, part...)
	}
	return out
}

// serveJoin is the admitting side of /shoal/join/1.
func (l *Links) serveJoin(ctx context.Context, s network.Stream) {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	newcomer := shoal.PeerID(s.Conn().RemotePeer().String())
	done := l.gate.admitting(s.Conn().RemotePeer())
	err := l.admitOver(ctx, s, newcomer)
	if err != nil {
		l.log.Debug("join not finished", logkey.Peer, newcomer.Short(), logkey.Err, err)
		_ = s.Reset() // the newcomer sees that it failed
	} else {
		_ = s.Close() // all was read and written
	}
	done()
	l.poke() // as a member it links anew, and all rooms see it come
}

func (l *Links) admitOver(ctx context.Context, s network.Stream, newcomer shoal.PeerID) error {
	l.mu.Lock()
	d := l.door
	l.mu.Unlock()
	if d == nil {
		return shoal.ErrNotMember
	}
	if err := s.SetDeadline(time.Now().Add(joinTime)); err != nil {
		return err
	}
	hello := &shoalv1.JoinHello{Chain: l.id.Chain(), Nonce: make([]byte, nonceSize)}
	if err := l.id.draw(hello.Nonce); err != nil {
		return err
	}
	if err := frame.Write(s, hello, joinFrame); err != nil {
		return err
	}
	in := io.LimitReader(s, joinBytes)
	var proof shoalv1.JoinProof
	if err := frame.Read(in, &proof, joinFrame); err != nil {
		return err
	}
	answer, members := l.admit(ctx, d, newcomer, hello.GetNonce(), &proof)
	l.log.Info("join asked for", logkey.Peer, newcomer.Short(), "name", clip(proof.GetName()), "dry_run", proof.GetDryRun(), "verdict", answer.GetVerdict().String(), logkey.Reason, answer.GetWhy())
	if err := frame.Write(s, answer, joinFrame); err != nil {
		return err
	}
	for _, m := range members {
		if err := frame.Write(s, m, joinFrame); err != nil {
			return err
		}
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, in) // until the newcomer has read it all and goes, however it goes
	return nil
}

// admit judges a proof and, if it holds and is no dry run, redeems the invite and
// records the newcomer in one block.
func (l *Links) admit(ctx context.Context, d *door, newcomer shoal.PeerID, nonce []byte, proof *shoalv1.JoinProof) (*shoalv1.JoinAnswer, []*shoalv1.JoinMember) {
	public := proof.GetPublicKey()
	signed := joinTranscript(l.id.Cluster(), l.id.Self(), newcomer, nonce, proof.GetName(), proof.GetDryRun())
	switch {
	case len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, signed, proof.GetSignature()):
		return refusal(shoalv1.JoinVerdict_JOIN_VERDICT_BAD_PROOF, "the proof does not fit the invite"), nil
	case len(l.id.Chain()) >= maxChain:
		return refusal(shoalv1.JoinVerdict_JOIN_VERDICT_NOT_OPERATOR, "too many admissions lie between the cluster key and this peer; ask an older member"), nil
	}
	verdict := shoalv1.JoinVerdict_JOIN_VERDICT_UNSPECIFIED
	judge := func(desired *shoal.Desired, s shoal.Stamp) ([]shoal.Body, error) {
		var bodies []shoal.Body
		verdict, bodies = l.judge(desired, s.Author, newcomer, public)
		return bodies, nil
	}
	if proof.GetDryRun() {
		_, _ = judge(d.store.Desired(), shoal.Stamp{Author: l.id.Self()})
		return &shoalv1.JoinAnswer{Verdict: verdict, Why: l.why(verdict, d, newcomer)}, nil
	}
	if _, err := d.store.Update(ctx, judge, shoal.UpdateOptions{}); err != nil {
		return refusal(shoalv1.JoinVerdict_JOIN_VERDICT_BUSY, err.Error()), nil
	}
	if verdict != shoalv1.JoinVerdict_JOIN_VERDICT_ADMITTED {
		return refusal(verdict, l.why(verdict, d, newcomer)), nil
	}
	l.SetMembers(d.store.Desired())
	chain := d.chains.Chain(newcomer)
	if _, err := VerifyChain(l.id.Cluster(), newcomer, chain); err != nil {
		return refusal(shoalv1.JoinVerdict_JOIN_VERDICT_BUSY, err.Error()), nil
	}
	members := l.introduce(d, newcomer)
	return &shoalv1.JoinAnswer{Verdict: verdict, Chain: chain, Members: uint32(len(members))}, members
}

func refusal(v shoalv1.JoinVerdict, why string) *shoalv1.JoinAnswer {
	return &shoalv1.JoinAnswer{Verdict: v, Why: clip(why)}
}

// judge decides on the folded records as they are at the write. A newcomer that this
// invite made a member already gets its chain again: its first answer may have been
// lost. One that left needs an invite like everybody else.
func (l *Links) judge(d *shoal.Desired, self, newcomer shoal.PeerID, public ed25519.PublicKey) (shoalv1.JoinVerdict, []shoal.Body) {
	if mayAdmit(d, self) != nil {
		return shoalv1.JoinVerdict_JOIN_VERDICT_NOT_OPERATOR, nil
	}
	inv, ok := findInvite(d, inviteID(public))
	if !ok || string(inv.PublicKey) != string(public) || inv.Role == "" {
		return shoalv1.JoinVerdict_JOIN_VERDICT_UNKNOWN, nil
	}
	if p, ok := d.Peer(newcomer); ok && !p.Removed && !p.Left() && slices.Contains(inv.RedeemedBy, newcomer) {
		return shoalv1.JoinVerdict_JOIN_VERDICT_ADMITTED, nil
	}
	switch {
	case inv.Revoked:
		return shoalv1.JoinVerdict_JOIN_VERDICT_REVOKED, nil
	case len(inv.RedeemedBy) >= inv.Uses:
		return shoalv1.JoinVerdict_JOIN_VERDICT_USED, nil
	case l.clock.Wall().Unix() >= inv.ExpiresAt: // our clock stands in for the issuer's
		return shoalv1.JoinVerdict_JOIN_VERDICT_EXPIRED, nil
	case !slices.Contains([]shoal.PeerID{"", self}, RemoverOf(d, newcomer)):
		return shoalv1.JoinVerdict_JOIN_VERDICT_REMOVED, nil
	}
	redeemed := ownPart(inv, self)
	redeemed.RedeemedBy = append(redeemed.RedeemedBy, newcomer)
	bodies := []shoal.Body{&shoal.MemberBody{Peer: newcomer, Role: inv.Role, Invite: inv.ID}, redeemed}
	if p, ok := d.Peer(newcomer); ok && len(p.Marks)+len(p.Edits) > 0 {
		bodies = append(bodies, afresh(p, self))
	}
	return shoalv1.JoinVerdict_JOIN_VERDICT_ADMITTED, bodies
}

// afresh lifts what marks and edits a peer had before it left or was removed: it comes
// back as it says it is.
func afresh(p *shoal.Peer, self shoal.PeerID) *shoal.MarkBody {
	out := &shoal.MarkBody{Peer: p.ID}
	var own []shoal.Mark
	if mine := p.By[self]; mine != nil {
		own, out.Lifts = mine.Laid, slices.Clone(mine.Lifts)
	}
	for _, m := range p.Marks {
		if !slices.Contains(own, m) { // own ones are taken back by not being there
			out.Lifts = append(out.Lifts, m.ID)
		}
	}
	for _, e := range p.Edits {
		out.Edits = append(out.Edits, shoal.Edit{Label: e.Label, Own: true, Seq: e.Seq + 1})
	}
	return out
}

// why says a verdict in words.
func (l *Links) why(v shoalv1.JoinVerdict, d *door, newcomer shoal.PeerID) string {
	switch v {
	case shoalv1.JoinVerdict_JOIN_VERDICT_REMOVED:
		return fmt.Sprintf("it was removed by %s, which alone can admit it again", RemoverOf(d.store.Desired(), newcomer).Short())
	case shoalv1.JoinVerdict_JOIN_VERDICT_UNKNOWN:
		return "this peer has no such invite (yet)"
	case shoalv1.JoinVerdict_JOIN_VERDICT_NOT_OPERATOR:
		return "this peer is no operator"
	case shoalv1.JoinVerdict_JOIN_VERDICT_EXPIRED:
		return "it is " + l.clock.Wall().UTC().Format(time.RFC3339) + " on this peer"
	default:
		return ""
	}
}

// introduce returns whom the newcomer may link to, this peer first, within bounds.
func (l *Links) introduce(d *door, newcomer shoal.PeerID) []*shoalv1.JoinMember {
	out := []*shoalv1.JoinMember{{Peer: string(l.id.Self()), Chain: l.id.Chain(), Addrs: l.Addrs()}}
	size := 0
	desired := d.store.Desired()
	for i := range desired.Peers {
		p := &desired.Peers[i]
		if p.ID == l.id.Self() || p.ID == newcomer || p.Removed {
			continue
		}
		m := &shoalv1.JoinMember{Peer: string(p.ID), Chain: d.chains.Chain(p.ID), Addrs: p.Facts.Addrs[:min(len(p.Facts.Addrs), maxAddrs)]}
		if len(m.GetAddrs()) == 0 {
			m.Addrs = l.id.addrsOf(p.ID)
		}
		one := 0
		for _, link := range m.GetChain() {
			one += len(link)
		}
		for _, a := range m.GetAddrs() {
			one += len(a)
		}
		if one > joinFrame/2 {
			continue // not worth the space
		}
		if size += one; size > joinBytes/2 || len(out) == joinMembers {
			break
		}
		out = append(out, m)
	}
	return out
}

// clip shortens text from the wire for logs and answers.
func clip(s string) string {
	const limit = 200
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
