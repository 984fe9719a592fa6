// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoalnet/shoal/lab/host"
)

// diskPatience is how long loop devices may hold a disk after the last process of its
// host has ended.
const diskPatience = 10 * time.Second

// Sweep removes all that a lab left whose driver is gone: processes, control groups,
// disks and files. A lab that runs is refused with a [*CheckError]; it must be closed.
// Sweeping what is not there is no error.
func Sweep(name string) error {
	if _, err := Find(name); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	lock, err := lockName(name)
	if err != nil {
		return err
	}
	c := &claim{name: name, dir: dirOf(name), lock: lock}
	return c.end(sweep(name))
}

// sweep does it, for whoever has the lock.
func sweep(name string) error {
	if err := host.Sweep(name); err != nil {
		return err
	}
	dir := dirOf(name)
	if err := awaitDisks(dir); err != nil {
		return fmt.Errorf("sweep lab %s: %w", name, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("sweep lab %s: %w", name, err)
	}
	_ = os.Remove(root) // another lab may be there
	left, err := remainsOf(name, dir)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("sweep lab %s: left behind: %s", name, strings.Join(left, ", "))
	}
	return nil
}

// remainsOf lists what there is of a lab on this machine beside its registration.
func remainsOf(name, dir string) ([]string, error) {
	groups, pids, err := host.Remains(name)
	if err != nil {
		return nil, err
	}
	left := groups
	for _, pid := range pids {
		left = append(left, fmt.Sprintf("process %d", pid))
	}
	loops, err := loopsBelow(dir)
	if err != nil {
		return nil, err
	}
	left = append(left, loops...)
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && within(f[1], dir) {
			left = append(left, "mount "+f[1])
		}
	}
	// An empty directory is anybody's; one with our file in it, or in our own place, is a lab's.
	if exists(filepath.Join(dir, stateFile)) || dir == filepath.Join(root, name) && exists(dir) {
		left = append(left, dir)
	}
	return left, nil
}

// loopsBelow lists the loop devices that hold files of a directory.
func loopsBelow(dir string) ([]string, error) {
	held, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	dir = realPath(dir)
	var loops []string
	for _, path := range held {
		if text, err := os.ReadFile(path); err == nil && within(strings.TrimSpace(string(text)), dir) {
			loops = append(loops, "/dev/"+strings.Split(path, "/")[3])
		}
	}
	return loops, nil
}

// awaitDisks waits until no loop device holds a disk of the lab: the kernel lets go of
// them a moment after the last process of a host, and tells nobody, so it is looked again.
func awaitDisks(dir string) error {
	for from := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		loops, err := loopsBelow(dir)
		if err != nil || len(loops) == 0 {
			return err
		}
		if time.Since(from) > diskPatience {
			return fmt.Errorf("%s still hold disks of %s", strings.Join(loops, ", "), dir)
		}
	}
}
