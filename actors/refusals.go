// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
)

// refusalKey is what a refusal is about.
type refusalKey struct {
	service  string
	revision shoal.RevisionID
}

// refusal lasts until a time, and longer each time it comes again.
type refusal struct {
	reason string
	image  string // missing, "" if that is not why
	until  time.Duration
	times  int
}

// maxImages is the bound of PeerState.Images.
const maxImages = 1024

// maxRefusals bounds what rides on a beat.
const maxRefusals = 1024

// adoptWait is how long the first state waits for containers to be adopted: well
// below the 3 s in which they must be (FAILURES F1).
const adoptWait = 2 * time.Second

// refuse declines a revision for a while: RefuseFor, doubling each time up to
// RefuseCap.
func (b *board) refuse(service string, rev shoal.RevisionID, why, image string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.deps.Clock.Mono()
	key := refusalKey{service, rev}
	r := b.refusals[key]
	if r == nil {
		r = &refusal{}
		b.refusals[key] = r
	}
	if now >= r.until {
		d := b.cfg.RefuseFor
		for i := 0; i < r.times && d < b.cfg.RefuseCap; i++ {
			d *= 2
		}
		r.until = now + min(d, b.cfg.RefuseCap)
		r.times++
	}
	r.reason, r.image = why, ""
	if image != "" {
		r.image = imageKey(image)
		delete(b.images, r.image) // the list was old
		b.listed = slices.DeleteFunc(b.listed, func(ref string) bool { return imageKey(ref) == r.image })
	}
	b.touch()
}

// imageKey is what an image is known by in lists: its digest, whatever registry's name
// stands before it, else its name.
func imageKey(ref string) string {
	name := shoal.NormalizeRef(ref)
	if at := strings.LastIndexByte(name, '@'); at >= 0 {
		return name[at:]
	}
	return name
}

// setImages takes the engine's list; an image that came ends the refusals that
// waited for it.
func (b *board) setImages(refs []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.images = make(map[string]bool, len(refs))
	for _, ref := range refs {
		b.images[imageKey(ref)] = true
	}
	listed := slices.Clone(refs)
	slices.Sort(listed)
	b.listed = listed[:min(len(listed), maxImages)]
	for key, r := range b.refusals {
		if r.image != "" && b.images[r.image] {
			delete(b.refusals, key)
		}
	}
	b.touch()
}

// hasImage ends the refusals of a revision that waited for its image: it was had.
func (b *board) hasImage(service string, rev shoal.RevisionID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := refusalKey{service, rev}
	if r := b.refusals[key]; r != nil && r.image != "" {
		delete(b.refusals, key)
		b.touch()
	}
}

// setLooked notes that the images were asked for, with or without an answer.
func (b *board) setLooked() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.looked {
		b.looked = true
		b.touch()
	}
}

func (b *board) holdsImage(ref string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.images[imageKey(ref)]
}

func (b *board) setUsed(used shoal.Resources) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if used != b.used {
		b.used = used
		b.touch()
	}
}

// needsCapacity reports whether nobody told yet what the machine has.
func (b *board) needsCapacity() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.alloc == (shoal.Resources{})
}

// setCapacity is used until the records tell what the peer has.
func (b *board) setCapacity(c shoal.Resources) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.alloc == (shoal.Resources{}) {
		b.alloc = c
		b.touch()
	}
}

// answer notes whether the engine answered. It returns whether that is news. An
// engine that is down is no refusal: placement hands the slots over after a grace of
// its own, and only where another peer can take them.
func (b *board) answer(ok bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.deps.Clock.Mono()
	was, first := b.down, !b.asked
	if !b.asked {
		b.asked, b.openAt = true, now+adoptWait
	}
	if ok {
		b.answered, b.down, b.why = now, false, ""
	} else {
		b.down = true
		b.why = fmt.Sprintf("no answer for %s", max((now-b.answered).Round(time.Second), time.Second))
	}
	if first || b.down || was {
		b.touch()
	}
	return was != b.down
}

// state returns what this peer tells about itself, and when it changes by time
// alone (0: never). ok: there is something to tell.
func (b *board) state() (st shoal.PeerState, next time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.deps.Clock.Mono()
	st.Free, st.Used = b.alloc, b.used
	for _, e := range b.entries {
		if e.status.Slot >= 0 { // what holds no slot is being removed, and nobody's business
			st.Replicas = append(st.Replicas, e.status)
		}
		st.Free = st.Free.Sub(e.size)
	}
	sortStatuses(st.Replicas)
	st.Images, st.Loads = b.listed, b.loads
	st.Trouble = b.trouble
	st.Engine = shoal.EngineStatus{Down: b.down, Reason: b.why}
	sooner := func(at time.Duration) {
		if next == 0 || at < next {
			next = at
		}
	}
	for key, r := range b.refusals {
		switch {
		case now < r.until:
			st.Refusals = append(st.Refusals, shoal.Refusal{Service: key.service, Revision: key.revision, Reason: r.reason})
			sooner(r.until)
		case now >= r.until+b.cfg.RefuseCap:
			delete(b.refusals, key)
		}
	}
	slices.SortFunc(st.Refusals, func(a, c shoal.Refusal) int {
		return cmp.Or(strings.Compare(a.Service, c.Service), a.Revision.Compare(c.Revision))
	})
	st.Refusals = st.Refusals[:min(len(st.Refusals), maxRefusals)]
	ok = b.opens(now)
	if !ok && b.asked {
		sooner(b.openAt)
	}
	return st, next, ok
}
