// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto"
)

// InitCluster makes a cluster: a new cluster key, and the record by which it admits
// this peer as the first member and operator. Both are kept beside the peer's key;
// the cluster key is then only a backup. It returns the record's envelope, which
// belongs into the store like any other. wall stamps it, for display only.
// shoal.ErrConflict: this peer belongs to a cluster already.
func InitCluster(id *Identity, wall time.Time) ([]byte, error) {
	if c := id.Cluster(); c != "" {
		return nil, otherCluster(c)
	}
	key, err := newKey(id.random)
	if err != nil {
		return nil, err
	}
	_, cluster, err := asPeer(key)
	if err != nil {
		return nil, err
	}
	hlc := shoal.HLC{WallMilli: wall.UnixMilli()}
	envelope, err := signMember(cluster, key, cluster, 1, hlc, &shoal.MemberBody{Peer: id.self, Role: shoal.RoleOperator})
	if err != nil {
		return nil, err
	}
	if err := writeKey(id.files, clusterKeyFile, key); err != nil {
		return nil, err
	}
	if err := id.SetMembership(cluster, [][]byte{envelope}); err != nil {
		return nil, err
	}
	return envelope, nil
}

// signMember makes the signed envelope of an admission outside the store.
func signMember(cluster shoal.PeerID, key ed25519.PrivateKey, author shoal.PeerID, seq uint64, hlc shoal.HLC, body *shoal.MemberBody) ([]byte, error) {
	raw, err := proto.EncodeBody(body)
	if err != nil {
		return nil, fmt.Errorf("encode admission: %w", err)
	}
	rec := &shoal.Record{
		Schema: shoal.Schema, Kind: body.Kind(), Name: body.About(), Author: author, AuthorSeq: seq, HLC: hlc, Raw: raw, Body: body,
	}
	rec.Signature = ed25519.Sign(key, proto.SigningBytes(cluster, rec))
	return proto.EncodeRecord(rec), nil
}
