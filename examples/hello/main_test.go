// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

func TestSite(t *testing.T) {
	t.Setenv("SHOAL_SERVICE", "web")
	t.Setenv("SHOAL_SLOT", "2")
	t.Setenv("SHOAL_REPLICA", "0123abcd")
	t.Setenv("SHOAL_PEER", "12D3KooWPeer")
	var code int
	s := &site{version: "2", log: io.Discard, quit: func(c int) { code = c }}
	server := httptest.NewServer(s.handler())
	defer server.Close()

	status, page := get(t, server.URL)
	for _, want := range []string{"hello v2 from web/2", "replica 0123abcd", "slot 2", "service web", "peer 12D3KooWPeer"} {
		if status != http.StatusOK || !strings.Contains(page, want) {
			t.Errorf("page = %d %q, want %q in it", status, page, want)
		}
	}
	listen := strings.TrimPrefix(server.URL, "http://127.0.0.1")
	if err := check(t.Context(), listen); err != nil {
		t.Errorf("check of a healthy server = %v", err)
	}
	get(t, server.URL+"/sick")
	if err := check(t.Context(), listen); err == nil {
		t.Error("check of a sick server = nil")
	}
	get(t, server.URL+"/sick")
	if err := check(t.Context(), listen); err != nil {
		t.Errorf("check of a cured server = %v", err)
	}
	if get(t, server.URL+"/quit?code=3"); code != 3 {
		t.Errorf("quit with code %d, want 3", code)
	}
	if status, _ := get(t, server.URL+"/quit?code=x"); status != http.StatusBadRequest {
		t.Errorf("/quit?code=x = %d, want 400", status)
	}
	if status, body := get(t, server.URL+"/eat?mb=1"); status != http.StatusOK || body != "ate 1 MiB\n" {
		t.Errorf("/eat?mb=1 = %d %q", status, body)
	}
	if status, _ := get(t, server.URL+"/eat?mb=-1"); status != http.StatusBadRequest {
		t.Errorf("/eat?mb=-1 = %d, want 400", status)
	}
}

func TestServeStopsWhenTold(t *testing.T) {
	stopsGracefully(t, "listens on", "hello stops", "-listen", "127.0.0.1:0")
}

func TestWorkPrintsAndStops(t *testing.T) {
	stopsGracefully(t, "piece 3", "worker stops", "work", "-every", "1ms")
}

// stopsGracefully runs hello, waits for it to say first, stops it, and wants last as
// its last words and no error.
func stopsGracefully(t *testing.T, first, last string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, args, w, io.Discard)
		w.Close()
		done <- err
	}()
	buf := make([]byte, 4096)
	var out strings.Builder
	for !strings.Contains(out.String(), first) {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(buf[:n])
	}
	cancel()
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(rest), last) {
		t.Errorf("last words = %q, want %q", rest, last)
	}
	if err := <-done; err != nil {
		t.Errorf("run %q = %v", args, err)
	}
}

func TestUnknownCommand(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), []string{"dance"}, io.Discard, &out); err == nil || !strings.Contains(out.String(), "usage:") {
		t.Errorf("run dance = %v, printed %q", err, out.String())
	}
}

// A load tells how many of its requests failed, and who answered the others.
func TestLoad(t *testing.T) {
	t.Setenv("SHOAL_REPLICA", "0123abcd")
	s := &site{version: "1", log: io.Discard, quit: func(int) {}}
	server := httptest.NewServer(s.handler())
	defer server.Close()
	for _, tt := range []struct {
		path   string
		failed bool
	}{{"/", false}, {"/nosuch", true}} {
		var out strings.Builder
		if err := run(t.Context(), []string{"load", "-to", server.URL + tt.path, "-rate", "200", "-for", "200ms"}, &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		var got report
		if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
			t.Fatal(err)
		}
		if got.Sent == 0 || tt.failed && (got.Failed != got.Sent || len(got.Failures) == 0) || !tt.failed && (got.Failed != 0 || !slices.Equal(got.Replicas, []string{"0123abcd"})) {
			t.Errorf("load of %s = %+v", tt.path, got)
		}
	}
	if err := run(t.Context(), []string{"load"}, io.Discard, io.Discard); err == nil {
		t.Error("a load of nothing = nil")
	}
}
