// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// PeerID names a peer: the libp2p text form of its Ed25519 public key
// ("12D3Koo..."). It is the only name that never changes.
type PeerID string

// Short returns the last eight characters, for logs and tables.
func (id PeerID) Short() string {
	if len(id) <= 8 {
		return string(id)
	}
	return string(id[len(id)-8:])
}

// ReplicaID is the identity of one container's life: 128 random bits minted by
// its holder at claim time. The zero value means "none".
type ReplicaID [16]byte

// String returns 32 hexadecimal digits.
func (id ReplicaID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 12 hexadecimal digits.
func (id ReplicaID) Short() string { return id.String()[:12] }

// IsZero reports whether id is unset.
func (id ReplicaID) IsZero() bool { return id == ReplicaID{} }

// ParseReplicaID is the inverse of [ReplicaID.String].
func ParseReplicaID(s string) (ReplicaID, error) {
	var id ReplicaID
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(id) {
		return id, &InvalidError{Field: "replica", Why: fmt.Sprintf("%q is not 32 hexadecimal digits", s)}
	}
	copy(id[:], raw)
	return id, nil
}

// RevisionID names one version of a wish: Seq is 1 + the highest Seq of the
// heads its author saw, so causality orders it; Author breaks ties.
type RevisionID struct {
	Seq    uint64
	Author PeerID
}

// IsZero reports whether r is unset.
func (r RevisionID) IsZero() bool { return r == RevisionID{} }

// Compare orders revisions by (Seq, Author); the higher one is current.
func (r RevisionID) Compare(o RevisionID) int {
	return cmp.Or(cmp.Compare(r.Seq, o.Seq), cmp.Compare(r.Author, o.Author))
}

// String returns "SEQ@AUTHOR", which [ParseRevisionID] reads.
func (r RevisionID) String() string {
	return strconv.FormatUint(r.Seq, 10) + "@" + string(r.Author)
}

// ParseRevisionID is the inverse of [RevisionID.String].
func ParseRevisionID(s string) (RevisionID, error) {
	seq, author, ok := strings.Cut(s, "@")
	n, err := strconv.ParseUint(seq, 10, 64)
	if !ok || err != nil || author == "" {
		return RevisionID{}, &InvalidError{Field: "revision", Why: fmt.Sprintf("%q is not SEQ@PEER", s)}
	}
	return RevisionID{Seq: n, Author: PeerID(author)}, nil
}

// HLC is a hybrid logical clock reading: wall milliseconds since 1970 and a
// counter within them (Kulkarni et al., 2014). It is for display and for ties of
// Claim.Since; it never orders wishes.
type HLC struct {
	WallMilli int64
	Counter   uint32
}

// IsZero reports whether t is unset.
func (t HLC) IsZero() bool { return t == HLC{} }

// Compare orders readings by (WallMilli, Counter).
func (t HLC) Compare(o HLC) int {
	return cmp.Or(cmp.Compare(t.WallMilli, o.WallMilli), cmp.Compare(t.Counter, o.Counter))
}

// Digest is a SHA-256 sum. Peers with equal folded records have equal digests.
type Digest [32]byte

// String returns 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }
