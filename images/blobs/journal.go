// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/shoalnet/shoal/images/swarm"
)

// The journal of a partial blob says which chunks are in its data file. A record is 8
// bytes: a number, and a checksum of it, its place and the blob's digest, so that a torn,
// stale or foreign record ends the journal. The number is a chunk, written after its data;
// or, with the upper bit set, how many records before it are proven: their data was synced
// before it was written. Records after the last such mark survive kill -9, as the kernel
// has them and the data; after a power cut the data may be missing, so opening compares
// those chunks, syncEvery and what was in flight at most, with the list.
const (
	recordBytes = 8
	proven      = 1 << 31
	// syncEvery bounds what a power cut loses, at a sync per 32 MiB.
	syncEvery = 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (d Digest) record(place int, number uint32) [recordBytes]byte {
	var head [12]byte
	binary.LittleEndian.PutUint64(head[:], uint64(place))
	binary.LittleEndian.PutUint32(head[8:], number)
	sum := crc32.Update(crc32.Checksum(d[:], castagnoli), castagnoli, head[:])
	var rec [recordBytes]byte
	binary.LittleEndian.PutUint32(rec[:], number)
	binary.LittleEndian.PutUint32(rec[4:], sum)
	return rec
}

// parseJournal returns the chunks whose data was synced, and those that may be there.
func parseJournal(d Digest, n int, raw []byte) (sure, unsure swarm.Bitmap) {
	sure, unsure = swarm.NewBitmap(n), swarm.NewBitmap(n)
	var order []uint32
	for place := 0; (place+1)*recordBytes <= len(raw); place++ {
		rec := [recordBytes]byte(raw[place*recordBytes:])
		number := binary.LittleEndian.Uint32(rec[:])
		if rec != d.record(place, number) {
			break
		}
		order = append(order, number)
	}
	marked := 0
	for place, number := range order {
		if number&proven != 0 && int(number&^proven) <= place {
			marked = max(marked, int(number&^proven))
		}
	}
	for place, number := range order {
		switch {
		case number&proven != 0 || int64(number) >= int64(n):
		case place < marked:
			sure.Set(int(number))
		default:
			unsure.Set(int(number))
		}
	}
	return sure, unsure
}

// journal returns the content that says that the chunks in have are proven.
func journal(d Digest, have swarm.Bitmap) []byte {
	raw := make([]byte, 0, (have.Count()+1)*recordBytes)
	place := 0
	add := func(number uint32) {
		rec := d.record(place, number)
		raw = append(raw, rec[:]...)
		place++
	}
	for i := range have.Len() {
		if have.Has(i) {
			add(uint32(i))
		}
	}
	if place > 0 {
		add(proven | uint32(place))
	}
	return raw
}

// note records that a chunk's data is in the file. A record that could not be written
// whole is written over by the next.
func (p *part) note(d Digest, chunk int) error {
	p.logMu.Lock()
	defer p.logMu.Unlock()
	if err := p.append(d, uint32(chunk)); err != nil {
		return err
	}
	p.unsynced++
	return nil
}

func (p *part) append(d Digest, number uint32) error {
	rec := d.record(p.records, number)
	if _, err := p.log.WriteAt(rec[:], int64(p.records)*recordBytes); err != nil {
		return err
	}
	p.records++
	return nil
}

// prove syncs the data when enough came since it was last done, and says so.
func (p *part) prove(d Digest) error {
	p.logMu.Lock()
	covered, due := p.records, p.unsynced >= syncEvery
	if due {
		p.unsynced = 0
	}
	p.logMu.Unlock()
	if !due {
		return nil
	}
	if err := p.data.Sync(); err != nil {
		return err
	}
	p.logMu.Lock()
	err := p.append(d, proven|uint32(covered))
	p.logMu.Unlock()
	return errors.Join(err, p.log.Sync())
}

// recover reads the journal of a partial blob, compares what it does not prove with the
// list, and writes it anew if there was any doubt.
func (s *Store) recover(d Digest, size int64, list []Digest) (swarm.Bitmap, error) {
	n := len(list)
	raw, err := s.readFile(s.logPath(d), 4*recordBytes*int64(n+1))
	if errors.Is(err, os.ErrNotExist) {
		raw, err = nil, nil
	}
	if err != nil {
		return swarm.Bitmap{}, err
	}
	have, unsure := parseJournal(d, n, raw)
	if unsure.Count() > 0 {
		if err := s.compare(d, size, list, have, unsure); err != nil {
			return swarm.Bitmap{}, err
		}
	}
	return have, s.replace(s.logPath(d), journal(d, have))
}

// compare adds to have the chunks of unsure whose data is what the list says, and syncs it.
func (s *Store) compare(d Digest, size int64, list []Digest, have, unsure swarm.Bitmap) error {
	f, err := s.fs.Open(s.dataPath(d), os.O_RDWR)
	if err != nil {
		return err
	}
	buf := make([]byte, min(size, swarm.ChunkBytes))
	for i := range list {
		if !unsure.Has(i) || have.Has(i) {
			continue
		}
		chunk := buf[:chunkLen(size, i)]
		if _, err := f.ReadAt(chunk, int64(i)*swarm.ChunkBytes); err != nil {
			return errors.Join(fmt.Errorf("read chunk %d: %w", i, err), f.Close())
		}
		if DigestOf(chunk) == list[i] {
			have.Set(i)
		}
	}
	return errors.Join(f.Sync(), f.Close())
}
