// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"encoding/binary"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// inspections counts what was asked beyond the list.
func inspections(asked []string) int {
	n := 0
	for _, a := range asked {
		if strings.HasSuffix(a, "/json") && !strings.HasSuffix(a, "/containers/json") {
			n++
		}
	}
	return n
}

// TestListAsksOnlyWhatChanged is why an idle daemon costs next to nothing.
func TestListAsksOnlyWhatChanged(t *testing.T) {
	f := &fakeEngine{api: "1.41", inspected: shown("running", 0, false)}
	for n := 1; n <= 20; n++ {
		f.containers = append(f.containers, listed(n, "running", "Up 3 seconds (healthy)"))
	}
	d := newFakeDocker(t, serveFake(t, f), patient)
	list := func(want int) []shoal.Container {
		t.Helper()
		all, err := d.List(t.Context())
		if err != nil || len(all) != len(f.containers) {
			t.Fatalf("List = %d containers, %v; want %d", len(all), err, len(f.containers))
		}
		if got := inspections(f.requests()); got != want {
			t.Errorf("%d inspections, want %d", got, want)
		}
		return all
	}
	change := func(n int, c map[string]any) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.containers[n-1] = c
	}
	all := list(20)
	if want := time.Date(2026, 5, 4, 3, 2, 1, 5e8, time.UTC); !all[0].Started.Equal(want) || all[0].Health != shoal.HealthHealthy {
		t.Errorf("container = %+v, want it started %s and healthy", all[0], want)
	}
	list(0)
	change(3, listed(3, "running", "Up 4 minutes (unhealthy)")) // the list says it all
	if all := list(0); all[2].Health != shoal.HealthUnhealthy {
		t.Errorf("health = %q, want unhealthy", all[2].Health)
	}
	f.mu.Lock()
	f.inspected = shown("exited", 137, true)
	f.mu.Unlock()
	change(4, listed(4, "exited", "Exited (137) 2 seconds ago"))
	if all := list(1); all[3].State != shoal.ContainerExited || all[3].ExitCode != 137 || !all[3].OOM {
		t.Errorf("container = %+v, want it exited, 137, OOM", all[3])
	}
	list(0)
	if err := d.Start(t.Context(), containerID(5)); err == nil {
		t.Error("the fake starts nothing")
	}
	list(1) // what we touched is looked at
}

// TestListKnowsADeathBeforeTheEngineListsIt: an engine lists a container as running
// for a while after it told of its death, and tells it once.
func TestListKnowsADeathBeforeTheEngineListsIt(t *testing.T) {
	f := &fakeEngine{api: "1.41", inspected: shown("exited", 3, false), containers: []map[string]any{listed(1, "running", "Up Less than a second")}}
	d := newFakeDocker(t, serveFake(t, f), patient)
	for range 2 { // as long as the two disagree
		all, err := d.List(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatalf("List = %d containers, %v; want 1", len(all), err)
		}
		if c := all[0]; c.State != shoal.ContainerExited || c.ExitCode != 3 || len(c.Ports) != 0 {
			t.Errorf("container = %+v, want it exited, 3, without ports", c)
		}
		if got := inspections(f.requests()); got != 1 {
			t.Errorf("%d inspections, want 1", got)
		}
	}
	f.mu.Lock()
	f.inspected = shown("running", 0, false) // started again
	f.mu.Unlock()
	if all, err := d.List(t.Context()); err != nil || len(all) != 1 || all[0].State != shoal.ContainerRunning {
		t.Errorf("List = %+v, %v; want it running", all, err)
	}
}

// TestListDoesNotWaitForAStart: an engine answers no inspection of a container that it
// is starting, and one that never ran has nothing to tell.
func TestListDoesNotWaitForAStart(t *testing.T) {
	f := &fakeEngine{api: "1.41", inspected: shown("running", 0, false), containers: []map[string]any{listed(1, "created", "Created")}}
	d := newFakeDocker(t, serveFake(t, f), patient)
	for _, want := range []struct {
		state       shoal.ContainerState
		inspections int
	}{{shoal.ContainerCreated, 0}, {shoal.ContainerRunning, 1}} {
		all, err := d.List(t.Context())
		if err != nil || len(all) != 1 || all[0].State != want.state || all[0].Started.IsZero() != (want.inspections == 0) {
			t.Errorf("List = %+v, %v; want one, %s", all, err, want.state)
		}
		if got := inspections(f.requests()); got != want.inspections {
			t.Errorf("%d inspections of a container that is %s, want %d", got, want.state, want.inspections)
		}
		f.mu.Lock()
		f.containers[0] = listed(1, "running", "Up Less than a second")
		f.mu.Unlock()
	}
}

func TestListLeavesOutWhatItCannotRead(t *testing.T) {
	f := &fakeEngine{api: "1.41", containers: []map[string]any{
		listed(1, "running", "Up 1 second"), listed(2, "running", "Up 1 second"), listed(3, "running", "Up 1 second"),
	}}
	f.containers[1]["Labels"].(map[string]string)["net.shoal.replica"] = "nonsense"
	f.containers[2]["Labels"].(map[string]string)["net.shoal.peer"] = "12D3KooWSomebodyElse"
	d := newFakeDocker(t, serveFake(t, f), patient)
	all, err := d.List(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != containerID(1) {
		t.Errorf("List = %+v, %v; want the first container only", all, err)
	}
}

// frame is a message in an engine's log stream.
func frame(stream byte, text string) string {
	head := make([]byte, 8)
	head[0] = stream
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	return string(head) + text
}

// readLogs reads what a fake engine sends as logs.
func readLogs(t *testing.T, tty bool, send string) []shoal.LogLine {
	t.Helper()
	f := &fakeEngine{api: "1.41", containers: []map[string]any{listed(1, "running", "Up 1 second")}, inspected: shown("running", 0, false)}
	f.inspected["Config"] = map[string]any{"Tty": tty}
	d := newFakeDocker(t, serveFake(t, f), patient)
	f.misbehave(func(w http.ResponseWriter, _ *http.Request, path string) bool {
		if strings.HasSuffix(path, "/logs") {
			_, _ = w.Write([]byte(send))
			return true
		}
		return false
	})
	var out []shoal.LogLine
	err := d.Logs(t.Context(), containerID(1), shoal.LogOptions{Tail: -1}, func(l shoal.LogLine) error {
		out = append(out, l)
		return nil
	})
	if err != nil {
		t.Fatalf("Logs = %v", err)
	}
	return out
}

func TestLogLines(t *testing.T) {
	const at, later = "2026-05-04T03:02:01.000000005Z ", "2026-05-04T03:02:02.000000000Z "
	long := strings.Repeat("x", 70000)
	for _, tt := range []struct {
		name string
		tty  bool
		send string
		want []string
	}{
		{"two streams", false, frame(1, at+"out\n") + frame(2, later+"err\n"), []string{"out", "err"}},
		{"an empty line", false, frame(1, at+"\n"), []string{""}},
		{"a line of times", false, frame(1, at+at+"x\n"), []string{at + "x"}},
		{"a line in parts", false, frame(1, at+"one ") + frame(2, at+"other\n") + frame(1, later+"line\n"), []string{"other", "one line"}},
		{"an end without newline", false, frame(1, at+"end"), []string{"end"}},
		{"a long line", false, frame(1, at+long+"\n"), []string{long[:65536], long[65536:]}},
		{"not UTF-8", false, frame(1, at+"a\xffb\n"), []string{"a\uFFFDb"}},
		{"a terminal", true, at + "one\r\n" + later + "two\r\n", []string{"one", "two"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := readLogs(t, tt.tty, tt.send)
			if len(got) != len(tt.want) {
				t.Fatalf("lines = %+v, want %q", got, tt.want)
			}
			for i, l := range got {
				if l.Text != tt.want[i] || l.Time.Year() != 2026 || l.Slot != -1 || l.Service != "web" {
					t.Errorf("line %d = %+v, want %q", i, l, tt.want[i])
				}
			}
		})
	}
	if got := readLogs(t, false, frame(1, at+"out\n")+frame(2, later+"err\n")); got[0].Stderr || !got[1].Stderr || got[0].Time.Nanosecond() != 5 {
		t.Errorf("lines = %+v, want stdout, stderr and their times", got)
	}
}

func TestPullerListsWhatCanBeNamed(t *testing.T) {
	f := &fakeEngine{api: "1.41"}
	d := newFakeDocker(t, serveFake(t, f), patient)
	f.misbehave(func(w http.ResponseWriter, _ *http.Request, path string) bool {
		if path != "/images/json" {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`[{"RepoTags":["web:2","hello:1"],"RepoDigests":["web@sha256:aa"]},
			{"RepoTags":["<none>:<none>"],"RepoDigests":["<none>@<none>"]}, {"RepoTags":null,"RepoDigests":null}]`))
		return true
	})
	got, err := runtime.NewPuller(d).Images(t.Context())
	if want := "hello:1 web:2 web@sha256:aa"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("Images = %q, %v; want %q", got, err, want)
	}
}

func BenchmarkListSteady(b *testing.B) {
	f := &fakeEngine{api: "1.41", inspected: shown("running", 0, false)}
	for n := 1; n <= 100; n++ {
		f.containers = append(f.containers, listed(n, "running", "Up 3 seconds (healthy)"))
	}
	d := newFakeDocker(b, serveFake(b, f), patient)
	for b.Loop() {
		if _, err := d.List(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
