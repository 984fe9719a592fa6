// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package carry

import (
	"net"
	"syscall"
)

// waiter reads from a socket.
type waiter struct{ conn any }

func newWaiter(conn syscall.Conn) waiter { return waiter{conn} }

func (w *waiter) wait(conn net.Conn, p *pools, more bool) (piece, error) {
	return nextOf(conn, p, more)
}

// read reads once, into a buffer from a pool whose first bytes it skips.
func (w *waiter) read(from *pool, skip int) (piece, error) {
	got := piece{buf: from.get(), of: from}
	var err error
	got.n, err = w.conn.(net.Conn).Read((*got.buf)[skip:])
	return got, err
}
