// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/internal/logkey"
)

// uploads are those that are open, so that a further chunk does not read again what is
// there. The others rest on disk, in the store, until they are resumed or expire.
type uploads struct {
	store *blobs.Store
	max   int
	rest  time.Duration // without a request, after which one is closed

	mu     sync.Mutex // guards what follows, but not the Upload in a session that is busy
	closed bool
	open   map[string]*session
}

// session is one upload that is open. A request that writes it has it alone: busy.
type session struct {
	up   *blobs.Upload // nil while it is opened
	busy bool
	last time.Time
}

func newUploads(s *blobs.Store, cfg Config) *uploads {
	return &uploads{store: s, max: cfg.MaxUploads, rest: 10 * cfg.Idle, open: map[string]*session{}}
}

// decodeID reads the last part of an upload's path, which ociserver encodes.
func decodeID(s string) (string, error) {
	id, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return "", fmt.Errorf("upload %q: %w", clip(s), shoal.ErrNotFound)
	}
	return string(id), nil
}

// begin opens a new upload, for its caller alone.
func (u *uploads) begin() (*session, error) {
	up, err := u.store.Upload()
	if err != nil {
		return nil, err
	}
	s := &session{up: up, busy: true}
	if err := u.add(up.ID(), s); err != nil {
		return nil, errors.Join(err, up.Cancel())
	}
	return s, nil
}

// acquire opens an upload, if it is not, for its caller alone.
func (u *uploads) acquire(id string) (*session, error) {
	u.mu.Lock()
	s := u.open[id]
	isBusy := s != nil && s.busy
	if s != nil {
		s.busy = true
	}
	u.mu.Unlock()
	switch {
	case isBusy:
		return nil, fmt.Errorf("upload %q: %w: another request writes it", clip(id), shoal.ErrConflict)
	case s != nil:
		return s, nil
	}
	s = &session{busy: true}
	if err := u.add(id, s); err != nil {
		return nil, err
	}
	up, err := u.store.Resume(id)
	if err != nil {
		u.forget(id)
		return nil, unknown(codeUploadUnknown, err)
	}
	s.up = up
	return s, nil
}

// add makes room among the open ones for a busy one, by closing the one that rested
// longest. One without a byte is not worth a file that waits to expire.
func (u *uploads) add(id string, s *session) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.closed:
		return fmt.Errorf("upload %q: %w: the registry is ending", clip(id), shoal.ErrUnreachable)
	case u.open[id] != nil:
		return fmt.Errorf("upload %q: %w: another request writes it", clip(id), shoal.ErrConflict)
	}
	var err error
	if len(u.open) >= u.max {
		var oldest string
		for id, s := range u.open {
			if !s.busy && (oldest == "" || s.last.Before(u.open[oldest].last)) {
				oldest = id
			}
		}
		if oldest == "" {
			return faultf(http.StatusTooManyRequests, codeTooMany, "%d uploads are being written, which is the most at a time; try again when one has ended", u.max)
		}
		err = u.rests(oldest)
	}
	u.open[id] = s
	return err
}

// rests closes an upload that no request writes. The caller holds mu.
func (u *uploads) rests(id string) error {
	s := u.open[id]
	delete(u.open, id)
	if s.up.Size() == 0 {
		return s.up.Cancel()
	}
	return s.up.Close()
}

// release ends what begin and acquire began.
func (u *uploads) release(s *session) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s.busy, s.last = false, time.Now()
}

// forget is for uploads that have ended.
func (u *uploads) forget(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.open, id)
}

// cancel removes an upload.
func (u *uploads) cancel(id string) error {
	s, err := u.acquire(id)
	if err != nil {
		return err
	}
	defer u.forget(id)
	return s.up.Cancel()
}

// sweep closes those that rest, until ctx ends.
func (u *uploads) sweep(ctx context.Context, log *slog.Logger) error {
	tick := time.NewTicker(max(u.rest/10, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := u.closeIdle(now.Add(-u.rest)); err != nil {
				log.Warn("close uploads that rest", logkey.Err, err)
			}
		}
	}
}

// closeIdle closes those that no request wrote since a time.
func (u *uploads) closeIdle(since time.Time) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var errs []error
	for id, s := range u.open {
		if !s.busy && s.last.Before(since) {
			errs = append(errs, u.rests(id))
		}
	}
	return errors.Join(errs...)
}

// close closes all. No request is being answered.
func (u *uploads) close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	var errs []error
	for id, s := range u.open {
		errs = append(errs, s.up.Close())
		delete(u.open, id)
	}
	return errors.Join(errs...)
}
