// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build failpoint && linux

package kill_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// fill leaves so many bytes free in dir, in a file that it returns.
func fill(t testing.TB, dir string, leave uint64) string {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "filler")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // what it holds does not matter
	chunk := make([]byte, 64<<10)
	for free := st.Bavail * uint64(st.Bsize); free > leave; free -= min(free, uint64(len(chunk))) { //nolint:gosec // a block size
		if _, err := f.Write(chunk); err != nil {
			return name // full to the brim
		}
	}
	return name
}

// A full disk: wishes are refused with what to do, reads go on, nothing breaks, and
// with room wishes are taken again, without a restart and after a kill.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small disk")
	}
	dir, err := os.MkdirTemp("/tmp", "full") //nolint:usetesting // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "a")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=160m"); err != nil {
		t.Skipf("cannot mount a small disk here: %v", err)
	}
	l := &loop{rng: rand.New(rand.NewPCG(1, 1)), daemon: &daemon{t: t, binary: build(t), dir: data, addr: freeAddr(t, 1)}} //nolint:gosec // no secret
	t.Cleanup(func() {
		if l.cmd != nil {
			l.kill()
		}
		if err := syscall.Unmount(data, 0); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	open := func() *api.Client {
		l.start("")
		c := l.client()
		if c == nil {
			t.Fatalf("daemon ended: %s", l.tail())
		}
		t.Cleanup(c.Close)
		return c
	}
	deploy := func(c *api.Client, name string) error {
		_, err := c.Deploy(t.Context(), shoal.DeployWish{Specs: []shoal.Spec{spec(name)}, AllowUnplaced: true}, api.WishOptions{})
		if err == nil {
			l.acked = append(l.acked, name)
		}
		return err
	}
	check := func(c *api.Client, when string, full bool) {
		t.Helper()
		err := deploy(c, "web-"+strings.ReplaceAll(when, " ", "-"))
		if full && (err == nil || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), "free some")) {
			t.Errorf("%s: deploy = %v, want no space left, and what to do", when, err)
		}
		if !full && err != nil {
			t.Errorf("%s: deploy = %v", when, err)
		}
		if lost := l.missing(c); len(lost) > 0 {
			t.Errorf("%s: %v lost", when, lost)
		}
	}
	c := open()
	if _, err := c.Init(t.Context(), shoal.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	check(c, "with room", false)
	filler := fill(t, data, 40<<20)
	check(c, "in reserve", true)
	fill(t, data, 0)
	check(c, "full", true)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	check(c, "with room again", false)

	fill(t, data, 40<<20)
	l.kill()
	c = open() // it starts on its reserve, to answer
	check(c, "started in reserve", true)
	fill(t, data, 0)
	l.kill()
	l.start("") // nothing can be opened without a byte
	select {
	case <-l.done:
	case <-time.After(patience):
		t.Errorf("a daemon without a byte goes on: %s", l.tail())
	}
	if code := l.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(l.tail(), "no space left") || strings.Contains(l.tail(), "panic") {
		t.Errorf("it ended with %d: %s", code, l.tail())
	}
	l.cmd = nil
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	c = open()
	check(c, "with room at last", false)
	if aside, _ := filepath.Glob(data + "/store.broken-*"); len(aside) > 0 {
		t.Errorf("stores were set aside: %v", aside)
	}
	t.Logf("%d writes kept", len(l.acked))
}
