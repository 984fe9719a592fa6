// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// harm does something to the files of a stopped store's database.
type harm struct {
	name string
	do   func(t testing.TB, db string)
	// what becomes of it
	kept  bool // it opens, as what is damaged can be told from what is good
	saved bool // its records can be read, also when nobody else has them
}

// each calls f for the files of a database whose names match.
func each(t testing.TB, db, pattern string, f func(name string, raw []byte)) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(db, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s in %s: %v", pattern, db, err)
	}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f(name, raw)
	}
}

func overwrite(t testing.TB, name string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// flip changes bytes of the files that match, from a share of their length on.
func flip(pattern string, from, to float64) func(testing.TB, string) {
	return func(t testing.TB, db string) {
		each(t, db, pattern, func(name string, raw []byte) {
			for i := int(from * float64(len(raw))); i < int(to*float64(len(raw))); i++ {
				raw[i] ^= 0x5a
			}
			overwrite(t, name, raw)
		})
	}
}

func cut(pattern string, keep float64) func(testing.TB, string) {
	return func(t testing.TB, db string) {
		each(t, db, pattern, func(name string, raw []byte) { overwrite(t, name, raw[:int(keep*float64(len(raw)))]) })
	}
}

func remove(pattern string) func(testing.TB, string) {
	return func(t testing.TB, db string) {
		each(t, db, pattern, func(name string, _ []byte) {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		})
	}
}

var harms = []harm{
	{name: "the list of tables is garbage", do: flip("MANIFEST-*", 0, 1), saved: true},
	{name: "the list of tables is cut short", do: cut("MANIFEST-*", 0.3), saved: true},
	{name: "the list of tables is gone", do: remove("MANIFEST-*"), saved: true},
	{name: "nothing says which list counts", do: remove("marker.manifest.*"), saved: true},
	{name: "the head of a table is garbage", do: flip("*.sst", 0, 0.1)},
	{name: "the middle of a table is garbage", do: flip("*.sst", 0.45, 0.55)},
	{name: "the end of a table is garbage", do: flip("*.sst", 0.95, 1)},
	{name: "a table is cut short", do: cut("*.sst", 0.6)},
	{name: "a table is gone", do: remove("*.sst")},
	{name: "a table is empty", do: cut("*.sst", 0)},
	{name: "the format is one of the future", do: func(t testing.TB, db string) {
		each(t, db, "marker.format-version.*", func(name string, _ []byte) {
			if err := os.Rename(name, name[:len(name)-3]+"999"); err != nil {
				t.Fatal(err)
			}
		})
	}, saved: true},
	{name: "the format is one long gone", do: func(t testing.TB, db string) {
		each(t, db, "marker.format-version.*", func(name string, _ []byte) {
			if err := os.Rename(name, name[:len(name)-3]+"001"); err != nil {
				t.Fatal(err)
			}
		})
	}, saved: true},
	{name: "a stranger's file lies there", do: func(t testing.TB, db string) {
		overwrite(t, filepath.Join(db, "NOTES.txt"), []byte("what is this"))
		overwrite(t, filepath.Join(db, "999999.sst"), []byte("garbage"))
	}, kept: true, saved: true},
}

// Whatever happened to a store's files, the peer comes back with everything that it or
// another peer can still read, under the same identity, and never writes before that.
func TestDamagedStores(t *testing.T) {
	for _, h := range harms {
		t.Run(strings.ReplaceAll(h.name, " ", "_"), func(t *testing.T) {
			c := newCluster(t, 2)
			dir := filepath.Join(t.TempDir(), "store")
			a := onLoopback(t, c, 0, dir)
			b := onLoopback(t, c, 1, filepath.Join(t.TempDir(), "store"))
			if err := a.Inject(t.Context(), c.admissions()); err != nil {
				t.Fatal(err)
			}
			a.connect(t, b)
			for i := range 20 {
				a.deploy(t, fmt.Sprintf("web%d", i))
			}
			a.large(t, "large")
			awaitDigest(t, a, b)
			a.stop() // writes its tables
			a.running = start(t, a.cfg, a.deps)
			a.stop()
			digest, last := a.Digest(), c.members[0].seq.last
			h.do(t, filepath.Join(dir, databaseDir))

			a.running = start(t, a.cfg, a.deps)
			stats := a.Stats()
			if want := dir + ".broken-0"; !h.kept && stats.Aside != want || h.kept && stats.Aside != "" {
				t.Errorf("%q aside, want %q: %t", stats.Aside, want, !h.kept)
			}
			awaitDigest(t, a, b)
			if a.Digest() != digest {
				t.Errorf("another digest when refilled: %+v", stats)
			}
			if h.saved && !h.kept && stats.Saved == 0 {
				t.Errorf("%+v, want records saved", stats)
			}
			if seq := c.members[0].seq.last; seq < last {
				t.Errorf("sequence is at %d, was at %d", seq, last)
			}
			a.deploy(t, "after")
			awaitDigest(t, a, b)
			if n := len(b.Stats().Refused); n != 0 {
				t.Errorf("the other peer refused %v", b.Stats().Refused)
			}
		})
	}
}

// A peer that nobody can refill reads what it can of its damaged store by itself.
func TestDamagedStoreOfTheOnlyPeer(t *testing.T) {
	for _, h := range harms {
		t.Run(strings.ReplaceAll(h.name, " ", "_"), func(t *testing.T) {
			c := newCluster(t, 1)
			dir := filepath.Join(t.TempDir(), "store")
			s := onDisk(t, c, dir)
			if err := s.Inject(t.Context(), c.admissions()); err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				s.deploy(t, fmt.Sprintf("web%d", i))
				s.large(t, fmt.Sprintf("large%d", i))
			}
			digest, records := s.Digest(), s.Stats().Records
			s.stop()
			h.do(t, filepath.Join(dir, databaseDir))
			s = onDisk(t, c, dir)
			if got := s.Stats(); h.saved && (s.Digest() != digest || !h.kept && got.Saved != records) {
				t.Errorf("%+v, want all %d records", got, records)
			}
			t.Logf("%d of %d records", s.Stats().Records, records)
			s.deploy(t, "after")
		})
	}
}

// What only the damaged store held comes back and goes out to the others, on top of
// what they have written since.
func TestOwnUnsentRecordsAreSaved(t *testing.T) {
	c := newCluster(t, 2)
	dir := filepath.Join(t.TempDir(), "store")
	a := onLoopback(t, c, 0, dir)
	b := onLoopback(t, c, 1, filepath.Join(t.TempDir(), "store"))
	if err := a.Inject(t.Context(), c.admissions()); err != nil {
		t.Fatal(err)
	}
	a.connect(t, b)
	a.deploy(t, "known")
	awaitDigest(t, a, b)
	a.stop()
	if err := a.host.Network().ClosePeer(b.host.ID()); err != nil {
		t.Fatal(err)
	}
	a.running = start(t, a.cfg, a.deps)
	a.deploy(t, "unsent") // nobody hears it
	a.stop()
	b.deploy(t, "meanwhile")
	remove("MANIFEST-*")(t, filepath.Join(dir, databaseDir))
	a.connect(t, b)
	a.running = start(t, a.cfg, a.deps)
	awaitDigest(t, a, b)
	for _, name := range []string{"known", "unsent", "meanwhile"} {
		if _, ok := b.Desired().Service(name); !ok {
			t.Errorf("%s is not known", name)
		}
	}
	if got := a.Stats(); got.Saved == 0 {
		t.Errorf("%+v, want the unsent record saved", got)
	}
}

// A store that is damaged while it is open ends, and is set aside when it is opened
// again, whatever is read then.
func TestDamageFoundWhileOpen(t *testing.T) {
	c := newCluster(t, 1)
	dir := filepath.Join(t.TempDir(), "store")
	cfg := LAN()
	cfg.Cluster, cfg.Dir, cfg.Reserve = c.key.id, dir, 0
	s, err := New(cfg, c.deps(t, c.members[0]))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	<-s.Ready()
	if err := s.Inject(t.Context(), c.admissions()); err != nil {
		t.Fatal(err)
	}
	(&running{Store: s}).deploy(t, "web")
	s.disk.lose(errors.New("checksum mismatch"))
	if err := <-done; !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "checksum mismatch") {
		t.Errorf("Run = %v, want errDamaged", err)
	}
	again := onDisk(t, c, dir)
	if _, ok := again.Desired().Service("web"); !ok || again.Stats().Aside != dir+".broken-0" {
		t.Errorf("%+v, want the store aside and its records here", again.Stats())
	}
}

// What is no damage is told as what it is, and nothing is moved.
func TestUnusableIsNotDamaged(t *testing.T) {
	c := newCluster(t, 1)
	for name, want := range map[string]error{"read-only": syscall.EROFS, "forbidden": fs.ErrPermission, "full": syscall.ENOSPC} {
		files := crashDisk(t)
		s := onMemoryAgain(t, c, files)
		s.stop()
		cfg := onMemory(c, hooks{files: &refusing{MemFS: files, refuse: want}})
		again, err := New(cfg, c.deps(t, c.members[0]))
		if err != nil {
			t.Fatal(err)
		}
		err = again.Run(t.Context())
		if !errors.Is(err, want) || errors.Is(err, errInUse) {
			t.Errorf("%s: Run = %v, want %v", name, err, want)
		}
		if _, err := files.Stat(storeDir + ".broken-0"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the store was moved: %v", name, err)
		}
	}
}

// refusing are files of which none can be written.
type refusing struct {
	*vfs.MemFS
	refuse error
}

func (r *refusing) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: r.refuse}
}

func (r *refusing) OpenReadWrite(name string, _ vfs.DiskWriteCategory, _ ...vfs.OpenOption) (vfs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: r.refuse}
}

func (r *refusing) Lock(name string) (io.Closer, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: r.refuse}
}

// A log that is bad in the middle, or ends early, costs at most what is behind the bad
// place, and nothing that another peer has.
func TestDamagedLogs(t *testing.T) {
	for name, do := range map[string]func(testing.TB, string){
		"garbage": flip("*.log", 0.4, 0.6), "one byte": flip("*.log", 0.5, 0.5001), "cut": cut("*.log", 0.5), "empty": cut("*.log", 0), "gone": remove("*.log"),
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			c := newCluster(t, 2)
			a := onLoopback(t, c, 0, filepath.Join(t.TempDir(), "store"))
			b := onLoopback(t, c, 1, filepath.Join(t.TempDir(), "store"))
			if err := a.Inject(t.Context(), c.admissions()); err != nil {
				t.Fatal(err)
			}
			a.connect(t, b)
			for i := range 20 {
				a.deploy(t, fmt.Sprintf("web%d", i))
				a.large(t, fmt.Sprintf("large%d", i%4))
			}
			awaitDigest(t, a, b)
			digest, last := a.Digest(), c.members[0].seq.last
			crashed := filepath.Join(t.TempDir(), "store")
			if err := os.CopyFS(crashed, os.DirFS(a.cfg.Dir)); err != nil {
				t.Fatal(err)
			}
			a.stop()
			do(t, filepath.Join(crashed, databaseDir))
			a.cfg.Dir = crashed
			a.running = start(t, a.cfg, a.deps)
			if err := a.SyncWith(t.Context(), b.self); err != nil {
				t.Fatal(err)
			}
			if got := a.Stats(); a.Digest() != digest || c.members[0].seq.last < last {
				t.Errorf("%+v, another digest, or sequence at %d, was %d", got, c.members[0].seq.last, last)
			}
			t.Logf("aside %q, %d saved, %d pulled", a.Stats().Aside, a.Stats().Saved, a.Stats().Pulled)
			a.deploy(t, "after")
			awaitDigest(t, a, b)
		})
	}
}

// Damage is what the rows or the disk say, not an end that cut the reading short.
func TestIsDamage(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("%w: repair: %w", errTorn, io.ErrUnexpectedEOF), true},
		{fmt.Errorf("read: %w", syscall.EIO), true},
		{fmt.Errorf("read: %w", pebble.ErrCorruption), true},
		{fmt.Errorf("%w: repair: %w", errTorn, context.Canceled), false},
		{fmt.Errorf("%w: read block: %w", errTorn, syscall.EMFILE), false},
		{fmt.Errorf("%w: flush: %w", errTorn, syscall.ENOSPC), false},
		{errInUse, false},
		{errors.New("something else"), false},
	} {
		if got := isDamage(c.err); got != c.want {
			t.Errorf("isDamage(%v) = %t, want %t", c.err, got, c.want)
		}
	}
}
