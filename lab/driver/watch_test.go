// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package driver

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestMain listens on a socket until standard input ends, when it is started as that.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "listen" {
		if _, err := net.Listen("unix", os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("ready")
		_, _ = bufio.NewReader(os.Stdin).ReadString(0) // it ends
		return
	}
	os.Exit(m.Run())
}

func TestWatch(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	if w := watch(t.Context(), socket); w >= 0 || w.await(t.Context()) {
		t.Errorf("where nobody listens there is %d", w)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "listen", socket)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("it says %q, %v", line, err)
	}
	w := watch(t.Context(), socket)
	defer w.close()
	off, cancel := context.WithCancel(t.Context())
	cancel()
	if w < 0 || w.await(off) {
		t.Errorf("while it listens it is %d, and has ended", w)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if !w.await(t.Context()) {
		t.Error("it was not seen to end")
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
