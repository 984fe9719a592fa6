// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/shoalnet/shoal"
)

const lockFile = "lock"

// LockedError says that another daemon uses the data directory.
type LockedError struct {
	Dir string
	PID int // 0 when the holder did not say
}

// Error returns "data dir locked by pid 123".
func (e *LockedError) Error() string {
	if e.PID == 0 {
		return "data dir locked by another process"
	}
	return fmt.Sprintf("data dir locked by pid %d", e.PID)
}

// lock takes the directory for this process. The kernel lets it go when the process
// ends, however it ends; the pid inside is for people only and never trusted.
func (d *diskFiles) lock() error {
	if err := makeDirs(d.dir); err != nil {
		return fmt.Errorf("make data dir %s: %w", d.dir, err)
	}
	f, err := os.OpenFile(d.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open lock of data dir %s: %w", d.dir, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		pid := readPID(f)
		return errors.Join(&shoal.AdviceError{
			Err:    &LockedError{Dir: d.dir, PID: pid},
			Advice: "stop that daemon, or give this one a data dir of its own",
		}, f.Close())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("lock data dir %s: %w", d.dir, err), f.Close())
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write lock of data dir %s: %w", d.dir, err), f.Close())
	}
	d.held = f
	return nil
}

func readPID(f *os.File) int {
	raw, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0
	}
	return pid
}
