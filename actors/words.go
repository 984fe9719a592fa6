// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/actors/lifecycle"
	"github.com/shoalnet/shoal/internal/logkey"
)

// Bounds of the last words that a peer keeps. All together are less than 256 KiB.
const (
	maxWords   = 64
	maxOfOne   = 8               // of one revision of a service: the first
	maxReading = 16              // containers read at once: a storm of failures must not keep the engine busy
	wordsTime  = 2 * time.Second // a container is started again, or removed, so much later at most
)

// Shelf keeps last words while this daemon does not run. Save gets all there are, and may
// keep what it is given.
type Shelf interface {
	Load() ([]shoal.LastWords, error)
	Save([]shoal.LastWords) error
}

// words are what replicas of this peer had said when they failed. Its methods are safe for
// concurrent use.
type words struct {
	shelf  Shelf // nil: they go with the process
	log    *slog.Logger
	saving chan struct{} // holds one while a shelf is written

	mu      sync.Mutex // guards all below
	kept    []shoal.LastWords
	reading int
}

// newWords takes what an earlier process kept.
func newWords(shelf Shelf, log *slog.Logger) *words {
	w := &words{shelf: shelf, log: log, saving: make(chan struct{}, 1)}
	if shelf == nil {
		return w
	}
	kept, err := shelf.Load()
	if err != nil {
		log.Warn("what replicas said before they failed is not known any more", logkey.Err, err)
		return w
	}
	w.kept = kept[max(0, len(kept)-maxWords):]
	for i := range w.kept {
		if w.kept[i].Bound(); w.kept[i].Missing == beingRead {
			w.kept[i].Missing = "shoald ended before they were read"
		}
	}
	return w
}

const (
	beingRead = "they are being read"
	tooMany   = "too many replicas failed at once to read what all had said"
)

// begin notes that a replica failed, and reports whether its container is to be read now:
// not if it is known how it failed first, or others keep the engine busy.
func (w *words) begin(l shoal.LastWords, readable bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	same := 0
	for i := range w.kept {
		if k := &w.kept[i]; k.Service == l.Service && k.Revision == l.Revision {
			if same++; k.Replica == l.Replica || same >= maxOfOne {
				return false
			}
		}
	}
	reads := readable && w.reading < maxReading
	switch {
	case reads:
		l.Missing = beingRead
		w.reading++
	case readable:
		l.Missing = tooMany
	}
	l.Bound()
	w.kept = append(w.kept, l)
	w.kept = slices.Delete(w.kept, 0, max(0, len(w.kept)-maxWords))
	return reads
}

// end keeps what was read of a container.
func (w *words) end(l shoal.LastWords) {
	l.Bound()
	w.mu.Lock()
	w.reading--
	i := slices.IndexFunc(w.kept, func(k shoal.LastWords) bool { return k.Replica == l.Replica && k.Revision == l.Revision })
	if i >= 0 { // else it was forgotten meanwhile
		w.kept[i] = l
	}
	w.mu.Unlock()
	w.save()
}

// of returns what replicas of a service had said, the oldest first.
func (w *words) of(service string) []shoal.LastWords {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []shoal.LastWords
	for _, k := range w.kept {
		if k.Service == service {
			k.Lines = slices.Clone(k.Lines)
			out = append(out, k)
		}
	}
	return out
}

// forget drops what nobody can ask for any more, and reports whether there was any.
func (w *words) forget(v *shoal.View) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.kept)
	w.kept = slices.DeleteFunc(w.kept, func(k shoal.LastWords) bool {
		s, ok := v.Service(k.Service)
		return !ok || s.Revision != k.Revision && !slices.ContainsFunc(s.Past, func(p shoal.PastRevision) bool { return p.Revision == k.Revision })
	})
	return len(w.kept) < n
}

// save writes them to the shelf.
func (w *words) save() {
	if w.shelf == nil {
		return
	}
	w.saving <- struct{}{}
	defer func() { <-w.saving }()
	w.mu.Lock()
	all := slices.Clone(w.kept)
	w.mu.Unlock()
	if err := w.shelf.Save(all); err != nil {
		w.log.Warn("what a replica said before it failed is lost if this daemon ends", logkey.Err, err)
	}
}

// LastWords returns what this peer's replicas of a service that failed had said.
func (s *System) LastWords(_ context.Context, service string) ([]shoal.LastWords, error) {
	return s.words.of(service), nil
}

// failed reports whether a replica has just failed at its revision: its run ended badly,
// its health check failed, or its launch did. One that is stopped because it is unhealthy
// has failed before.
func failed(before, now *lifecycle.State) (yes, sick bool) {
	if sick = now.Health == shoal.HealthUnhealthy && before.Health != shoal.HealthUnhealthy; sick || now.Halted {
		return sick, sick
	}
	ended := now.Broke > before.Broke && before.Phase != shoal.PhaseStopping
	launch := now.Tries > before.Tries && now.Phase == shoal.PhasePending
	return ended || launch || now.Phase == shoal.PhaseFailed && before.Phase != shoal.PhaseFailed && before.Phase != shoal.PhaseStopping, false
}

// listen has the end of a container's output read when it fails, before it is started
// again or removed.
func (a *replicaActor) listen(before *lifecycle.State) {
	yes, sick := failed(before, &a.state)
	if !yes {
		return
	}
	r, container := a.r, a.state.Container
	l := shoal.LastWords{
		Service: a.service, Slot: a.entry.slot, Replica: a.entry.id, Revision: a.entry.revision,
		Time: r.deps.Clock.Wall(), Reason: cmp.Or(a.state.Last, a.state.Reason),
	}
	if container == "" {
		l.Missing = "it had no container"
	}
	if !r.words.begin(l, container != "") {
		return
	}
	done := make(chan struct{})
	a.read = done
	r.work(func(ctx context.Context) {
		defer close(done)
		r.words.end(r.read(ctx, l, container, sick))
	})
}

// read fills in what a container wrote last.
func (r *run) read(ctx context.Context, l shoal.LastWords, container string, sick bool) shoal.LastWords {
	ctx, cancel := context.WithTimeout(ctx, wordsTime)
	defer cancel()
	l.Missing = ""
	err := r.deps.Console.Logs(ctx, container, shoal.LogOptions{Tail: shoal.MaxLastLines}, func(line shoal.LogLine) error {
		l.Lines = append(l.Lines, line.Text)
		return nil
	})
	switch {
	case errors.Is(err, shoal.ErrEngineDown), errors.Is(err, context.DeadlineExceeded):
		l.Missing = "the container engine did not answer in time"
	case err != nil:
		l.Missing = oneLine(err)
	}
	if sick {
		said, err := r.deps.Console.Check(ctx, container)
		if l.Check = lastLine(said); err != nil {
			r.log.Debug("output of a health check not read", logkey.Service, l.Service, logkey.Replica, l.Replica.Short(), logkey.Err, err)
		}
	}
	return l
}

// lastLine is where programs say what went wrong; before it they say how to use them.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}

// afterRead makes an operation wait until the container was read, so that it finds what
// the run that failed wrote last.
func (a *replicaActor) afterRead(op func(context.Context)) func(context.Context) {
	read := a.read
	if read == nil {
		return op
	}
	a.read = nil
	return func(ctx context.Context) {
		select {
		case <-read:
		case <-ctx.Done():
		}
		op(ctx)
	}
}

// forgetWords drops the last words of revisions that are remembered no more.
func (p *peerActor) forgetWords(v *shoal.View) {
	if p.r.words.forget(v) {
		p.r.work(func(context.Context) { p.r.words.save() })
	}
}
