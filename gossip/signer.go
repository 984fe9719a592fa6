// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	codec "github.com/shoalnet/shoal/proto"
)

// errNotSigned: the signature is not its author's.
var errNotSigned = errors.New("is not signed by its author")

// Signer signs as one author: this peer, or the cluster key for the first admission.
type Signer interface {
	PeerID() shoal.PeerID
	// Sign returns the Ed25519 signature of message.
	Sign(message []byte) ([]byte, error)
}

// VerifyRecord checks that the author a record names signed it, for this cluster
// (proto.SigningBytes).
// A peer ID is its Ed25519 public key, so nothing else is needed.
func VerifyRecord(cluster shoal.PeerID, r *shoal.Record) error {
	id, err := peer.Decode(string(r.Author))
	if err != nil {
		return fmt.Errorf("record %s: read author: %w", r.Key(), err)
	}
	pub, err := id.ExtractPublicKey()
	if err != nil {
		return fmt.Errorf("record %s: read key of author: %w", r.Key(), err)
	}
	if pub.Type() != crypto.Ed25519 || id.String() != string(r.Author) {
		return fmt.Errorf("record %s: author is not an Ed25519 peer ID", r.Key())
	}
	if ok, err := pub.Verify(codec.SigningBytes(cluster, r), r.Signature); err != nil || !ok {
		return fmt.Errorf("record %s %w", r.Key(), errNotSigned)
	}
	return nil
}
