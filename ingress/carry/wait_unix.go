// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package carry

import (
	"io"
	"net"
	"os"
	"syscall"
)

// waiter reads from a socket, and holds no buffer while nothing is there: of many open
// connections most are silent. One goroutine reads at a time.
type waiter struct {
	raw syscall.RawConn
	try func(fd uintptr) bool // made once, for it escapes

	from *pool
	skip int
	got  piece
	err  error
}

// newWaiter returns one for a socket; without a descriptor it reads as others do.
func newWaiter(conn syscall.Conn) waiter {
	raw, err := conn.SyscallConn()
	if err != nil {
		return waiter{} // it is closed, and Read says so
	}
	return waiter{raw: raw}
}

// wait returns what there is as soon as there is something. At the end of a connection it
// is io.EOF.
func (w *waiter) wait(conn net.Conn, p *pools, more bool) (piece, error) {
	if w.raw == nil {
		return nextOf(conn, p, more)
	}
	got, err := w.read(p.large, 0)
	if err == nil && got.n == 0 {
		err = io.EOF
	}
	return got, err
}

// read reads once, into a buffer from a pool whose first bytes it skips.
func (w *waiter) read(from *pool, skip int) (piece, error) {
	if w.try == nil {
		w.try = w.tryRead
	}
	w.from, w.skip, w.got, w.err = from, skip, piece{}, nil
	if err := w.raw.Read(w.try); err != nil {
		return w.got, err
	}
	return w.got, w.err
}

// tryRead is false if there is nothing yet.
func (w *waiter) tryRead(fd uintptr) bool {
	w.got = piece{buf: w.from.get(), of: w.from}
	for {
		n, err := syscall.Read(int(fd), (*w.got.buf)[w.skip:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			w.got.put()
			w.got = piece{}
			return false
		case err != nil:
			w.err = os.NewSyscallError("read", err)
			return true
		}
		w.got.n = n
		return true
	}
}
