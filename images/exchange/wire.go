// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/swarm"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Bounds of what peers say. A bitmap of maxChunks has 128 KiB.
const (
	maxChunks    = 1 << 20   // of a blob: 1 TiB
	maxMessage   = 256 << 10 // bytes of a control message
	maxQuestion  = 512       // blobs in a question
	maxPeersTold = 50        // peers in one message
	maxListPart  = 4096      // hashes in one message
	maxPiece     = 256 << 10 // bytes of a piece
)

// A data stream is a sequence of frames: one byte of kind, three of length, most
// significant first, then that many bytes. A chunk is one frame that begins it, then its
// bytes in pieces; an upload that is taken back ends with frameBroken instead of the rest,
// so that the stream can be used on. Frames of other kinds are skipped.
const (
	frameBegin  = 1 // digest, ask (8 bytes), chunk (4), length (4)
	framePiece  = 2
	frameBroken = 3

	frameHead = 4
	beginSize = 48
)

// errForm says that a stream breaks the rules; it is of no use from there.
var errForm = errors.New("malformed data stream")

// begin is what a chunk says of itself before it comes.
type begin struct {
	blob   blobs.Digest
	ask    uint64
	chunk  int
	length int
}

func appendFrame(b []byte, kind byte, n int) []byte {
	return append(b, kind, byte(n>>16), byte(n>>8), byte(n))
}

func appendBegin(b []byte, g begin) []byte {
	b = append(appendFrame(b, frameBegin, beginSize), g.blob[:]...)
	b = binary.BigEndian.AppendUint64(b, g.ask)
	b = binary.BigEndian.AppendUint32(b, uint32(g.chunk))
	return binary.BigEndian.AppendUint32(b, uint32(g.length))
}

// dataReader reads a data stream.
type dataReader struct {
	r       io.Reader
	unknown func() // a frame was skipped
	head    [frameHead]byte
}

// frame returns the next frame of a kind that is known; its bytes follow.
func (d *dataReader) frame() (kind byte, n int, err error) {
	for {
		if _, err := io.ReadFull(d.r, d.head[:]); err != nil {
			return 0, 0, err
		}
		kind, n = d.head[0], int(d.head[1])<<16|int(d.head[2])<<8|int(d.head[3])
		if kind >= frameBegin && kind <= frameBroken {
			return kind, n, nil
		}
		d.unknown()
		if _, err := io.CopyN(io.Discard, d.r, int64(n)); err != nil {
			return 0, 0, err
		}
	}
}

// begin returns the next chunk's beginning. io.EOF: there is none.
func (d *dataReader) begin() (begin, error) {
	kind, n, err := d.frame()
	if err != nil {
		return begin{}, err
	}
	if kind != frameBegin || n != beginSize {
		return begin{}, fmt.Errorf("%w: frame %d of %d bytes where a chunk begins", errForm, kind, n)
	}
	var raw [beginSize]byte
	if _, err := io.ReadFull(d.r, raw[:]); err != nil {
		return begin{}, err
	}
	g := begin{
		blob: blobs.Digest(raw[:32]), ask: binary.BigEndian.Uint64(raw[32:]),
		chunk: int(binary.BigEndian.Uint32(raw[40:])), length: int(binary.BigEndian.Uint32(raw[44:])),
	}
	if g.chunk < 0 || g.chunk >= maxChunks || g.length < 1 || g.length > swarm.ChunkBytes {
		return begin{}, fmt.Errorf("%w: chunk %d of %d bytes", errForm, g.chunk, g.length)
	}
	return g, nil
}

// body reads the bytes of a chunk that began: into buf, or nowhere if that is nil. came is
// told of each piece before it is read. false: the sender broke it off.
func (d *dataReader) body(length int, buf []byte, came func(n int) error) (bool, error) {
	for at := 0; at < length; {
		kind, n, err := d.frame()
		switch {
		case err != nil:
			return false, err
		case kind == frameBroken && n == 0:
			return false, nil
		case kind != framePiece || n < 1 || n > min(maxPiece, length-at):
			return false, fmt.Errorf("%w: frame %d of %d bytes where %d of a chunk are due", errForm, kind, n, length-at)
		}
		if err := came(n); err != nil {
			return false, err
		}
		if buf == nil {
			_, err = io.CopyN(io.Discard, d.r, int64(n))
		} else {
			_, err = io.ReadFull(d.r, buf[at:at+n])
		}
		if err != nil {
			return false, err
		}
		at += n
	}
	return true, nil
}

// digestFrom reads a digest of a message.
func digestFrom(raw []byte) (blobs.Digest, bool) {
	if len(raw) != len(blobs.Digest{}) {
		return blobs.Digest{}, false
	}
	return blobs.Digest(raw), true
}

// listHash returns what binds a chunk list.
func listHash(list []blobs.Digest) blobs.Digest {
	raw := make([]byte, 0, len(list)*len(blobs.Digest{}))
	for _, d := range list {
		raw = append(raw, d[:]...)
	}
	return blobs.DigestOf(raw)
}

// chunksOf returns how many chunks a blob of size bytes has.
func chunksOf(size int64) int { return int((size + swarm.ChunkBytes - 1) / swarm.ChunkBytes) }

// chunkLen returns the length of chunk i of it.
func chunkLen(size int64, i int) int {
	return int(min(swarm.ChunkBytes, size-int64(i)*swarm.ChunkBytes))
}

// offer is what a peer said that it knows and has of a blob.
type offer struct {
	size   int64 // 0: it does not know
	list   blobs.Digest
	grows  bool // it goes on without a list
	chunks swarm.Bitmap
}

// offerFrom reads a hello. The string is why it is refused, "" if it is not.
func offerFrom(h *shoalv1.BlobHello, maxBlob int64) (offer, string) {
	isListed := h.GetSize() != 0 || len(h.GetList()) != 0
	o := offer{size: h.GetSize(), grows: h.GetGrows() != 0}
	ok := true
	switch {
	case o.grows && isListed:
		return offer{}, "form"
	case o.grows:
		o.size = h.GetGrows()
	case !isListed:
		return offer{}, ""
	default:
		o.list, ok = digestFrom(h.GetList())
	}
	switch {
	case o.size < 1 || o.size > maxBlob:
		return offer{}, "size"
	case !ok:
		return offer{}, "form"
	}
	n := chunksOf(o.size)
	if h.GetFull() {
		o.chunks = fullBitmap(n)
		return o, ""
	}
	o.chunks = swarm.NewBitmap(n)
	if len(h.GetChunks()) > 0 {
		chunks, err := swarm.ParseBitmap(n, h.GetChunks())
		if err != nil {
			return offer{}, "range"
		}
		o.chunks = chunks
	}
	return o, ""
}

func fullBitmap(n int) swarm.Bitmap {
	b := swarm.NewBitmap(n)
	for i := range n {
		b.Set(i)
	}
	return b
}

// message wraps what a control message is about.
func message(what any) *shoalv1.BlobMessage {
	m := &shoalv1.BlobMessage{}
	switch w := what.(type) {
	case *shoalv1.BlobGreeting:
		m.What = &shoalv1.BlobMessage_Greeting{Greeting: w}
	case *shoalv1.BlobHello:
		m.What = &shoalv1.BlobMessage_Hello{Hello: w}
	case *shoalv1.BlobBye:
		m.What = &shoalv1.BlobMessage_Bye{Bye: w}
	case *shoalv1.BlobIdle:
		m.What = &shoalv1.BlobMessage_Idle{Idle: w}
	case *shoalv1.BlobHave:
		m.What = &shoalv1.BlobMessage_Have{Have: w}
	case *shoalv1.BlobAsk:
		m.What = &shoalv1.BlobMessage_Ask{Ask: w}
	case *shoalv1.BlobHead:
		m.What = &shoalv1.BlobMessage_Head{Head: w}
	case *shoalv1.BlobCancel:
		m.What = &shoalv1.BlobMessage_Cancel{Cancel: w}
	case *shoalv1.BlobRefuse:
		m.What = &shoalv1.BlobMessage_Refuse{Refuse: w}
	case *shoalv1.BlobPeers:
		m.What = &shoalv1.BlobMessage_Peers{Peers: w}
	case *shoalv1.BlobListRequest:
		m.What = &shoalv1.BlobMessage_ListRequest{ListRequest: w}
	case *shoalv1.BlobList:
		m.What = &shoalv1.BlobMessage_List{List: w}
	case *shoalv1.BlobQuestion:
		m.What = &shoalv1.BlobMessage_Question{Question: w}
	case *shoalv1.BlobAnswer:
		m.What = &shoalv1.BlobMessage_Answer{Answer: w}
	default:
		panic(fmt.Sprintf("no control message: %T", what)) // ours, never a peer's
	}
	return m
}

// weight estimates the bytes that a message takes while it waits.
func weight(m *shoalv1.BlobMessage) int {
	n := 128 + len(m.GetHello().GetChunks()) + len(m.GetAsk().GetNot()) + len(m.GetList().GetHashes())
	n += 4*len(m.GetHave().GetChunks()) + 64*len(m.GetPeers().GetPeers())
	return n + 32*len(m.GetQuestion().GetBlobs()) + 64*len(m.GetAnswer().GetHoldings())
}

// trimmed returns at most n of list.
func trimmed[T any](list []T, n int) []T { return slices.Clip(list[:min(n, len(list))]) }
