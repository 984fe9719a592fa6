// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"path"
	"strconv"
	"strings"

	"github.com/shoalnet/shoal"
)

// The longest names.
const (
	maxPeerID  = 64
	maxService = 63
	maxInvite  = 32
	maxKind    = 32
	maxImage   = 1024 // shoal.ImageKey
	maxName    = 128  // of a record of unknown kind
)

// ParseKey takes a store key apart: "/<kind>/<name>/<author>/<authorSeq>" (see
// shoal.Record.Key). The key must be clean, each element must follow its grammar,
// and the sequence be a positive decimal number without leading zeros, so that
// every record has exactly one key.
func ParseKey(key string) (kind shoal.Kind, name string, author shoal.PeerID, seq uint64, err error) {
	fail := func(why string) (shoal.Kind, string, shoal.PeerID, uint64, error) {
		return "", "", "", 0, invalid("key", "%q %s", clip(key), why)
	}
	if len(key) > maxKind+maxImage+maxPeerID+24 {
		return fail("is too long")
	}
	parts := strings.Split(key, "/")
	if len(parts) != 5 || parts[0] != "" || path.Clean(key) != key {
		return fail("is not /kind/name/author/seq")
	}
	seq, perr := strconv.ParseUint(parts[4], 10, 64)
	if perr != nil || seq == 0 || strconv.FormatUint(seq, 10) != parts[4] {
		return fail("does not end in a sequence number")
	}
	kind, name, author = shoal.Kind(parts[1]), parts[2], shoal.PeerID(parts[3])
	if err := checkKey(kind, name, author); err != nil {
		return "", "", "", 0, err
	}
	return kind, name, author, seq, nil
}

// checkKey checks the grammar of each element of a key.
func checkKey(kind shoal.Kind, name string, author shoal.PeerID) error {
	if !isPeerID(author) {
		return invalid("author", "%q is not a peer ID", clip(string(author)))
	}
	ok := false
	switch kind {
	case shoal.KindMember, shoal.KindPeer, shoal.KindMark:
		ok = isPeerID(shoal.PeerID(name))
	case shoal.KindService, shoal.KindScale, shoal.KindGone, shoal.KindClaim, shoal.KindOp, shoal.KindRollout:
		ok = isService(name)
	case shoal.KindInvite:
		ok = isInvite(name)
	case shoal.KindImage:
		ok = consists(name, maxImage, isNameByte) && name != "." && name != ".."
	case shoal.KindPolicy:
		ok = name == (*shoal.PolicyBody)(nil).About()
	default:
		if !consists(string(kind), maxKind, isLowerDash) {
			return invalid("kind", "%q is not a word of a-z, 0-9 and -", clip(string(kind)))
		}
		ok = consists(name, maxName, isNameByte) && name != "." && name != ".."
	}
	if !ok {
		return invalid("name", "%q is not a name of kind %s", clip(name), kind)
	}
	return nil
}

// isPeerID reports whether id has the form of one: base58, 1 to 64 characters.
// Whether it holds a key is seen when a signature is verified.
func isPeerID(id shoal.PeerID) bool {
	return consists(string(id), maxPeerID, func(c byte) bool {
		return isLower(c) && c != 'l' || c >= 'A' && c <= 'Z' && c != 'I' && c != 'O' || c >= '1' && c <= '9'
	})
}

// isService reports whether s is [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?.
func isService(s string) bool {
	return consists(s, maxService, isLowerDash) && s[0] != '-' && s[len(s)-1] != '-'
}

func isInvite(s string) bool {
	return consists(s, maxInvite, func(c byte) bool { return isLower(c) || isDigit(c) })
}

func isLower(c byte) bool     { return c >= 'a' && c <= 'z' }
func isDigit(c byte) bool     { return c >= '0' && c <= '9' }
func isLowerDash(c byte) bool { return isLower(c) || isDigit(c) || c == '-' }
func isNameByte(c byte) bool {
	return isLowerDash(c) || c >= 'A' && c <= 'Z' || c == '.' || c == '_'
}

// consists reports whether s has 1 to limit bytes and all are of the class.
func consists(s string, limit int, class func(byte) bool) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if !class(s[i]) {
			return false
		}
	}
	return true
}

// clip shortens hostile text for an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
