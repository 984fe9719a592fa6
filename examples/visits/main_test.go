// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestCounts: pages count in one store, which answers what a Redis client asks.
func TestCounts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serveStore(ctx, at) }()
	get := func() string {
		w := httptest.NewRecorder()
		page(at).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
		return w.Body.String()
	}
	for !strings.HasPrefix(get(), "visit ") { // until it listens
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
	}
	if got := get(); !strings.HasPrefix(got, "visit 2, counted by ") {
		t.Errorf("page = %q, want the second visit", got)
	}
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, c := range [][2]string{
		{"*1\r\n$4\r\nping\r\n", "+PONG"}, {"*2\r\n$3\r\nGET\r\n$6\r\nvisits\r\n", "$1"}, {"", "2"}, {"*1\r\n$8\r\nFLUSHALL\r\n", "-ERR"},
	} {
		if _, err := io.WriteString(conn, c[0]); err != nil {
			t.Fatal(err)
		}
		if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, c[1]) {
			t.Errorf("%q: %q, %v, want %q", c[0], line, err, c[1])
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("the store ended with %v", err)
	}
	if got := get(); !strings.HasPrefix(got, "the store: ") {
		t.Errorf("page without a store = %q", got)
	}
}

func TestAsk(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ok := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "visit 1") }))
	defer ok.Close()
	nothing := httptest.NewServer(page(l.Addr().String()))
	defer nothing.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(t.Context(), []string{"ask", ok.URL}, &out, io.Discard); err != nil || out.String() != "visit 1" {
		t.Errorf("ask = %q, %v", out.String(), err)
	}
	if err := run(t.Context(), []string{"ask", nothing.URL}, &out, io.Discard); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("ask of a page without a store: %v", err)
	}
}

func TestBadCommandLines(t *testing.T) {
	for _, args := range [][]string{{}, {"web", "-nosuch"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil || len(args) == 0 && !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%q: %v", args, err)
		}
	}
	if err := run(t.Context(), []string{"mysql"}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "mysql") {
		t.Errorf("mysql: %v", err)
	}
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{"*1\r\n$4\r\nPING\r\n", "*2\r\n$4\r\nINCR\r\n$1\r\nx\r\n", "*9\r\n", "*1\r\n$-1\r\n", "PING\r\n", "*0\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, err := readCommand(bufio.NewReader(strings.NewReader(s)))
		if err == nil && (len(words) == 0 || len(words) > maxWords) {
			t.Errorf("%d words of %q", len(words), s)
		}
	})
}
