// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	pb "google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

func TestBodiesRoundTrip(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				want := genBody(kind).Draw(t, "body")
				raw, err := EncodeBody(want)
				if err != nil {
					t.Fatalf("EncodeBody(%+v) = %v", want, err)
				}
				r := &shoal.Record{
					Schema: shoal.Schema, Kind: kind, Name: want.About(), Author: genPeer.Draw(t, "author"),
					AuthorSeq: rapid.Uint64Min(1).Draw(t, "seq"), HLC: genHLC.Draw(t, "hlc"), Raw: raw,
					Body: want, Signature: rapid.SliceOfN(rapid.Byte(), 64, 64).Draw(t, "signature"),
				}
				env := EncodeRecord(r)
				got, err := DecodeRecord(env)
				if err != nil {
					t.Fatalf("DecodeRecord = %v", err)
				}
				if diff := cmp.Diff(r, got); diff != "" {
					t.Fatalf("DecodeRecord(EncodeRecord(r)) differs (-want +got):\n%s", diff)
				}
				again, err := EncodeBody(got.Body)
				if err != nil || !bytes.Equal(again, raw) {
					t.Fatalf("EncodeBody of the decoded body = %x, %v, want %x", again, err, raw)
				}
				var m shoalv1.Record
				if err := pb.Unmarshal(env, &m); err != nil || m.GetName() != r.Name || !bytes.Equal(m.GetBody(), raw) {
					t.Fatalf("the envelope is not a shoal.v1.Record: %v", err)
				}
				k, name, author, seq, err := ParseKey(r.Key())
				if err != nil || k != kind || name != r.Name || author != r.Author || seq != r.AuthorSeq {
					t.Fatalf("ParseKey(%q) = %v %v %v %v, %v", r.Key(), k, name, author, seq, err)
				}
			})
		})
	}
}

func TestStateRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genState.Draw(t, "state")
		raw, err := EncodeState(want)
		if err != nil {
			t.Fatalf("EncodeState = %v", err)
		}
		got, err := DecodeState(raw)
		if err != nil {
			t.Fatalf("DecodeState = %v", err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("DecodeState(EncodeState(s)) differs (-want +got):\n%s", diff)
		}
	})
}

func TestEncodeStateMendsWords(t *testing.T) {
	s := shoal.PeerState{
		Images:   []string{"b", "a"},
		Blobs:    []shoal.BlobKey{1 << 63, 7},
		Replicas: []shoal.ReplicaStatus{{Service: "web", Reason: "odd \xff\x00" + strings.Repeat("é", 400)}},
	}
	raw, err := EncodeState(s)
	if err != nil {
		t.Fatalf("EncodeState = %v, want nil", err)
	}
	got, err := DecodeState(raw)
	if err != nil {
		t.Fatalf("DecodeState = %v, want nil", err)
	}
	if r := got.Replicas[0].Reason; len(r) > maxReason || !strings.HasPrefix(r, "odd ??é") {
		t.Errorf("Reason = %q (%d bytes), want it cut and mended", r, len(r))
	}
	if diff := cmp.Diff([]string{"a", "b"}, got.Images); diff != "" {
		t.Errorf("Images differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]shoal.BlobKey{7, 1 << 63}, got.Blobs); diff != "" {
		t.Errorf("Blobs differ (-want +got):\n%s", diff)
	}
	if s.Blobs[0] != 1<<63 || s.Images[0] != "b" || !strings.Contains(s.Replicas[0].Reason, "\xff") {
		t.Error("EncodeState wrote to the caller's state")
	}
}

// unknownField is a field that no message of ours has.
func unknownField() []byte {
	return protowire.AppendString(protowire.AppendTag(nil, 4000, protowire.BytesType), "from the future")
}

func TestUnknownSurvives(t *testing.T) {
	body, err := EncodeBody(&shoal.GoneBody{Service: "web"})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		r     shoal.Record
		known bool
	}{
		{"field", shoal.Record{Schema: 1, Kind: shoal.KindGone, Name: "web", Raw: append(body, unknownField()...)}, true},
		{"kind", shoal.Record{Schema: 1, Kind: "from-the-future", Name: "A.b_c-9", Raw: []byte("\xff not a message")}, false},
		{"schema", shoal.Record{Schema: 2, Kind: shoal.KindGone, Name: "web", Raw: []byte("\xff not a message")}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.r.Author, tt.r.AuthorSeq = "A", 1
			env := EncodeRecord(&tt.r)
			got, err := DecodeRecord(env)
			if err != nil {
				t.Fatalf("DecodeRecord = %v, want nil", err)
			}
			if (got.Body != nil) != tt.known {
				t.Errorf("Body = %v, known want %v", got.Body, tt.known)
			}
			if again := EncodeRecord(got); !bytes.Equal(again, env) {
				t.Errorf("EncodeRecord(DecodeRecord(env)) = %x, want %x", again, env)
			}
		})
	}
}

func TestDecodeRecordRefuses(t *testing.T) {
	body, err := EncodeBody(&shoal.GoneBody{Service: "web"})
	if err != nil {
		t.Fatal(err)
	}
	good := shoal.Record{Schema: 1, Kind: shoal.KindGone, Name: "web", Author: "A", AuthorSeq: 1, Raw: body}
	if _, err := DecodeRecord(EncodeRecord(&good)); err != nil {
		t.Fatalf("DecodeRecord(good) = %v, want nil", err)
	}
	edit := func(fn func(*shoal.Record)) []byte {
		r := good
		fn(&r)
		return EncodeRecord(&r)
	}
	tests := map[string][]byte{
		"empty":            nil,
		"junk":             []byte("junk"),
		"too large":        edit(func(r *shoal.Record) { r.Raw = make([]byte, MaxRecord) }),
		"no schema":        edit(func(r *shoal.Record) { r.Schema = 0 }),
		"no sequence":      edit(func(r *shoal.Record) { r.AuthorSeq = 0 }),
		"author":           edit(func(r *shoal.Record) { r.Author = "not base58 0OIl" }),
		"long author":      edit(func(r *shoal.Record) { r.Author = shoal.PeerID(strings.Repeat("A", 65)) }),
		"kind":             edit(func(r *shoal.Record) { r.Kind = "Gone" }),
		"empty kind":       edit(func(r *shoal.Record) { r.Kind = "" }),
		"dots":             edit(func(r *shoal.Record) { r.Kind, r.Name = "other", ".." }),
		"slash":            edit(func(r *shoal.Record) { r.Kind, r.Name = "other", "a/b" }),
		"service name":     edit(func(r *shoal.Record) { r.Name = "-web" }),
		"upper name":       edit(func(r *shoal.Record) { r.Name = "Web" }),
		"peer name":        edit(func(r *shoal.Record) { r.Kind, r.Name = shoal.KindPeer, "not-base58" }),
		"image name":       edit(func(r *shoal.Record) { r.Kind, r.Name = shoal.KindImage, "a/b" }),
		"long image name":  edit(func(r *shoal.Record) { r.Kind, r.Name = shoal.KindImage, strings.Repeat("a", maxImage+1) }),
		"invite name":      edit(func(r *shoal.Record) { r.Kind, r.Name = shoal.KindInvite, "a-b" }),
		"other's body":     edit(func(r *shoal.Record) { r.Name = "db" }),
		"broken body":      edit(func(r *shoal.Record) { r.Raw = []byte{0xff} }),
		"signature":        edit(func(r *shoal.Record) { r.Signature = make([]byte, maxSignature+1) }),
		"unknown field":    append(EncodeRecord(&good), unknownField()...),
		"field twice":      append(EncodeRecord(&good), protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)...),
		"padded number":    append([]byte{0x08, 0x81, 0x00}, EncodeRecord(&good)[2:]...),
		"invalid UTF-8":    edit(func(r *shoal.Record) { r.Name = "we\xff" }),
		"truncated record": EncodeRecord(&good)[:10],
	}
	for name, raw := range tests {
		if r, err := DecodeRecord(raw); err == nil {
			t.Errorf("%s: DecodeRecord = %+v, want an error", name, r)
		}
	}
}

func TestEncodeBodyRefuses(t *testing.T) {
	spec := shoal.Spec{Name: "web"}
	revision := func(fn func(*shoal.RevisionBody)) shoal.Body {
		b := &shoal.RevisionBody{Revision: shoal.RevisionID{Seq: 1, Author: "A"}, Spec: spec}
		fn(b)
		return b
	}
	env := make(map[string]string)
	for i := range maxPairs + 1 {
		env[strings.Repeat("k", i+1)] = ""
	}
	tests := map[string]shoal.Body{
		"nil":          nil,
		"no peer":      &shoal.MemberBody{},
		"NUL":          &shoal.PeerBody{Peer: "A", Facts: shoal.PeerFacts{Name: "a\x00"}},
		"UTF-8":        &shoal.PeerBody{Peer: "A", Facts: shoal.PeerFacts{Labels: map[string]string{"k": "\xff"}}},
		"env":          revision(func(b *shoal.RevisionBody) { b.Spec.Env = env }),
		"ports":        revision(func(b *shoal.RevisionBody) { b.Spec.Ports = make([]shoal.Port, maxPorts+1) }),
		"networks":     revision(func(b *shoal.RevisionBody) { b.Spec.Networks = make([]shoal.Attachment, maxNetworks+1) }),
		"network":      revision(func(b *shoal.RevisionBody) { b.Spec.Networks = on(strings.Repeat("a", maxNetwork+1)) }),
		"aliases":      revision(func(b *shoal.RevisionBody) { b.Spec.Networks = on("a", slicesOf(maxAliases+1, "db")...) }),
		"replicas":     revision(func(b *shoal.RevisionBody) { b.Spec.Replicas = -1 }),
		"revision":     revision(func(b *shoal.RevisionBody) { b.Revision.Seq = 0 }),
		"replaces":     revision(func(b *shoal.RevisionBody) { b.Replaces = make([]shoal.RevisionID, 1) }),
		"grace":        revision(func(b *shoal.RevisionBody) { b.Spec.StopGrace = -1 }),
		"too large":    revision(func(b *shoal.RevisionBody) { b.Spec.Command = slicesOf(5, strings.Repeat("x", maxArg)) }),
		"service name": &shoal.GoneBody{Service: "a b"},
		"base":         &shoal.ScaleBody{Service: "web", Base: &shoal.ScaleBase{ID: shoal.RevisionID{Seq: 1, Author: "A"}, N: 10001}},
		"slot":         &shoal.ClaimBody{Peer: "A", Service: "web", Holds: []shoal.Holding{{Slot: -1}}},
		"holds":        &shoal.ClaimBody{Peer: "A", Service: "web", Holds: make([]shoal.Holding, maxSlots+1)},
		"key":          &shoal.InviteBody{ID: "a", PublicKey: []byte("short")},
		"image name":   image(func(b *shoal.ImageBody) { b.Image = "docker.io/library/app:v1" }),
		"image digest": image(func(b *shoal.ImageBody) { b.Digest = "sha256:0123" }),
		"blob digest":  image(func(b *shoal.ImageBody) { b.Blobs = make([]shoal.BlobRef, 1) }),
		"blobs":        image(func(b *shoal.ImageBody) { b.Blobs = manyBlobs(shoal.MaxBlobs + 1) }),
		"blob size":    image(func(b *shoal.ImageBody) { b.Blobs = manyBlobs(1); b.Blobs[0].Size = -1 }),
		"platforms":    image(func(b *shoal.ImageBody) { b.Platforms = slicesOf(shoal.MaxPlatforms+1, "linux/amd64") }),
		"platform":     image(func(b *shoal.ImageBody) { b.Platforms = []string{"linux/arm64", "linux/amd64"} }),
		"copies":       image(func(b *shoal.ImageBody) { b.MinCopies = 101 }),
		"image ID":     image(func(b *shoal.ImageBody) { b.ID = shoal.RevisionID{} }),
		"spec digest":  revision(func(b *shoal.RevisionBody) { b.Spec.Digest = "sha256:A" }),
	}
	for name, b := range tests {
		var inv *shoal.InvalidError
		if _, err := EncodeBody(b); !errors.As(err, &inv) {
			t.Errorf("%s: EncodeBody = %v, want an InvalidError", name, err)
		}
	}
}

func on(network string, aliases ...string) []shoal.Attachment {
	return []shoal.Attachment{{Network: network, Aliases: aliases}}
}

func image(fn func(*shoal.ImageBody)) shoal.Body {
	b := &shoal.ImageBody{Image: "app:v1", ID: shoal.RevisionID{Seq: 1, Author: "A"}}
	fn(b)
	return b
}

func manyBlobs(n int) []shoal.BlobRef {
	out := make([]shoal.BlobRef, n)
	for i := range out {
		d := fmt.Sprintf("sha256:%064x", i)
		out[i] = shoal.BlobRef{Digest: d, Size: maxBlob, Chunks: d}
	}
	return out
}

// TestLargestImageFits: 1,000 blobs with their chunk lists are one record.
func TestLargestImageFits(t *testing.T) {
	want := image(func(b *shoal.ImageBody) {
		b.Digest, b.Blobs = fmt.Sprintf("sha256:%064x", 1), manyBlobs(shoal.MaxBlobs)
		b.Platforms = slicesOf(shoal.MaxPlatforms, strings.Repeat("p", maxWord))
	})
	raw, err := EncodeBody(want)
	if err != nil {
		t.Fatalf("EncodeBody = %v, want nil", err)
	}
	got, err := DecodeBody(shoal.KindImage, raw)
	if err != nil {
		t.Fatalf("DecodeBody = %v, want nil", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}

// TestLongestImageKey: the longest name that an image can have is a key.
func TestLongestImageKey(t *testing.T) {
	name := strings.Repeat("a__", 84) + "abc:" + strings.Repeat("_", shoal.MaxImageTag)
	r := shoal.Record{Kind: shoal.KindImage, Name: shoal.ImageKey(name), Author: shoal.PeerID(strings.Repeat("A", maxPeerID)), AuthorSeq: math.MaxUint64}
	if _, got, _, _, err := ParseKey(r.Key()); err != nil || got != r.Name {
		t.Errorf("ParseKey = %q, %v, want %q", got, err, r.Name)
	}
}

func slicesOf(n int, s string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func TestParseKeyRefuses(t *testing.T) {
	for _, key := range []string{
		"", "/", "/gone/web/A", "/gone/web/A/0", "/gone/web/A/01", "/gone/web/A/+1", "/gone/web/A/1/",
		"gone/web/A/1", "/gone//A/1", "/gone/../A/1", "/gone/./A/1", "/gone/web/A/18446744073709551616",
		"/gone/web/A/1/..", "/other/../../x/A/1", "/gone/web/l/1", "/" + strings.Repeat("a", 400) + "/web/A/1",
	} {
		if kind, name, author, seq, err := ParseKey(key); err == nil {
			t.Errorf("ParseKey(%q) = %v %v %v %v, want an error", key, kind, name, author, seq)
		}
	}
}

// TestSigningBytes pins the bytes: changing them voids every signature there is.
func TestSigningBytes(t *testing.T) {
	r := &shoal.Record{
		Schema: 1, Kind: "gone", Name: "web", Author: "A", AuthorSeq: 7,
		HLC: shoal.HLC{WallMilli: 0x0102, Counter: 3}, Raw: []byte("abc"),
	}
	want := "shoal/record/1" + "\x00\x00\x00\x01C" + "\x00\x00\x00\x0d" + "/gone/web/A/7" + "\x00\x00\x00\x01" +
		"\x00\x00\x00\x00\x00\x00\x01\x02" + "\x00\x00\x00\x03" +
		"\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23\xb0\x03\x61\xa3\x96\x17\x7a\x9c\xb4\x10\xff\x61\xf2\x00\x15\xad"
	if got := string(SigningBytes("C", r)); got != want {
		t.Errorf("SigningBytes = %q, want %q", got, want)
	}
}

// TestLargestProposalFits: 10,000 slots over 1,000 peers are one record.
func TestLargestProposalFits(t *testing.T) {
	b := &shoal.ScaleBody{Service: "web", Seq: 1}
	for i := range maxSlots {
		id := []byte("12D3KooWAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
		id[10], id[11], id[12] = 'A'+byte(i%8), 'a'+byte(i/8%5), "ABCDEFGHJKLMNPQRSTUVWXYZ2"[i/40%25]
		b.Proposal.Peers = append(b.Proposal.Peers, shoal.PeerID(id))
	}
	raw, err := EncodeBody(b)
	if err != nil {
		t.Fatalf("EncodeBody = %v, want nil", err)
	}
	got, err := DecodeBody(shoal.KindScale, raw)
	if err != nil {
		t.Fatalf("DecodeBody = %v, want nil", err)
	}
	if diff := cmp.Diff(shoal.Body(b), got); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	bodies := []shoal.Body{&shoal.RevisionBody{
		Revision: shoal.RevisionID{Seq: 1, Author: "A"}, Spec: shoal.Spec{Name: "web", Networks: on("shop_back", "db", "db-1")},
	}}
	for i, kind := range kinds {
		bodies = append(bodies, genBody(kind).Example(i))
	}
	for _, b := range bodies {
		raw, err := EncodeBody(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(EncodeRecord(&shoal.Record{Schema: 1, Kind: b.Kind(), Name: b.About(), Author: "A", AuthorSeq: 1, Raw: raw}))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := DecodeRecord(raw)
		if err != nil {
			return
		}
		if again := EncodeRecord(r); !bytes.Equal(again, raw) {
			t.Fatalf("EncodeRecord(DecodeRecord(%x)) = %x", raw, again)
		}
		if _, _, _, _, err := ParseKey(r.Key()); err != nil {
			t.Fatalf("ParseKey(%q) = %v", r.Key(), err)
		}
		if r.Body == nil {
			return
		}
		if _, err := EncodeBody(r.Body); err != nil {
			t.Fatalf("EncodeBody of a decoded body = %v", err)
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	for i := range 8 {
		raw, err := EncodeState(genState.Example(i))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := DecodeState(raw)
		if err != nil {
			return
		}
		if _, err := EncodeState(s); err != nil {
			t.Fatalf("EncodeState of a decoded state = %v", err)
		}
	})
}
