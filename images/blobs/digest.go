// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/shoalnet/shoal"
)

// Digest is the SHA-256 of a blob or a chunk. It is comparable.
type Digest [sha256.Size]byte

const algorithm = "sha256:"

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads "sha256:" and 64 lower-case hex digits. *shoal.InvalidError: it is
// anything else; other algorithms of the OCI specification are not stored.
func ParseDigest(s string) (Digest, error) {
	text, ok := strings.CutPrefix(s, algorithm)
	d, isHex := fromHex(text)
	if !ok || !isHex {
		return Digest{}, &shoal.InvalidError{Field: "digest", Why: "must be sha256: and 64 lower-case hex digits"}
	}
	return d, nil
}

func fromHex(s string) (Digest, bool) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != sha256.Size || strings.ToLower(s) != s {
		return Digest{}, false
	}
	return Digest(raw), true
}

// String returns the form that ParseDigest reads.
func (d Digest) String() string { return algorithm + d.hex() }

func (d Digest) hex() string { return hex.EncodeToString(d[:]) }

// ListDigest returns what binds a list of chunks in few bytes: the SHA-256 of its hashes
// one after the other (shoal.BlobRef.Chunks).
func ListDigest(list []Digest) Digest {
	sum := sha256.New()
	for _, d := range list {
		sum.Write(d[:])
	}
	return Digest(sum.Sum(nil))
}

// Key returns the digest in short, as peers tell each other which blobs they hold.
func (d Digest) Key() shoal.BlobKey { return shoal.BlobKey(binary.BigEndian.Uint64(d[:])) }
