// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-ds-crdt/pb"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shoalnet/shoal"
	codec "github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/proto/blocks"
)

// hostile is a block that every peer must refuse for the same reason, with what comes
// beside it.
type hostile struct {
	name   string
	reason string
	block  blocks.Block
	chains []blocks.Chain
}

// forger makes hostile blocks as the first member of a cluster could.
type forger struct {
	t     testing.TB
	c     *cluster
	evil  *author // a member
	other *author // another
	seq   uint64
	out   []hostile
}

// corpus returns hostile blocks; base is a block that the victim holds, of height.
func corpus(t testing.TB, c *cluster, base cid.Cid, height uint64) []hostile {
	t.Helper()
	f := &forger{t: t, c: c, evil: c.members[0], other: c.members[1], seq: 1 << 20}
	f.forms()
	f.nodes()
	f.names()
	f.tombstones()
	f.keys()
	f.records()
	f.signatures()
	f.admissions()
	f.heights(base, height)
	return f.out
}

// add files a block with the chains of both members beside it.
func (f *forger) add(reason, name string, b blocks.Block, more ...blocks.Chain) {
	chains := []blocks.Chain{{Peer: f.evil.id, Envelopes: f.c.chains[f.evil.id]}, {Peer: f.other.id, Envelopes: f.c.chains[f.other.id]}}
	f.out = append(f.out, hostile{name, reason, b, append(chains, more...)})
}

// record is a fresh, valid record of an author, under its key.
func (f *forger) record(a *author) (*shoal.Record, []byte) {
	f.seq++
	return a.record(f.t, f.seq, &shoal.MarkBody{Peer: f.other.id, Laid: []shoal.Mark{{ID: fmt.Sprint(f.seq)}}})
}

// delta holds one fresh record of the evil member.
func (f *forger) delta(height uint64) *pb.Delta {
	_, env := f.record(f.evil)
	return delta(f.t, height, env)
}

// block is the root block of a delta that change has been at.
func (f *forger) block(change func(*pb.Delta)) blocks.Block {
	d := f.delta(1)
	if change != nil {
		change(d)
	}
	return forge(f.t, nil, d)
}

// element is a root block with one element.
func (f *forger) element(key string, value []byte) blocks.Block {
	return f.block(func(d *pb.Delta) { d.Elements = []*pb.Element{{Key: key, Value: value}} })
}

// envelope is a root block with what change makes of a valid record, under the key it
// names then.
func (f *forger) envelope(change func(*shoal.Record)) blocks.Block {
	r, _ := f.record(f.evil)
	change(r)
	return f.element(r.Key(), codec.EncodeRecord(r))
}

// named gives data the name that fits it.
func named(t testing.TB, data []byte) blocks.Block {
	t.Helper()
	c, err := blockPrefix.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	return blocks.Block{CID: c.Bytes(), Data: data}
}

// pbNode is a dag-pb node around data, as it is.
func (f *forger) pbNode(data []byte) blocks.Block {
	return named(f.t, protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), data))
}

func (f *forger) forms() {
	good := f.block(nil)
	f.add(reasonForm, "no data", named(f.t, nil))
	f.add(reasonForm, "text", named(f.t, []byte("garbage")))
	noise := make([]byte, 1000)
	if _, err := rand.Read(noise); err != nil {
		f.t.Fatal(err)
	}
	noise[0] = 0xff
	f.add(reasonForm, "noise", named(f.t, noise))
	f.add(reasonForm, "cut in half", named(f.t, good.Data[:len(good.Data)/2]))
	f.add(reasonForm, "one byte short", named(f.t, good.Data[:len(good.Data)-1]))
	f.add(reasonForm, "something behind it", named(f.t, append(slices.Clone(good.Data), 0)))
	f.add(reasonForm, "one byte too large", named(f.t, make([]byte, maxBlockBytes+1)))
	f.add(reasonForm, "a length of 2^63 and no data", named(f.t, protowire.AppendVarint([]byte{0x0a}, 1<<63)))
	f.add(reasonForm, "a delta with a length of 2^63", f.pbNode(protowire.AppendVarint([]byte{0x0a}, 1<<63)))
	f.add(reasonForm, "a delta that is text", f.pbNode([]byte("garbage")))
	f.add(reasonForm, "an empty delta", f.pbNode(nil))
	f.add(reasonForm, "no records", f.block(func(d *pb.Delta) { d.Elements = nil }))
	f.add(reasonForm, "an unknown field of the delta", f.block(func(d *pb.Delta) { d.ProtoReflect().SetUnknown([]byte{0x7a, 0x01, 0x00}) }))
	f.add(reasonForm, "an unknown field of an element", f.block(func(d *pb.Delta) { d.Elements[0].ProtoReflect().SetUnknown([]byte{0x7a, 0x01, 0x00}) }))
	f.add(reasonForm, "an element with an ID", f.block(func(d *pb.Delta) { d.Elements[0].Id = "/../x" }))
	f.add(reasonForm, "2,049 elements", f.block(func(d *pb.Delta) { d.Elements = make([]*pb.Element, blocks.MaxElements+1) }))
	f.add(reasonForm, "100,000 elements", f.block(func(d *pb.Delta) { d.Elements = make([]*pb.Element, 100_000) }))
	f.add(reasonForm, "a value of 512 KiB", f.element("/mark/x/y/1", make([]byte, 512<<10)))
	f.add(reasonForm, "a key that is no UTF-8", f.pbNode(protowire.AppendBytes([]byte{0x0a}, protowire.AppendBytes([]byte{0x0a}, []byte{0xff, 0xfe}))))
}

// nodes are blocks whose links are none.
func (f *forger) nodes() {
	node := func(links ...*ipld.Link) blocks.Block {
		nd := merkledag.NodeWithData(marshal(f.t, f.delta(1)))
		if err := nd.SetCidBuilder(merkledag.V1CidPrefix()); err != nil {
			f.t.Fatal(err)
		}
		for _, l := range links {
			if err := nd.AddRawLink(l.Name, l); err != nil {
				f.t.Fatal(err)
			}
		}
		return blocks.Block{CID: nd.Cid().Bytes(), Data: nd.RawData()}
	}
	link := func(p cid.Prefix) *ipld.Link {
		c, err := p.Sum([]byte("parent"))
		if err != nil {
			f.t.Fatal(err)
		}
		return &ipld.Link{Cid: c}
	}
	many := func(n int) []*ipld.Link {
		out := make([]*ipld.Link, n)
		for i := range out {
			c, err := blockPrefix.Sum(fmt.Append(nil, i))
			if err != nil {
				f.t.Fatal(err)
			}
			out[i] = &ipld.Link{Cid: c}
		}
		return out
	}
	plain := link(blockPrefix)
	f.add(reasonForm, "a link twice", node(plain, plain))
	f.add(reasonForm, "a link with a name", node(&ipld.Link{Name: "x", Cid: plain.Cid}))
	f.add(reasonForm, "a CIDv0 link", node(link(cid.NewPrefixV0(0x12))))
	f.add(reasonForm, "a link to raw bytes", node(link(cid.NewPrefixV1(cid.Raw, 0x12))))
	f.add(reasonForm, "a link by another hash", node(link(cid.NewPrefixV1(cid.DagProtobuf, 0x13))))
	f.add(reasonForm, "a link that is its own content", node(link(cid.NewPrefixV1(cid.DagProtobuf, 0))))
	f.add(reasonForm, "2,049 links", node(many(maxLinks+1)...))
	f.add(reasonForm, "10,000 links", node(many(10_000)...))
}

// names are blocks under names that are not theirs.
func (f *forger) names() {
	flipped := f.block(nil)
	flipped.Data = slices.Clone(flipped.Data)
	flipped.Data[len(flipped.Data)/2] ^= 1
	f.add(reasonCID, "a bit flipped on the way", flipped)
	other := f.block(nil)
	other.CID = f.block(nil).CID
	f.add(reasonCID, "another's name", other)
	for name, p := range map[string]cid.Prefix{
		"CIDv0": cid.NewPrefixV0(0x12), "raw": cid.NewPrefixV1(cid.Raw, 0x12), "SHA-512": cid.NewPrefixV1(cid.DagProtobuf, 0x13),
		"its own content": cid.NewPrefixV1(cid.DagProtobuf, 0),
	} {
		b := f.block(nil)
		c, err := p.Sum(b.Data)
		if err != nil {
			f.t.Fatal(err)
		}
		b.CID = c.Bytes()
		f.add(reasonCID, "a name that is "+name, b)
	}
	for name, raw := range map[string][]byte{"none": nil, "a byte": {1}, "200 KiB": bytes.Repeat([]byte{1}, 200<<10)} {
		b := f.block(nil)
		b.CID = raw
		f.add(reasonCID, "a name of "+name, b)
	}
}

func (f *forger) tombstones() {
	for name, e := range map[string]*pb.Element{
		"of a record":               {Key: "/mark/a/b/1", Id: "x"},
		"that leaves the namespace": {Key: "/../../../h", Id: "x"},
		"with a path for an ID":     {Key: "/mark/a/b/1", Id: "/../../x"},
		"of an unknown block":       {Key: "/mark/a/b/1", Id: "bafyunknown"},
	} {
		f.add(reasonTombstone, "a tombstone "+name, f.block(func(d *pb.Delta) { d.Tombstones = []*pb.Element{e} }))
	}
	f.add(reasonTombstone, "nothing but a tombstone", f.block(func(d *pb.Delta) { d.Elements, d.Tombstones = nil, []*pb.Element{{Key: "/x", Id: "y"}} }))
}

func (f *forger) keys() {
	at := fmt.Sprintf("/mark/%s/%s/", f.other.id, f.evil.id)
	for _, key := range []string{
		"", "/", "/a/v", "/mark", "/../..", "/../../h/x", at + "1/../2", "/mark//" + string(f.evil.id) + "/1", at, at + "0", at + "01", at + "-1",
		at + "18446744073709551616", at + "1/", at + "1/2", at[1:] + "1", "/mark/\x00/" + string(f.evil.id) + "/1",
		"/mark/\u202egnp/" + string(f.evil.id) + "/1", "/service/UPPER/" + string(f.evil.id) + "/1", "/mark/" + string(f.other.id) + "/nobody!/1",
		"/" + strings.Repeat("k", 100<<10) + "/1",
	} {
		_, env := f.record(f.evil)
		show := key
		if len(show) > 60 {
			show = show[:60] + "..."
		}
		f.add(reasonKey, fmt.Sprintf("the key %q", show), f.element(key, env))
	}
	f.add(reasonKey, "a key twice", f.block(func(d *pb.Delta) { d.Elements = append(d.Elements, d.Elements[0]) }))
}

func (f *forger) records() {
	r, env := f.record(f.evil)
	f.add(reasonRecord, "a record under another's key", f.element(fmt.Sprintf("/mark/%s/%s/7", f.other.id, f.other.id), env))
	f.add(reasonRecord, "a record under the key of its next version", f.element(fmt.Sprintf("/mark/%s/%s/%d", f.other.id, f.evil.id, r.AuthorSeq+1), env))
	f.add(reasonRecord, "a value that is text", f.element(r.Key(), []byte("garbage")))
	f.add(reasonRecord, "no value", f.element(r.Key(), nil))
	f.add(reasonRecord, "a value of more than 128 KiB", f.element(r.Key(), make([]byte, codec.MaxRecord+1)))
	f.add(reasonRecord, "an envelope cut off", f.element(r.Key(), env[:len(env)-1]))
	f.add(reasonRecord, "an envelope with an unknown field", f.element(r.Key(), append(slices.Clone(env), 0x7a, 0x01, 0x00)))
	f.add(reasonRecord, "an envelope with a field twice", f.element(r.Key(), append(slices.Clone(env), protowire.AppendVarint([]byte{0x08}, 1)...)))
	f.add(reasonRecord, "no schema", f.envelope(func(r *shoal.Record) { r.Schema = 0 }))
	f.add(reasonRecord, "a body that is text", f.envelope(func(r *shoal.Record) { r.Raw = []byte("garbage") }))
	f.add(reasonRecord, "a body about another", f.envelope(func(r *shoal.Record) { r.Name = string(f.evil.id) }))
	f.add(reasonRecord, "a body beyond its bounds", f.envelope(func(r *shoal.Record) {
		r.Raw = bytes.Repeat(protowire.AppendBytes([]byte{0x1a}, []byte("x")), 2000)
	}))
	f.add(reasonRecord, "a signature of 129 bytes", f.envelope(func(r *shoal.Record) { r.Signature = make([]byte, 129) }))
}

func (f *forger) signatures() {
	over := func(change func(*shoal.Record) []byte) func(*shoal.Record) {
		return func(r *shoal.Record) { r.Signature, _ = f.evil.Sign(change(r)) }
	}
	f.add(reasonSignature, "no signature", f.envelope(func(r *shoal.Record) { r.Signature = nil }))
	f.add(reasonSignature, "a signature of zeros", f.envelope(func(r *shoal.Record) { r.Signature = make([]byte, 64) }))
	f.add(reasonSignature, "a signature with a bit flipped", f.envelope(func(r *shoal.Record) { r.Signature[7] ^= 1 }))
	f.add(reasonSignature, "a signature with a byte more", f.envelope(func(r *shoal.Record) { r.Signature = append(r.Signature, 0) }))
	f.add(reasonSignature, "the time changed after signing", f.envelope(func(r *shoal.Record) { r.HLC.WallMilli++ }))
	f.add(reasonSignature, "the sequence changed after signing", f.envelope(func(r *shoal.Record) { r.AuthorSeq = math.MaxUint64 }))
	f.add(reasonSignature, "a later schema after signing", f.envelope(func(r *shoal.Record) { r.Schema++ }))
	f.add(reasonSignature, "another author after signing", f.envelope(func(r *shoal.Record) { r.Author = f.other.id }))
	f.add(reasonSignature, "signed for another cluster", f.envelope(over(func(r *shoal.Record) []byte { return codec.SigningBytes(f.other.id, r) })))
	f.add(reasonSignature, "signed over another domain", f.envelope(over(func(r *shoal.Record) []byte {
		return append([]byte("shoal/beat/1"), codec.SigningBytes(f.c.key.id, r)[len("shoal/record/1"):]...)
	})))
	f.add(reasonSignature, "signed over the body alone", f.envelope(over(func(r *shoal.Record) []byte { return r.Raw })))
	f.add(reasonSignature, "signed by another member", f.envelope(func(r *shoal.Record) {
		r.Signature, _ = f.other.Sign(codec.SigningBytes(f.c.key.id, r))
	}))
	_, good := f.record(f.evil)
	bad, _ := f.record(f.evil)
	bad.Signature = nil
	f.add(reasonSignature, "one good and one bad record", f.block(func(d *pb.Delta) {
		d.Elements = append(delta(f.t, 1, good).Elements, &pb.Element{Key: bad.Key(), Value: codec.EncodeRecord(bad)})
	}))
}

// admissions are good blocks of those who were not let in.
func (f *forger) admissions() {
	stranger := newAuthor(f.t, "stranger")
	by := func(a *author) blocks.Block {
		_, env := f.record(a)
		return forge(f.t, nil, delta(f.t, 1, env))
	}
	member := func(by *author, body *shoal.MemberBody) []byte {
		f.seq++
		_, env := by.record(f.t, f.seq, body)
		return env
	}
	chain := func(envelopes ...[]byte) blocks.Chain { return blocks.Chain{Peer: stranger.id, Envelopes: envelopes} }
	in := &shoal.MemberBody{Peer: stranger.id, Role: shoal.RoleOperator}
	evil := f.c.chains[f.evil.id]
	f.add(reasonChain, "a stranger without a chain", by(stranger))
	f.add(reasonChain, "a stranger with an empty chain", by(stranger), chain())
	f.add(reasonChain, "a stranger with a member's chain", by(stranger), chain(evil...))
	f.add(reasonChain, "a stranger admitted by itself", by(stranger), chain(member(stranger, in)))
	f.add(reasonChain, "a stranger whose chain does not begin at the cluster's key", by(stranger), chain(member(f.evil, in)))
	f.add(reasonChain, "a chain of text", by(stranger), chain([]byte("garbage")))
	f.add(reasonChain, "a chain of 512 KiB", by(stranger), chain(make([]byte, 512<<10)))
	removed := *in
	removed.Removed = true
	f.add(reasonChain, "a removal for an admission", by(stranger), chain(append(slices.Clone(evil), member(f.evil, &removed))...))
	odd := *in
	odd.Role = "king"
	f.add(reasonChain, "an unknown role", by(stranger), chain(append(slices.Clone(evil), member(f.evil, &odd))...))
	low := newAuthor(f.t, "only a peer")
	f.add(reasonChain, "admitted by one that may not admit", by(stranger), chain(append(slices.Clone(evil),
		member(f.evil, &shoal.MemberBody{Peer: low.id, Role: shoal.RolePeer}), member(low, in))...))
	unsigned := member(f.evil, in)
	unsigned[len(unsigned)-1] ^= 1
	f.add(reasonChain, "an admission with a bit flipped", by(stranger), chain(append(slices.Clone(evil), unsigned)...))
	loop := slices.Clone(evil)
	for range blocks.MaxChain {
		loop = append(loop, evil[len(evil)-1])
	}
	f.add(reasonForm, "a chain of 65 links", by(stranger), chain(loop...))
	f.add(reasonChain, "a chain that goes in circles", by(stranger), chain(loop[:blocks.MaxChain]...))

	_, pub, err := crypto.GenerateSecp256k1Key(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		f.t.Fatal(err)
	}
	f.add(reasonChain, "an author whose key is of another kind", f.envelope(func(r *shoal.Record) { r.Author = shoal.PeerID(id.String()) }))
	f.add(reasonChain, "an author whose ID holds no key", f.envelope(func(r *shoal.Record) { r.Author = "zzz" }))
	_, good := f.record(f.evil)
	_, bad := f.record(stranger)
	f.add(reasonChain, "one record of a member and one of a stranger", forge(f.t, nil, delta(f.t, 1, good, bad)))
}

// heights are good blocks at the wrong place.
func (f *forger) heights(base cid.Cid, height uint64) {
	for _, h := range []uint64{0, 2, 1 << 32, 1 << 63, math.MaxUint64 - 1, math.MaxUint64} {
		f.add(reasonHeight, fmt.Sprintf("the height %d without parents", h), forge(f.t, nil, f.delta(h)))
	}
	for name, h := range map[string]uint64{
		"below its parent": height - 1, "of its parent": height, "two above its parent": height + 2, "far above": math.MaxUint64 - 1, "that wraps around": 0,
	} {
		f.add(reasonHeight, "a height "+name, forge(f.t, []cid.Cid{base}, f.delta(h)))
	}
	d := f.delta(1)
	twice := protowire.AppendVarint(protowire.AppendTag(marshal(f.t, d), 3, protowire.VarintType), 9)
	f.add(reasonHeight, "two heights", f.pbNode(twice))
}

// resign signs a record anew as a.
func resign(t testing.TB, c *cluster, a *author, r *shoal.Record) {
	t.Helper()
	var err error
	if r.Signature, err = a.Sign(codec.SigningBytes(c.key.id, r)); err != nil {
		t.Fatal(err)
	}
}
