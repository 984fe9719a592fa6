// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/shoalnet/shoal/lab/host"
	"github.com/shoalnet/shoal/lab/topology"
)

// TestMain is a lab's driver when it is started as one, until it is killed.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "drive-a-lab" {
		topo := topology.LAN(1)
		_, err := Start(context.Background(), Config{Name: os.Args[2], Topology: topo, Bare: true, Binaries: Binaries{Init: []string{os.Args[3]}}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("up")
		select {}
	}
	os.Exit(m.Run())
}

// config is a lab of one host.
func config(t *testing.T) Config {
	t.Helper()
	built, err := build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	topo := topology.LAN(1)
	return Config{Name: testName(t.Name()), Topology: topo, Binaries: built}
}

// gone checks that nothing of a lab is left.
func gone(t *testing.T, name, dir string) {
	t.Helper()
	if left, err := remainsOf(name, dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if info, err := Find(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Find(%s) = %+v, %v, want none", name, info, err)
	}
	for _, path := range []string{filepath.Join(registry, name), filepath.Join(root, name)} {
		if exists(path) {
			t.Errorf("left behind: %s", path)
		}
	}
}

func mounts(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A lab that is closed leaves nothing, also in a directory of its own choosing.
func TestClose(t *testing.T) {
	cfg, before := config(t), mounts(t)
	cfg.Dir = filepath.Join(t.TempDir(), "mine")
	l, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	info, err := Find(cfg.Name)
	if err != nil || !info.IsRunning || info.Dir != cfg.Dir || info.Driver != os.Getpid() || !slices.Equal(info.Hosts, []string{"h1"}) {
		t.Errorf("Find = %+v, %v", info, err)
	}
	if left, err := remainsOf(cfg.Name, cfg.Dir); err != nil || len(left) < 4 {
		t.Errorf("while it runs there is %v, %v; the check sees nothing", left, err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Errorf("Close = %v", err)
	}
	gone(t, cfg.Name, cfg.Dir)
	if err := l.Boot(t.Context(), "h1"); !errors.Is(err, ErrClosed) {
		t.Errorf("booting a host of a lab that is closed: %v", err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Errorf("closing it again: %v", err)
	}
	if exists(cfg.Dir) {
		t.Errorf("left behind: %s", cfg.Dir)
	}
	if after := mounts(t); after != before {
		t.Errorf("mounts changed from %s to %s", before, after)
	}
}

// script is a program that says something and fails.
func script(t *testing.T, says string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho "+says+"\nexit 3\n"), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	return path
}

// What cannot start says why in one line and leaves nothing.
func TestStartFails(t *testing.T) {
	good := config(t)
	full := t.TempDir()
	kept := filepath.Join(full, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		spoil func(*Config)
		check Check
		boot  string // What of a BootError
		says  string
	}{
		{"a name that is none", func(c *Config) { c.Name = "../x" }, CheckName, "", `no lab can be called "../x"`},
		{"no engine", func(c *Config) { c.Binaries.Dockerd = "/none/dockerd" }, CheckBinary, "", "there is no /none/dockerd"},
		{"no first process", func(c *Config) { c.Binaries.Init = nil }, CheckBinary, "", "Binaries.Init"},
		{"a directory in /run", func(c *Config) { c.Dir = "/run/x" }, CheckDir, "", "/run/x is no place for a lab"},
		{"somebody's directory", func(c *Config) { c.Dir = full }, CheckDir, "", "is not empty"},
		{"a host that does not boot", func(c *Config) { c.Binaries.Init = []string{script(t, "no init today")} }, "", "boot", "no init today"},
		{"an engine that ends", func(c *Config) { c.Binaries.Dockerd = script(t, "no engine today") }, "", "dockerd", "no engine today"},
		{"a daemon that ends", func(c *Config) { c.Binaries.Shoald = script(t, "no daemon today") }, "", "shoald", "no daemon today"},
		{"a flag that there is not", func(c *Config) { c.Flags = []string{"--nonsense"} }, "", "shoald", "unknown flag --nonsense"},
	} {
		cfg := good
		c.spoil(&cfg)
		l, err := Start(t.Context(), cfg)
		if err == nil {
			t.Errorf("%s: it started", c.name)
			if err := l.Close(t.Context()); err != nil {
				t.Error(err)
			}
			continue
		}
		refused, isRefused := errors.AsType[*CheckError](err)
		broken, isBroken := errors.AsType[*BootError](err)
		switch {
		case isRefused != (c.check != "") || isRefused && refused.Check != c.check:
			t.Errorf("%s: %v, want a refusal by the check %q", c.name, err, c.check)
		case isBroken != (c.boot != "") || isBroken && (broken.What != c.boot || broken.Host != "h1"):
			t.Errorf("%s: %v, want that %q of h1 failed", c.name, err, c.boot)
		case !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: it says %q, want a line with %q", c.name, err, c.says)
		}
		if validName.MatchString(cfg.Name) {
			gone(t, cfg.Name, cfg.withDefaults().Dir)
		}
	}
	if !exists(kept) {
		t.Error("somebody's file was removed")
	}
}

// What is needed and missing comes with what gives it.
func TestMissing(t *testing.T) {
	for _, c := range []struct {
		need needed
		do   string
	}{
		{needed{name: "no-such-engine", pkg: "docker.io"}, "apt-get install docker.io"},
		{needed{name: "no-such-daemon", command: "make build"}, "make build"},
		{needed{name: "mkfs.ext4", pkg: "e2fsprogs"}, "it is in /usr/sbin; add that to the PATH"},
	} {
		refused, is := errors.AsType[*CheckError](c.need.missing())
		if !is || refused.Check != CheckBinary || refused.Do != c.do || !strings.Contains(refused.What, c.need.name) {
			t.Errorf("without %s: %+v, want %q", c.need.name, refused, c.do)
		}
	}
	t.Setenv("PATH", "/none")
	cfg := Config{}
	if err := cfg.find(); err == nil || !strings.HasPrefix(err.Error(), "no dockerd on the PATH; ") {
		t.Errorf("without a PATH: %v", err)
	}
}

// Without root it is refused before anything is tried.
func TestNotRoot(t *testing.T) {
	cfg := config(t)
	const nobody = 65534
	if err := syscall.Seteuid(nobody); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), cfg)
	if back := syscall.Seteuid(0); back != nil {
		t.Fatal(back)
	}
	if err == nil || err.Error() != "shoal-lab needs root; it makes namespaces and mounts; run it with sudo" {
		t.Errorf("as nobody: %v", err)
	}
}

func TestCheckNetwork(t *testing.T) {
	err := checkNetwork(netip.MustParsePrefix("127.0.0.0/16"))
	if refused, is := errors.AsType[*CheckError](err); !is || refused.Check != CheckNetwork || !strings.Contains(err.Error(), "lo has 127.0.0.1/8") {
		t.Errorf("a range of this machine's: %v", err)
	}
	if err := checkNetwork(netip.MustParsePrefix("198.18.77.0/24")); err != nil {
		t.Errorf("a range that nobody has: %v", err)
	}
}

// Few hosts find each other by asking; many would fill the kernel's table, and are told.
func TestIntroduce(t *testing.T) {
	for _, c := range []struct{ hosts, told int }{{2, 0}, {30, 0}, {31, 30}, {50, 49}} {
		topo := topology.LAN(c.hosts)
		l := &Lab{cfg: Config{Name: "x", Dir: t.TempDir(), Bare: true, Topology: topo}, byName: map[string]*machine{}}
		for i := range topo.Hosts {
			if err := l.addHost(&topo.Hosts[i]); err != nil {
				t.Fatal(err)
			}
		}
		l.introduce()
		for _, m := range l.machines {
			if got := m.spec.Neighbours; len(got) != c.told || slices.ContainsFunc(got, func(n host.NIC) bool { return n.Addr == m.places[0].Addr }) {
				t.Errorf("of %d hosts %s is told of %v, want the %d others", c.hosts, m.name, got, c.told)
			}
		}
	}
}

// One name is one lab; others run beside it.
func TestSideBySide(t *testing.T) {
	one, two := config(t), config(t)
	one.Bare, two.Bare = true, true
	one.Name, two.Name = one.Name+"a", two.Name+"b"
	var names []string
	for _, cfg := range []Config{one, two} {
		l, err := Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := l.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
		names = append(names, cfg.Name)
	}
	_, err := Start(t.Context(), one)
	if refused, is := errors.AsType[*CheckError](err); !is || refused.Check != CheckRunning || !strings.Contains(err.Error(), fmt.Sprintf("process %d drives it", os.Getpid())) {
		t.Errorf("a second lab of the name: %v", err)
	}
	if err := Sweep(one.Name); err == nil {
		t.Error("a lab that runs was swept")
	}
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(i Info) bool { return i.Name == name && i.IsRunning }) {
			t.Errorf("List() = %+v, without %s", all, name)
		}
	}
}

// killed starts a lab in another process and kills that.
func killed(t *testing.T, cfg Config) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "drive-a-lab", cfg.Name, cfg.Binaries.Init[0])
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "up\n" {
		t.Errorf("the driver says %q, %v", line, err)
	}
	if info, err := Find(cfg.Name); err != nil || !info.IsRunning || info.Driver != cmd.Process.Pid {
		t.Errorf("while it lives Find = %+v, %v", info, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if info, err := Find(cfg.Name); err != nil || info.IsRunning {
		t.Errorf("after its death Find = %+v, %v", info, err)
	}
}

// What a killed driver left is swept, by command or by the next lab of the name.
func TestSweep(t *testing.T) {
	cfg := config(t)
	cfg.Bare = true
	killed(t, cfg)
	if err := Sweep(cfg.Name); err != nil {
		t.Errorf("Sweep = %v", err)
	}
	gone(t, cfg.Name, dirOf(cfg.Name))
	if err := Sweep(cfg.Name); err != nil {
		t.Errorf("sweeping what is not there: %v", err)
	}
	killed(t, cfg)
	if err := sweepTests(); err != nil {
		t.Errorf("sweepTests = %v", err)
	}
	gone(t, cfg.Name, dirOf(cfg.Name))
	killed(t, cfg)
	l, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
	gone(t, cfg.Name, dirOf(cfg.Name))
}
