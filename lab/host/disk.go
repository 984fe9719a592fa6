// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// loopPatience is how long an image may still be held by the host's earlier life:
	// the kernel lets go of it a moment after the last process has ended.
	loopPatience = 5 * time.Second
	sectorBytes  = 512 // of /sys/block/*/stat, whatever the device's own are
	fillFile     = ".filled-by-the-lab"
	fillPiece    = 64 << 20
)

// MakeDisk makes the image of a disk, sparse, with an empty ext4 in it. One that is
// there is left as it is.
func MakeDisk(ctx context.Context, d Disk) error {
	if _, err := os.Stat(d.Image); err == nil {
		return nil
	}
	part := d.Image + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make disk %s: %w", d.Name, err)
	}
	if err := errors.Join(f.Truncate(d.Bytes), f.Close()); err != nil {
		return fmt.Errorf("make disk %s: %w", d.Name, err)
	}
	// All room is everybody's, so that full means full for root, too.
	cmd := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", part)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make disk %s: mkfs.ext4: %w: %s", d.Name, err, strings.TrimSpace(string(out)))
	}
	if err := os.Rename(part, d.Image); err != nil {
		return fmt.Errorf("make disk %s: %w", d.Name, err)
	}
	return nil
}

// mounted is a disk while the host runs.
type mounted struct {
	Disk
	loop   int
	before int64 // bytes that the loop device had written for others
}

// attach mounts a disk through a loop device that the kernel frees with the mount. The
// device's file is made in our own /run, as not every machine makes more than eight.
func attach(d Disk) (mounted, error) {
	if err := awaitFree(d.Image); err != nil {
		return mounted{}, err
	}
	image, err := os.OpenFile(d.Image, os.O_RDWR, 0)
	if err != nil {
		return mounted{}, err
	}
	defer image.Close() //nolint:errcheck // the device has its own hold on it
	n, dev, err := freeLoop(image)
	if err != nil {
		return mounted{}, err
	}
	defer dev.Close() //nolint:errcheck // the mount holds the device; if there is none, this frees it
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return mounted{}, err
	}
	if err := syscall.Mount(dev.Name(), d.Dir, "ext4", syscall.MS_NOATIME, ""); err != nil {
		return mounted{}, fmt.Errorf("mount %s: %w", d.Image, err)
	}
	before, _ := written(n) // where the kernel does not tell, it does not later
	return mounted{d, n, before}, nil
}

// freeLoop binds an image to a free loop device.
func freeLoop(image *os.File) (int, *os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("this machine has no loop devices (modprobe loop): %w", err)
	}
	defer control.Close() //nolint:errcheck // nothing was written
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return 0, nil, fmt.Errorf("find a free loop device: %w", err)
		}
		const loopMajor = 7
		path := filepath.Join("/run", "loop"+strconv.Itoa(n))
		if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
			return 0, nil, fmt.Errorf("make %s: %w", path, err)
		}
		dev, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return 0, nil, fmt.Errorf("open loop device: %w", err)
		}
		config := unix.LoopConfig{Fd: uint32(image.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		copy(config.Info.File_name[:], image.Name())
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if err == nil {
			return n, dev, nil
		}
		_ = dev.Close() // it was not ours
		if !errors.Is(err, unix.EBUSY) {
			return 0, nil, fmt.Errorf("bind loop device %d: %w", n, err)
		}
	} // another process was faster: the next free one
}

// awaitFree waits until no loop device holds the image any more. Mounting it twice
// would ruin it.
func awaitFree(image string) error {
	for from := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		holder, err := loopOf(image)
		if err != nil || holder == "" {
			return err
		}
		if time.Since(from) > loopPatience {
			return fmt.Errorf("%s is still in use by %s", image, holder)
		}
	}
}

// loopOf returns the loop device that holds an image, "" if none does.
func loopOf(image string) (string, error) {
	held, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return "", err
	}
	for _, path := range held {
		text, err := os.ReadFile(path)
		if err == nil && strings.TrimSpace(string(text)) == image {
			return strings.Split(path, "/")[3], nil
		}
	}
	return "", nil
}

// writes reads how many bytes went to each disk.
func (in *inside) writes() map[string]int64 {
	bytes := map[string]int64{}
	for _, d := range in.disks {
		if n, ok := written(d.loop); ok { // the driver sees that it is absent
			bytes[d.Name] = n - d.before
		}
	}
	return bytes
}

// written is how many bytes a loop device has written since the machine booted.
func written(loop int) (int64, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/stat", loop))
	fields := strings.Fields(string(text))
	const sectors = 6 // the seventh field (Documentation/block/stat.rst)
	if err != nil || len(fields) <= sectors {
		return 0, false
	}
	n, err := strconv.ParseInt(fields[sectors], 10, 64)
	return n * sectorBytes, err == nil
}

// fill takes all free room of a disk, or gives it back.
func (in *inside) fill(f *fillAsk) error {
	for _, d := range in.disks {
		if d.Name != f.Disk {
			continue
		}
		path := filepath.Join(d.Dir, fillFile)
		if f.IsFree {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("free disk %s: %w", d.Name, err)
			}
			return nil
		}
		if err := fillWith(path); err != nil {
			return fmt.Errorf("fill disk %s: %w", d.Name, err)
		}
		return nil
	}
	return fmt.Errorf("no disk %q", f.Disk)
}

// fillWith takes room in ever smaller pieces until not a block is left.
func fillWith(path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	at, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	for piece := int64(fillPiece); piece >= sectorBytes; {
		switch err := unix.Fallocate(int(f.Fd()), 0, at, piece); {
		case err == nil:
			at += piece
		case errors.Is(err, unix.ENOSPC):
			piece /= 2
		case !errors.Is(err, unix.EINTR):
			return err
		}
	}
	return nil
}
