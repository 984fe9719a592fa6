// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/shoalnet/shoal/lab/topology"
)

// root is where a lab has its directory if nothing else is said.
const root = "/var/lib/shoal-lab"

// Binaries are the programs that a lab runs, as absolute paths. An empty one is looked
// for: shoald and shoal beside this program first, all on the PATH.
type Binaries struct {
	Shoald, Shoal   string
	Dockerd, Docker string
	// Init is the command that calls host.Init; it must be given.
	Init []string
}

// Config says what a lab is made of.
type Config struct {
	Name     string // lower-case letters, digits and dashes, at most 32
	Dir      string // "": NAME below /var/lib/shoal-lab. Absent or empty, not in /run, which hosts have their own of
	Topology *topology.Topology
	Bare     bool     // hosts with engines, but no shoald
	Flags    []string // more flags of every shoald
	Images   []string // files as "docker save" writes them, which every engine has before its shoald looks
	Seed     uint64   // of loss and jitter
	Binaries Binaries
	Claimed  func() error      // called once the lab's name is this process's, before anything is made; see Info.RunDir; may be nil
	Log      *slog.Logger      // nil: nothing is logged
	Progress func(line string) // told what is being done; may be called by several goroutines at once; may be nil
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// withDefaults fills in what was not said.
func (c Config) withDefaults() Config {
	if c.Dir == "" {
		c.Dir = filepath.Join(root, c.Name)
	}
	c.Dir = realPath(c.Dir)
	if c.Claimed == nil {
		c.Claimed = func() error { return nil }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	return c
}

// needed is a program without which there is no lab.
type needed struct {
	name    string
	path    *string // where the found path goes; nil: only others run it
	pkg     string  // Debian's package
	command string  // what gives it where it is ours
}

func (c *Config) needs() []needed {
	all := []needed{
		{name: "dockerd", path: &c.Binaries.Dockerd, pkg: "docker.io"},
		{name: "docker", path: &c.Binaries.Docker, pkg: "docker.io"}, // Debian 13: docker-cli
		{name: "containerd", pkg: "containerd"},
		{name: "runc", pkg: "runc"},
		{name: "nsenter", pkg: "util-linux"},
		{name: "mkfs.ext4", pkg: "e2fsprogs"},
		{name: "ip", pkg: "iproute2"},
		{name: "iptables", pkg: "iptables"},
	}
	if _, err := exec.LookPath("apt-get"); err == nil && exists("/usr/share/doc/docker-cli") {
		all[1].pkg = "docker-cli"
	}
	if !c.Bare {
		all = append(all, needed{name: "shoald", path: &c.Binaries.Shoald, command: "make build"}, needed{name: "shoal", path: &c.Binaries.Shoal, command: "make build"})
	}
	return all
}

// find looks for the programs and fills in their paths.
func (c *Config) find() error {
	beside := ""
	if self, err := os.Executable(); err == nil {
		beside = filepath.Dir(self)
	}
	for _, n := range c.needs() {
		if n.path != nil && *n.path != "" {
			if !exists(*n.path) {
				return &CheckError{CheckBinary, "there is no " + *n.path, "the lab was told to run it as " + n.name, "name another file"}
			}
			continue
		}
		path, err := exec.LookPath(n.name)
		if own := filepath.Join(beside, n.name); n.command != "" && beside != "" && exists(own) {
			path, err = own, nil
		}
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return n.missing()
		}
		if n.path != nil {
			*n.path = path
		}
	}
	return nil
}

// missing says what to do about a program that was not found.
func (n needed) missing() error {
	e := &CheckError{CheckBinary, "no " + n.name + " on the PATH", "each host of the lab runs it", "apt-get install " + n.pkg}
	switch {
	case n.command != "":
		e.Do = n.command
	case exists("/usr/sbin/" + n.name):
		e.Do = "it is in /usr/sbin; add that to the PATH"
	case n.pkg != "docker.io" && n.pkg != "docker-cli" && n.pkg != "containerd" && n.pkg != "runc":
		e.Why = "the lab makes hosts with it"
	}
	return e
}

// realPath is a path without symbolic links, as the kernel tells of loop devices and
// mounts. What is not there yet has none.
func realPath(path string) string {
	if !filepath.IsAbs(path) {
		return path // it will be refused
	}
	for at, rest := filepath.Clean(path), ""; ; at, rest = filepath.Dir(at), filepath.Join(filepath.Base(at), rest) {
		if real, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(real, rest)
		}
		if at == "/" {
			return path
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
