// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const testLab = "host-test"

// TestMain is a host's first process when it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "host-init" {
		if err := Init(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// testHost says what the tests boot; its directory outlives its boots.
func testHost(t *testing.T, ended func(Ended)) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("a host needs root; run make lab-test as root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	disk := Disk{Name: "state", Image: filepath.Join(dir, "state.img"), Dir: filepath.Join(dir, "state"), Bytes: 32 << 20}
	if err := MakeDisk(t.Context(), disk); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Sweep(testLab); err != nil {
			t.Error(err)
		}
		if groups, pids, err := Remains(testLab); err != nil || len(groups)+len(pids) > 0 {
			t.Errorf("left behind: groups %v, processes %v, %v", groups, pids, err)
		}
		if err := awaitFree(disk.Image); err != nil {
			t.Error(err)
		}
	})
	return Config{
		Init: []string{self, "host-init"}, Group: Group{testLab, "h1"}, Log: filepath.Join(dir, "init.log"), Ended: ended,
		Spec: Spec{
			Name: "h1", NICs: []NIC{{"eth0", "02:00:00:00:00:01", netip.MustParsePrefix("10.214.0.11/24")}},
			Names: "127.0.0.1 localhost\n10.214.0.12 h2\n", Disks: []Disk{disk},
		},
	}
}

func boot(t *testing.T, cfg Config) *Host {
	t.Helper()
	h, err := Boot(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range h.TAPs() {
			_ = f.Close()
		}
		if err := h.Kill(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// within runs a command in the host.
func within(t *testing.T, h *Host, args ...string) string {
	t.Helper()
	full := append([]string{"--target", strconv.Itoa(h.PID()), "--mount", "--net", "--pid", "--uts", "--ipc", "--"}, args...)
	out, err := exec.CommandContext(t.Context(), "nsenter", full...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	return string(out)
}

func startSleep(t *testing.T, h *Host, dir string) {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	p := Proc{Name: "sleeper", Args: []string{sleep, "1000"}, Log: filepath.Join(dir, "sleeper.log")}
	if err := h.Start(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), p); err == nil {
		t.Error("it was started twice")
	}
}

// find returns the state of a process, polled until it is as wanted.
func find(t *testing.T, h *Host, name string, ok func(ProcState) bool) ProcState {
	t.Helper()
	var procs []ProcState
	for from := time.Now(); time.Since(from) < 10*time.Second; {
		var err error
		if procs, _, err = h.Procs(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, p := range procs {
			if p.Name == name && ok(p) {
				return p
			}
		}
	}
	t.Fatalf("%s is not as wanted among %+v", name, procs)
	return ProcState{}
}

// A host sees its own name, network, processes, disk and names, and nothing of ours.
func TestHost(t *testing.T) {
	mountsBefore, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan Ended, 1)
	cfg := testHost(t, func(e Ended) { ended <- e })
	from := time.Now()
	h := boot(t, cfg)
	t.Logf("booted in %s", time.Since(from).Round(time.Millisecond))
	if got := strings.TrimSpace(within(t, h, "hostname")); got != "h1" {
		t.Errorf("its name is %q", got)
	}
	if out := within(t, h, "ip", "-o", "address"); !strings.Contains(out, "10.214.0.11/24") || strings.Contains(out, "docker0") {
		t.Errorf("its addresses are %s", out)
	}
	if out := within(t, h, "cat", "/etc/hosts", "/etc/resolv.conf"); !strings.Contains(out, "h2") || !strings.Contains(out, "nameserver 10.214.0.11") {
		t.Errorf("its names are %s", out)
	}
	startSleep(t, h, t.TempDir())
	find(t, h, "sleeper", func(p ProcState) bool { return p.RSSBytes > 0 && !p.IsFrozen })
	for _, s := range []struct {
		signal syscall.Signal
		frozen bool
	}{{syscall.SIGSTOP, true}, {syscall.SIGCONT, false}} {
		if err := h.Signal(t.Context(), "sleeper", s.signal); err != nil {
			t.Fatal(err)
		}
		find(t, h, "sleeper", func(p ProcState) bool { return p.IsFrozen == s.frozen })
	}
	if err := h.Signal(t.Context(), "nobody", syscall.SIGTERM); !errors.Is(err, ErrNoProcess) {
		t.Errorf("a process that is not there: %v, want ErrNoProcess", err)
	}
	if err := h.Signal(t.Context(), "sleeper", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := <-ended; e != (Ended{"sleeper", "signal: killed"}) {
		t.Errorf("told of %+v", e)
	}
	if cpu, err := h.cfg.Group.CPU(); err != nil || cpu <= 0 {
		t.Errorf("it used %s of a processor, %v", cpu, err)
	}
	mountsAfter, err := os.ReadFile("/proc/self/mounts")
	if err != nil || string(mountsAfter) != string(mountsBefore) {
		t.Errorf("our mounts changed: %v, %s", err, mountsAfter)
	}
}

// A power cut ends everything at once, also what is frozen; the disk keeps what it had.
func TestPowerCut(t *testing.T) {
	cfg := testHost(t, nil)
	h := boot(t, cfg)
	startSleep(t, h, t.TempDir())
	path := filepath.Join(cfg.Spec.Disks[0].Dir, "kept")
	within(t, h, "sh", "-c", "echo yes > "+path+" && sync "+path)
	if err := h.Freeze(true); err != nil {
		t.Fatal(err)
	}
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, pids, err := Remains(testLab); err != nil || len(pids) > 0 {
		t.Errorf("after the power cut processes %v run, %v", pids, err)
	}
	if _, _, err := h.Procs(t.Context()); !errors.Is(err, ErrDown) {
		t.Errorf("a host without power says %v, want ErrDown", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the disk is mounted outside")
	}
	again := boot(t, cfg)
	if got := strings.TrimSpace(within(t, again, "cat", path)); got != "yes" {
		t.Errorf("the disk has %q, want what was written", got)
	}
}

// A full disk has no room for a byte of anybody's, and room again when it is freed.
func TestFill(t *testing.T) {
	cfg := testHost(t, nil)
	h := boot(t, cfg)
	dir := cfg.Spec.Disks[0].Dir
	if err := h.Fill(t.Context(), "state", false); err != nil {
		t.Fatal(err)
	}
	err := os.WriteFile(filepath.Join(h.Path(dir), "more"), []byte("a byte"), 0o600)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing to a full disk: %v, want ENOSPC", err)
	}
	if err := h.Fill(t.Context(), "state", true); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.Path(dir), "more"), []byte("a byte"), 0o600); err != nil {
		t.Errorf("writing to a disk with room: %v", err)
	}
	if err := h.Fill(t.Context(), "other", false); err == nil {
		t.Error("a disk that is not there was filled")
	}
	// Of this boot alone: loop devices are used again, and count on.
	if _, writes, err := h.Procs(t.Context()); err != nil || writes["state"] <= 0 || writes["state"] > cfg.Spec.Disks[0].Bytes {
		t.Errorf("bytes written: %v, %v", writes, err)
	}
}

// A host that cannot be set up is not left half there.
func TestBootFails(t *testing.T) {
	cfg := testHost(t, nil)
	cfg.Spec.NICs[0].MAC = "no address"
	if _, err := Boot(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "set up the network") {
		t.Errorf("boot: %v", err)
	}
	if _, pids, err := Remains(testLab); err != nil || len(pids) > 0 {
		t.Errorf("processes %v are left, %v", pids, err)
	}
	if err := Sweep("../x"); err == nil {
		t.Error("a lab of another directory was swept")
	}
}
