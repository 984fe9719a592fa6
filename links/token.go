// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
)

const (
	tokenPrefix   = "shoal1-"
	tokenChecksum = 8       // bytes of SHA-256
	maxTokenPeers = 8       // peers a token may name
	maxTokenAddrs = 4       // addresses of each
	maxTokenText  = 8 << 10 // longer texts are not looked at
	rawKeySize    = ed25519.PublicKeySize
)

// Token is what a newcomer needs to find and check a cluster and to prove that it
// was invited. Its text is a secret until it is used up.
type Token struct {
	Cluster   shoal.PeerID
	Seed      [ed25519.SeedSize]byte // of the invite's key
	Role      shoal.Role
	ExpiresAt int64       // Unix seconds by the issuer's clock
	Peers     []TokenPeer // whom to ask, the issuer first; at most 8
}

// TokenPeer is a peer to join through.
type TokenPeer struct {
	Peer  shoal.PeerID
	Addrs []string // multiaddresses without the peer's ID; at most 4
}

// key returns the invite's key pair.
func (t *Token) key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(t.Seed[:]) }

// InviteID returns the ID of the invite record that t belongs to.
func (t *Token) InviteID() string { return inviteID(t.key().Public().(ed25519.PublicKey)) }

// inviteID names an invite by its public key, so that a token needs no name beside it.
func inviteID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(append([]byte("shoal/invite/1"), public...))
	return hex.EncodeToString(sum[:6])
}

// The token's bytes, all numbers most significant first:
//
//	uint16 length of all that follows, the checksum included
//	32     raw Ed25519 key of the cluster
//	32     seed
//	8      expiry, Unix seconds
//	1      role: 0 operator, 1 peer
//	1      number of peers, for each:
//	  32     raw Ed25519 key of the peer
//	  1      number of addresses, for each: uint16 length, multiaddress in binary form
//	8      checksum: the first bytes of SHA-256 over all before it, the prefix first

// Encode returns the token's text: "shoal1-" and base64url. *shoal.InvalidError: a
// field cannot be said in a token.
func (t *Token) Encode() (string, error) {
	cluster, err := rawKey(t.Cluster)
	if err != nil {
		return "", &shoal.InvalidError{Field: "cluster", Why: err.Error()}
	}
	buf := append(make([]byte, 2, 256), cluster...)
	buf = append(buf, t.Seed[:]...)
	buf = binary.BigEndian.AppendUint64(buf, uint64(t.ExpiresAt))
	switch t.Role {
	case shoal.RoleOperator:
		buf = append(buf, 0)
	case shoal.RolePeer:
		buf = append(buf, 1)
	default:
		return "", &shoal.InvalidError{Field: "role", Why: fmt.Sprintf("%q is unknown", t.Role)}
	}
	if buf, err = appendPeers(buf, t.Peers); err != nil {
		return "", err
	}
	binary.BigEndian.PutUint16(buf, uint16(len(buf)-2+tokenChecksum))
	buf = append(buf, checksum(buf)...)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(buf), nil
}

func appendPeers(buf []byte, peers []TokenPeer) ([]byte, error) {
	if len(peers) > maxTokenPeers {
		return nil, &shoal.InvalidError{Field: "peers", Why: fmt.Sprintf("must be at most %d, got %d", maxTokenPeers, len(peers))}
	}
	buf = append(buf, byte(len(peers)))
	for _, p := range peers {
		key, err := rawKey(p.Peer)
		if err != nil {
			return nil, &shoal.InvalidError{Field: "peers", Why: err.Error()}
		}
		if len(p.Addrs) > maxTokenAddrs {
			return nil, &shoal.InvalidError{Field: "addresses", Why: fmt.Sprintf("must be at most %d, got %d", maxTokenAddrs, len(p.Addrs))}
		}
		buf = append(append(buf, key...), byte(len(p.Addrs)))
		for _, a := range p.Addrs {
			addr, err := ma.NewMultiaddr(a)
			if err != nil || len(addr.Bytes()) > 255 {
				return nil, &shoal.InvalidError{Field: "addresses", Why: fmt.Sprintf("%q is no short multiaddress", a)}
			}
			buf = binary.BigEndian.AppendUint16(buf, uint16(len(addr.Bytes())))
			buf = append(buf, addr.Bytes()...)
		}
	}
	return buf, nil
}

// ParseToken reads a token's text; white space around it is ignored. The error is a
// *TokenError: TokenMalformed, TokenTruncated or TokenChecksum.
func ParseToken(text string) (*Token, error) {
	text = strings.TrimSpace(text)
	body, ok := strings.CutPrefix(text, tokenPrefix)
	if text != "" && strings.HasPrefix(tokenPrefix, text) {
		return nil, tokenError(TokenTruncated, "")
	}
	if !ok || len(text) > maxTokenText {
		return nil, tokenError(TokenMalformed, "")
	}
	cut := len(body)%4 == 1 // no encoding has this length: a character is missing
	if cut {
		body = body[:len(body)-1]
	}
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return nil, tokenError(TokenMalformed, "it holds characters that no token has")
	}
	if len(raw) < 2 || len(raw)-2 < int(binary.BigEndian.Uint16(raw)) {
		return nil, tokenError(TokenTruncated, "")
	}
	if cut || len(raw)-2 > int(binary.BigEndian.Uint16(raw)) {
		return nil, tokenError(TokenMalformed, "something follows its end")
	}
	n := len(raw) - tokenChecksum
	if n < 2 || string(checksum(raw[:n])) != string(raw[n:]) || base64.RawURLEncoding.EncodeToString(raw) != body {
		return nil, tokenError(TokenChecksum, "")
	}
	t, err := decodeToken(raw[2:n])
	if err != nil {
		return nil, tokenError(TokenMalformed, "%v", err)
	}
	return t, nil
}

func checksum(raw []byte) []byte {
	sum := sha256.Sum256(append([]byte(tokenPrefix), raw...))
	return sum[:tokenChecksum]
}

// reader takes bytes off a slice; after the first shortage it gives zeros and says so.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.rest) {
		r.short, r.rest = true, nil
		return make([]byte, n)
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func decodeToken(raw []byte) (*Token, error) {
	r := &reader{rest: raw}
	t := &Token{Role: shoal.RoleOperator}
	var err error
	if t.Cluster, err = peerOf(r.take(rawKeySize)); err != nil {
		return nil, err
	}
	copy(t.Seed[:], r.take(len(t.Seed)))
	t.ExpiresAt = int64(binary.BigEndian.Uint64(r.take(8)))
	switch role := r.take(1)[0]; role {
	case 0:
	case 1:
		t.Role = shoal.RolePeer
	default:
		return nil, fmt.Errorf("it gives a role this version does not know")
	}
	peers := int(r.take(1)[0])
	if peers > maxTokenPeers {
		return nil, fmt.Errorf("it names %d peers, limit %d", peers, maxTokenPeers)
	}
	for range peers {
		p, err := decodeTokenPeer(r)
		if err != nil {
			return nil, err
		}
		t.Peers = append(t.Peers, p)
	}
	if r.short || len(r.rest) > 0 {
		return nil, fmt.Errorf("its parts do not fit together")
	}
	return t, nil
}

func decodeTokenPeer(r *reader) (TokenPeer, error) {
	id, err := peerOf(r.take(rawKeySize))
	if err != nil {
		return TokenPeer{}, err
	}
	p := TokenPeer{Peer: id}
	addrs := int(r.take(1)[0])
	if addrs > maxTokenAddrs {
		return p, fmt.Errorf("it holds %d addresses of a peer, limit %d", addrs, maxTokenAddrs)
	}
	for range addrs {
		a, err := ma.NewMultiaddrBytes(r.take(int(binary.BigEndian.Uint16(r.take(2)))))
		if err != nil {
			return p, fmt.Errorf("it holds an address that cannot be read")
		}
		p.Addrs = append(p.Addrs, a.String())
	}
	return p, nil
}

func rawKey(id shoal.PeerID) ([]byte, error) {
	pub, err := publicKey(id)
	if err != nil {
		return nil, err
	}
	return pub.Raw()
}

func peerOf(raw []byte) (shoal.PeerID, error) {
	pub, err := crypto.UnmarshalEd25519PublicKey(raw)
	if err != nil {
		return "", err
	}
	id, err := peer.IDFromPublicKey(pub)
	return shoal.PeerID(id.String()), err
}
