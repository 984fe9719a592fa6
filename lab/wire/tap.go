// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package wire

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// TAP is a [Card] of the kernel's: what a host sends leaves it here.
type TAP struct{ *os.File }

// OpenTAP makes a TAP device in the network namespace of the calling process. The device
// is there until the file and its duplicates are closed.
func OpenTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, HeaderBytes)
	}
	if err != nil {
		_ = unix.Close(fd) // err says it all
		return nil, fmt.Errorf("make TAP %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// SetOffload implements [Card]: with it a TCP stream comes in frames of up to 64 KiB, and
// checksums are left open, which a switch in memory cannot get wrong.
func (t TAP) SetOffload(on bool) error {
	flags := 0
	if on {
		flags = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return fmt.Errorf("TAP %s: %w", t.Name(), err)
	}
	var ioctl error
	if err := raw.Control(func(fd uintptr) { ioctl = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, flags) }); err != nil {
		return fmt.Errorf("TAP %s: %w", t.Name(), err)
	}
	if errors.Is(ioctl, unix.EBADFD) { // its host has ended, and the device with it
		return nil
	}
	if ioctl != nil {
		return fmt.Errorf("TAP %s: set offload: %w", t.Name(), ioctl)
	}
	return nil
}
