// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Check names what is checked before a lab is made.
type Check string

// What is checked, in this order.
const (
	CheckName    Check = "name"
	CheckRoot    Check = "root"
	CheckDevice  Check = "device"
	CheckBinary  Check = "binary"
	CheckNetwork Check = "network"
	CheckRunning Check = "running" // a lab of the name runs
	CheckDir     Check = "dir"
)

// CheckError says why there can be no such lab here. Nothing was made.
type CheckError struct {
	Check         Check
	What, Why, Do string // what is wrong; why that matters; what to do about it
}

func (e *CheckError) Error() string { return e.What + "; " + e.Why + "; " + e.Do }

// UnknownHostError says that the topology has no host or router of a name.
type UnknownHostError struct {
	Name  string
	Known []string
}

func (e *UnknownHostError) Error() string {
	return fmt.Sprintf("no host is called %q; the lab has %s", e.Name, strings.Join(e.Known, ", "))
}

// BootError says that a host did not come up.
type BootError struct {
	Host, What string // what did not work: "boot", "dockerd", "shoald"
	Last       string // the last line of the log that tells of it; "": it says nothing
	Err        error
}

func (e *BootError) Error() string {
	text := fmt.Sprintf("%s of %s: %v", e.What, e.Host, e.Err)
	if e.Last != "" {
		text += fmt.Sprintf("; its log ends with %q", e.Last)
	}
	return text
}

func (e *BootError) Unwrap() error { return e.Err }

// Privileged is nil if this process may make labs, or ask and end those there are.
func Privileged() error {
	if os.Geteuid() != 0 {
		return &CheckError{CheckRoot, "shoal-lab needs root", "it makes namespaces and mounts", "run it with sudo"}
	}
	return nil
}

// CheckName is nil if a lab can have this name.
func (i *Info) CheckName() error {
	if !validName.MatchString(i.Name) {
		return &CheckError{CheckName, fmt.Sprintf("no lab can be called %q", i.Name), "the name becomes part of paths", "use at most 32 lower-case letters, digits and dashes"}
	}
	return nil
}

// check finds out whether the lab can be made, and where its programs are, before
// anything is touched.
func (c *Config) check() error {
	if err := (&Info{Name: c.Name}).CheckName(); err != nil {
		return err
	}
	if len(c.Binaries.Init) == 0 {
		return &CheckError{CheckBinary, "no first process for the hosts", "each host of the lab runs it", "name it in Binaries.Init"}
	}
	if err := Privileged(); err != nil {
		return err
	}
	if err := c.Topology.Validate(); err != nil {
		return err
	}
	for path, module := range map[string]string{"/dev/net/tun": "tun", "/dev/loop-control": "loop"} {
		if !exists(path) {
			return &CheckError{CheckDevice, "no " + path, "every host's cards or disks need it", "modprobe " + module}
		}
	}
	if err := c.find(); err != nil {
		return err
	}
	return checkNetwork(c.Topology.Network)
}

// checkNetwork refuses a range in which this machine has an address: commands typed here
// would reach this machine where the lab's host was meant.
func checkNetwork(network netip.Prefix) error {
	cards, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list this machine's cards: %w", err)
	}
	for _, card := range cards {
		addrs, err := card.Addrs()
		if err != nil {
			return fmt.Errorf("list addresses of %s: %w", card.Name, err)
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Masked().Overlaps(network.Masked()) {
				return &CheckError{
					CheckNetwork, fmt.Sprintf("%s is not free", network), fmt.Sprintf("this machine's %s has %s", card.Name, p),
					"choose another range with --network",
				}
			}
		}
	}
	return nil
}

// checkDir refuses a directory that is somebody else's.
func checkDir(name, dir string) error {
	if own := realPath(root); within(dir, own) && dir != filepath.Join(own, name) {
		return &CheckError{CheckDir, dir + " is no place for lab " + name, "what is in " + root + " belongs to the lab of that name", "name a path elsewhere, or none"}
	}
	if !filepath.IsAbs(dir) || within(dir, "/run") || within(dir, "/var/run") || within(dir, "/proc") {
		return &CheckError{CheckDir, dir + " is no place for a lab", "hosts must see it, and have a /run and a /proc of their own", "name an absolute path elsewhere"}
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the lab's directory: %w", err)
	}
	if len(entries) > 0 {
		return &CheckError{CheckDir, dir + " is not empty", "a lab removes its directory at its end", "name another, or remove what is there"}
	}
	return nil
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// lastLine is the last line of a log that says something, "" if there is none.
func lastLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "" // then there is nothing to show; the error beside it tells what failed
	}
	const most = 300 // bytes; it becomes part of one line for people
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	return last[:min(len(last), most)]
}
