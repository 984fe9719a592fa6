// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// serveArchive lets a fake engine answer copies: every path is a directory, get and put
// do the rest.
func serveArchive(f *fakeEngine, get, put http.HandlerFunc) {
	stat := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, `{"name":"d","mode":%d}`, uint32(1<<31|0o755)))
	f.misbehave(func(w http.ResponseWriter, r *http.Request, path string) bool {
		if !strings.HasSuffix(path, "/archive") {
			return false
		}
		w.Header().Set("X-Docker-Container-Path-Stat", stat)
		switch r.Method {
		case http.MethodGet:
			get(w, r)
		case http.MethodPut:
			put(w, r)
		}
		return true
	})
}

// TestCopyToWordsRefusals: the engine refuses before it has read anything, and the
// sender, who has nothing more to send yet, hears why.
func TestCopyToWordsRefusals(t *testing.T) {
	const readOnly = `{"message":"container rootfs is marked read-only"}`
	for _, c := range []struct {
		status int
		body   string
		want   error
		text   string
	}{
		{http.StatusInternalServerError, readOnly, shoal.ErrRefused, "/d is read-only"}, // Engine 20.10
		{http.StatusBadRequest, readOnly, shoal.ErrRefused, "/d is read-only"},
		{http.StatusForbidden, `{"message":"no"}`, shoal.ErrRefused, "/d is read-only"},
		{http.StatusNotFound, `{"message":"no"}`, shoal.ErrNotFound, "there is no /d"},
	} {
		f := &fakeEngine{api: "1.41", containers: []map[string]any{listed(1, "running", "Up 3 seconds")}}
		d := newFakeDocker(t, serveFake(t, f), patient)
		serveArchive(f, nil, func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex() // or it reads on before it answers
			http.Error(w, c.body, c.status)
		})
		archive, idle := io.Pipe()
		err := d.CopyTo(t.Context(), containerID(1), "/d", archive)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("CopyTo that the engine answers with %d = %v, want %q", c.status, err, c.text)
		}
		if _, err := idle.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the archive is left open: %v", err)
		}
	}
}

// TestCopyThatIdles: an engine holds a container while it copies, so it may not wait for
// who sends or reads; who waits for the engine gives up on it.
func TestCopyThatIdles(t *testing.T) {
	f := &fakeEngine{api: "1.41", containers: []map[string]any{listed(1, "running", "Up 3 seconds")}}
	d := newFakeDocker(t, serveFake(t, f), hasty)
	left := make(chan struct{}, 2) // the engine is let go
	drain := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // it breaks
		left <- struct{}{}
	}
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				break
			}
		}
		left <- struct{}{}
	}
	serveArchive(f, endless, drain)
	archive, idle := io.Pipe()
	defer func() { _ = idle.Close() }() // it never fails
	if err := d.CopyTo(t.Context(), containerID(1), "/d", archive); !errors.Is(err, shoal.ErrRefused) || !strings.Contains(err.Error(), "no more of the archive came") {
		t.Errorf("CopyTo of an archive that idles = %v", err)
	}
	<-left
	reading, stuck := io.Pipe()
	time.AfterFunc(3*hasty, func() { _ = reading.Close() })
	fine := func(shoal.PathStat) error { return nil }
	if err := d.CopyFrom(t.Context(), containerID(1), "/d", fine, stuck); !errors.Is(err, shoal.ErrRefused) || !strings.Contains(err.Error(), "nobody took") {
		t.Errorf("CopyFrom to who reads nothing = %v", err)
	}
	<-left
	serveArchive(f, nil, func(_ http.ResponseWriter, r *http.Request) { f.hang(r) })
	much, more := io.Pipe()
	go func() { // until CopyTo closes it
		for {
			if _, err := more.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	}()
	if err := d.CopyTo(t.Context(), containerID(1), "/d", much); !errors.Is(err, shoal.ErrEngineDown) {
		t.Errorf("CopyTo an engine that reads nothing = %v", err)
	}
}
