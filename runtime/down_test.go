// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

var login = shoal.RegistryLogin{Address: "127.0.0.1:1"}

// everyCall returns all calls of our room, on the container that fakes list first.
func everyCall(ctx context.Context, d *runtime.Docker) map[string]func() error {
	id := containerID(1)
	p := runtime.NewPuller(d)
	return map[string]func() error{
		"Create": func() error { _, err := d.Create(ctx, spec(9, nil)); return err },
		"Start":  func() error { return d.Start(ctx, id) },
		"Stop":   func() error { return d.Stop(ctx, id, "", time.Second) },
		"Remove": func() error { return d.Remove(ctx, id) },
		"List":   func() error { _, err := d.List(ctx); return err },
		"Events": func() error { return d.Events(ctx, func(shoal.EngineEvent) {}) },
		"Info":   func() error { _, err := d.Info(ctx); return err },
		"Usage":  func() error { _, err := d.Usage(ctx); return err },
		"Logs": func() error {
			return d.Logs(ctx, id, shoal.LogOptions{Tail: -1}, func(shoal.LogLine) error { return nil })
		},
		"Follow": func() error {
			return d.Logs(ctx, id, shoal.LogOptions{Tail: -1, Follow: true}, func(shoal.LogLine) error { return nil })
		},
		"Ensure": func() error { _, err := p.Ensure(ctx, "hello:1", nil); return err },
		"Images": func() error { _, err := p.Images(ctx); return err },
		"Find":   func() error { _, err := d.Find(ctx, "hello:1"); return err },
		"Tag":    func() error { return d.Tag(ctx, "hello:1", "hello:2") },
		"Load":   func() error { return d.Load(ctx, strings.NewReader("no tar")) },
		"Save":   func() error { return d.Save(ctx, "hello:1", io.Discard) },
		"Pull":   func() error { return d.Pull(ctx, login.Address+"/app:1", login, nil) },
	}
}

// wantDown makes all calls and wants ErrEngineDown from each (but the exempt) in time.
func wantDown(t *testing.T, d *runtime.Docker, exempt ...string) {
	t.Helper()
	var group sync.WaitGroup
	for what, call := range everyCall(t.Context(), d) {
		if slices.Contains(exempt, what) {
			continue
		}
		group.Go(func() {
			from := time.Now()
			if err := call(); !errors.Is(err, shoal.ErrEngineDown) {
				t.Errorf("%s = %v, want ErrEngineDown", what, err)
			}
			// Stop has 1s grace and 0.3s margin, the others two calls of 0.5s at most; the
			// rest is for a busy machine.
			if took := time.Since(from); took > 8*time.Second {
				t.Errorf("%s took %s", what, took)
			}
		})
	}
	group.Wait()
}

func TestEngineAbsent(t *testing.T) {
	wantDown(t, newFakeDocker(t, "unix://"+filepath.Join(socketDir(t), "nobody.sock"), hasty))
}

func TestEngineThatHangsUp(t *testing.T) {
	l, host := listen(t)
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); group.Wait() })
	wantDown(t, newFakeDocker(t, host, hasty))
}

// TestEngineStopped is a dockerd after SIGSTOP: the kernel takes connections for it.
func TestEngineStopped(t *testing.T) {
	l, host := listen(t)
	t.Cleanup(func() { l.Close() })
	wantDown(t, newFakeDocker(t, host, hasty))
}

func listen(t *testing.T) (net.Listener, string) {
	t.Helper()
	socket := filepath.Join(socketDir(t), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	return l, "unix://" + socket
}

// TestEngineHangsInTheWork answers what it has in memory and hangs in all else.
func TestEngineHangsInTheWork(t *testing.T) {
	f := &fakeEngine{api: "1.41", containers: []map[string]any{listed(1, "running", "Up 3 seconds")}}
	d := newFakeDocker(t, serveFake(t, f), hasty)
	f.misbehave(func(_ http.ResponseWriter, r *http.Request, path string) bool {
		if path == "/_ping" || path == "/containers/json" && r.Method == http.MethodGet {
			return false
		}
		f.hang(r)
		return true
	})
	// List: one container that cannot be inspected is no dead engine.
	// Create: the list that fakes give shows another replica's container as its own.
	// Load, Pull: an engine that answers pings may be waiting for others.
	wantDown(t, d, "List", "Create", "Load", "Pull")
	for what, err := range map[string]error{
		"Load": d.Load(t.Context(), strings.NewReader("no tar")),
		"Pull": d.Pull(t.Context(), login.Address+"/app:1", login, nil),
	} {
		if err == nil || !strings.HasSuffix(err.Error(), ": nothing moved for 500ms") || errors.Is(err, shoal.ErrEngineDown) {
			t.Errorf("%s that stands still = %v, want that nothing moved", what, err)
		}
	}
	all, err := d.List(t.Context())
	if err != nil || len(all) != 1 || all[0].State != shoal.ContainerRunning || !all[0].Started.IsZero() {
		t.Errorf("List = %+v, %v; want the container without what only its inspection tells", all, err)
	}
	f.mu.Lock()
	f.containers = nil
	f.mu.Unlock()
	if _, err := d.Create(t.Context(), spec(9, nil)); !errors.Is(err, shoal.ErrEngineDown) {
		t.Errorf("Create = %v, want ErrEngineDown", err)
	}
}

// TestEngineBreaksOff ends every answer in its middle.
func TestEngineBreaksOff(t *testing.T) {
	f := &fakeEngine{api: "1.41", containers: []map[string]any{listed(1, "running", "Up 3 seconds")}}
	d := newFakeDocker(t, serveFake(t, f), hasty)
	if _, err := d.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.misbehave(func(w http.ResponseWriter, _ *http.Request, path string) bool {
		if path == "/_ping" {
			return false
		}
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, `[{"Id":`)
		return true
	})
	// These need no more of the answer than that it was given.
	wantDown(t, d, "Start", "Stop", "Remove", "Tag")
}

func TestStopWaitsForTheGrace(t *testing.T) {
	f := &fakeEngine{api: "1.41", containers: []map[string]any{listed(1, "running", "Up 3 seconds")}}
	d := newFakeDocker(t, serveFake(t, f), hasty)
	f.misbehave(func(_ http.ResponseWriter, r *http.Request, path string) bool {
		if !strings.HasSuffix(path, "/stop") {
			return false
		}
		if got := r.URL.Query().Get("t"); got != "2" {
			t.Errorf("grace = %ss, want 1.2s rounded up", got)
		}
		f.hang(r)
		return true
	})
	from := time.Now()
	err := d.Stop(t.Context(), containerID(1), "", 1200*time.Millisecond)
	if took := time.Since(from); !errors.Is(err, shoal.ErrEngineDown) || took < 2200*time.Millisecond {
		t.Errorf("Stop = %v after %s, want ErrEngineDown after 2s and the margin", err, took)
	}
}

func TestNegotiation(t *testing.T) {
	for _, tt := range []struct{ engine, want string }{
		{"1.41", "/v1.41/"},
		{"1.51", "/v1.51/"},
		{"1.60", "/v1.51/"}, // the newest that the client library knows
	} {
		f := &fakeEngine{api: tt.engine}
		d := newFakeDocker(t, serveFake(t, f), patient)
		info, err := d.Info(t.Context())
		if err != nil || info.API != strings.Trim(tt.want, "/v") || info.Engine != "docker 20.10.24" || info.Platform != "linux/amd64" {
			t.Errorf("engine %s: Info = %+v, %v", tt.engine, info, err)
		}
		asked := f.requests()
		if last := asked[len(asked)-1]; !strings.Contains(last, tt.want) {
			t.Errorf("engine %s was asked %q, want %s", tt.engine, last, tt.want)
		}
	}
	d := newFakeDocker(t, serveFake(t, &fakeEngine{api: "1.40"}), patient)
	if _, err := d.Info(t.Context()); !errors.Is(err, shoal.ErrEngineDown) || !strings.Contains(err.Error(), `API "1.40", 1.41 or newer is needed`) {
		t.Errorf("Info of an old engine = %v", err)
	}
}

// TestEngineComesBackNewer: the client library alone would stay at the old version.
func TestEngineComesBackNewer(t *testing.T) {
	f := &fakeEngine{api: "1.41"}
	d := newFakeDocker(t, serveFake(t, f), hasty)
	if info, err := d.Info(t.Context()); err != nil || info.API != "1.41" {
		t.Fatalf("Info = %+v, %v", info, err)
	}
	f.misbehave(func(_ http.ResponseWriter, r *http.Request, _ string) bool { f.hang(r); return true })
	if _, err := d.List(t.Context()); !errors.Is(err, shoal.ErrEngineDown) {
		t.Fatalf("List = %v, want ErrEngineDown", err)
	}
	f.misbehave(nil)
	f.mu.Lock()
	f.api = "1.51"
	f.mu.Unlock()
	if info, err := d.Info(t.Context()); err != nil || info.API != "1.51" {
		t.Errorf("Info after an upgrade = %+v, %v; want API 1.51", info, err)
	}
}

// TestLogsThatStall: who follows waits for the next line, who does not gives up.
func TestLogsThatStall(t *testing.T) {
	f := &fakeEngine{api: "1.41", containers: []map[string]any{listed(1, "running", "Up 3 seconds")}, inspected: shown("running", 0, false)}
	d := newFakeDocker(t, serveFake(t, f), hasty)
	more := make(chan struct{})
	f.misbehave(func(w http.ResponseWriter, r *http.Request, path string) bool {
		if !strings.HasSuffix(path, "/logs") {
			return false
		}
		fmt.Fprint(w, frame(1, "2026-05-04T03:02:01Z one\n"))
		w.(http.Flusher).Flush()
		select {
		case <-more:
			fmt.Fprint(w, frame(1, "2026-05-04T03:02:02Z two\n"))
		case <-r.Context().Done():
		}
		return true
	})
	read := func(follow bool) (lines []string, err error) {
		err = d.Logs(t.Context(), containerID(1), shoal.LogOptions{Tail: -1, Follow: follow}, func(l shoal.LogLine) error {
			lines = append(lines, l.Text)
			return nil
		})
		return lines, err
	}
	if lines, err := read(false); !errors.Is(err, shoal.ErrEngineDown) || !slices.Equal(lines, []string{"one"}) {
		t.Errorf("logs that stall = %q, %v; want one line and ErrEngineDown", lines, err)
	}
	time.AfterFunc(3*hasty, func() { close(more) })
	if lines, err := read(true); err != nil || !slices.Equal(lines, []string{"one", "two"}) {
		t.Errorf("followed logs that pause = %q, %v; want both lines", lines, err)
	}
}

// TestEventsOfOthersAreNotTold: of the engine's containers only ours are, of its images
// all, which have no labels of ours to ask the engine for.
func TestEventsOfOthersAreNotTold(t *testing.T) {
	f := &fakeEngine{api: "1.41"}
	d := newFakeDocker(t, serveFake(t, f), patient)
	container := func(action string, c, p shoal.PeerID) string {
		return fmt.Sprintf(`{"Type":"container","Action":"%s","Actor":{"ID":"%s","Attributes":{"%s":"%s","%s":"%s","%s":"%s"}}}`,
			action, containerID(1), runtime.LabelCluster, c, runtime.LabelPeer, p, runtime.LabelReplica, replica(1))
	}
	f.misbehave(func(w http.ResponseWriter, r *http.Request, path string) bool {
		if path != "/events" {
			return false
		}
		for _, want := range []string{"health_status", "container", "image", "load", "pull", "import", "untag", "delete"} {
			if got := r.URL.Query().Get("filters"); !strings.Contains(got, `"`+want+`"`) {
				t.Errorf("filters = %s, want %s in them", got, want)
			}
		}
		fmt.Fprint(w, container("start", cluster, "other"), container("stop", "other", peer), container("die", cluster, peer),
			`{"Type":"container","Action":"start","Actor":{"ID":"theirs"}}`,
			`{"Type":"image","Action":"load","Actor":{"ID":"sha256:1234","Attributes":{"name":"late:1"}}}`)
		return true
	})
	var got []shoal.EngineEvent
	err := d.Events(t.Context(), func(e shoal.EngineEvent) { got = append(got, e) })
	if !errors.Is(err, shoal.ErrEngineDown) {
		t.Errorf("Events = %v, want ErrEngineDown once the stream broke", err)
	}
	want := []shoal.EngineEvent{
		{Container: containerID(1), Replica: replica(1), Action: "die"},
		{Image: "sha256:1234", Action: "load"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("events = %+v, want %+v", got, want)
	}
}
