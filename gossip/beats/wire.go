// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	codec "github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/proto/beatwire"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Bounds of what comes off the wire.
const (
	maxGossip   = 64 << 10 // bytes of a packet on the topic; what is larger is pulled
	maxPacket   = 2 << 20  // bytes of a packet on a stream
	maxPull     = 2 << 20  // bytes of a question: marks of about 20,000 peers
	maxAnswer   = 64 << 20 // bytes of all answers on one stream
	maxMarks    = 20000
	maxNews     = 4 // packets told along with a question
	maxReplicas = 4096
	maxRefusals = 4096
	maxText     = 512 // bytes of a reason before it is cut by its author
	maxAge      = 30 * 24 * time.Hour

	// What shoal.PeerState allows.
	maxImages    = 1024
	maxBlobs     = 4096
	maxUpstreams = 32
)

// domain separates signatures on beats from all others of the same key.
const domain = "shoal/beat/1"

// beat is one decoded packet. It is never written to after decoding.
type beat struct {
	peer     shoal.PeerID
	sighting         // age is filled in on receipt
	version  uint64  // of the sender's state after this beat; 0: nothing told yet
	base     uint64  // the version that changes build on; 0: a full beat, or a mere header
	full     bool    // changes are the whole state
	changes  changes // empty: a mere sign of life
	raw      []byte  // the packet as it travels
	payload  []byte  // what is signed
	mac      []byte  // the signature
}

// carries reports whether b moves the state on, and is not only a sign of life. What
// counts is the base, not whether we understand the sections: a change in those of a
// later version only is a change of nothing for us, and no gap.
func (b *beat) carries() bool { return b.full || b.base > 0 }

// signed returns the bytes that a beat's signature covers: the domain, the cluster
// with its length, and the payload exactly as it is carried.
func signed(cluster shoal.PeerID, payload []byte) []byte {
	out := make([]byte, 0, len(domain)+4+len(cluster)+len(payload))
	out = append(out, domain...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(cluster)))
	out = append(out, cluster...)
	return append(out, payload...)
}

// encode signs b for the cluster and returns it as it travels. The returned beat
// is b with its raw bytes.
func encode(b beat, cluster shoal.PeerID, s Signer) (*beat, error) {
	m := &shoalv1.BeatPayload{
		Peer:           string(b.peer),
		BootCounter:    b.boot.Counter,
		BootNonce:      b.boot.Nonce,
		Seq:            b.seq,
		IntervalMillis: uint32(millis(b.interval)),
		UptimeMillis:   millis(b.uptime),
		Digest:         b.digest[:],
		BackByMillis:   uint32(millis(b.backBy)),
		Version:        b.version,
		Base:           b.base,
		Full:           b.full,
		Sections:       uint32(b.changes.sections),
		RemovedImages:  b.changes.removedImages,
	}
	var err error
	if b.carries() {
		if m.Changes, err = codec.EncodeState(b.changes.parts); err != nil {
			return nil, fmt.Errorf("encode beat state: %w", err)
		}
	}
	for _, key := range b.changes.removedBlobs {
		m.RemovedBlobs = append(m.RemovedBlobs, uint64(key))
	}
	for _, id := range b.changes.removedReplicas {
		m.RemovedReplicas = append(m.RemovedReplicas, id[:])
	}
	if b.payload, err = beatwire.EncodePayload(m); err != nil {
		return nil, err
	}
	if b.mac, err = s.Sign(signed(cluster, b.payload)); err != nil {
		return nil, fmt.Errorf("sign beat: %w", err)
	}
	b.raw, err = beatwire.EncodePacket(&shoalv1.BeatPacket{Payload: b.payload, Signature: b.mac})
	if err != nil {
		return nil, err
	}
	return &b, nil
}

// decode reads a packet of at most limit bytes. It checks form and bounds, not the
// signature: see authentic. raw must not be written to afterwards.
func decode(raw []byte, limit int) (*beat, error) {
	if len(raw) > limit {
		return nil, malformed("size", "%d bytes, at most %d", len(raw), limit)
	}
	p, err := beatwire.DecodePacket(raw)
	if err != nil {
		return nil, malformed("packet", "%v", err)
	}
	m, err := beatwire.DecodePayload(p.Payload)
	if err != nil {
		return nil, malformed("payload", "%v", err)
	}
	switch {
	case len(p.Signature) != ed25519.SignatureSize:
		return nil, malformed("signature", "%d bytes", len(p.Signature))
	case m.Peer == "" || len(m.Peer) > 128:
		return nil, malformed("peer", "%d bytes", len(m.Peer))
	case m.Seq == 0 || m.BootCounter == 0:
		return nil, malformed("seq", "boot %d seq %d start at 1", m.BootCounter, m.Seq)
	case len(m.Digest) != len(shoal.Digest{}):
		return nil, malformed("digest", "%d bytes", len(m.Digest))
	case len(m.RemovedReplicas) > maxReplicas || len(m.RemovedImages) > maxImages || len(m.RemovedBlobs) > maxBlobs:
		return nil, malformed("removed", "too many: %d replicas, %d images, %d blobs",
			len(m.RemovedReplicas), len(m.RemovedImages), len(m.RemovedBlobs))
	}
	b := &beat{
		peer: shoal.PeerID(m.Peer),
		sighting: sighting{
			boot:     shoal.Boot{Counter: m.BootCounter, Nonce: m.BootNonce},
			seq:      m.Seq,
			interval: duration(uint64(m.IntervalMillis)),
			uptime:   duration(m.UptimeMillis),
			backBy:   duration(uint64(m.BackByMillis)),
			digest:   shoal.Digest(m.Digest),
		},
		version: m.Version, base: m.Base, full: m.Full,
		raw: raw, payload: p.Payload, mac: p.Signature,
	}
	return b, b.decodeChanges(m)
}

// decodeChanges reads the state part of a payload.
func (b *beat) decodeChanges(m *shoalv1.BeatPayload) error {
	b.changes.sections = section(m.Sections) & sectionAll // sections of later versions are not for us
	if m.Full {
		b.changes.sections = sectionAll
	}
	if !b.carries() {
		return nil
	}
	if m.Version == 0 || (!m.Full && m.Base >= m.Version) {
		return malformed("version", "%d on base %d", m.Version, m.Base)
	}
	parts, err := codec.DecodeState(m.Changes)
	if err != nil {
		return malformed("changes", "%v", err)
	}
	if len(parts.Replicas) > maxReplicas || len(parts.Images) > maxImages || len(parts.Refusals) > maxRefusals {
		return malformed("changes", "too many: %d replicas, %d images, %d refusals",
			len(parts.Replicas), len(parts.Images), len(parts.Refusals))
	}
	b.changes.parts = parts
	b.changes.removedImages = m.RemovedImages
	for _, key := range m.RemovedBlobs {
		b.changes.removedBlobs = append(b.changes.removedBlobs, shoal.BlobKey(key))
	}
	for _, id := range m.RemovedReplicas {
		if len(id) != len(shoal.ReplicaID{}) {
			return malformed("removed_replicas", "an ID of %d bytes", len(id))
		}
		b.changes.removedReplicas = append(b.changes.removedReplicas, shoal.ReplicaID(id))
	}
	return nil
}

// publicKey returns the Ed25519 key that a peer's ID is the text form of.
func publicKey(id shoal.PeerID) (ed25519.PublicKey, error) {
	pid, err := peer.Decode(string(id))
	if err != nil {
		return nil, malformed("peer", "%v", err)
	}
	key, err := pid.ExtractPublicKey()
	if err != nil {
		return nil, malformed("peer", "%v", err)
	}
	raw, err := key.Raw()
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, malformed("peer", "its key is not an Ed25519 key")
	}
	return raw, nil
}

// authentic reports whether the peer with this key signed b for this cluster.
func (b *beat) authentic(cluster shoal.PeerID, key ed25519.PublicKey) bool {
	return ed25519.Verify(key, signed(cluster, b.payload), b.mac)
}

// malformed names what is wrong with something off the wire.
func malformed(field, format string, args ...any) error {
	return &shoal.InvalidError{Field: "beat " + field, Why: fmt.Sprintf(format, args...)}
}

// millis turns a duration into what the wire carries; negative ones become 0, and
// what is not nothing never becomes nothing.
func millis(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64((d + time.Millisecond - 1) / time.Millisecond)
}

// duration is the inverse of millis, bounded so that sums cannot overflow.
func duration(ms uint64) time.Duration {
	return time.Duration(min(ms, math.MaxInt64/uint64(4*time.Millisecond))) * time.Millisecond
}
