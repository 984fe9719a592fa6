// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package proto turns nouns into bytes and back: record envelopes and bodies, and
// the state on beats. The messages are in shoal/v1; nobody but this package needs
// those of state.proto and beat.proto.
//
// Everything it decodes is bounded in size, count and grammar, and everything it
// encodes decodes again. A record's body is carried verbatim, so fields and kinds
// this version does not know survive; what gets hashed or signed is bytes defined
// here, never a message marshalled again. It refuses to judge who may write what:
// that is the fold's.
package proto

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	pb "google.golang.org/protobuf/proto"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// The largest encodings that are taken, in bytes.
const (
	MaxRecord = 128 << 10 // one block carries at most this (DESIGN.md section 7)
	MaxState  = 1 << 20   // what pubsub carries in one message
)

// maxSignature leaves room beside the 64 bytes of Ed25519.
const maxSignature = 128

// signingDomain begins what a record's author signs.
const signingDomain = "shoal/record/1"

// EncodeBody returns the bytes that become [shoal.Record.Raw]. *shoal.InvalidError:
// the body breaks a bound that every peer checks, so it must not be written.
func EncodeBody(b shoal.Body) ([]byte, error) {
	if err := checkBody(b); err != nil {
		return nil, err
	}
	raw, err := pb.MarshalOptions{Deterministic: true}.Marshal(bodyMessage(b))
	if err != nil {
		return nil, fmt.Errorf("encode %s body: %w", b.Kind(), err)
	}
	if len(raw) > MaxRecord {
		return nil, invalid("record", "is %d bytes, at most %d are allowed", len(raw), MaxRecord)
	}
	return raw, nil
}

// DecodeBody is the inverse of [EncodeBody]; (nil, nil) for an unknown kind.
func DecodeBody(kind shoal.Kind, raw []byte) (shoal.Body, error) {
	msg := newMessage(kind)
	if msg == nil {
		return nil, nil
	}
	if len(raw) > MaxRecord {
		return nil, invalid("record", "is %d bytes, at most %d are allowed", len(raw), MaxRecord)
	}
	if err := unmarshal(raw, msg); err != nil {
		return nil, fmt.Errorf("decode %s body: %w", kind, err)
	}
	b, err := bodyOf(msg)
	if err == nil {
		err = checkBody(b)
	}
	if err != nil {
		return nil, fmt.Errorf("decode %s body: %w", kind, err)
	}
	return b, nil
}

// EncodeRecord returns the canonical envelope: the fields of shoal.v1.Record in the
// order of their numbers, zero values left out. Raw goes in verbatim; Body is not
// looked at. It does not check bounds: [DecodeRecord] does.
func EncodeRecord(r *shoal.Record) []byte {
	b := make([]byte, 0, len(r.Raw)+len(r.Name)+len(r.Signature)+128)
	b = appendUint(b, 1, uint64(r.Schema))
	b = appendBytes(b, 2, []byte(r.Kind))
	b = appendBytes(b, 3, []byte(r.Name))
	b = appendBytes(b, 4, []byte(r.Author))
	b = appendUint(b, 5, r.AuthorSeq)
	b = appendUint(b, 6, uint64(r.HLC.WallMilli))
	b = appendUint(b, 7, uint64(r.HLC.Counter))
	b = appendBytes(b, 8, r.Raw)
	return appendBytes(b, 9, r.Signature)
}

// DecodeRecord reads an envelope and checks every bound: its size, that it is
// canonical, the grammar of its key, and the body of a kind it knows, which must
// be about the record's name. A record of a later schema keeps Body nil, as one of
// an unknown kind does. It does not verify the signature.
func DecodeRecord(raw []byte) (*shoal.Record, error) {
	if len(raw) > MaxRecord {
		return nil, invalid("record", "is %d bytes, at most %d are allowed", len(raw), MaxRecord)
	}
	var m shoalv1.Record
	if err := unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	r := &shoal.Record{
		Schema: m.GetSchema(), Kind: shoal.Kind(m.GetKind()), Name: m.GetName(),
		Author: shoal.PeerID(m.GetAuthor()), AuthorSeq: m.GetAuthorSeq(),
		HLC: shoal.HLC{WallMilli: m.GetHlcWallMilli(), Counter: m.GetHlcCounter()},
		Raw: m.GetBody(), Signature: m.GetSignature(),
	}
	if !bytes.Equal(EncodeRecord(r), raw) {
		return nil, invalid("record", "is not in canonical form")
	}
	if err := checkEnvelope(r); err != nil {
		return nil, err
	}
	if r.Schema != shoal.Schema {
		return r, nil
	}
	body, err := DecodeBody(r.Kind, r.Raw)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", r.Key(), err)
	}
	if body != nil && body.About() != r.Name {
		return nil, invalid("record", "%s has a body about %q", r.Key(), body.About())
	}
	r.Body = body
	return r, nil
}

// SigningBytes returns what the author of r signs: the domain "shoal/record/1",
// the length of the cluster's ID (4 bytes, big endian, as all numbers here) and that
// ID, the length of the store key (4) and the key, the schema (4), the HLC (8 and 4),
// and the SHA-256 of Raw (32). The cluster is in no record, only in its signature: a
// record means nothing in another cluster, also where the same keys are members.
func SigningBytes(cluster shoal.PeerID, r *shoal.Record) []byte {
	key := r.Key()
	sum := sha256.Sum256(r.Raw)
	b := make([]byte, 0, len(signingDomain)+4+len(cluster)+4+len(key)+4+12+len(sum))
	b = append(b, signingDomain...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(cluster)))
	b = append(b, cluster...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(key)))
	b = append(b, key...)
	b = binary.BigEndian.AppendUint32(b, r.Schema)
	b = binary.BigEndian.AppendUint64(b, uint64(r.HLC.WallMilli))
	b = binary.BigEndian.AppendUint32(b, r.HLC.Counter)
	return append(b, sum[:]...)
}

// checkEnvelope checks what every kind of record obeys.
func checkEnvelope(r *shoal.Record) error {
	switch {
	case r.Schema == 0:
		return invalid("schema", "is missing")
	case r.AuthorSeq == 0:
		return invalid("author_seq", "is missing")
	case len(r.Signature) > maxSignature:
		return invalid("signature", "is %d bytes, at most %d are allowed", len(r.Signature), maxSignature)
	}
	return checkKey(r.Kind, r.Name, r.Author)
}

func unmarshal(raw []byte, m pb.Message) error {
	return pb.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: 32}.Unmarshal(raw, m)
}

func appendUint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}
