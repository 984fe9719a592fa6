// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// fakeEngine speaks as much of an engine's API as these tests need, and misbehaves.
type fakeEngine struct {
	mu         sync.Mutex // guards what follows
	api        string
	containers []map[string]any // as /containers/json lists them
	inspected  map[string]any   // as /containers/ID/json shows each
	asked      []string         // "METHOD /vX.Y/path"
	behave     func(w http.ResponseWriter, r *http.Request, path string) bool

	ended chan struct{} // closed at the end: what hangs returns
}

var versioned = regexp.MustCompile(`^/v[0-9.]+`)

func (f *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := versioned.ReplaceAllString(r.URL.Path, "")
	f.mu.Lock()
	f.asked = append(f.asked, r.Method+" "+r.URL.Path)
	behave, api, containers, inspected := f.behave, f.api, f.containers, f.inspected
	f.mu.Unlock()
	if behave != nil && behave(w, r, path) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case path == "/_ping":
		w.Header().Set("Api-Version", api)
	case path == "/containers/json":
		if id := r.URL.Query().Get("filters"); strings.Contains(id, `"id"`) && len(containers) > 1 {
			containers = containers[:1]
		}
		_ = json.NewEncoder(w).Encode(containers)
	case path == "/info":
		fmt.Fprint(w, `{"ServerVersion":"20.10.24+dfsg1","OSType":"linux","Architecture":"x86_64","NCPU":2,"MemTotal":1024}`)
	case strings.HasSuffix(path, "/json") && inspected != nil:
		_ = json.NewEncoder(w).Encode(inspected)
	default:
		http.Error(w, `{"message":"no such thing"}`, http.StatusNotFound)
	}
}

// hang waits for the client to give up, or for the test to end.
func (f *fakeEngine) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-f.ended:
	}
}

// misbehave changes what the engine does with requests.
func (f *fakeEngine) misbehave(behave func(w http.ResponseWriter, r *http.Request, path string) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.behave = behave
}

// requests returns what was asked since the last call.
func (f *fakeEngine) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.asked
	f.asked = nil
	return out
}

// socketDir returns a directory with a path short enough for a socket.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shoal-") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serveFake runs a fake engine and returns where.
func serveFake(t testing.TB, f *fakeEngine) string {
	t.Helper()
	f.ended = make(chan struct{})
	socket := filepath.Join(socketDir(t), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		close(f.ended)
		server.Close()
		<-done
	})
	return "unix://" + socket
}

// Deadlines for fakes: short where one is to be missed, long where none is, however
// busy the machine.
const (
	hasty   = 500 * time.Millisecond
	patient = 30 * time.Second
)

// newFakeDocker returns our room in front of a host.
func newFakeDocker(t testing.TB, host string, quick time.Duration) *runtime.Docker {
	t.Helper()
	d, err := runtime.NewDocker(runtime.Config{
		Host: host, Cluster: cluster, Peer: peer,
		Quick: quick, Slow: quick, Stall: quick, StopMargin: 300 * time.Millisecond,
	}, shoal.NewSystemClock(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// listed is a container of ours as an engine lists it.
func listed(n int, state, status string) map[string]any {
	var id shoal.ReplicaID
	id[0], id[1], id[2] = byte(n), byte(n>>8), 1
	return map[string]any{
		"Id": containerID(n), "Names": []string{fmt.Sprintf("/shoal-web-%d", n)}, "ImageID": "sha256:1",
		"State": state, "Status": status,
		"Labels": map[string]string{
			runtime.LabelCluster: string(cluster), runtime.LabelPeer: string(peer), runtime.LabelService: "web",
			runtime.LabelReplica: id.String(), runtime.LabelRevision: "1@" + string(peer),
			runtime.LabelRecord: base64.StdEncoding.EncodeToString(make([]byte, 600)),
		},
		"NetworkSettings": map[string]any{"Networks": map[string]any{"bridge": map[string]any{"IPAddress": "172.17.0.2"}}},
		"Ports":           []map[string]any{{"IP": "127.0.0.21", "PrivatePort": 80, "PublicPort": 40000 + n, "Type": "tcp"}},
	}
}

func containerID(n int) string { return fmt.Sprintf("%064x", n) }

// shown is a container as an engine shows it when it is inspected.
func shown(state string, code int, oom bool) map[string]any {
	return map[string]any{
		"Config": map[string]any{},
		"State":  map[string]any{"Status": state, "ExitCode": code, "OOMKilled": oom, "StartedAt": "2026-05-04T03:02:01.5Z"},
	}
}
