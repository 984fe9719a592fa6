// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beatwire_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shoalnet/shoal/proto/beatwire"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

func TestRoundTrip(t *testing.T) {
	payload := &shoalv1.BeatPayload{Peer: "p", BootCounter: 1, BootNonce: 1 << 63, Seq: 2, RemovedImages: []string{"a:1"}}
	raw, err := beatwire.EncodePayload(payload)
	if err != nil {
		t.Fatal(err)
	}
	got, err := beatwire.DecodePayload(raw)
	if err != nil || !proto.Equal(got, payload) {
		t.Errorf("DecodePayload = %v, %v, want %v", got, err, payload)
	}
	later := protowire.AppendTag(raw, 999, protowire.BytesType) // a field of a later version
	later = protowire.AppendString(later, "new")
	packet, err := beatwire.EncodePacket(&shoalv1.BeatPacket{Payload: later, Signature: []byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	back, err := beatwire.DecodePacket(packet)
	if err != nil || !bytes.Equal(back.GetPayload(), later) {
		t.Errorf("DecodePacket carries %x, %v, want %x", back.GetPayload(), err, later)
	}
}

func TestErrors(t *testing.T) {
	if _, err := beatwire.EncodePayload(&shoalv1.BeatPayload{Peer: "\xff"}); err == nil {
		t.Error("EncodePayload of invalid text is no error")
	}
	for _, raw := range [][]byte{{0xff}, {0x0a, 0x7f}} {
		if _, err := beatwire.DecodePayload(raw); err == nil {
			t.Errorf("DecodePayload(%x) is no error", raw)
		}
		if _, err := beatwire.DecodePacket(raw); err == nil {
			t.Errorf("DecodePacket(%x) is no error", raw)
		}
	}
}

// FuzzDecode: what decodes encodes again.
func FuzzDecode(f *testing.F) {
	payload, err := beatwire.EncodePayload(&shoalv1.BeatPayload{Peer: "a", Seq: 1, Digest: make([]byte, 32)})
	if err != nil {
		f.Fatal(err)
	}
	packet, err := beatwire.EncodePacket(&shoalv1.BeatPacket{Payload: payload, Signature: make([]byte, 64)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add(packet)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if m, err := beatwire.DecodePacket(raw); err == nil {
			if _, err := beatwire.EncodePacket(m); err != nil {
				t.Fatalf("encode a packet that was decoded: %v", err)
			}
		}
		if m, err := beatwire.DecodePayload(raw); err == nil {
			if _, err := beatwire.EncodePayload(m); err != nil {
				t.Fatalf("encode a payload that was decoded: %v", err)
			}
		}
	})
}
