// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package driver

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// endsWithin is how long a driver may take to end when it has answered that nothing of
	// its lab is left.
	endsWithin = 5 * time.Second
	// lookEvery is in milliseconds.
	lookEvery = 100
)

// watched is the process behind a socket, by a descriptor that means this process and no
// later one of its number (pidfd_open(2)); -1: there is none, or the kernel cannot.
type watched int

// watch finds who listens on a socket.
func watch(ctx context.Context, socket string) watched {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return -1
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return -1
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return -1
	}
	fd := -1
	err = raw.Control(func(s uintptr) {
		peer, err := unix.GetsockoptUcred(int(s), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		if opened, err := unix.PidfdOpen(int(peer.Pid), 0); err == nil {
			fd = opened
		}
	})
	if err != nil {
		return -1
	}
	return watched(fd)
}

// await waits until the process has ended, not for long, and says whether it has.
func (w watched) await(ctx context.Context) bool {
	if w < 0 {
		return false
	}
	for until := time.Now().Add(endsWithin); ctx.Err() == nil && time.Now().Before(until); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(w), Events: unix.POLLIN}}, lookEvery)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
	return false
}

func (w watched) close() {
	if w >= 0 {
		_ = unix.Close(int(w)) // it was only watched
	}
}
