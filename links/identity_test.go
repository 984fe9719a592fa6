// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

func open(t *testing.T, dir string) *Identity {
	t.Helper()
	id, err := OpenIdentity(dir, nil)
	mustBe(t, "open identity", err)
	return id
}

func TestIdentityKeepsItsKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	a := open(t, dir)
	st, err := os.Stat(filepath.Join(dir, "identity", "key"))
	mustBe(t, "stat key", err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("key file has mode %04o, want 0600", st.Mode().Perm())
	}
	b, err := a.Reopen()
	mustBe(t, "reopen", err)
	if a.Self() != b.Self() || a.Self() == "" {
		t.Errorf("self = %q, then %q", a.Self(), b.Self())
	}
	mustBe(t, "close", b.Close())
}

func TestIdentityRefusesWideKey(t *testing.T) {
	dir := t.TempDir()
	mustBe(t, "close", open(t, dir).Close())
	key := filepath.Join(dir, "identity", "key")
	for _, mode := range []fs.FileMode{0o644, 0o640, 0o604, 0o620, 0o602} {
		mustBe(t, "chmod", os.Chmod(key, mode))
		_, err := OpenIdentity(dir, nil)
		var advice *shoal.AdviceError
		if !errors.As(err, &advice) || advice.Advice != "chmod 600 "+key || !strings.Contains(err.Error(), fmt.Sprintf("mode %04o", mode)) {
			t.Errorf("mode %04o: open = %v, want advice to chmod 600 %s", mode, err, key)
		}
	}
	mustBe(t, "chmod", os.Chmod(key, 0o600))
	mustBe(t, "close", open(t, dir).Close()) // and the lock was let go each time
}

func TestIdentityRefusesBadKey(t *testing.T) {
	dir := t.TempDir()
	mustBe(t, "close", open(t, dir).Close())
	for name, raw := range map[string]string{"empty": "", "garbage": "no key at all", "cut": "\x08\x01\x12\x40abc"} {
		mustBe(t, "write", os.WriteFile(filepath.Join(dir, "identity", "key"), []byte(raw), 0o600))
		if id, err := OpenIdentity(dir, nil); err == nil || !strings.Contains(err.Error(), "key") {
			t.Errorf("%s: open = %v, %v, want an error about the key", name, id, err)
		}
	}
}

func TestIdentityIsLocked(t *testing.T) {
	dir := t.TempDir()
	id := open(t, dir)
	_, err := OpenIdentity(dir, nil)
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Fatalf("second open = %v, want LockedError with pid %d", err, os.Getpid())
	}
	if want := fmt.Sprintf("data dir locked by pid %d", os.Getpid()); !strings.HasPrefix(err.Error(), want) {
		t.Errorf("second open = %q, want %q first", err, want)
	}
	mustBe(t, "close", id.Close())
	mustBe(t, "close", open(t, dir).Close())

	mem := memory(t, 1)
	if _, err := openIdentity(mem.files, nil); !errors.As(err, &locked) {
		t.Errorf("second open in memory = %v, want LockedError", err)
	}
}

func TestBootGrows(t *testing.T) {
	id := open(t, t.TempDir())
	seen := map[uint64]bool{}
	for want := uint64(1); want <= 3; want++ {
		if got := id.Boot(); got.Counter != want || seen[got.Nonce] {
			t.Fatalf("boot = %+v, want counter %d and a new nonce", got, want)
		}
		seen[id.Boot().Nonce] = true
		var err error
		id, err = id.Reopen()
		mustBe(t, "reopen", err)
	}
	before := id.Boot()
	mustBe(t, "new boot", id.NewBoot())
	if now := id.Boot(); now.Counter != before.Counter+1 || now.Nonce == before.Nonce {
		t.Errorf("new boot within a life = %+v after %+v", now, before)
	}
	id, err := id.Reopen()
	mustBe(t, "reopen", err)
	if now := id.Boot(); now.Counter != before.Counter+2 {
		t.Errorf("boot after that = %+v after %+v", now, before)
	}
	mustBe(t, "close", id.Close())
}

func TestBootCounterUnreadable(t *testing.T) {
	dir := t.TempDir()
	mustBe(t, "close", open(t, dir).Close())
	mustBe(t, "write", os.WriteFile(filepath.Join(dir, "identity", "boot"), []byte("many"), 0o644))
	if _, err := OpenIdentity(dir, nil); err == nil || !strings.Contains(err.Error(), "identity/boot") {
		t.Errorf("open = %v, want an error that names identity/boot: guessing would repeat a number", err)
	}
}

func TestMemoryIdentityIsReproducible(t *testing.T) {
	a, b, c := memory(t, 1), memory(t, 1), memory(t, 2)
	if a.Self() != b.Self() || a.Boot() != b.Boot() {
		t.Errorf("same seed: %s %+v and %s %+v", a.Self(), a.Boot(), b.Self(), b.Boot())
	}
	if a.Self() == c.Self() {
		t.Errorf("seeds 1 and 2 both give %s", a.Self())
	}
	again, err := a.Reopen()
	mustBe(t, "reopen", err)
	if again.Self() != a.Self() || again.Boot().Counter != 2 || again.Boot().Nonce == a.Boot().Nonce {
		t.Errorf("after restart %s %+v, before %s %+v", again.Self(), again.Boot(), a.Self(), a.Boot())
	}
}

func TestSequenceNeverRepeats(t *testing.T) {
	id := open(t, t.TempDir())
	last := uint64(0)
	for restart := range 3 {
		for i := range sequenceStep + 5 {
			n, err := id.Sequence().Next()
			mustBe(t, "next", err)
			if n <= last || restart == 0 && n != uint64(i)+1 {
				t.Fatalf("restart %d: Next = %d after %d", restart, n, last)
			}
			last = n
		}
		var err error // nothing is written at the end: as after kill -9
		id, err = id.Reopen()
		mustBe(t, "reopen", err)
	}
	mustBe(t, "skip", id.Sequence().Skip(1_000_000))
	mustBe(t, "skip back", id.Sequence().Skip(5))
	if n, err := id.Sequence().Next(); n != 1_000_001 || err != nil {
		t.Errorf("Next after Skip(1000000) = %d, %v", n, err)
	}
	id, err := id.Reopen()
	mustBe(t, "reopen", err)
	if n, err := id.Sequence().Next(); n <= 1_000_001 || err != nil {
		t.Errorf("Next after Skip and restart = %d, %v", n, err)
	}
	mustBe(t, "close", id.Close())
}

func TestSequenceConcurrent(t *testing.T) {
	seq := memory(t, 1).Sequence()
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				n, err := seq.Next()
				mu.Lock()
				if err != nil || seen[n] {
					t.Errorf("Next = %d, %v: seen %v", n, err, seen[n])
				}
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 4000 {
		t.Errorf("%d numbers, want 4000", len(seen))
	}
}

// badDisk fails writes when told to, and counts them.
type badDisk struct {
	files
	err    error
	writes int
}

func (b *badDisk) write(name string, data []byte, mode fs.FileMode) error {
	if b.err != nil {
		return b.err
	}
	b.writes++
	return b.files.write(name, data, mode)
}

func TestSequenceOnBadDisk(t *testing.T) {
	disk := &badDisk{files: newMemFiles()}
	id, err := openIdentity(disk, seeded(1))
	mustBe(t, "open", err)
	disk.err = errors.New("disk on fire")
	if n, err := id.Sequence().Next(); err == nil {
		t.Fatalf("Next = %d without a reservation", n)
	}
	disk.err = nil
	if n, err := id.Sequence().Next(); n != 1 || err != nil {
		t.Errorf("Next = %d, %v, want 1: the failure used no number", n, err)
	}
}

// TestWriteIsAtomic shows that a write replaces the file and never writes into it: a
// crash at any point leaves the old content or the new.
func TestWriteIsAtomic(t *testing.T) {
	dir := t.TempDir()
	d := &diskFiles{dir: dir}
	mustBe(t, "write", d.write("identity/x", []byte("old"), 0o600))
	mustBe(t, "link", os.Link(filepath.Join(dir, "identity", "x"), filepath.Join(dir, "before")))
	mustBe(t, "write", d.write("identity/x", []byte("new"), 0o644))
	for name, want := range map[string]string{"before": "old", "identity/x": "new"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want || err != nil {
			t.Errorf("%s = %q, %v, want %q", name, got, err, want)
		}
	}
	mustBe(t, "chmod", os.Chmod(filepath.Join(dir, "identity"), 0o755))
	// A target that cannot be replaced leaves no temporary file behind.
	mustBe(t, "mkdir", os.MkdirAll(filepath.Join(dir, "identity", "taken", "full"), 0o755))
	if err := d.write("identity/taken", []byte("x"), 0o644); err == nil {
		t.Error("a directory was overwritten")
	}
	names, err := d.list("identity")
	mustBe(t, "list", err)
	if !slices.Equal(names, []string{"taken", "x"}) {
		t.Errorf("files = %v, want no temporary ones", names)
	}
}

// TestTornTemporaryFile shows that what a crash leaves of an unfinished write is ignored.
func TestTornTemporaryFile(t *testing.T) {
	dir := t.TempDir()
	id := open(t, dir)
	self := id.Self()
	mustBe(t, "close", id.Close())
	for _, name := range []string{".key.tmp-1", ".boot.tmp-2", ".sequence.tmp-3", ".cluster.json.tmp-4"} {
		mustBe(t, "write", os.WriteFile(filepath.Join(dir, "identity", name), []byte("to"), 0o600))
	}
	id = open(t, dir)
	if id.Self() != self || id.Boot().Counter != 2 {
		t.Errorf("self %s boot %d, want %s and 2", id.Self(), id.Boot().Counter, self)
	}
	mustBe(t, "close", id.Close())
}

func TestMembershipSurvives(t *testing.T) {
	dir := t.TempDir()
	id := open(t, dir)
	env, err := InitCluster(id, time.Unix(1000, 0))
	mustBe(t, "init", err)
	cluster := id.Cluster()
	if role, err := VerifyChain(cluster, id.Self(), [][]byte{env}); role != shoal.RoleOperator || err != nil {
		t.Fatalf("first admission: %q, %v", role, err)
	}
	if _, err := InitCluster(id, time.Unix(1000, 0)); !errors.Is(err, shoal.ErrConflict) || !strings.Contains(err.Error(), "shoal leave") {
		t.Errorf("second init = %v, want ErrConflict and how to leave", err)
	}
	st, err := os.Stat(filepath.Join(dir, "identity", "cluster-key"))
	mustBe(t, "stat", err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("cluster key has mode %04o", st.Mode().Perm())
	}
	other := memory(t, 9)
	chain := [][]byte{env, admitBy(t, id, &shoal.MemberBody{Peer: other.Self(), Role: shoal.RolePeer})}
	mustBe(t, "remember", id.Remember(KnownMember{Peer: other.Self(), Chain: chain, Addrs: []string{"/ip4/127.0.0.1/tcp/1"}}))
	mustBe(t, "remember addresses only", id.Remember(KnownMember{Peer: other.Self(), Addrs: []string{"/ip4/127.0.0.1/tcp/2"}}))
	mustBe(t, "name", id.SetNamed("tokyo", map[string]string{"zone": "a"}))

	id, err = id.Reopen()
	mustBe(t, "reopen", err)
	got := id.Members()
	if id.Cluster() != cluster || id.Role() != shoal.RoleOperator || len(got) != 1 || len(got[0].Chain) != 2 || !slices.Equal(got[0].Addrs, []string{"/ip4/127.0.0.1/tcp/2"}) {
		t.Errorf("after restart: cluster %s role %s members %+v", id.Cluster(), id.Role(), got)
	}
	if name, labels := id.Named(); name != "tokyo" || labels["zone"] != "a" {
		t.Errorf("after restart: name %q labels %v", name, labels)
	}
	mustBe(t, "forget", id.Forget())
	if name, labels := id.Named(); name != "" || len(labels) != 0 {
		t.Errorf("after leaving: name %q labels %v", name, labels)
	}
	mustBe(t, "close", id.Close())
}

func TestForgetMovesAside(t *testing.T) {
	dir := t.TempDir()
	id := open(t, dir)
	self := id.Self()
	for n := 1; n <= 2; n++ {
		_, err := InitCluster(id, time.Unix(1000, 0))
		mustBe(t, "init", err)
		n1, err := id.Sequence().Next()
		mustBe(t, "next", err)
		mustBe(t, "forget", id.Forget())
		mustBe(t, "forget twice", id.Forget())
		if id.Cluster() != "" || id.Chain() != nil || len(id.Members()) != 0 {
			t.Errorf("after leaving: cluster %q, chain of %d, members %v", id.Cluster(), len(id.Chain()), id.Members())
		}
		for _, name := range []string{"cluster.json", "cluster-key"} {
			if _, err := os.Stat(filepath.Join(dir, "identity", fmt.Sprintf("left-%d", n), name)); err != nil {
				t.Errorf("left-%d: %v", n, err)
			}
		}
		id, err = id.Reopen()
		mustBe(t, "reopen", err)
		n2, err := id.Sequence().Next()
		if id.Cluster() != "" || id.Self() != self || n2 <= n1 || err != nil {
			t.Errorf("after leaving and restart: cluster %q, self kept %v, sequence %d after %d", id.Cluster(), id.Self() == self, n2, n1)
		}
	}
	mustBe(t, "close", id.Close())
}

func TestRememberWritesOnlyChanges(t *testing.T) {
	disk := &badDisk{files: newMemFiles()}
	id, err := openIdentity(disk, seeded(1))
	mustBe(t, "open", err)
	if err := id.Remember(KnownMember{Peer: "x"}); !errors.Is(err, shoal.ErrNotMember) {
		t.Errorf("Remember outside a cluster = %v, want ErrNotMember", err)
	}
	_, err = InitCluster(id, time.Unix(1, 0))
	mustBe(t, "init", err)
	other := memory(t, 2).Self()
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf("/ip4/10.0.0.1/tcp/%d", i+1)
	}
	disk.writes = 0
	for range 3 {
		mustBe(t, "remember", id.Remember(KnownMember{Peer: other, Addrs: many}, KnownMember{Peer: id.Self()}))
	}
	if got := id.Members(); disk.writes != 1 || len(got) != 1 || len(got[0].Addrs) != maxAddrs {
		t.Errorf("%d writes, members %v, want 1 write and one member with %d addresses", disk.writes, got, maxAddrs)
	}
	mustBe(t, "remember", id.Remember(KnownMember{Peer: other, Chain: [][]byte{[]byte("forged")}}))
	if got := id.Members(); got[0].Chain != nil || disk.writes != 1 {
		t.Errorf("a forged chain was kept: %q", got[0].Chain)
	}
	mustBe(t, "forget members", id.ForgetMembers(other, "nobody"))
	if len(id.Members()) != 0 {
		t.Errorf("members = %v after all were removed", id.Members())
	}
}

func TestForeignChainOnDisk(t *testing.T) {
	dir := t.TempDir()
	id := open(t, dir)
	_, err := InitCluster(id, time.Unix(1, 0))
	mustBe(t, "init", err)
	mustBe(t, "close", id.Close())
	file := filepath.Join(dir, "identity", "cluster.json")
	raw, err := os.ReadFile(file)
	mustBe(t, "read", err)
	mustBe(t, "write", os.WriteFile(file, []byte(strings.Replace(string(raw), "12D3Koo", "12D3Kop", 1)), 0o644))
	var chain *ChainError
	if _, err := OpenIdentity(dir, nil); !errors.As(err, &chain) {
		t.Errorf("open with another cluster's name = %v, want ChainError", err)
	}
}
