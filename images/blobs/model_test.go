// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/swarm"
)

// model is what a store should hold, as maps.
type model struct {
	whole   map[int]bool
	parts   map[int]map[int]bool
	grows   map[int]bool // of the parts
	leases  map[int][]func()
	refs    map[int][]int
	pool    [][]byte
	digests []Digest
	lists   [][]Digest
	buf     []byte // as long as the longest
}

func (m *model) used() (n int64) {
	for i, b := range m.pool {
		if m.whole[i] || m.parts[i] != nil {
			n += int64(len(b))
		}
	}
	return n
}

func (m *model) forget(i int) {
	delete(m.whole, i)
	delete(m.parts, i)
	delete(m.grows, i)
	delete(m.refs, i)
}

// needs adds what i refers to, directly or not.
func (m *model) needs(i int, out map[int]bool) {
	if out[i] {
		return
	}
	out[i] = true
	for _, r := range m.refs[i] {
		m.needs(r, out)
	}
}

// TestModel compares the store with maps, through any order of what it can do, ends of
// its life included.
func TestModel(t *testing.T) {
	var pool [][]byte
	var digests []Digest
	var lists [][]Digest
	for i, size := range []int{0, 1, 5000, swarm.ChunkBytes, swarm.ChunkBytes + 1, 2*swarm.ChunkBytes + 7} {
		pool = append(pool, content(uint64(i), size))
		digests = append(digests, DigestOf(pool[i]))
		lists = append(lists, chunkList(pool[i]))
	}
	const limit = 4 * swarm.ChunkBytes
	buf := make([]byte, len(pool[len(pool)-1]))
	rapid.Check(t, func(rt *rapid.T) {
		dir, disk := t.TempDir(), newCutDisk(-1)
		clock, cfg := &handClock{}, Config{Limit: limit, Expire: 1000 * time.Hour}
		s, err := open(dir, cfg, clock, disk)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = s.Close() }() // the last of several
		m := &model{
			whole: map[int]bool{}, parts: map[int]map[int]bool{}, grows: map[int]bool{}, leases: map[int][]func(){}, refs: map[int][]int{},
			pool: pool, digests: digests, lists: lists, buf: buf,
		}
		which := rapid.IntRange(0, len(pool)-1)
		rt.Repeat(map[string]func(*rapid.T){
			"put":    func(rt *rapid.T) { m.put(rt, s, which.Draw(rt, "blob"), limit) },
			"begin":  func(rt *rapid.T) { m.begin(rt, s, which.Draw(rt, "blob"), limit) },
			"grow":   func(rt *rapid.T) { m.grow(rt, s, which.Draw(rt, "blob"), limit) },
			"write":  func(rt *rapid.T) { m.write(rt, s, which.Draw(rt, "blob")) },
			"remove": func(rt *rapid.T) { m.remove(rt, s, which.Draw(rt, "blob")) },
			"lease":  func(rt *rapid.T) { m.lease(rt, s, which.Draw(rt, "blob")) },
			"release": func(rt *rapid.T) {
				if i := which.Draw(rt, "blob"); len(m.leases[i]) > 0 {
					m.leases[i][0]()
					m.leases[i] = m.leases[i][1:]
				}
			},
			"refs": func(rt *rapid.T) {
				i, to := which.Draw(rt, "blob"), rapid.SliceOfNDistinct(which, 0, 3, rapid.ID).Draw(rt, "to")
				m.setRefs(rt, s, i, to)
			},
			"collect": func(rt *rapid.T) {
				m.collect(rt, s, which.Draw(rt, "needed"), which.Draw(rt, "precious"), rapid.Int64Range(0, limit).Draw(rt, "room"), limit)
			},
			"reopen": func(rt *rapid.T) {
				m.leases = map[int][]func(){}
				for i := range m.grows {
					m.forget(i)
				}
				if rapid.Bool().Draw(rt, "clean") {
					if err := s.Close(); err != nil {
						rt.Fatal(err)
					}
				}
				if s, err = open(dir, cfg, clock, disk); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(rt *rapid.T) { m.check(rt, s) },
		})
	})
}

func (m *model) put(rt *rapid.T, s *Store, i int, limit int64) {
	// While it is written, the upload takes room beside the partial blob.
	fits := m.used()+int64(len(m.pool[i])) <= limit
	_, err := s.Put(m.pool[i])
	switch {
	case err == nil && fits:
		delete(m.parts, i)
		delete(m.grows, i)
		m.whole[i] = true
	case fits || !errors.Is(err, shoal.ErrNoSpace):
		rt.Fatalf("Put(%d) = %v, fits: %t", i, err, fits)
	}
}

func (m *model) begin(rt *rapid.T, s *Store, i int, limit int64) {
	size := int64(len(m.pool[i]))
	known := m.whole[i] || m.parts[i] != nil
	fits := known || m.used()+size <= limit
	have, err := s.Begin(m.digests[i], size, m.lists[i])
	if fits != (err == nil) || err != nil && !errors.Is(err, shoal.ErrNoSpace) {
		rt.Fatalf("Begin(%d) = %v, fits: %t", i, err, fits)
	}
	switch {
	case err != nil:
	case size == 0:
		m.whole[i] = true
	case !known:
		m.parts[i] = map[int]bool{}
	case m.parts[i] != nil && have.Count() != len(m.parts[i]):
		rt.Fatalf("Begin(%d) has %d chunks, want %d", i, have.Count(), len(m.parts[i]))
	}
	if err == nil {
		delete(m.grows, i)
	}
}

func (m *model) grow(rt *rapid.T, s *Store, i int, limit int64) {
	size := int64(len(m.pool[i]))
	known := m.whole[i] || m.parts[i] != nil
	fits := known || m.used()+size <= limit
	have, err := s.Grow(m.digests[i], size)
	switch {
	case size == 0:
		if _, is := errors.AsType[*shoal.InvalidError](err); !is {
			rt.Fatalf("Grow of nothing = %v, want an InvalidError", err)
		}
	case fits != (err == nil) || err != nil && !errors.Is(err, shoal.ErrNoSpace):
		rt.Fatalf("Grow(%d) = %v, fits: %t", i, err, fits)
	case err != nil:
	case !known:
		m.parts[i], m.grows[i] = map[int]bool{}, true
	case m.parts[i] != nil && have.Count() != len(m.parts[i]):
		rt.Fatalf("Grow(%d) has %d chunks, want %d", i, have.Count(), len(m.parts[i]))
	}
}

func (m *model) write(rt *rapid.T, s *Store, i int) {
	if m.parts[i] == nil {
		return
	}
	list := m.lists[i]
	if !m.grows[i] {
		if _, err := s.Begin(m.digests[i], int64(len(m.pool[i])), list); err != nil {
			rt.Fatal(err)
		}
	}
	c := rapid.IntRange(0, len(list)-1).Draw(rt, "chunk")
	done, err := s.WriteChunk(m.digests[i], c, chunk(m.pool[i], c))
	m.parts[i][c] = true
	if want := len(m.parts[i]) == len(list); err != nil || done != want {
		rt.Fatalf("WriteChunk(%d, %d) = %t, %v, want %t", i, c, done, err, want)
	}
	if done {
		delete(m.parts, i)
		delete(m.grows, i)
		m.whole[i] = true
	}
}

func (m *model) remove(rt *rapid.T, s *Store, i int) {
	want := error(nil)
	switch {
	case !m.whole[i] && m.parts[i] == nil:
		want = shoal.ErrNotFound
	case len(m.leases[i]) > 0:
		want = shoal.ErrConflict
	}
	if err := s.Remove(m.digests[i]); !errors.Is(err, want) {
		rt.Fatalf("Remove(%d) = %v, want %v", i, err, want)
	}
	if want == nil {
		m.forget(i)
	}
}

func (m *model) lease(rt *rapid.T, s *Store, i int) {
	release, err := s.Lease(m.digests[i])
	if known := m.whole[i] || m.parts[i] != nil; known != (err == nil) {
		rt.Fatalf("Lease(%d) = %v, known: %t", i, err, known)
	}
	if err == nil {
		m.leases[i] = append(m.leases[i], release)
	}
}

func (m *model) setRefs(rt *rapid.T, s *Store, i int, to []int) {
	var refs []Digest
	for _, r := range to {
		refs = append(refs, m.digests[r])
	}
	err := s.SetRefs(m.digests[i], refs)
	if m.whole[i] != (err == nil) {
		rt.Fatalf("SetRefs(%d) = %v, whole: %t", i, err, m.whole[i])
	}
	if err == nil {
		m.refs[i] = to
	}
}

// collect checks what the store chose to remove, and that it stopped in time.
func (m *model) collect(rt *rapid.T, s *Store, needed, precious int, room, limit int64) {
	must := map[int]bool{}
	m.needs(needed, must)
	keep := Keep{Needed: []Digest{m.digests[needed]}, MayLose: func(d Digest) bool { return d != m.digests[precious] }}
	removed, err := s.Collect(keep, room)
	for _, info := range removed {
		i := slices.Index(m.digests, info.Digest)
		isCopy := i == precious && m.whole[i]
		if must[i] || isCopy || len(m.leases[i]) > 0 || !m.whole[i] && m.parts[i] == nil {
			rt.Fatalf("Collect removed %d, which must stay or is not there", i)
		}
		if m.used()+room <= limit {
			rt.Fatalf("Collect removed %d though there was room", i)
		}
		m.forget(i)
	}
	if fits := m.used()+room <= limit; fits != (err == nil) {
		rt.Fatalf("Collect = %v, fits: %t", err, fits)
	}
	if err == nil {
		return
	}
	for i := range m.pool {
		here := m.whole[i] || m.parts[i] != nil
		holds := slices.ContainsFunc(m.refs[i], func(r int) bool { return m.whole[r] || m.parts[r] != nil })
		if here && !must[i] && (i != precious || !m.whole[i]) && len(m.leases[i]) == 0 && !holds {
			rt.Fatalf("Collect left %d and has no room", i)
		}
	}
}

func (m *model) check(rt *rapid.T, s *Store) {
	u, err := s.Usage()
	if err != nil || u.Bytes != m.used() || u.Blobs != len(m.whole)+len(m.parts) {
		rt.Fatalf("Usage = %+v, %v, want %d bytes in %d blobs", u, err, m.used(), len(m.whole)+len(m.parts))
	}
	for i := range m.whole {
		r, err := s.Read(context.Background(), m.digests[i])
		if err != nil {
			rt.Fatal(err)
		}
		got := m.buf[:len(m.pool[i])]
		_, err = r.ReadAt(got, 0)
		if err = errors.Join(err, r.Close()); err != nil || r.Size() != int64(len(got)) || !bytes.Equal(got, m.pool[i]) {
			rt.Fatalf("blob %d has %d bytes, %v, or others than those that were put", i, r.Size(), err)
		}
		info, err := s.Stat(m.digests[i])
		if err != nil || !info.Complete || len(info.Refs) != len(m.refs[i]) {
			rt.Fatalf("Stat(%d) = %+v, %v, want it complete with %d references", i, info, err, len(m.refs[i]))
		}
	}
	for i, chunks := range m.parts {
		have, _, err := s.Chunks(m.digests[i])
		if err != nil {
			rt.Fatal(err)
		}
		if info, err := s.Stat(m.digests[i]); err != nil || info.Complete || info.Grows != m.grows[i] {
			rt.Fatalf("Stat(%d) = %+v, %v, want a part that grows: %t", i, info, err, m.grows[i])
		}
		for c := range have.Len() {
			if have.Has(c) != chunks[c] {
				rt.Fatalf("blob %d: Has(%d) = %t, want %v", i, c, have.Has(c), slices.Sorted(maps.Keys(chunks)))
			}
		}
	}
}

// FuzzParseJournal: whatever is in the file, only what note wrote counts.
func FuzzParseJournal(f *testing.F) {
	d := DigestOf([]byte("a"))
	have := swarm.NewBitmap(9)
	have.Set(3)
	have.Set(8)
	f.Add(journal(d, have), 9)
	f.Add(journal(d, have)[:13], 9)
	f.Add(journal(DigestOf(nil), have), 9)
	f.Fuzz(func(t *testing.T, raw []byte, n int) {
		if n < 0 || n > 1000 {
			return
		}
		sure, unsure := parseJournal(d, n, raw)
		again, doubt := parseJournal(d, n, journal(d, sure))
		if !bytes.Equal(again.Bytes(), sure.Bytes()) || doubt.Count() != 0 {
			t.Errorf("what journal wrote of %v is read as %v and %v", sure.Bytes(), again.Bytes(), doubt.Bytes())
		}
		if (sure.Count()+unsure.Count())*recordBytes > len(raw) {
			t.Errorf("%d bytes hold %d chunks", len(raw), sure.Count()+unsure.Count())
		}
	})
}

// FuzzUnpackDigests: what is taken is what packDigests makes.
func FuzzUnpackDigests(f *testing.F) {
	f.Add(packDigests(7, []Digest{DigestOf(nil)}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if n, list, ok := unpackDigests(raw); ok && !bytes.Equal(packDigests(n, list), raw) {
			t.Errorf("unpackDigests takes %x", raw)
		}
	})
}
