// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestNotifier(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	where := filepath.Join(t.TempDir(), "n")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: where, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	tell := notifier(ctx, where, log)
	cancel() // the word that it stops comes after that
	tell("STOPPING=1")
	if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := l.Read(buf)
	if got := string(buf[:n]); err != nil || got != "STOPPING=1" {
		t.Errorf("told %q, %v, want STOPPING=1", got, err)
	}
	notifier(ctx, "", log)("READY=1")
	notifier(ctx, "/nonexistent/socket", log)("READY=1") // it only warns
}
