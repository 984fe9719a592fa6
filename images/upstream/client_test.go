// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/manifest"
)

func TestResolve(t *testing.T) {
	both(t, func(t *testing.T, plain bool) {
		w := newWorld(t, plain, nil)
		raw, _ := w.push("x/app", "v1", content(10))
		want := Found{Digest: digestOf(raw), MediaType: manifest.TypeManifest, Raw: raw, Platforms: []string{"linux/arm64"}}
		for _, ref := range []string{"x/app:v1", "x/app@" + want.Digest, "x/app:v7@" + want.Digest} {
			got, err := w.client.Resolve(t.Context(), w.ref(ref))
			if err != nil || got.Digest != want.Digest || got.MediaType != want.MediaType ||
				!bytes.Equal(got.Raw, want.Raw) || !slices.Equal(got.Platforms, want.Platforms) {
				t.Errorf("Resolve(%s) = %+v, %v, want %+v", ref, got, err, want)
			}
		}
		_, err := w.client.Resolve(t.Context(), w.ref("x/app:v2"))
		if !errors.Is(err, shoal.ErrNotFound) || !strings.Contains(err.Error(), "v2 of x/app at "+w.host) {
			t.Errorf("a tag that is not there: %v", err)
		}
		if told := w.client.Waits(); len(told) != 1 || told[0] != (shoal.Upstream{Registry: w.host}) {
			t.Errorf("what is not there makes the registry wait: %v", told)
		}
	})
}

func TestResolveIndex(t *testing.T) {
	w := newWorld(t, false, nil)
	raw, _ := w.push("app", "one", content(10))
	entry := func(arch string) map[string]any {
		return map[string]any{
			"mediaType": manifest.TypeManifest, "digest": digestOf(raw), "size": len(raw),
			"platform": map[string]string{"os": "linux", "architecture": arch},
		}
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{entry("arm64"), entry("amd64"), entry("unknown")}})
	if err != nil {
		t.Fatal(err)
	}
	w.manifest("app", "latest", manifest.TypeIndex, index)
	got, err := w.client.Resolve(t.Context(), w.ref("app"))
	if err != nil || got.MediaType != manifest.TypeIndex || !slices.Equal(got.Platforms, []string{"linux/amd64", "linux/arm64", "linux/unknown"}) {
		t.Errorf("Resolve = %+v, %v", got, err)
	}
	child, mediaType, err := w.client.Manifest(t.Context(), w.ref("app"), digestOf(raw))
	if err != nil || mediaType != manifest.TypeManifest || !bytes.Equal(child, raw) {
		t.Errorf("Manifest = %s, %s, %v", child, mediaType, err)
	}
	if _, _, err := w.client.Manifest(t.Context(), w.ref("app"), "sha256:12"); !errors.As(err, new(*shoal.InvalidError)) {
		t.Errorf("Manifest of no digest: %v", err)
	}
}

// The platform is worth a request, not the image.
func TestResolveWithoutConfig(t *testing.T) {
	w := newWorld(t, false, nil)
	raw, _ := w.push("app", "v1", content(10))
	w.breaks(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			status(500)(rw, r)
			return
		}
		w.through(rw, r)
	})
	got, err := w.client.Resolve(t.Context(), w.ref("app:v1"))
	if err != nil || got.Digest != digestOf(raw) || got.Platforms != nil {
		t.Errorf("Resolve = %+v, %v", got, err)
	}
}

func TestHub(t *testing.T) {
	w := newWorld(t, false, func(c *Config) { c.Registries = []string{"docker.io"} })
	w.reroute()
	raw, layer := w.push("library/hello", "1", content(10))
	w.push("x/app", "latest", content(10))
	for _, ref := range []string{"hello:1", "docker.io/hello:1", "docker.io/library/hello:1", "index.docker.io/library/hello:1", "hello@" + digestOf(raw)} {
		if got, err := w.client.Resolve(t.Context(), ref); err != nil || got.Digest != digestOf(raw) {
			t.Errorf("Resolve(%s) = %+v, %v", ref, got, err)
		}
	}
	if _, err := w.client.Resolve(t.Context(), "x/app"); err != nil {
		t.Error(err)
	}
	r, _, err := w.client.Blob(t.Context(), "hello", layer, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	_, err = w.client.Resolve(t.Context(), "ghcr.io/x/y")
	if !errors.Is(err, shoal.ErrRefused) || !strings.Contains(err.Error(), "ghcr.io") {
		t.Errorf("a registry that is not allowed: %v", err)
	}
}

// reroute brings what is dialled anywhere to the registry, as the network does for
// docker.io.
func (w *world) reroute() {
	w.client.transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, w.server.Listener.Addr().String())
	}
}

func TestBlob(t *testing.T) {
	w := newWorld(t, false, nil)
	all := content(300_000)
	_, layer := w.push("app", "v1", all)
	for _, from := range []int64{0, 1, 299_999, 300_000} {
		got, err := w.read(w.ref("app"), layer, from, 300_000)
		if err != nil || !bytes.Equal(got, all[from:]) {
			t.Errorf("from %d: %d bytes, %v", from, len(got), err)
		}
	}
	for _, enc := range w.headers("Accept-Encoding") {
		if enc != "" { // what comes would not be the bytes of the digest
			t.Errorf("takes the encoding %q", enc)
		}
	}
	if _, err := w.read(w.ref("app"), layer, -1, 0); !errors.As(err, new(*shoal.InvalidError)) {
		t.Errorf("before the beginning: %v", err)
	}
	if _, err := w.read(w.ref("app"), digestOf(nil), 0, 0); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("not there: %v", err)
	}
	w.breaks(status(http.StatusRequestedRangeNotSatisfiable)) // the registry of the test says 500
	_, err := w.read(w.ref("app"), layer, 300_001, 0)
	if !errors.As(err, new(*shoal.InvalidError)) {
		t.Errorf("past the end: %v", err)
	}
}

// A blob that breaks off is gone on with from where it broke, by a request for the rest.
func TestResume(t *testing.T) { both(t, testResume) }

func testResume(t *testing.T, plain bool) {
	w := newWorld(t, plain, nil)
	all := content(300_000)
	_, layer := w.push("app", "v1", all)
	w.breaks(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Length", fmt.Sprint(len(all)))
		_, _ = rw.Write(all[:100_000])
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	})
	got, err := w.read(w.ref("app"), layer, 0, 300_000)
	if err == nil || !bytes.Equal(got, all[:100_000]) {
		t.Fatalf("got %d bytes, %v, want 100000 and an error", len(got), err)
	}
	w.breaks(nil)
	w.asked()
	rest, err := w.read(w.ref("app"), layer, int64(len(got)), 300_000)
	if ranges := w.headers("Range"); len(ranges) != 1 || ranges[0] != "bytes=100000-" {
		t.Errorf("asked for %q", ranges)
	}
	if err != nil || !bytes.Equal(append(got, rest...), all) {
		t.Errorf("resumed: %d bytes, %v", len(rest), err)
	}
}

func TestRanges(t *testing.T) { both(t, testRanges) }

func testRanges(t *testing.T, plain bool) {
	all := content(200_000)
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   int // bytes of the rest from 150000
		size   int64
		why    string // of a *WaitError
	}{
		{name: "ignored", size: 200_000, want: 50_000, answer: func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "200000")
			_, _ = rw.Write(all)
		}},
		{name: "ignored, no length", size: -1, want: 50_000, answer: func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write(all[:100_000])
			_ = http.NewResponseController(rw).Flush()
			_, _ = rw.Write(all[100_000:])
		}},
		{name: "a part of the rest", size: 200_000, want: 10_000, answer: func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Range", "bytes 150000-159999/200000")
			rw.WriteHeader(http.StatusPartialContent)
			_, _ = rw.Write(all[150_000:160_000])
		}},
		{name: "another part", answer: status(206, "Content-Range", "bytes 0-9/200000"), why: "answers the range"},
		{name: "past its end", answer: status(206, "Content-Range", "bytes 150000-200000/200000"), why: "answers the range"},
		{name: "no size", answer: status(206, "Content-Range", "bytes 150000-199999/*"), why: "answers the range"},
		{name: "none", answer: status(206), why: "answers the range"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, plain, nil)
			w.breaks(c.answer)
			got, err := w.read(w.ref("app"), digestOf(all), 150_000, c.size)
			switch {
			case c.why != "":
				w.wantWait(err, backOff, shoal.ErrRefused, c.why)
			case c.want < 50_000 && !errors.Is(err, io.ErrUnexpectedEOF), c.want == 50_000 && err != nil:
				t.Errorf("error = %v", err)
			case !bytes.Equal(got, all[150_000:150_000+c.want]):
				t.Errorf("got %d bytes, want %d", len(got), c.want)
			}
		})
	}
}

// Callers that ask the same share one question, which ends with the last of them.
func TestShare(t *testing.T) {
	w := newWorld(t, false, nil)
	raw, _ := w.push("app", "v1", content(10))
	arrived, ended, open := make(chan struct{}, 10), make(chan struct{}, 10), make(chan struct{})
	w.breaks(func(rw http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-open:
			w.through(rw, r)
		case <-r.Context().Done():
			ended <- struct{}{}
		}
	})
	impatient, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := w.client.Resolve(impatient, w.ref("app:v1")); !errors.Is(err, context.Canceled) {
				t.Errorf("Resolve of who gave up: %v", err)
			}
		})
	}
	<-arrived
	leave()
	wg.Wait()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the question outlives those who asked")
	}
	w.asked()

	impatient, leave = context.WithCancel(t.Context())
	for i := range 20 {
		wg.Go(func() {
			ctx := t.Context()
			if i == 0 {
				ctx = impatient
			}
			got, err := w.client.Resolve(ctx, w.ref("app:v1"))
			if i > 0 && (err != nil || got.Digest != digestOf(raw)) {
				t.Errorf("Resolve = %+v, %v", got, err)
			}
		})
	}
	<-arrived
	w.waitCallers(20)
	leave()
	w.waitCallers(19)
	close(open)
	wg.Wait()
	if got := w.asked(); len(got) != 2 { // the manifest, and its configuration
		t.Errorf("20 callers made %d requests: %q", len(got), got)
	}
	if told := w.client.Waits(); told[0].Waits != "" {
		t.Errorf("callers that gave up make the registry wait: %v", told)
	}
}

// waitCallers waits until n callers share the one question.
func (w *world) waitCallers(n int) {
	w.t.Helper()
	for end := time.Now().Add(5 * time.Second); ; <-time.After(time.Millisecond) {
		got := 0
		w.client.flights.mu.Lock()
		for _, fl := range w.client.flights.by {
			got += fl.callers
		}
		w.client.flights.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%d callers share, want %d", got, n)
		}
	}
}

// No answer is what the caller's deadline says, and no fault of the registry.
func TestCallerGivesUp(t *testing.T) {
	w := newWorld(t, false, nil)
	w.breaks(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := w.client.Blob(ctx, w.ref("app"), digestOf(nil), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Blob = %v", err)
	}
	if told := w.client.Waits(); told[0].Waits != "" {
		t.Errorf("Waits = %v", told)
	}
}
