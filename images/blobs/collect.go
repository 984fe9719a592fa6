// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// Keep is what the caller knows about which blobs must stay.
type Keep struct {
	// Needed are blobs, mostly manifests, that a claimed or current service needs: they
	// stay, with all that they refer to, directly or not.
	Needed []Digest
	// MayLose is asked before a complete blob is removed: do enough others hold it? It is
	// called without locks. nil: never.
	MayLose func(Digest) bool
}

// Collect removes uploads and blobs that expired - nobody uses them, needs them or refers
// to them - and then, until room bytes more fit under the limit and on the disk, blobs that
// may go, those first whose last use is the longest ago. A blob that refers to others goes
// after those, or they would be orphans. Partial blobs are nobody's copy and go unasked. It
// returns what it removed; with shoal.ErrNoSpace if that was not enough.
func (s *Store) Collect(keep Keep, room int64) ([]Info, error) {
	if err := s.expireUploads(); err != nil {
		return nil, wrap("collect in", s.dir, err)
	}
	needed := s.needed(keep.Needed)
	removed, err := s.expire(keep, needed)
	if err != nil {
		return removed, wrap("collect in", s.dir, err)
	}
	asked := map[Digest]bool{}
	for {
		err := s.fits(room)
		if err == nil {
			return removed, nil
		}
		d, ok := s.oldest(needed, asked, nil)
		if !ok {
			return removed, wrap("collect in", s.dir, err)
		}
		asked[d] = true
		info, ok, err := s.evict(d, keep)
		if err != nil {
			return removed, wrap("collect in", s.dir, err)
		}
		if ok {
			removed = append(removed, info)
		}
	}
}

// Plan returns what Collect would remove now, with its errors, and removes nothing.
func (s *Store) Plan(keep Keep, room int64) ([]Info, error) {
	needed := s.needed(keep.Needed)
	asked, gone := map[Digest]bool{}, map[Digest]bool{}
	var out []Info
	var freed int64
	consider := func(d Digest) {
		asked[d] = true
		info, err := s.Stat(d)
		if err != nil || info.Complete && (keep.MayLose == nil || !keep.MayLose(d)) {
			return
		}
		gone[d] = true
		freed += info.Size
		out = append(out, info)
	}
	for _, d := range s.expired(needed) {
		consider(d)
	}
	for {
		err := s.fits(room - freed)
		if err == nil {
			return out, nil
		}
		d, ok := s.oldest(needed, asked, gone)
		if !ok {
			return out, wrap("plan a collection in", s.dir, err)
		}
		consider(d)
	}
}

// fits fails if n bytes more find no room.
func (s *Store) fits(n int64) error {
	limit, err := s.limit()
	if err != nil {
		return err
	}
	s.mu.Lock()
	used := s.used
	s.mu.Unlock()
	if limit > 0 && n > limit-used {
		return noSpace(fmt.Errorf("the blobs that must stay take %d of %d bytes and %d more are asked for", used, limit, n))
	}
	return s.free(n)
}

// needed returns the digests and all that they refer to.
func (s *Store) needed(roots []Digest) map[Digest]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[Digest]bool{}
	todo := slices.Clone(roots)
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !out[d] {
			out[d] = true
			todo = append(todo, s.refs[d]...)
		}
	}
	return out
}

// expire removes blobs that nobody refers to and that were not used for long.
func (s *Store) expire(keep Keep, needed map[Digest]bool) ([]Info, error) {
	var removed []Info
	for _, d := range s.expired(needed) {
		info, ok, err := s.evict(d, keep)
		if err != nil {
			return removed, err
		}
		if ok {
			removed = append(removed, info)
		}
	}
	return removed, nil
}

// expired returns those, what was used the longest ago first.
func (s *Store) expired(needed map[Digest]bool) []Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	referred := map[Digest]bool{}
	for _, refs := range s.refs {
		for _, d := range refs {
			referred[d] = true
		}
	}
	var old []*entry
	for d, e := range s.blobs {
		if e.leases == 0 && !needed[d] && !referred[d] && len(s.refs[d]) == 0 && s.isOld(e.touched) {
			old = append(old, e)
		}
	}
	slices.SortFunc(old, byTurn)
	out := make([]Digest, len(old))
	for i, e := range old {
		out[i] = e.digest
	}
	return out
}

func (s *Store) isOld(touched time.Duration) bool { return s.clock.Mono()-touched >= s.cfg.Expire }

// oldest returns the next blob to remove of those not asked for yet. Those in gone count as
// removed.
func (s *Store) oldest(needed, asked, gone map[Digest]bool) (Digest, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var best *entry
	for d, e := range s.blobs {
		if e.leases > 0 || needed[d] || asked[d] || slices.ContainsFunc(s.refs[d], func(r Digest) bool { return s.blobs[r] != nil && !gone[r] }) {
			continue
		}
		if best == nil || e.turn < best.turn {
			best = e
		}
	}
	if best == nil {
		return Digest{}, false
	}
	return best.digest, true
}

// evict removes a blob unless the caller may not lose it or it came into use.
func (s *Store) evict(d Digest, keep Keep) (Info, bool, error) {
	s.mu.Lock()
	e := s.blobs[d]
	isWhole := e != nil && e.part == nil
	s.mu.Unlock()
	if e == nil || isWhole && (keep.MayLose == nil || !keep.MayLose(d)) {
		return Info{}, false, nil
	}
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	if s.closed || s.blobs[d] != e || e.leases > 0 || (e.part == nil) != isWhole {
		s.mu.Unlock()
		return Info{}, false, nil
	}
	info := s.info(e)
	s.forget(e, shoal.ErrNotFound)
	s.mu.Unlock()
	return info, true, s.unlink(e)
}

// expireUploads removes uploads that nobody writes and that were not touched for long.
func (s *Store) expireUploads() error {
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	old := maps.Clone(s.uploads)
	maps.DeleteFunc(old, func(_ string, u *upload) bool { return !s.isOld(u.touched) })
	s.mu.Unlock()
	var err error
	for id, u := range old {
		err = errors.Join(err, s.dropUpload(id, u))
	}
	return err
}
