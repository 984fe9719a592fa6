// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/shoalnet/shoal"
)

// Bitmap is a set of the chunks of a blob, by number. Make one with [NewBitmap] or
// [ParseBitmap]; a copy shares its bits, see [Bitmap.Clone].
type Bitmap struct {
	words []uint64
	n     int
}

// NewBitmap returns the empty set for a blob of n chunks.
func NewBitmap(n int) Bitmap { return Bitmap{words: make([]uint64, (n+63)/64), n: n} }

// ParseBitmap reads what [Bitmap.Bytes] wrote for a blob of n chunks. *shoal.InvalidError:
// the length is another, or a chunk is set that the blob has not.
func ParseBitmap(n int, raw []byte) (Bitmap, error) {
	if n < 0 || len(raw) != (n+7)/8 {
		return Bitmap{}, &shoal.InvalidError{Field: "bitmap", Why: fmt.Sprintf("has %d bytes, %d chunks need %d", len(raw), n, (n+7)/8)}
	}
	b := NewBitmap(n)
	padded := make([]byte, 8*len(b.words))
	copy(padded, raw)
	for i := range b.words {
		b.words[i] = binary.LittleEndian.Uint64(padded[8*i:])
	}
	if r := n % 64; r != 0 && b.words[len(b.words)-1]>>r != 0 {
		return Bitmap{}, &shoal.InvalidError{Field: "bitmap", Why: fmt.Sprintf("sets a chunk beyond the last of %d", n)}
	}
	return b, nil
}

// Bytes returns the set for disk and wire: chunk i is bit i%8 of byte i/8.
func (b Bitmap) Bytes() []byte {
	raw := make([]byte, 0, 8*len(b.words))
	for _, w := range b.words {
		raw = binary.LittleEndian.AppendUint64(raw, w)
	}
	return raw[:(b.n+7)/8]
}

// Len returns how many chunks the blob has.
func (b Bitmap) Len() int { return b.n }

// Count returns how many chunks are in the set.
func (b Bitmap) Count() int {
	n := 0
	for _, w := range b.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// Full reports whether every chunk is in the set.
func (b Bitmap) Full() bool { return b.Count() == b.n }

// Has reports whether chunk i is in the set; one that the blob has not is in none.
func (b Bitmap) Has(i int) bool {
	return i >= 0 && i < b.n && b.words[i/64]>>(i%64)&1 != 0
}

// Set adds chunk i, which the blob must have.
func (b Bitmap) Set(i int) { b.words[i/64] |= 1 << (i % 64) }

// Clear removes chunk i, which the blob must have.
func (b Bitmap) Clear(i int) { b.words[i/64] &^= 1 << (i % 64) }

// Clone returns a copy with bits of its own.
func (b Bitmap) Clone() Bitmap {
	return Bitmap{words: append([]uint64(nil), b.words...), n: b.n}
}

// fit returns a copy for a blob of n chunks, whatever b was made for.
func (b Bitmap) fit(n int) Bitmap {
	out := NewBitmap(n)
	copy(out.words, b.words)
	if r := n % 64; r != 0 {
		out.words[len(out.words)-1] &= 1<<r - 1
	}
	return out
}

// word returns word i, 0 for a bitmap that was never made.
func (b Bitmap) word(i int) uint64 {
	if i < len(b.words) {
		return b.words[i]
	}
	return 0
}

// tally counts for each chunk, and keeps the sets of those counted once and twice at least.
type tally struct {
	n         []uint16
	once, two Bitmap
}

func newTally(n int) tally {
	return tally{n: make([]uint16, n), once: NewBitmap(n), two: NewBitmap(n)}
}

func (t *tally) add(c int) {
	t.n[c]++
	switch t.n[c] {
	case 1:
		t.once.Set(c)
	case 2:
		t.two.Set(c)
	}
}

func (t *tally) sub(c int) {
	t.n[c]--
	switch t.n[c] {
	case 0:
		t.once.Clear(c)
	case 1:
		t.two.Clear(c)
	}
}
