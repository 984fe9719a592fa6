// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
)

// Bulk between two local sockets is not read into this process: the kernel counts what its
// calls of read return, and here only the client's may.
func TestBulkStaysInTheKernel(t *testing.T) {
	const size = 64 << 20
	m := alone(t, Defaults())
	s := service(m.has(1, listen(t, func(c *net.TCPConn) {
		b := make([]byte, 1<<20)
		for range size / len(b) {
			_, _ = c.Write(b)
		}
	})))
	c := dial(t, m.door(t, s, TCP))
	before := bytesRead(t)
	if n, err := io.Copy(io.Discard, c); n != size || err != nil {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	if got := bytesRead(t) - before; got > size*5/4 {
		t.Errorf("this process read %d bytes for %d: they were copied", got, size)
	}
}

// bytesRead returns what all calls of read returned so far.
func bytesRead(t testing.TB) (n int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if _, err := fmt.Sscanf(line, "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}
