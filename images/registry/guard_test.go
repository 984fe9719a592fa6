// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// TestGuard: what a web page can make a browser send is not answered, nor who has no login,
// whatever the path.
func TestGuard(t *testing.T) {
	s := serve(t, Config{Login: shoal.RegistryLogin{User: "shoal", Password: "secret"}})
	_, port, _ := net.SplitHostPort(s.addr)
	login := func(user, password string) func(*http.Request) {
		return func(req *http.Request) { req.SetBasicAuth(user, password) }
	}
	good := login("shoal", "secret")
	with := func(key, value string) func(*http.Request) {
		return func(req *http.Request) { good(req); req.Header.Set(key, value) }
	}
	host := func(h string) func(*http.Request) {
		return func(req *http.Request) { good(req); req.Host = h }
	}
	for _, tt := range []struct {
		name string
		edit func(*http.Request)
		want int
	}{
		{"own address", good, http.StatusOK},
		{"localhost", host("localhost:" + port), http.StatusOK},
		{"localhost without port", host("localhost"), http.StatusMisdirectedRequest},
		{"other port", host("127.0.0.1:1"), http.StatusMisdirectedRequest},
		{"other loopback address", host("127.0.0.2:" + port), http.StatusMisdirectedRequest},
		{"rebound name", host("evil.example:" + port), http.StatusMisdirectedRequest},
		{"name that begins alike", host("localhost.evil.example:" + port), http.StatusMisdirectedRequest},
		{"origin", with("Origin", "http://evil.example"), http.StatusForbidden},
		{"own origin", with("Origin", "http://"+s.addr), http.StatusForbidden},
		{"null origin", with("Origin", "null"), http.StatusForbidden},
		{"empty origin", with("Origin", ""), http.StatusForbidden},
		{"image of a page", with("Sec-Fetch-Site", "cross-site"), http.StatusForbidden},
		{"address bar", with("Sec-Fetch-Site", "none"), http.StatusOK},
		{"no login", nil, http.StatusUnauthorized},
		{"no password", login("shoal", ""), http.StatusUnauthorized},
		{"wrong password", login("shoal", "secrets"), http.StatusUnauthorized},
		{"wrong user", login("shoa", "secret"), http.StatusUnauthorized},
		{"bearer", header("Authorization", "Bearer c2hvYWw6c2VjcmV0"), http.StatusUnauthorized},
		{"not base64", header("Authorization", "Basic %%%"), http.StatusUnauthorized},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{"/v2/", "/v2", "/v2/_catalog", "/v2/app/manifests/v1", "/v2/app/blobs/sha256:x", "/"} {
				got := s.do(http.MethodGet, path, nil, tt.edit)
				if tt.want == http.StatusOK && path != "/v2/" {
					continue
				}
				if got.StatusCode != tt.want {
					t.Errorf("GET %s = %d %s, want %d", path, got.StatusCode, got.body, tt.want)
				}
				if tt.want == http.StatusUnauthorized && !strings.HasPrefix(got.Header.Get("WWW-Authenticate"), "Basic ") {
					t.Errorf("GET %s: WWW-Authenticate = %q, want Basic", path, got.Header.Get("WWW-Authenticate"))
				}
			}
		})
	}
}

func TestGuardOpen(t *testing.T) {
	s := serve(t, Config{})
	s.want(http.StatusOK, http.MethodGet, "/v2/", nil, nil)
	s.want(http.StatusForbidden, http.MethodGet, "/v2/", nil, header("Origin", "null"))
}

// TestGuardAddress: a handler that is served elsewhere than on loopback answers nobody.
func TestGuardAddress(t *testing.T) {
	s := serve(t, Config{})
	for name, addr := range map[string]net.Addr{
		"none":     nil,
		"any":      &net.TCPAddr{IP: net.IPv4zero, Port: 5050},
		"private":  &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 5050},
		"a socket": &net.UnixAddr{Name: "/run/x"},
	} {
		req := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:5050/v2/", nil)
		if addr != nil {
			req = req.WithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, addr))
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, req)
		if w.Code != http.StatusForbidden {
			t.Errorf("served on %s: GET /v2/ = %d, want 403", name, w.Code)
		}
	}
}

func TestIsOwnHost(t *testing.T) {
	for _, tt := range []struct {
		host string
		ip   string
		port int
		want bool
	}{
		{"127.0.0.1:5050", "127.0.0.1", 5050, true},
		{"[::1]:5050", "::1", 5050, true},
		{"::1:5050", "::1", 5050, false},
		{"127.0.0.1", "127.0.0.1", 80, true},
		{"localhost", "127.0.0.1", 80, true},
		{"", "127.0.0.1", 80, false},
		{"LOCALHOST:5050", "127.0.0.1", 5050, false},
		{"127.0.0.1:05050", "127.0.0.1", 5050, false},
	} {
		if got := isOwnHost(tt.host, &net.TCPAddr{IP: net.ParseIP(tt.ip), Port: tt.port}); got != tt.want {
			t.Errorf("isOwnHost(%q, %s, %d) = %v, want %v", tt.host, tt.ip, tt.port, got, tt.want)
		}
	}
}

// TestRunRefuses: it does not serve on an address that other machines reach.
func TestRunRefuses(t *testing.T) {
	s := serve(t, Config{})
	r, err := New(t.Context(), Config{}, s.store, s.room, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var invalid *shoal.InvalidError
	if err := r.Run(t.Context(), l); !errors.As(err, &invalid) || !strings.Contains(err.Error(), "must listen on loopback") {
		t.Errorf("Run(0.0.0.0) = %v, want an InvalidError", err)
	}
}

func TestConfigValidate(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{MaxUploads: -1}, "max-uploads must not be negative"},
		{Config{MaxBlob: -1}, "max-blob must not be negative"},
		{Config{Idle: -1}, "idle must not be negative"},
		{Config{MaxConns: -1}, "max-conns must not be negative"},
		{Config{Login: shoal.RegistryLogin{User: "shoal"}}, "password is missing for user shoal"},
	} {
		if err := tt.cfg.Validate(); err == nil || err.Error() != tt.want {
			t.Errorf("Validate(%+v) = %v, want %s", tt.cfg, err, tt.want)
		}
	}
}

// TestSlowSender: who sends a body too slowly is cut off, and the upload stays.
func TestSlowSender(t *testing.T) {
	s := serve(t, Config{Idle: 200 * time.Millisecond})
	begun := s.want(http.StatusAccepted, http.MethodPost, "/v2/app/blobs/uploads/", nil, nil)
	for path, want := range map[string]string{
		strings.TrimPrefix(s.location(begun), "http://"+s.addr): "HTTP/1.1 408 ",
		"/v2/Not/blobs/uploads/x":                               "", // net/http waits for the body before it answers
	} {
		if got := s.slowly(path); !strings.HasPrefix(got, want) {
			t.Errorf("PATCH %s that stops = %q, want %s and the end", path, got, want)
		}
	}
	state := s.want(http.StatusNoContent, http.MethodGet, s.location(begun), nil, nil)
	if r := state.Header.Get("Range"); r != "0-10" {
		t.Errorf("Range after a PATCH that stopped = %q, want 0-10", r)
	}
}

// TestConnectionBounds: large headers are refused, and there are as many connections as may
// be; others wait.
func TestConnectionBounds(t *testing.T) {
	s := serve(t, Config{MaxConns: 1})
	ask := func(wait time.Duration, more string) (net.Conn, string, error) {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "GET /v2/ HTTP/1.1\r\nHost: %s\r\n%s\r\n", s.addr, more); err != nil {
			t.Fatal(err)
		}
		status := make([]byte, len("HTTP/1.1 200"))
		_, err = io.ReadFull(conn, status)
		return conn, string(status), err
	}
	large := "Cookie: " + strings.Repeat("a", 2*headerBytes) + "\r\n"
	conn, got, err := ask(30*time.Second, large)
	if err != nil || got != "HTTP/1.1 431" {
		t.Errorf("GET with a header of %d bytes = %q, %v, want 431", len(large), got, err)
	}
	_ = conn.Close()
	first, _, err := ask(30*time.Second, "")
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := ask(50*time.Millisecond, "")
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("second connection = %v, want it to wait", err)
	}
	_ = second.Close()
	_ = first.Close()
	if _, _, err := ask(30*time.Second, ""); err != nil {
		t.Errorf("connection after the first = %v", err)
	}
}

// TestEnded: a registry that has ended answers nobody, also not who kept its handler.
func TestEnded(t *testing.T) {
	s := serve(t, Config{})
	s.stop()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v2/", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("GET after the end = %d, want 503", w.Code)
	}
}

// slowly sends a part of a body and nothing more, and returns what it is answered until
// the connection is closed.
func (s *served) slowly(path string) string {
	s.t.Helper()
	conn, err := new(net.Dialer).DialContext(s.t.Context(), "tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 100\r\n\r\na few bytes", path, s.addr); err != nil {
		s.t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil {
		s.t.Errorf("PATCH %s that stops: %v, want the connection closed", path, err)
	}
	return string(got)
}
