// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	groupRoot = "/sys/fs/cgroup"
	// groupTop is the group of all labs of a machine.
	groupTop = "shoal-lab"
	// sweepPatience is how long killed processes may take to be gone.
	sweepPatience = 10 * time.Second
)

// Group is a host's control group. Its processes are in Group/init, containers of its
// engine in Group/containers, because the second kind of control groups (cgroups(7),
// version 2) has processes in leaves only. Both kinds are served.
type Group struct{ Lab, Host string }

// Containers is the parent for an engine's containers, as the engine names groups.
func (g Group) Containers() string { return filepath.Join("/", groupTop, g.Lab, g.Host, "containers") }

// hierarchies returns the directories that groups are made in: one for each controller
// of the first kind, or the one tree of the second.
func hierarchies() ([]string, bool, error) {
	if _, err := os.Stat(filepath.Join(groupRoot, "cgroup.controllers")); err == nil {
		return []string{groupRoot}, true, nil
	}
	entries, err := os.ReadDir(groupRoot)
	if err != nil {
		return nil, false, fmt.Errorf("control groups: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		// cpuset takes no process before its masks are set, which containers' groups do themselves.
		if name := e.Name(); e.IsDir() && name != "systemd" && name != "unified" && name != "cpuset" {
			dirs = append(dirs, filepath.Join(groupRoot, name))
		}
	}
	if len(dirs) == 0 {
		return nil, false, errors.New("control groups: none are mounted at " + groupRoot)
	}
	return dirs, false, nil
}

func (g Group) in(hierarchy string) string { return filepath.Join(hierarchy, groupTop, g.Lab, g.Host) }

// make makes the group; one that is there is used.
func (g Group) make() error {
	dirs, isUnified, err := hierarchies()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		for _, leaf := range []string{"init", "containers"} {
			if err := os.MkdirAll(filepath.Join(g.in(dir), leaf), 0o755); err != nil { //nolint:gosec // as groups are
				return fmt.Errorf("control group: %w", err)
			}
		}
	}
	if !isUnified {
		return nil
	}
	for _, dir := range []string{groupRoot, filepath.Join(groupRoot, groupTop), filepath.Join(groupRoot, groupTop, g.Lab), g.in(groupRoot)} {
		if err := delegate(dir); err != nil {
			return err
		}
	}
	return nil
}

// delegate lets the groups below use every controller that this one has.
func delegate(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("control group: %w", err)
	}
	for controller := range strings.FieldsSeq(string(text)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("control group: hand %s down: %w", controller, err)
		}
	}
	return nil
}

// Files are those into which a process writes its number to be in the group; its children
// will be there, too.
func (g Group) Files() ([]string, error) {
	dirs, _, err := hierarchies()
	var files []string
	for _, dir := range dirs {
		files = append(files, filepath.Join(g.in(dir), "init", "cgroup.procs"))
	}
	return files, err
}

// add moves a process into the group.
func (g Group) add(pid int) error {
	files, err := g.Files()
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.WriteFile(file, []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("control group: add process %d: %w", pid, err)
		}
	}
	return nil
}

func (g Group) freeze(isFrozen bool) error {
	path, text := filepath.Join(g.in(filepath.Join(groupRoot, "freezer")), "freezer.state"), "THAWED"
	if isFrozen {
		text = "FROZEN"
	}
	if _, isUnified, err := hierarchies(); err != nil {
		return err
	} else if isUnified {
		path, text = filepath.Join(g.in(groupRoot), "cgroup.freeze"), "0"
		if isFrozen {
			text = "1"
		}
	}
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		return fmt.Errorf("control group: freeze: %w", err)
	}
	return nil
}

// thaw lets the group go on, and the groups below it, which an engine freezes for
// containers that are paused.
func (g Group) thaw() error {
	top := g.in(filepath.Join(groupRoot, "freezer"))
	if _, isUnified, err := hierarchies(); err != nil {
		return err
	} else if isUnified {
		top = g.in(groupRoot)
	}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a container's that has just ended
		}
		if err == nil && d.IsDir() {
			thaw(path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("control group: thaw: %w", err)
	}
	return nil
}

// CPU is the processor time that the group has used since it was made.
func (g Group) CPU() (time.Duration, error) {
	_, isUnified, err := hierarchies()
	if err != nil {
		return 0, err
	}
	if !isUnified {
		text, err := os.ReadFile(filepath.Join(g.in(filepath.Join(groupRoot, "cpuacct")), "cpuacct.usage"))
		if err != nil {
			return 0, fmt.Errorf("control group: %w", err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		return time.Duration(n), err
	}
	text, err := os.ReadFile(filepath.Join(g.in(groupRoot), "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("control group: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if usec, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(usec), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, errors.New("control group: no usage_usec in cpu.stat")
}

// Remains lists the control groups of a lab, or of all labs if lab is "", and their
// processes.
func Remains(lab string) (groups []string, pids []int, err error) {
	entries, err := os.ReadDir(groupRoot)
	if err != nil {
		return nil, nil, fmt.Errorf("control groups: %w", err)
	}
	tops := []string{filepath.Join(groupRoot, groupTop, lab)}
	for _, e := range entries {
		if e.IsDir() && e.Name() != groupTop {
			tops = append(tops, filepath.Join(groupRoot, e.Name(), groupTop, lab))
		}
	}
	for _, top := range tops {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // never made, or just removed
			}
			if err != nil {
				return err
			}
			if d.IsDir() {
				groups = append(groups, path)
			}
			if d.Name() == "cgroup.procs" {
				more, err := procsOf(path)
				pids = append(pids, more...)
				return err
			}
			return nil
		})
		if err != nil {
			return nil, nil, fmt.Errorf("control groups: %w", err)
		}
	}
	slices.Sort(pids)
	return groups, slices.Compact(pids), nil
}

func procsOf(path string) ([]int, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil, nil // the group has just gone
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// Sweep ends every process of a lab and removes its control groups, whoever made them.
func Sweep(lab string) error {
	if lab == "" || strings.ContainsAny(lab, "/.") {
		return fmt.Errorf("sweep: no lab is called %q", lab)
	}
	for from := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		groups, pids, err := Remains(lab)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if pid == 0 { // one that is not seen from here: 0 is our own group
				continue
			}
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended; if not, the next look sees it
		}
		for _, dir := range groups {
			thaw(dir)
		}
		slices.Reverse(groups) // a walk has parents first
		left := false
		for _, dir := range groups {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				left = true
			}
		}
		if !left && len(pids) == 0 {
			return removeTop()
		}
		if time.Since(from) > sweepPatience {
			return fmt.Errorf("sweep lab %s: %d processes and %d control groups do not go; see %s", lab, len(pids), len(groups), groups[0])
		}
	}
}

// thaw lets a group's processes go on, so that they can die. Groups that cannot freeze
// have no such file.
func thaw(dir string) {
	for name, text := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0"} {
		if path := filepath.Join(dir, name); exists(path) {
			_ = os.WriteFile(path, []byte(text), 0) // Sweep sees what did not die
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// removeTop removes the group of all labs when the last one is gone.
func removeTop() error {
	entries, err := os.ReadDir(groupRoot)
	if err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	_ = os.Remove(filepath.Join(groupRoot, groupTop)) // it is not there, or still another lab's
	for _, e := range entries {
		_ = os.Remove(filepath.Join(groupRoot, e.Name(), groupTop)) // the same
	}
	return nil
}
