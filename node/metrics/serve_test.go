// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// serve serves a busy peer until the returned call, which returns the error of Serve.
func serve(t *testing.T) (base string, stop func() error) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New(busy, slog.New(slog.DiscardHandler)).Serve(ctx, l) }()
	return "http://" + l.Addr().String(), func() error { cancel(); return <-done }
}

// get returns the status and the body of an answer.
func get(t *testing.T, method, url string) (int, string, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }() // it is read
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("Content-Type"), string(body)
}

// There is one path and one method, and nothing else of this process.
func TestServe(t *testing.T) {
	base, stop := serve(t)
	for _, tt := range []struct {
		method, path string
		status       int
		kind, body   string
	}{
		{http.MethodGet, "/metrics", http.StatusOK, "text/plain; version=0.0.4", "shoal_ingress_open_connections{service=\"web\"} 2\n"},
		{http.MethodPost, "/metrics", http.StatusMethodNotAllowed, "text/plain", ""},
		{http.MethodGet, "/", http.StatusNotFound, "text/plain", ""},
		{http.MethodGet, "/debug/pprof/", http.StatusNotFound, "text/plain", ""},
	} {
		status, kind, body := get(t, tt.method, base+tt.path)
		if status != tt.status || !strings.HasPrefix(kind, tt.kind) || !strings.Contains(body, tt.body) {
			t.Errorf("%s %s = %d %q, want %d %q and %q in\n%s", tt.method, tt.path, status, kind, tt.status, tt.kind, tt.body, body)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("Serve = %v", err)
	}
	var d net.Dialer
	if conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://")); err == nil {
		_ = conn.Close()
		t.Error("it listens after Serve has returned")
	}
}

// A client that says nothing does not hold up the end.
func TestServeEndsDespiteClients(t *testing.T) {
	base, stop := serve(t)
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\n"); err != nil { // and the rest never comes
		t.Fatal(err)
	}
	began := time.Now()
	if err := stop(); err != nil {
		t.Errorf("Serve = %v", err)
	}
	if took := time.Since(began); took > stopTime+5*time.Second {
		t.Errorf("it ended after %s, want %s at most", took, stopTime)
	}
}

// What takes the listener away is an error.
func TestServeLosesItsListener(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := New(busy, slog.New(slog.DiscardHandler)).Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("Serve = %v, want an error that names the address", err)
	}
}
