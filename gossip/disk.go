// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	pebbleds "github.com/ipfs/go-ds-pebble"

	"github.com/shoalnet/shoal"
)

const (
	// cacheBytes and memtableBytes keep an idle daemon small (FACTS section 2: 8 to
	// 16 MB a peer).
	cacheBytes    = 8 << 20
	memtableBytes = 2 << 20
	databaseDir   = "db"
	uncleanFile   = "unclean"
	sizeFile      = "size" // how many blocks there were at the last clean close
)

// disk is where a store keeps its rows. It is open from open to close.
type disk struct {
	rows    ds.Batching
	dir     string // "" in memory
	files   vfs.FS // nil in memory
	hooks   *hooks
	unclean bool         // the last life did not close it
	aside   *aside       // the store that was moved away from here just now, nil if none
	lost    chan error   // damage that was found while it is open
	least   int          // it held so many blocks when it was last closed cleanly; fewer means damage
	trust   func() error // its rows proved whole
	// close says how many blocks it holds. !well: as after a crash, it is checked when it
	// is next opened.
	close func(well bool, blocks int) error
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

func (m *MemoryDisk) openDisk(h *hooks) *disk {
	d := &disk{rows: h.wrap(m.rows), hooks: h, unclean: m.open, trust: func() error { return nil }}
	m.open = true
	d.close = func(well bool, _ int) error { m.open = !well; return nil }
	return d
}

// openDisk opens the database under dir. One that cannot be opened for any reason
// but use, permission or room is moved aside and a new one made.
func openDisk(dir string, h *hooks, log *slog.Logger) (*disk, error) {
	d, err := openPebble(dir, h, log)
	if err == nil || !looksBroken(err) {
		return d, err
	}
	return setAside(dir, err, h, log)
}

// errInUse: another process, or another Store of this one, has the directory open.
var errInUse = errors.New("store is in use")

func openPebble(dir string, h *hooks, log *slog.Logger) (_ *disk, err error) {
	kept := &keeping{FS: h.disk()}
	d := &disk{dir: dir, files: kept, hooks: h, lost: make(chan error, 1)}
	db := d.files.PathJoin(dir, databaseDir)
	if err := makeDirs(d.files, db); err != nil {
		return nil, fmt.Errorf("make store directory: %w", err)
	}
	lock, err := pebble.LockDirectory(db, d.files)
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOSPC):
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	case err != nil:
		return nil, fmt.Errorf("lock store %s: %w: %w", dir, errInUse, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	if err := d.damaged(); err != nil {
		return nil, err
	}
	if d.least, err = d.size(); err != nil {
		return nil, err
	}
	opts, err := d.options(db, lock, log)
	if err != nil {
		return nil, err
	}
	if err := h.around("mark", d.markUnclean); err != nil {
		return nil, err
	}
	h.at("before open")
	rows, err := pebbleds.NewDatastore(db, pebbleds.WithCacheSize(cacheBytes), pebbleds.WithPebbleOpts(opts))
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	h.at("after open")
	d.rows = h.wrap(rows)
	d.trust = func() error { return kept.trust(db) }
	d.close = func(well bool, blocks int) error {
		if err := h.around("close", func() error { return errors.Join(rows.Close(), lock.Close()) }); err != nil {
			return fmt.Errorf("close store %s: %w", dir, err) // the mark stays
		}
		if !well {
			return nil // it stays here, too: look again before you trust this store
		}
		return h.around("unmark", func() error { return d.clearUnclean(blocks) })
	}
	return d, nil
}

// options returns those of pebble for the database in db.
func (d *disk) options(db string, lock *pebble.Lock, log *slog.Logger) (*pebble.Options, error) {
	names, err := d.files.List(db)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", db, err)
	}
	return &pebble.Options{
		FS:                 d.files,
		Lock:               lock,
		MemTableSize:       cmp.Or(d.hooks.memory, memtableBytes),
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             pebbleLog{log},
		// Without its marker pebble takes a database for a new one, and removes what is there.
		ErrorIfNotExists: slices.ContainsFunc(names, func(name string) bool {
			return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".log")
		}),
		// Without this pebble ends the process when it reads what is damaged.
		EventListener: &pebble.EventListener{DataCorruption: func(info pebble.DataCorruptionInfo) { d.lose(info.Details) }},
	}, nil
}

// disk returns the files that a store is kept in.
func (h *hooks) disk() vfs.FS {
	if h.files != nil {
		return h.files
	}
	return vfs.Default
}

func (h *hooks) wrap(rows ds.Batching) ds.Batching {
	if h.rows != nil {
		return h.rows(rows)
	}
	return rows
}

// markUnclean leaves a mark that only a clean close removes, and notes whether one
// was there already.
func (d *disk) markUnclean() error {
	name := d.files.PathJoin(d.dir, uncleanFile)
	if _, err := d.files.Stat(name); err == nil {
		d.unclean = true
		return nil
	}
	if err := leave(d.files, name, ""); err != nil {
		return fmt.Errorf("mark store as open: %w", err)
	}
	return nil
}

// clearUnclean notes how much there is, and then that it is whole.
func (d *disk) clearUnclean(blocks int) error {
	if blocks != d.least {
		if err := leave(d.files, d.files.PathJoin(d.dir, sizeFile), strconv.Itoa(blocks)); err != nil {
			return fmt.Errorf("note size of store: %w", err)
		}
	}
	if err := d.files.Remove(d.files.PathJoin(d.dir, uncleanFile)); err != nil {
		return fmt.Errorf("mark store as closed: %w", err)
	}
	return syncDir(d.files, d.dir)
}

// size reads what clearUnclean noted last, 0 if it never did. A note that cannot be
// read, as a power cut left it half written, says nothing.
func (d *disk) size() (int, error) {
	f, err := d.files.Open(d.files.PathJoin(d.dir, sizeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read size of store: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(f, 32))
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("read size of store: %w", err)
	}
	n, _ := strconv.Atoi(string(raw))
	return n, nil
}

// leave writes a small file that is there after a power cut.
func leave(files vfs.FS, name, text string) error {
	f, err := files.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(text))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(files, files.PathDir(name))
}

// makeDirs makes dir and what is missing above it, so that a power cut leaves them.
func makeDirs(files vfs.FS, dir string) error {
	var grown []string // directories that get an entry
	for at := dir; ; at = files.PathDir(at) {
		if _, err := files.Stat(at); err == nil || files.PathDir(at) == at {
			break
		}
		grown = append(grown, files.PathDir(at))
	}
	if err := files.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, at := range grown {
		if err := syncDir(files, at); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(files vfs.FS, dir string) error {
	f, err := files.OpenDir(dir)
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
	usage, err := d.files.GetDiskUsage(d.dir)
	if err != nil {
		return fmt.Errorf("read free space of %s: %w", d.dir, err)
	}
	if free := usage.AvailBytes; free < reserve {
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
