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
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cost is what one idle daemon takes.
type cost struct {
	rss     int64   // bytes
	cpu     float64 // of one core
	written int64   // bytes that went to the disk
}

// clockTick is the unit of /proc's processor times; it is 100 on every Linux that Go
// runs on.
const clockTick = 100

// measureIdle starts three daemons, makes them a cluster, lets them settle, and
// looks at the first for a while.
func measureIdle(ctx context.Context, window time.Duration) (c cost, err error) {
	dir, err := os.MkdirTemp("", "shoal-measure-")
	if err != nil {
		return c, fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var socks []string
	var first *exec.Cmd
	for i := range peers {
		ip := fmt.Sprintf("127.0.0.%d", 41+i)
		sock := filepath.Join(dir, fmt.Sprintf("%d.sock", i))
		cmd := exec.CommandContext(ctx, "bin/shoald", "--data", filepath.Join(dir, fmt.Sprint(i)), "--socket", sock,
			"--listen", ip, "--publish", ip, "--name", fmt.Sprintf("m%d", i))
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		if err := cmd.Start(); err != nil {
			return c, fmt.Errorf("start a daemon: %w", err)
		}
		defer func() {
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
			_ = cmd.Wait()
		}()
		socks = append(socks, sock)
		if first == nil {
			first = cmd
		}
	}
	if err := join(ctx, socks); err != nil {
		return c, err
	}
	if err := sleep(ctx, 20*time.Second); err != nil { // grace, first lists, first beats
		return c, err
	}
	before, err := look(first.Process.Pid)
	if err != nil {
		return c, err
	}
	if err := sleep(ctx, window); err != nil {
		return c, err
	}
	after, err := look(first.Process.Pid)
	if err != nil {
		return c, err
	}
	return cost{rss: after.rss, cpu: (after.cpu - before.cpu) / window.Seconds(), written: after.written - before.written}, nil
}

// join makes one cluster of the daemons behind these sockets.
func join(ctx context.Context, socks []string) error {
	if err := until(ctx, func() bool {
		for _, s := range socks {
			if _, err := command(ctx, s, "version"); err != nil {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	if _, err := command(ctx, socks[0], "init"); err != nil {
		return err
	}
	for _, s := range socks[1:] {
		out, err := command(ctx, socks[0], "token", "create")
		if err != nil {
			return err
		}
		for word := range strings.FieldsSeq(out) {
			if strings.HasPrefix(word, "shoal1-") {
				if _, err := command(ctx, s, "join", word); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// command runs the built command against one daemon.
func command(ctx context.Context, sock string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "bin/shoal", append([]string{"-H", "unix://" + sock}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("shoal %s: %w: %s", args[0], err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// look reads what a process has taken so far; cpu is in seconds.
func look(pid int) (cost, error) {
	var c cost
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return c, fmt.Errorf("read process: %w", err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may hold spaces
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return c, fmt.Errorf("read process: %d fields", len(fields))
	}
	for _, f := range fields[11:13] { // utime, stime (proc(5), fields 14 and 15)
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return c, fmt.Errorf("read process: %w", err)
		}
		c.cpu += float64(n) / clockTick
	}
	kb, err := value(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
	if err != nil {
		return c, err
	}
	c.rss = kb * 1024
	c.written, err = value(fmt.Sprintf("/proc/%d/io", pid), "write_bytes:")
	return c, err
}

// value reads one number out of a file of "key value" lines.
func value(path, key string) (int64, error) {
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
