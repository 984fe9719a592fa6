// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto"
)

// TestVerifyChain walks through what an attacker might show. founder admits op, op
// admits low as a plain peer; evil is founder of another cluster.
func TestVerifyChain(t *testing.T) {
	first, op, low, leaf, evil := founder(t, 1), memory(t, 2), memory(t, 3), memory(t, 4), founder(t, 5)
	cluster := first.Cluster()
	root := first.Chain()[0]
	toOp := admitBy(t, first, &shoal.MemberBody{Peer: op.Self(), Role: shoal.RoleOperator})
	toLow := admitIn(t, first.Cluster(), op, &shoal.MemberBody{Peer: low.Self(), Role: shoal.RolePeer})
	flipped := bytes.Clone(toLow)
	flipped[len(flipped)-1] ^= 1
	swapped := resign(t, first.Cluster(), toLow, func(r *shoal.Record) { r.AuthorSeq++ }, nil)
	byEvil := resign(t, first.Cluster(), toOp, func(r *shoal.Record) {}, evil.key) // says first, signed by evil
	long := make([][]byte, maxChain+1)
	for i := range long {
		long[i] = root
	}
	for name, c := range map[string]struct {
		peer  shoal.PeerID
		chain [][]byte
		role  shoal.Role
		why   string
	}{
		"the first member":       {first.Self(), [][]byte{root}, shoal.RoleOperator, ""},
		"an operator":            {op.Self(), [][]byte{root, toOp}, shoal.RoleOperator, ""},
		"a plain peer":           {low.Self(), [][]byte{root, toOp, toLow}, shoal.RolePeer, ""},
		"nothing":                {op.Self(), nil, "", "is empty"},
		"too long":               {op.Self(), long, "", "65 links, limit 64"},
		"garbage":                {op.Self(), [][]byte{[]byte("garbage")}, "", "is no record"},
		"an empty link":          {op.Self(), [][]byte{root, {}}, "", "link 1"},
		"a huge link":            {op.Self(), [][]byte{make([]byte, maxEnvelope+1)}, "", "limit 4096"},
		"cut at the front":       {op.Self(), [][]byte{toOp}, "", "want " + cluster.Short()},
		"cut in the middle":      {low.Self(), [][]byte{root, toLow}, "", "link 1 is by"},
		"cut at the end":         {low.Self(), [][]byte{root, toOp}, "", "not " + low.Self().Short()},
		"somebody else's":        {leaf.Self(), [][]byte{root, toOp, toLow}, "", "not " + leaf.Self().Short()},
		"admitted by a peer":     {leaf.Self(), [][]byte{root, toOp, toLow, admitIn(t, first.Cluster(), low, &shoal.MemberBody{Peer: leaf.Self(), Role: shoal.RoleOperator})}, "", "may not admit"},
		"another cluster":        {evil.Self(), evil.Chain(), "", "want " + cluster.Short()},
		"another cluster's leaf": {leaf.Self(), [][]byte{root, admitBy(t, evil, &shoal.MemberBody{Peer: leaf.Self(), Role: shoal.RoleOperator})}, "", "link 1 is by"},
		"a bad signature":        {low.Self(), [][]byte{root, toOp, flipped}, "", "link 2 is not signed by its author"},
		"a changed field":        {low.Self(), [][]byte{root, toOp, swapped}, "", "is not signed by its author"},
		"another's signature":    {op.Self(), [][]byte{root, byEvil}, "", "is not signed by its author"},
		"of another cluster":     {op.Self(), [][]byte{root, admitIn(t, evil.Cluster(), first, &shoal.MemberBody{Peer: op.Self(), Role: shoal.RoleOperator})}, "", "link 1 is not signed by its author"},
		"a removal":              {op.Self(), [][]byte{root, admitBy(t, first, &shoal.MemberBody{Peer: op.Self(), Role: shoal.RoleOperator, Removed: true})}, "", "is a removal"},
		"an unknown role":        {op.Self(), [][]byte{root, admitBy(t, first, &shoal.MemberBody{Peer: op.Self(), Role: "king"})}, "", "unknown role"},
		"itself":                 {first.Self(), [][]byte{root, admitBy(t, first, &shoal.MemberBody{Peer: first.Self(), Role: shoal.RoleOperator})}, "", "admits its own author"},
		"a record of other kind": {op.Self(), [][]byte{root, otherKind(t, first, op.Self())}, "", "is no admission"},
	} {
		role, err := VerifyChain(cluster, c.peer, c.chain)
		if c.why == "" {
			if role != c.role || err != nil {
				t.Errorf("%s: VerifyChain = %q, %v, want %q", name, role, err, c.role)
			}
			continue
		}
		var ce *ChainError
		if !errors.As(err, &ce) || !strings.Contains(err.Error(), c.why) || role != "" {
			t.Errorf("%s: VerifyChain = %q, %v, want a ChainError with %q", name, role, err, c.why)
		}
	}
}

// TestVerifyChainDepth admits the longest chain and not one more.
func TestVerifyChainDepth(t *testing.T) {
	prev := founder(t, 0)
	cluster, chain := prev.Cluster(), slices.Clone(prev.Chain())
	for i := 1; i <= maxChain; i++ {
		next := memory(t, byte(i))
		chain = append(chain, admitIn(t, cluster, prev, &shoal.MemberBody{Peer: next.Self(), Role: shoal.RoleOperator}))
		_, err := VerifyChain(cluster, next.Self(), chain)
		if (err == nil) != (len(chain) <= maxChain) {
			t.Fatalf("chain of %d: %v", len(chain), err)
		}
		prev = next
	}
}

// resign changes a record and signs it again, with no key keeping the old signature.
func resign(t *testing.T, cluster shoal.PeerID, env []byte, change func(*shoal.Record), key ed25519.PrivateKey) []byte {
	t.Helper()
	rec, err := proto.DecodeRecord(env)
	mustBe(t, "decode", err)
	change(rec)
	if key != nil {
		rec.Signature = ed25519.Sign(key, proto.SigningBytes(cluster, rec))
	}
	return proto.EncodeRecord(rec)
}

// otherKind is a valid record by id that is no admission.
func otherKind(t *testing.T, id *Identity, about shoal.PeerID) []byte {
	t.Helper()
	body := &shoal.MarkBody{Peer: about}
	raw, err := proto.EncodeBody(body)
	mustBe(t, "encode", err)
	rec := &shoal.Record{Schema: shoal.Schema, Kind: body.Kind(), Name: body.About(), Author: id.Self(), AuthorSeq: 77, Raw: raw, Body: body}
	rec.Signature = id.Sign(proto.SigningBytes(id.Cluster(), rec))
	return proto.EncodeRecord(rec)
}

func FuzzVerifyChain(f *testing.F) {
	first := founder(f, 1)
	f.Add(first.Chain()[0])
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, link []byte) {
		if _, err := VerifyChain(first.Cluster(), first.Self(), [][]byte{link}); err == nil && !bytes.Equal(link, first.Chain()[0]) {
			t.Errorf("%x proves what only %x may", link, first.Chain()[0])
		}
	})
}
