// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalnet/shoal/bench/figures"
	"github.com/shoalnet/shoal/bench/reachwire"
	"github.com/shoalnet/shoal/runtime"
)

// What is measured inside this process must go on working as the rooms change; what
// it takes is not asserted.
func TestWritesAreTakenAndSeen(t *testing.T) {
	b := &bench{effort: effort{writing: 500 * time.Millisecond}, dir: t.TempDir(), sockets: t.TempDir()}
	local, seen, err := b.writeTo(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if local.Len() != 10 || seen.Len() != 10 {
		t.Errorf("%d writes taken and %d seen, want 10", local.Len(), seen.Len())
	}
	if left, err := os.ReadDir(b.dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v is left", left, err)
	}
}

// The lines are those of Go 1.26; a figure under another name would be none.
func TestMetricsOf(t *testing.T) {
	got := metricsOf([]byte("goos: linux\n" +
		"BenchmarkSwarm/256MiB-2 \t 1\t15746356126 ns/op\t 1.013 blobs-sent\t 1.080 optimum\n" +
		"=== RUN   TestSwarmAfar/50ms\n=== ATTR  TestSwarmAfar/50ms optimum 1.073\n--- PASS: TestSwarmAfar (1.00s)\nPASS\n"))
	want := metrics{
		"BenchmarkSwarm/256MiB ns/op": 15746356126, "BenchmarkSwarm/256MiB blobs-sent": 1.013, "BenchmarkSwarm/256MiB optimum": 1.08,
		"TestSwarmAfar/50ms optimum": 1.073,
	}
	if !maps.Equal(got, want) {
		t.Errorf("metricsOf = %v, want %v", got, want)
	}
}

func TestOneServerIsShared(t *testing.T) {
	const size, perSecond = 16 * pieceBytes, 64 * pieceBytes
	got, err := oneServer(t.Context(), 4, size, perSecond)
	if err != nil || got.sent != 4*size {
		t.Fatalf("oneServer = %+v, %v, want %d bytes sent", got, err, 4*size)
	}
	// The first piece passes at once.
	if least := time.Duration(float64(4*size-pieceBytes) / perSecond * float64(time.Second)); got.took < least {
		t.Errorf("took %v, want %v or more", got.took, least)
	}
}

// Every load counts each request once, whatever it takes, and ends with the first that is
// not answered.
func TestLoadsAskUntilTheTimeIsOver(t *testing.T) {
	var asked atomic.Int64
	address, stop, err := serve(t.Context(), http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked.Add(1)
		if req.URL.Path != reachwire.Small {
			http.NotFound(w, req)
			return
		}
		_, _ = w.Write(make([]byte, reachwire.SmallBytes))
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	at := strings.Trim(strings.TrimPrefix(address, "http://"), "/")
	const clients, during = 4, 50 * time.Millisecond
	for name, l := range map[string]load{"kept": keptLoad(clients), "each": eachLoad(clients), "paced": pacedLoad(100)} {
		var took figures.Series
		asked.Store(0)
		perSecond, err := l(t.Context(), at, during, &took)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		first := 0
		if name == "kept" { // one of each to get going
			first = clients
		}
		if n := int(asked.Load()); took.Len() == 0 || took.Len()+first != n || perSecond <= 0 {
			t.Errorf("%s: %d requests are counted of %d, %.1f a second", name, took.Len(), n, perSecond)
		}
	}
	if _, err := bulk(t.Context(), at); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("bulk of nothing = %v, want what the server said", err)
	}
}

// An image that the engine and our import take is all that an archive is for; here it has
// to be of the size it says, and read to its end.
func TestArchiveIsWhole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.tar")
	id, err := archived{"a:1", 2, 1024}.write(file)
	if err != nil || !strings.HasPrefix(id, "sha256:") {
		t.Fatalf("write = %q, %v", id, err)
	}
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var names []string
	r := tar.NewReader(in)
	for h, err := r.Next(); err != io.EOF; h, err = r.Next() {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if want := []string{"layer0.tar", "layer1.tar", "config.json", "manifest.json"}; !slices.Equal(names, want) {
		t.Errorf("the archive has %v, want %v", names, want)
	}
}

// -dir names a directory whose content goes: it must be the bench's.
func TestClaimTakesOnlyItsOwn(t *testing.T) {
	b := &bench{dir: filepath.Join(t.TempDir(), "b"), docker: runtime.DefaultHost}
	unlock, err := b.claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&bench{dir: b.dir}).claim(t.Context()); err == nil {
		t.Error("two runs got one directory")
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{b.dir, b.sockets} {
		if _, err := os.Lstat(gone); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", gone, err)
		}
	}
	other := t.TempDir()
	file := filepath.Join(other, "precious")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (&bench{dir: other}).claim(t.Context()); err == nil {
		t.Error("claimed somebody else's directory")
	}
	if _, err := os.Lstat(file); err != nil {
		t.Error(err)
	}
}
