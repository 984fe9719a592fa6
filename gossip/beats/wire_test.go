// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// testKey is an identity.
type testKey struct {
	id   shoal.PeerID
	priv ed25519.PrivateKey
}

func (k testKey) PeerID() shoal.PeerID { return k.id }

func (k testKey) Sign(message []byte) ([]byte, error) { return ed25519.Sign(k.priv, message), nil }

func (k testKey) libp2p(tb testing.TB) crypto.PrivKey {
	tb.Helper()
	priv, err := crypto.UnmarshalEd25519PrivateKey(k.priv)
	if err != nil {
		tb.Fatal(err)
	}
	return priv
}

// newKey returns the n-th identity of the tests.
func newKey(tb testing.TB, n int) testKey {
	tb.Helper()
	seed := bytes.Repeat([]byte{byte(n + 1)}, ed25519.SeedSize)
	k := testKey{priv: ed25519.NewKeyFromSeed(seed)}
	pid, err := peer.IDFromPrivateKey(k.libp2p(tb))
	if err != nil {
		tb.Fatal(err)
	}
	k.id = shoal.PeerID(pid.String())
	return k
}

const testCluster = shoal.PeerID("12D3KooWCluster")

func fullBeat(k testKey) beat {
	return beat{
		peer: k.id,
		sighting: sighting{
			boot: shoal.Boot{Counter: 3, Nonce: 1 << 63}, seq: 12, interval: time.Second,
			uptime: time.Hour, backBy: time.Minute, digest: shoal.Digest{1, 2, 3},
		},
		version: 9, base: 8,
		changes: changes{
			sections: sectionReplicas | sectionImages | sectionBlobs | sectionUpstreams | sectionLoads,
			parts: shoal.PeerState{
				Replicas: []shoal.ReplicaStatus{{ID: shoal.ReplicaID{7}, Service: "web", Phase: shoal.PhaseReady, Slot: 2}},
				Images:   []string{"hello:1"},
				Blobs:    []shoal.BlobKey{1, 1 << 63}, Upstreams: []shoal.Upstream{{Registry: "docker.io", Waits: "429"}},
				Loads:   []shoal.ReplicaLoad{{Replica: shoal.ReplicaID{7}, CPUMilli: 130, MemBytes: 5 << 20}},
				Carried: []shoal.Carried{{Service: "web", Open: 3, Rate: 4500}},
			},
			removedReplicas: []shoal.ReplicaID{{8}, {9}},
			removedImages:   []string{"hello:0"},
			removedBlobs:    []shoal.BlobKey{2},
		},
	}
}

func TestRoundTrip(t *testing.T) {
	k := newKey(t, 0)
	want, err := encode(fullBeat(k), testCluster, k)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(want.raw, maxGossip)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(beat{}, sighting{}, changes{})); d != "" {
		t.Errorf("decode(encode(b)) differs: %s", d)
	}
	key, err := publicKey(k.id)
	if err != nil {
		t.Fatal(err)
	}
	if !got.authentic(testCluster, key) {
		t.Error("not authentic")
	}
	if got.authentic("12D3KooWOther", key) {
		t.Error("authentic in another cluster")
	}
	other, err := publicKey(newKey(t, 1).id)
	if err != nil {
		t.Fatal(err)
	}
	if got.authentic(testCluster, other) {
		t.Error("authentic with another's key")
	}
	for i := range got.payload {
		bad := *got
		bad.payload = bytes.Clone(got.payload)
		bad.payload[i] ^= 1
		if bad.authentic(testCluster, key) {
			t.Fatalf("authentic with byte %d flipped", i)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	k := newKey(t, 0)
	packet := func(change func(*shoalv1.BeatPayload)) []byte {
		b, err := encode(fullBeat(k), testCluster, k)
		if err != nil {
			t.Fatal(err)
		}
		var m shoalv1.BeatPayload
		if err := proto.Unmarshal(b.payload, &m); err != nil {
			t.Fatal(err)
		}
		change(&m)
		payload, err := proto.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := proto.Marshal(&shoalv1.BeatPacket{Payload: payload, Signature: make([]byte, 64)})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for name, raw := range map[string][]byte{
		"beat packet":           {0xff, 0xff},
		"beat signature":        {},
		"beat size":             packet(func(m *shoalv1.BeatPayload) { m.Changes = make([]byte, maxGossip) }),
		"beat peer":             packet(func(m *shoalv1.BeatPayload) { m.Peer = strings.Repeat("x", 129) }),
		"beat seq":              packet(func(m *shoalv1.BeatPayload) { m.Seq = 0 }),
		"beat digest":           packet(func(m *shoalv1.BeatPayload) { m.Digest = m.Digest[1:] }),
		"beat removed":          packet(func(m *shoalv1.BeatPayload) { m.RemovedImages = make([]string, maxImages+1) }),
		"beat removed (blobs)":  packet(func(m *shoalv1.BeatPayload) { m.RemovedBlobs = make([]uint64, maxBlobs+1) }),
		"beat version":          packet(func(m *shoalv1.BeatPayload) { m.Base = m.Version }),
		"beat changes":          packet(func(m *shoalv1.BeatPayload) { m.Changes = []byte{0xff} }),
		"beat removed_replicas": packet(func(m *shoalv1.BeatPayload) { m.RemovedReplicas = [][]byte{{1}} }),
	} {
		var invalid *shoal.InvalidError
		field, _, _ := strings.Cut(name, " (")
		if _, err := decode(raw, maxGossip); !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("decode of a bad %s = %v", name, err)
		}
	}
	for _, id := range []shoal.PeerID{"", "x", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"} {
		if _, err := publicKey(id); err == nil {
			t.Errorf("publicKey(%q) is no error", id)
		}
	}
}

// TestUnknownSectionsAreNoGap: changes in sections of a later version, alone or beside
// known ones, move the version on; nothing has to be pulled for them.
func TestUnknownSectionsAreNoGap(t *testing.T) {
	k := newKey(t, 0)
	full := beat{peer: k.id, sighting: fullBeat(k).sighting, version: 8, full: true, changes: whole(&shoal.PeerState{Images: []string{"hello:0"}})}
	l, _ := ledger{}.add(heardBeat{beat: &full})
	for _, c := range []struct {
		sections, want section
		images         int
	}{{1 << 20, 0, 1}, {1<<20 | sectionImages, sectionImages, 1}} {
		b := fullBeat(k)
		b.changes.sections = c.sections
		enc, err := encode(b, testCluster, k)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(enc.raw, maxGossip)
		if err != nil || got.changes.sections != c.want {
			t.Fatalf("sections %b, %v, want %b", got.changes.sections, err, c.want)
		}
		after, _ := l.add(heardBeat{beat: got})
		if after.version != 9 || after.gap() || len(after.state.Images) != c.images {
			t.Errorf("sections %b: version %d, gap %v, images %v", c.sections, after.version, after.gap(), after.state.Images)
		}
	}
}

// TestBlobsTravelOnce: a peer that holds as many blobs as it may tell of tells all of
// them in one beat of the topic, and of one more or less only that.
func TestBlobsTravelOnce(t *testing.T) {
	k := newKey(t, 0)
	var old shoal.PeerState
	for i := range maxBlobs {
		old.Blobs = append(old.Blobs, shoal.BlobKey(i)<<40+7)
	}
	now := shoal.PeerState{Blobs: append(slices.Clone(old.Blobs[1:]), 1<<63)}
	for name, c := range map[string]struct {
		beat beat
		most int
	}{
		"full":  {beat{full: true, changes: whole(&old)}, 33 << 10},
		"delta": {beat{base: 1, changes: diff(&old, &now)}, 300},
	} {
		b := c.beat
		b.peer, b.sighting, b.version = k.id, fullBeat(k).sighting, 2
		enc, err := encode(b, testCluster, k)
		if err != nil || len(enc.raw) > c.most {
			t.Fatalf("%s: %d bytes, %v, want at most %d", name, len(enc.raw), err, c.most)
		}
		got, err := decode(enc.raw, maxGossip)
		if err != nil {
			t.Fatalf("%s: decode = %v", name, err)
		}
		want := &old
		if !b.full {
			want = &now
		}
		if d := same(want, got.changes.apply(&old, b.full)); d != "" {
			t.Errorf("%s differs (-want +got): %s", name, d)
		}
		t.Logf("%s: %d bytes", name, len(enc.raw))
	}
}

// FuzzDecodeBeat feeds the decoder anything: it never panics, refuses with a named
// field, and what it accepts can be applied and stays within bounds.
func FuzzDecodeBeat(f *testing.F) {
	k := newKey(f, 0)
	for _, b := range []beat{fullBeat(k), {peer: k.id, sighting: sighting{boot: shoal.Boot{Counter: 1}, seq: 1}}} {
		enc, err := encode(b, testCluster, k)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(enc.raw)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := decode(raw, maxGossip)
		if err != nil {
			if _, ok := errors.AsType[*shoal.InvalidError](err); !ok {
				t.Fatalf("decode = %v", err)
			}
			return
		}
		l, _ := ledger{}.add(heardBeat{beat: b})
		if b.full != (l.state != nil) {
			t.Fatalf("full %v, state %v", b.full, l.state)
		}
		v, _ := step(vital{}, b.sighting, time.Hour, testLimits)
		if v.interval < testLimits.minInterval || v.interval > testLimits.maxInterval || v.backBy > 3*time.Hour {
			t.Fatalf("out of bounds: %+v", v)
		}
	})
}
