// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package beatwire turns the messages of beatwire.proto into bytes and back:
// [EncodePacket] and [DecodePacket] for the signed envelope, [EncodePayload] and
// [DecodePayload] for what is signed. Bytes are carried verbatim once signed, so
// fields of later versions survive being relayed.
//
// It refuses to judge what it reads: bounds, signatures and meaning belong to
// gossip/beats.
package beatwire

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// EncodePacket returns the bytes of a packet; an error only for invalid UTF-8.
func EncodePacket(m *shoalv1.BeatPacket) ([]byte, error) { return encode(m, "beat packet") }

// DecodePacket is the inverse of [EncodePacket].
func DecodePacket(raw []byte) (*shoalv1.BeatPacket, error) {
	m := new(shoalv1.BeatPacket)
	return m, proto.Unmarshal(raw, m)
}

// EncodePayload returns the bytes of a payload; an error only for invalid UTF-8.
func EncodePayload(m *shoalv1.BeatPayload) ([]byte, error) { return encode(m, "beat payload") }

// DecodePayload is the inverse of [EncodePayload].
func DecodePayload(raw []byte) (*shoalv1.BeatPayload, error) {
	m := new(shoalv1.BeatPayload)
	return m, proto.Unmarshal(raw, m)
}

func encode(m proto.Message, what string) ([]byte, error) {
	raw, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", what, err)
	}
	return raw, nil
}
