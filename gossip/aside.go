// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/shoalnet/shoal/gossip/fold"
	"github.com/shoalnet/shoal/internal/logkey"
)

const (
	damagedFile = "damaged" // says that the store must not be opened again, and why
	// asideLimit is how many broken stores are kept beside the good one before we
	// refuse to start: something else is wrong then.
	asideLimit = 100
)

// errDamaged says that the disk gave back other bytes than were written, or none.
var errDamaged = errors.New("store is damaged")

// aside is a store that was damaged and moved away.
type aside struct {
	dir   string
	files vfs.FS
}

// path returns where it lies, "" if there is none.
func (a *aside) path() string {
	if a == nil {
		return ""
	}
	return a.dir
}

// SetAside returns where damaged stores were moved that lay in dir, in order.
func SetAside(dir string) ([]string, error) {
	var out []string
	for n := range asideLimit {
		at := asidePath(dir, n)
		_, err := vfs.Default.Stat(at)
		switch {
		case err == nil:
			out = append(out, at)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("look for broken stores: %w", err)
		}
	}
	return out, nil
}

func asidePath(dir string, n int) string { return fmt.Sprintf("%s.broken-%d", dir, n) }

// isDamage tells rows that contradict each other, or cannot be read, from an end that
// has another cause.
func isDamage(err error) bool {
	found := errors.Is(err, errTorn) || errors.Is(err, errDamaged) || errors.Is(err, syscall.EIO) || pebble.IsCorruptionError(err)
	return found && looksBroken(err)
}

// looksBroken tells a store that is unreadable from one that cannot be had now.
func looksBroken(err error) bool {
	for _, e := range []error{
		errInUse, fs.ErrPermission, syscall.ENOSPC, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
		syscall.EDQUOT, syscall.ENOTDIR, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}

// lose notes that the open store is damaged: it ends, and is set aside when it is
// opened again, also where nothing reads the damaged place then. pebble calls it, on
// any goroutine and more than once.
func (d *disk) lose(cause error) {
	err := fmt.Errorf("%w: %w", errDamaged, cause)
	if e := leave(d.files, d.files.PathJoin(d.dir, damagedFile), cause.Error()+"\n"); e != nil {
		err = errors.Join(err, e)
	}
	select {
	case d.lost <- err:
	default: // it is known
	}
}

// damaged returns errDamaged if an earlier life found the store to be so.
func (d *disk) damaged() error {
	if _, err := d.files.Stat(d.files.PathJoin(d.dir, damagedFile)); err != nil {
		return nil // there is no such mark
	}
	return fmt.Errorf("%w: found when it was last open", errDamaged)
}

// setAside moves dir to "<dir>.broken-<n>" and opens an empty one in its place.
func setAside(dir string, cause error, h *hooks, log *slog.Logger) (*disk, error) {
	files := h.disk()
	for n := range asideLimit {
		to := asidePath(dir, n)
		if _, err := files.Stat(to); err == nil {
			continue
		}
		if err := files.Rename(dir, to); err != nil {
			return nil, fmt.Errorf("set broken store %s aside: %w", dir, err)
		}
		log.Warn("store set aside, starting empty and refilling from peers", "store", to, logkey.Err, cause)
		d, err := openPebble(dir, h, log) // syncs the directory above, as it makes a new entry there
		if d != nil {
			d.aside = &aside{to, files}
		}
		return d, err
	}
	return nil, fmt.Errorf("open store %s, with %d broken ones beside it: %w", dir, asideLimit, cause)
}

// recover fills a store that lost its rows, before anything is written to it: our next
// bodies must contain what our lost ones said. What can still be read of the store set
// aside counts, and what a peer has. Records that neither brings, as they lie in blocks
// whose parents cannot be read, are written anew under the signatures that they have.
func (s *Store) recover(ctx context.Context, a *aside) error {
	var found []*block
	if a != nil {
		left, err := readRows(ctx, a)
		if err != nil {
			s.deps.Log.Warn("not all of the store set aside can be read", "store", a.dir, logkey.Err, err)
		}
		found = parentsFirst(s.judgeAll(ctx, s.self, left.blocks, offered(left.chains)))
	}
	found, err := s.reclaim(ctx, found)
	if err != nil {
		return err
	}
	if !s.alone() {
		s.refill(ctx)
	}
	// Ours that nobody else had stand on what the others have.
	if found, err = s.reclaim(ctx, found); err != nil {
		return err
	}
	for _, b := range found {
		u := &update{done: make(chan struct{})}
		for i, rec := range b.records {
			u.verbatim = append(u.verbatim, fold.Entry{Record: rec, Envelope: b.delta.Elements[i].Value, Pushed: true})
		}
		if err := s.hand(ctx, u); err != nil {
			return fmt.Errorf("write again what was read: %w", err)
		}
		s.reclaimed(len(b.records))
	}
	if a != nil {
		now := s.Stats()
		s.deps.Log.Warn("store is filled again", "store", a.dir, "saved", now.Saved, "records", now.Records)
	}
	return nil
}

// reclaim takes blocks of a store set aside whose parents are here, as if a peer had
// sent them, and returns those that do not fit.
func (s *Store) reclaim(ctx context.Context, found []*block) (rest []*block, err error) {
	var missing []*block
	for _, b := range found {
		if here, err := s.rows.has(ctx, b.cid); err != nil {
			return nil, err
		} else if !here {
			missing = append(missing, b)
		}
	}
	if len(missing) == 0 {
		return nil, nil
	}
	if err := s.merge(ctx, &arrival{blocks: missing, from: s.self, done: make(chan error, 1)}); err != nil {
		return nil, fmt.Errorf("take back what was read: %w", err)
	}
	for _, b := range missing {
		here, err := s.rows.has(ctx, b.cid)
		switch {
		case err != nil:
			return nil, err
		case here:
			s.reclaimed(len(b.records))
		default:
			rest = append(rest, b)
		}
	}
	return rest, nil
}

// reclaimed counts records saved from a store set aside.
func (s *Store) reclaimed(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved += n
}

// refill waits until an empty store that once held records of ours has been filled
// by a peer, or nobody could do it in time.
func (s *Store) refill(ctx context.Context) {
	if s.deps.Host == nil {
		return // there is nobody to ask
	}
	s.deps.Log.Warn("store lost its records; waiting to be refilled", logkey.Took, s.cfg.RefillWait)
	late := time.NewTimer(s.cfg.RefillWait)
	defer late.Stop()
	select {
	case <-s.filled:
	case <-late.C:
		s.deps.Log.Warn("nobody refilled the store; going on without what it held")
	case <-ctx.Done():
	}
}

// alone reports whether the records know no other member that could be asked.
func (s *Store) alone() bool {
	d := s.Desired()
	for i := range d.Peers {
		if p := &d.Peers[i]; p.ID != s.self && !p.Removed && !p.Left() {
			return false
		}
	}
	return len(d.Peers) > 0
}

// keptPrefix marks a table that pebble would have removed. pebble passes it over.
const keptPrefix = "kept-"

// keeping are files of which no table is removed until the store proved whole: pebble
// removes at once what a list of tables that was cut short does not name.
type keeping struct {
	vfs.FS
	trusted atomic.Bool
}

// Remove implements [vfs.FS].
func (k *keeping) Remove(name string) error {
	base := k.PathBase(name)
	if k.trusted.Load() || !strings.HasSuffix(base, ".sst") || strings.HasPrefix(base, keptPrefix) {
		return k.FS.Remove(name)
	}
	return k.Rename(name, k.PathJoin(k.PathDir(name), keptPrefix+base))
}

// Unwrap implements [vfs.FS].
func (k *keeping) Unwrap() vfs.FS { return k.FS }

// trust removes what was kept, here and in former lives: the store is whole.
func (k *keeping) trust(db string) error {
	k.trusted.Store(true)
	names, err := k.List(db)
	if err != nil {
		return fmt.Errorf("list %s: %w", db, err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, keptPrefix) {
			if err := k.Remove(k.PathJoin(db, name)); err != nil {
				return fmt.Errorf("remove what was kept: %w", err)
			}
		}
	}
	return nil
}
