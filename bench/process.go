// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// command prepares a process that ends with this one, and that a Ctrl-C on the
// terminal does not reach: we end it in order.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd
}

// output runs a command and returns what it printed; standard error is in the error.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd := command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

// built returns an error if one of these is no program.
func built(names ...string) error {
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s %w", name, errNotBuilt)
		}
	}
	return nil
}

// usage is what a process has taken so far.
type usage struct {
	rss     int64   // bytes
	cpu     float64 // seconds
	written int64   // bytes that went to the disk
}

// clockTick is the unit of /proc's processor times; it is 100 on every Linux that Go
// runs on.
const clockTick = 100

func usageOf(pid int) (usage, error) {
	var u usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, fmt.Errorf("read process: %w", err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may hold spaces
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return u, fmt.Errorf("read process: %d fields", len(fields))
	}
	for _, f := range fields[11:13] { // utime, stime (proc(5), fields 14 and 15)
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return u, fmt.Errorf("read process: %w", err)
		}
		u.cpu += float64(n) / clockTick
	}
	kb, err := procValue(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
	if err != nil {
		return u, err
	}
	u.rss = kb * 1024
	u.written, err = procValue(fmt.Sprintf("/proc/%d/io", pid), "write_bytes:")
	return u, err
}

// peakEvery is how often memory is looked at for its peak.
const peakEvery = 50 * time.Millisecond

// peaks does something and returns the most memory, in bytes, that each process had in
// meanwhile.
func peaks(pids []int, do func() error) ([]int64, error) {
	most, stop, done := make([]int64, len(pids)), make(chan struct{}), make(chan error, 1)
	look := func() error {
		for i, pid := range pids {
			kb, err := procValue(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
			if err != nil {
				return err
			}
			most[i] = max(most[i], kb*1024)
		}
		return nil
	}
	go func() {
		tick := time.NewTicker(peakEvery)
		defer tick.Stop()
		for {
			if err := look(); err != nil {
				done <- err
				return
			}
			select {
			case <-tick.C:
			case <-stop:
				done <- look()
				return
			}
		}
	}()
	err := do()
	close(stop)
	return most, errors.Join(err, <-done)
}

// procValue reads one number out of a file of "key value" lines.
func procValue(path, key string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("read process: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) >= 2 && fields[0] == key {
			return strconv.ParseInt(fields[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("read process: no %s in %s", key, path)
}
