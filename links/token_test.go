// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

func sampleToken(t testing.TB) *Token {
	t.Helper()
	id := founder(t, 1)
	return &Token{
		Cluster: id.Cluster(), Seed: [32]byte{1, 2, 3}, Role: shoal.RolePeer, ExpiresAt: 1_700_000_000,
		Peers: []TokenPeer{
			{Peer: id.Self(), Addrs: []string{"/ip4/127.0.0.1/tcp/4801", "/ip4/127.0.0.1/udp/4801/quic-v1"}},
			{Peer: memory(t, 2).Self(), Addrs: []string{"/dns4/example.org/tcp/1"}},
		},
	}
}

func encode(t testing.TB, token *Token) string {
	t.Helper()
	text, err := token.Encode()
	mustBe(t, "encode token", err)
	return text
}

func TestTokenRoundTrip(t *testing.T) {
	want := sampleToken(t)
	text := encode(t, want)
	if len(text) > 400 {
		t.Errorf("token of two peers has %d characters", len(text))
	}
	for _, form := range []string{text, "  " + text + "\n"} {
		got, err := ParseToken(form)
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("ParseToken(%q) = %v, %v", form, cmp.Diff(want, got), err)
		}
	}
	if id := want.InviteID(); len(id) != 12 || id == sampleWithSeed(t, 9).InviteID() {
		t.Errorf("invite ID %q does not name the seed", id)
	}
}

func sampleWithSeed(t testing.TB, b byte) *Token {
	token := sampleToken(t)
	token.Seed[0] = b
	return token
}

// TestTokenCut cuts a token at every length: each is said to be cut off.
func TestTokenCut(t *testing.T) {
	text := encode(t, sampleToken(t))
	for n := 1; n < len(text); n++ {
		wantFault(t, fmt.Sprintf("first %d of %d", n, len(text)), text[:n], TokenTruncated)
	}
}

// TestTokenTypo changes every character: none goes through, and none but the length
// field's is taken for anything but a bad copy.
func TestTokenTypo(t *testing.T) {
	text := encode(t, sampleToken(t))
	for i := len(tokenPrefix); i < len(text); i++ {
		for _, c := range []byte("Az09-_") {
			if text[i] == c {
				continue
			}
			_, err := ParseToken(text[:i] + string(c) + text[i+1:])
			var te *TokenError
			if !errors.As(err, &te) || i >= len(tokenPrefix)+3 && te.Fault != TokenChecksum {
				t.Fatalf("character %d as %q: ParseToken = %v, want a wrong checksum", i, c, err)
			}
		}
	}
}

func TestTokenBad(t *testing.T) {
	text := encode(t, sampleToken(t))
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, tokenPrefix))
	mustBe(t, "decode", err)
	// sealed gives a changed body the right length and checksum.
	sealed := func(change func(b []byte) []byte) string {
		b := change(append([]byte(nil), raw[:len(raw)-tokenChecksum]...))
		binary.BigEndian.PutUint16(b, uint16(len(b)-2+tokenChecksum))
		return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(b, checksum(b)...))
	}
	const roleAt, peersAt = 2 + 32 + 32 + 8, 2 + 32 + 32 + 8 + 1
	for name, c := range map[string]struct {
		text string
		want TokenFault
	}{
		"empty":             {"", TokenMalformed},
		"a word":            {"hello", TokenMalformed},
		"a docker token":    {"SWMTKN-1-abc", TokenMalformed},
		"a later version":   {"shoal2-" + text[len(tokenPrefix):], TokenMalformed},
		"strange letters":   {tokenPrefix + "ä" + text[len(tokenPrefix):], TokenMalformed},
		"padding":           {text + "==", TokenMalformed},
		"two tokens":        {text + text, TokenMalformed},
		"one letter more":   {text + "A", TokenMalformed},
		"words after it":    {text + " please", TokenMalformed},
		"very long":         {tokenPrefix + strings.Repeat("A", maxTokenText), TokenMalformed},
		"only zeros":        {tokenPrefix + "AAAA", TokenMalformed},
		"unknown role":      {sealed(func(b []byte) []byte { b[roleAt] = 7; return b }), TokenMalformed},
		"too many peers":    {sealed(func(b []byte) []byte { b[peersAt] = 200; return b }), TokenMalformed},
		"peers missing":     {sealed(func(b []byte) []byte { b[peersAt] = 8; return b }), TokenMalformed},
		"peers left over":   {sealed(func(b []byte) []byte { b[peersAt] = 1; return b }), TokenMalformed},
		"too many addrs":    {sealed(func(b []byte) []byte { b[peersAt+33] = 9; return b }), TokenMalformed},
		"an address is bad": {sealed(func(b []byte) []byte { b[peersAt+36] = 0xff; return b }), TokenMalformed},
		"nothing in it":     {sealed(func([]byte) []byte { return []byte{0, 0} }), TokenMalformed},
	} {
		wantFault(t, name, c.text, c.want)
	}
}

func wantFault(t *testing.T, name, text string, want TokenFault) {
	t.Helper()
	token, err := ParseToken(text)
	var te *TokenError
	var invalid *shoal.InvalidError
	if token != nil || !errors.As(err, &te) || te.Fault != want || !errors.As(err, &invalid) || invalid.Field != "token" {
		t.Errorf("%s: ParseToken = %v, %v, want %q as an InvalidError", name, token, err, want)
		return
	}
	if !strings.HasPrefix(err.Error(), string(want)) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: the error reads %q", name, err)
	}
}

func TestTokenEncodeRefuses(t *testing.T) {
	for name, change := range map[string]func(*Token){
		"cluster":   func(k *Token) { k.Cluster = "nobody" },
		"role":      func(k *Token) { k.Role = "king" },
		"peer":      func(k *Token) { k.Peers[0].Peer = "" },
		"peers":     func(k *Token) { k.Peers = make([]TokenPeer, maxTokenPeers+1) },
		"addresses": func(k *Token) { k.Peers[0].Addrs = make([]string, maxTokenAddrs+1) },
		"address":   func(k *Token) { k.Peers[0].Addrs[0] = "127.0.0.1:80" },
	} {
		token := sampleToken(t)
		change(token)
		var invalid *shoal.InvalidError
		if text, err := token.Encode(); !errors.As(err, &invalid) {
			t.Errorf("%s: Encode = %q, %v, want InvalidError", name, text, err)
		}
	}
}

// TestFaultTexts: every fault has a text of its own and says what to do.
func TestFaultTexts(t *testing.T) {
	seen := map[string]TokenFault{}
	for _, f := range []TokenFault{
		TokenMalformed, TokenTruncated, TokenChecksum, TokenExpired, TokenUsed, TokenRevoked, TokenUnknown, TokenForeign, TokenOwn,
		TokenElsewhere, TokenMember, TokenUnreachable, TokenRefused,
	} {
		err := tokenError(f, "why")
		if other, ok := seen[err.Error()]; ok {
			t.Errorf("%q and %q read the same", f, other)
		}
		seen[err.Error()] = f
		if !strings.Contains(err.Error(), ": why; ") || err.Unwrap() == nil {
			t.Errorf("%q reads %q and is %v", f, err, err.Unwrap())
		}
	}
}

func FuzzParseToken(f *testing.F) {
	text := encode(f, sampleToken(f))
	f.Add(text)
	f.Add(text[:40])
	f.Add("shoal1-")
	f.Add("shoal1-AAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			var te *TokenError
			if token != nil || !errors.As(err, &te) {
				t.Errorf("ParseToken(%q) = %v, %v", text, token, err)
			}
			return
		}
		again, err := token.Encode()
		if err != nil || again != strings.TrimSpace(text) {
			t.Errorf("%q parses but encodes to %q, %v", text, again, err)
		}
	})
}

// FuzzDecodeToken goes past the checksum, which an attacker can compute.
func FuzzDecodeToken(f *testing.F) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(encode(f, sampleToken(f)), tokenPrefix))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw[2 : len(raw)-tokenChecksum])
	f.Fuzz(func(t *testing.T, raw []byte) {
		token, err := decodeToken(raw)
		if err == nil && (len(token.Peers) > maxTokenPeers || token.Cluster == "") {
			t.Errorf("decodeToken(%x) = %+v", raw, token)
		}
	})
}
