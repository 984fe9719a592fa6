// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto"
)

const (
	// maxChain bounds how many admissions lie between the cluster key and a peer.
	maxChain = 64
	// maxEnvelope bounds one admission's bytes; real ones have about 300.
	maxEnvelope = 4 << 10
)

// ChainError says why an admission chain proves nothing.
type ChainError struct {
	At  int    // index of the envelope at fault, -1: the chain as a whole
	Why string // "is not signed by its author"
}

// Error returns "admission chain: link 2 is not signed by its author".
func (e *ChainError) Error() string {
	if e.At < 0 {
		return "admission chain: " + e.Why
	}
	return fmt.Sprintf("admission chain: link %d %s", e.At, e.Why)
}

// VerifyChain checks that chain proves peer's admission to cluster and returns the
// role it was admitted with. Every envelope is a signed member record; the first is
// the cluster key's own, each other one is by the peer the one before admitted as an
// operator, the last admits peer. It says nothing about later removals: those are
// the fold's. The error is a *ChainError.
func VerifyChain(cluster, peer shoal.PeerID, chain [][]byte) (shoal.Role, error) {
	switch {
	case len(chain) == 0:
		return "", &ChainError{-1, "is empty"}
	case len(chain) > maxChain:
		return "", &ChainError{-1, fmt.Sprintf("has %d links, limit %d", len(chain), maxChain)}
	}
	author, role := cluster, shoal.RoleOperator
	for i, raw := range chain {
		if role != shoal.RoleOperator {
			return "", &ChainError{i, fmt.Sprintf("is by %s, who may not admit", author.Short())}
		}
		body, why := readAdmission(cluster, author, raw)
		if why != "" {
			return "", &ChainError{i, why}
		}
		author, role = body.Peer, body.Role
	}
	if author != peer {
		return "", &ChainError{len(chain) - 1, fmt.Sprintf("admits %s, not %s", author.Short(), peer.Short())}
	}
	return role, nil
}

// readAdmission reads one link of a chain and says what is wrong with it, "" if nothing.
func readAdmission(cluster, author shoal.PeerID, raw []byte) (*shoal.MemberBody, string) {
	if len(raw) > maxEnvelope {
		return nil, fmt.Sprintf("has %d bytes, limit %d", len(raw), maxEnvelope)
	}
	rec, err := proto.DecodeRecord(raw)
	if err != nil {
		return nil, "is no record: " + err.Error()
	}
	body, ok := rec.Body.(*shoal.MemberBody)
	switch {
	case !ok || rec.Kind != shoal.KindMember || rec.Name != string(body.Peer):
		return nil, "is no admission"
	case rec.Author != author:
		return nil, fmt.Sprintf("is by %s, want %s", rec.Author.Short(), author.Short())
	case !signedByAuthor(cluster, rec):
		return nil, "is not signed by its author"
	case body.Removed:
		return nil, "is a removal"
	case body.Role != shoal.RoleOperator && body.Role != shoal.RolePeer:
		return nil, fmt.Sprintf("gives the unknown role %q", body.Role)
	case body.Peer == author:
		return nil, "admits its own author"
	}
	if _, err := peer.Decode(string(body.Peer)); err != nil {
		return nil, "admits something that is no peer"
	}
	return body, ""
}

func signedByAuthor(cluster shoal.PeerID, rec *shoal.Record) bool {
	pub, err := publicKey(rec.Author)
	if err != nil {
		return false
	}
	ok, err := pub.Verify(proto.SigningBytes(cluster, rec), rec.Signature)
	return ok && err == nil
}

// publicKey returns the Ed25519 key that a peer ID is made of.
func publicKey(id shoal.PeerID) (crypto.PubKey, error) {
	p, err := peer.Decode(string(id))
	if err != nil {
		return nil, fmt.Errorf("read peer ID %q: %w", id, err)
	}
	pub, err := p.ExtractPublicKey()
	if err != nil {
		return nil, fmt.Errorf("read key of peer ID %s: %w", id.Short(), err)
	}
	if pub.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("read key of peer ID %s: not an Ed25519 key", id.Short())
	}
	return pub, nil
}
