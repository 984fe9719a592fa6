// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	pebbleds "github.com/ipfs/go-ds-pebble"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

const (
	// cacheBytes and memtableBytes keep an idle daemon small (FACTS section 2: 8 to
	// 16 MB a peer).
	cacheBytes    = 8 << 20
	memtableBytes = 2 << 20
	databaseDir   = "db"
	uncleanFile   = "unclean"
	// asideLimit is how many broken stores are kept beside the good one before we
	// refuse to start: something else is wrong then.
	asideLimit = 100
)

// disk is where a store keeps its rows. It is open from open to close.
type disk struct {
	rows    ds.Batching
	dir     string // "" in memory
	unclean bool   // the last life did not close it
	aside   string // where a store that could not be opened was moved, "" if none
	close   func() error
}

// MemoryDisk keeps a store's rows in memory. It outlives the Store on it, so that a
// simulation can stop and start a peer; after a Run that did not end cleanly the
// next one starts as after a crash.
type MemoryDisk struct {
	rows ds.Batching
	open bool
}

// NewMemoryDisk returns an empty one.
func NewMemoryDisk() *MemoryDisk {
	return &MemoryDisk{rows: dssync.MutexWrap(ds.NewMapDatastore())}
}

func (m *MemoryDisk) openDisk() *disk {
	d := &disk{rows: m.rows, unclean: m.open}
	m.open = true
	d.close = func() error { m.open = false; return nil }
	return d
}

// openDisk opens the database under dir. One that cannot be opened for any reason
// but use, permission or room is moved aside and a new one made.
func openDisk(dir string, log *slog.Logger) (*disk, error) {
	d, err := openPebble(dir, log)
	if err == nil || !looksBroken(err) {
		return d, err
	}
	return setAside(dir, err, log)
}

// setAside moves dir to "<dir>.broken-<n>" and opens an empty one in its place.
func setAside(dir string, cause error, log *slog.Logger) (*disk, error) {
	for n := range asideLimit {
		to := fmt.Sprintf("%s.broken-%d", dir, n)
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		if err := os.Rename(dir, to); err != nil {
			return nil, fmt.Errorf("set broken store %s aside: %w", dir, err)
		}
		log.Warn("store set aside, starting empty and refilling from peers", "store", to, logkey.Err, cause)
		d, err := openPebble(dir, log)
		if d != nil {
			d.aside = to
		}
		return d, err
	}
	return nil, fmt.Errorf("open store %s, with %d broken ones beside it: %w", dir, asideLimit, cause)
}

// looksBroken tells a store that is unreadable from one that cannot be had now.
func looksBroken(err error) bool {
	for _, e := range []error{
		errInUse, fs.ErrPermission, syscall.ENOSPC, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
		syscall.EDQUOT, syscall.ENOTDIR,
	} {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}

// errInUse: another process, or another Store of this one, has the directory open.
var errInUse = errors.New("store is in use")

func openPebble(dir string, log *slog.Logger) (*disk, error) {
	db := filepath.Join(dir, databaseDir)
	if err := os.MkdirAll(db, 0o700); err != nil {
		return nil, fmt.Errorf("make store directory: %w", err)
	}
	lock, err := pebble.LockDirectory(db, vfs.Default)
	if err != nil {
		return nil, fmt.Errorf("lock store %s: %w: %w", dir, errInUse, err)
	}
	d := &disk{dir: dir}
	unlock := func(err error) (*disk, error) { return nil, errors.Join(err, lock.Close()) }
	if d.unclean, err = markUnclean(dir); err != nil {
		return unlock(err)
	}
	opts := &pebble.Options{
		Lock:               lock,
		MemTableSize:       memtableBytes,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             pebbleLog{log},
	}
	rows, err := pebbleds.NewDatastore(db, pebbleds.WithCacheSize(cacheBytes), pebbleds.WithPebbleOpts(opts))
	if err != nil {
		return unlock(fmt.Errorf("open store %s: %w", dir, err))
	}
	d.rows = rows
	d.close = func() error {
		if err := errors.Join(rows.Close(), lock.Close()); err != nil {
			return fmt.Errorf("close store %s: %w", dir, err) // the mark stays
		}
		return clearUnclean(dir)
	}
	return d, nil
}

// markUnclean leaves a mark that only a clean close removes, and tells whether one
// was there already.
func markUnclean(dir string) (was bool, err error) {
	name := filepath.Join(dir, uncleanFile)
	if _, err := os.Lstat(name); err == nil {
		return true, nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return false, fmt.Errorf("mark store as open: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return false, fmt.Errorf("mark store as open: %w", err)
	}
	return false, syncDir(dir)
}

func clearUnclean(dir string) error {
	if err := os.Remove(filepath.Join(dir, uncleanFile)); err != nil {
		return fmt.Errorf("mark store as closed: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync store directory: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync store directory: %w", err)
	}
	return nil
}

// room fails with ErrNoSpace when less than reserve bytes are free on the disk.
// pebble ends the process when its log cannot be written, so we stop well before;
// the reserve also lets compactions finish.
func (d *disk) room(reserve uint64) error {
	if d.dir == "" || reserve == 0 {
		return nil
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &st); err != nil {
		return fmt.Errorf("read free space of %s: %w", d.dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < reserve {
		return &shoal.AdviceError{
			Err:    fmt.Errorf("%w: %d MiB free under %s, %d kept in reserve", shoal.ErrNoSpace, free>>20, d.dir, reserve>>20),
			Advice: "free some, or ask another peer; what runs goes on",
		}
	}
	return nil
}

// pebbleLog passes pebble's words on. What it calls fatal (its log cannot be
// written) leaves no way on: it must not return.
type pebbleLog struct{ log *slog.Logger }

func (l pebbleLog) Infof(format string, args ...any) { l.log.Debug(fmt.Sprintf(format, args...)) }

func (l pebbleLog) Errorf(format string, args ...any) { l.log.Warn(fmt.Sprintf(format, args...)) }

func (l pebbleLog) Fatalf(format string, args ...any) {
	panic("store: " + fmt.Sprintf(format, args...))
}
