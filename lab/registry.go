// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// registry has a directory for each lab of this machine, with the lock of its driver and
// a link to the lab's own directory. It is gone after a reboot, and so are the labs.
const registry = "/run/shoal-lab"

const (
	lockFile  = "lock"
	dirLink   = "dir"
	stateFile = "lab.json"
)

// Info is what is known of a lab from outside of its driver.
type Info struct {
	Name     string    `json:"name"`
	Dir      string    `json:"dir"`
	Driver   int       `json:"driver"` // the process
	Since    time.Time `json:"since"`
	Bare     bool      `json:"bare"`
	Hosts    []string  `json:"hosts"`    // and routers
	Topology string    `json:"topology"` // as a file of lab/topology has it
	// IsRunning: its driver lives. If not, [Sweep] removes what it left. It is not in the
	// lab's file, but asked.
	IsRunning bool `json:"running"`
}

// RunDir is the directory of this machine where the lab is registered while it runs. Who
// drives it may put files there; they are gone with the lab.
func (i *Info) RunDir() string { return filepath.Join(registry, i.Name) }

// claim is a name that this process drives the lab of, until it is let go.
type claim struct {
	name, dir string
	lock      *os.File
}

// claimName takes a name, and removes what an earlier lab of the name left.
func claimName(name, dir string, say func(string)) (*claim, error) {
	lock, err := lockName(name)
	if err != nil {
		return nil, err
	}
	c := &claim{name: name, dir: dir, lock: lock}
	left, err := remainsOf(name, dirOf(name)) // it may have been in another directory
	if err == nil && len(left) > 0 {
		say("removing what an earlier lab " + name + " left")
		err = sweep(name)
	}
	if err == nil {
		err = checkDir(name, dir)
	}
	if err == nil {
		err = c.make()
	}
	if err != nil {
		return nil, errors.Join(err, c.letGo())
	}
	return c, nil
}

func (c *claim) make() error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("the lab's directory: %w", err)
	}
	link := filepath.Join(registry, c.name, dirLink)
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("register the lab: %w", err)
	}
	if err := os.Symlink(c.dir, link); err != nil {
		return fmt.Errorf("register the lab: %w", err)
	}
	return nil
}

// end lets go of the name if what is said to have removed the lab has; else what is left
// stays to be found.
func (c *claim) end(sweepErr error) error {
	if sweepErr != nil {
		return errors.Join(sweepErr, c.lock.Close())
	}
	return c.letGo()
}

// letGo removes the lab from the registry.
func (c *claim) letGo() error {
	err := os.RemoveAll(filepath.Join(registry, c.name)) // while it is locked: see lockName
	_ = os.Remove(registry)                              // another lab may be there
	return errors.Join(err, c.lock.Close())
}

// lockName locks a lab's name for this process. The kernel lets go of it when the process
// ends.
func lockName(name string) (*os.File, error) {
	path := filepath.Join(registry, name, lockFile)
	for {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("register the lab: %w", err)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a lab of the name has just removed it
		}
		if err != nil {
			return nil, fmt.Errorf("register the lab: %w", err)
		}
		whole := unix.Flock_t{Type: unix.F_WRLCK}
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &whole)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			_ = f.Close() // it is the other's
			who := "another process"
			if info, err := readInfo(name); err == nil {
				who = fmt.Sprintf("process %d", info.Driver)
			}
			return nil, &CheckError{CheckRunning, fmt.Sprintf("lab %s is up", name), who + " drives it", fmt.Sprintf("shoal-lab down --name %s, or choose another --name", name)}
		}
		if err == nil && isSameFile(f, path) {
			return f, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("register the lab: %w", err)
		} // else it was removed before it was locked: again
	}
}

func isSameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// isLocked asks whether a driver lives, without disturbing anybody who locks.
func isLocked(name string) bool {
	f, err := os.Open(filepath.Join(registry, name, lockFile))
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // nothing was written
	probe := unix.Flock_t{Type: unix.F_RDLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &probe) == nil && probe.Type != unix.F_UNLCK
}

// Find tells of the lab of a name. An error that is fs.ErrNotExist: there is none, nor
// anything that one left.
func Find(name string) (Info, error) {
	if !validName.MatchString(name) {
		return Info{}, fmt.Errorf("no lab is called %q: %w", name, fs.ErrNotExist)
	}
	info, err := readInfo(name)
	if err != nil {
		// It is just beginning, or its driver was killed then, or its disk was full, or the
		// machine has been started again since. Whatever it is, it can be removed.
		info = Info{Name: name, Dir: dirOf(name), Hosts: []string{}}
		left, err := remainsOf(name, info.Dir)
		if err != nil {
			return Info{}, err
		}
		if len(left) == 0 && !exists(filepath.Join(registry, name)) {
			return Info{}, fmt.Errorf("no lab is called %q: %w", name, fs.ErrNotExist)
		}
	}
	info.IsRunning = isLocked(name)
	return info, nil
}

// List tells of every lab of this machine, also of those whose drivers are gone, in the
// order of their names.
func List() ([]Info, error) {
	names := map[string]bool{}
	for _, dir := range []string{registry, root} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list labs: %w", err)
		}
		for _, e := range entries {
			names[e.Name()] = true
		}
	}
	var all []Info
	for name := range names {
		info, err := Find(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just gone, or is no lab's
		}
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	slices.SortFunc(all, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// dirOf is where a lab of the name has its files.
func dirOf(name string) string {
	if dir, err := os.Readlink(filepath.Join(registry, name, dirLink)); err == nil {
		return dir
	}
	return filepath.Join(root, name)
}

func readInfo(name string) (Info, error) {
	var info Info
	text, err := os.ReadFile(filepath.Join(dirOf(name), stateFile))
	if err != nil {
		return info, fmt.Errorf("lab %s: %w", name, err)
	}
	if err := json.Unmarshal(text, &info); err != nil {
		return info, fmt.Errorf("lab %s: %s: %w", name, stateFile, err)
	}
	if info.Name != name {
		return info, fmt.Errorf("lab %s: %s is of lab %q", name, stateFile, info.Name)
	}
	return info, nil
}

// write puts what is known of the lab where others find it.
func (i Info) write() error {
	text, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return fmt.Errorf("lab %s: %w", i.Name, err)
	}
	path := filepath.Join(i.Dir, stateFile)
	if err := os.WriteFile(path+".part", append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("lab %s: %w", i.Name, err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		return fmt.Errorf("lab %s: %w", i.Name, err)
	}
	return nil
}
