// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/swarm"
)

// life is what one process does: a blob in chunks, another as a stream, references, a
// removal. It returns the chunks that it was told are written.
func life(s *Store, b, streamed []byte) (told []int, committed bool, err error) {
	d := DigestOf(b)
	if _, err := s.Begin(d, int64(len(b)), chunkList(b)); err != nil {
		return nil, false, err
	}
	for i := range chunkList(b) {
		if _, err := s.WriteChunk(d, i, chunk(b, i)); err != nil {
			return told, false, err
		}
		told = append(told, i)
		if i != 1 {
			continue
		}
		if _, err := s.Put(streamed); err != nil {
			return told, false, err
		}
		committed = true
		if err := s.SetRefs(DigestOf(streamed), []Digest{d}); err != nil {
			return told, true, err
		}
	}
	return told, committed, nil
}

// TestCrash ends a life at every step, by a kill and by a power cut, and opens the store
// anew: all that was told to be there after a kill, all that was committed after a power
// cut, and never a wrong byte.
func TestCrash(t *testing.T) {
	b, streamed := content(1, 3*swarm.ChunkBytes+17), content(2, 1000)
	for _, c := range []struct {
		name   string
		isLost bool
	}{{"kill", false}, {"power", true}} {
		t.Run(c.name, func(t *testing.T) {
			for cut, ended := 0, false; !ended; cut++ {
				if cut > 500 {
					t.Fatal("a life has more than 500 steps")
				}
				disk := newCutDisk(cut)
				if c.isLost {
					disk.rough = rand.New(rand.NewPCG(uint64(cut), 1))
				}
				ended = crashOnce(t, disk, b, streamed)
				if t.Failed() {
					t.Fatalf("cut at step %d", cut)
				}
			}
		})
	}
}

func crashOnce(t *testing.T, disk *cutDisk, b, streamed []byte) (ended bool) {
	t.Helper()
	dir, cfg := t.TempDir(), Config{Expire: time.Hour}
	s, err := open(dir, cfg, &handClock{}, disk)
	var told []int
	var committed bool
	if err == nil {
		told, committed, err = life(s, b, streamed)
		_ = s.Close() // a dead world cannot
	}
	if err != nil && !errors.Is(err, errCut) {
		t.Fatalf("life = %v, want the cut", err)
	}
	// What the next life does is not cut off; it need not wait for the machine's disk either.
	again, openErr := open(dir, cfg, &handClock{}, newCutDisk(-1))
	if openErr != nil {
		t.Fatalf("Open after the cut = %v", openErr)
	}
	defer again.Close()
	checkAfter(t, again, b, streamed, told, committed, disk.rough != nil)
	return err == nil
}

func checkAfter(t *testing.T, s *Store, b, streamed []byte, told []int, committed, isLost bool) {
	t.Helper()
	d := DigestOf(b)
	have, _, err := s.Chunks(d)
	if err != nil && !errors.Is(err, shoal.ErrNotFound) {
		t.Fatal(err)
	}
	whole := len(told) == len(chunkList(b))
	for _, i := range told {
		if (!isLost || whole) && (i >= have.Len() || !have.Has(i)) {
			t.Errorf("chunk %d was told to be written and is not there", i)
		}
	}
	if committed {
		equal(t, "committed blob", contents(t, s, DigestOf(streamed)), streamed)
	}
	r, err := s.Read(t.Context(), d)
	for i := range have.Len() {
		if err != nil {
			t.Fatal(err)
		}
		if got := make([]byte, len(chunk(b, i))); have.Has(i) {
			if _, err := r.ReadAt(got, int64(i)*swarm.ChunkBytes); err != nil {
				t.Fatal(err)
			}
			equal(t, "chunk", got, chunk(b, i))
		}
	}
	if r != nil {
		_ = r.Close() // read only
	}
	if _, _, err := life(s, b, streamed); err != nil {
		t.Errorf("the next life = %v", err)
	}
	equal(t, "the blob in the end", contents(t, s, d), b)
	info, err := s.Stat(DigestOf(streamed))
	if err != nil || len(info.Refs) != 1 || info.Refs[0] != d {
		t.Errorf("Stat = %+v, %v, want one reference", info, err)
	}
}

// TestPowerCut loses what was not synced of a blob long enough for a proven journal.
func TestPowerCut(t *testing.T) {
	const n = syncEvery + 6
	b := content(3, n*swarm.ChunkBytes)
	dir, disk := t.TempDir(), newCutDisk(-1)
	disk.rough = rand.New(rand.NewPCG(1, 2))
	cfg := Config{Expire: time.Hour}
	s, err := open(dir, cfg, &handClock{}, disk)
	if err != nil {
		t.Fatal(err)
	}
	d := mustBegin(t, s, b)
	for i := range n - 1 {
		if _, err := s.WriteChunk(d, i, chunk(b, i)); err != nil {
			t.Fatal(err)
		}
	}
	disk.cut = 0
	if _, err := s.WriteChunk(d, n-1, chunk(b, n-1)); !errors.Is(err, errCut) {
		t.Fatalf("WriteChunk = %v, want the cut", err)
	}
	_ = s.Close() // a dead world cannot
	again, err := Open(dir, cfg, &handClock{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	have, _, err := again.Chunks(d)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if have.Has(i) != (i < syncEvery) {
			t.Errorf("Has(%d) = %t: %d were synced", i, have.Has(i), syncEvery)
		}
	}
	r, err := again.Read(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, syncEvery*swarm.ChunkBytes)
	if _, err := r.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	equal(t, "what was synced", got, b[:len(got)])
}

// TestParseJournal: a record that is torn, stale or foreign ends the journal.
func TestParseJournal(t *testing.T) {
	d, have := DigestOf([]byte("a")), swarm.NewBitmap(8)
	for i := range 4 {
		have.Set(i)
	}
	whole := journal(d, have)
	unproven := whole[:4*recordBytes]
	flipped := bytes.Clone(unproven)
	flipped[2*recordBytes] ^= 4 // chunk 2 becomes 6
	moved := slices.Concat(unproven[:recordBytes], unproven[2*recordBytes:])
	for _, c := range []struct {
		name         string
		raw          []byte
		n            int
		sure, unsure int
	}{
		{"whole", whole, 8, 4, 0},
		{"no marker", unproven, 8, 0, 4},
		{"more after the marker", slices.Concat(whole, record(d, 5, 7)), 8, 4, 1},
		{"torn", unproven[:2*recordBytes+5], 8, 0, 2},
		{"a flipped bit", flipped, 8, 0, 2},
		{"a lost record", moved, 8, 0, 1},
		{"zeros", make([]byte, 64), 8, 0, 0},
		{"another blob's", journal(DigestOf(nil), have), 8, 0, 0},
		{"a chunk that the blob has not", whole, 3, 3, 0},
		{"a marker of what is to come", slices.Concat(record(d, 0, proven|2), record(d, 1, 1)), 8, 0, 1},
	} {
		sure, unsure := parseJournal(d, c.n, c.raw)
		if sure.Count() != c.sure || unsure.Count() != c.unsure {
			t.Errorf("%s: parseJournal = %d sure, %d unsure, want %d and %d", c.name, sure.Count(), unsure.Count(), c.sure, c.unsure)
		}
	}
}

func record(d Digest, place int, number uint32) []byte {
	rec := d.record(place, number)
	return rec[:]
}
