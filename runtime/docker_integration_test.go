//go:build integration

// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/pack"
	"github.com/shoalnet/shoal/runtime"
	"github.com/shoalnet/shoal/runtime/runtimetest"
)

// testImage is hello under a name of this test's own.
const testImage = "shoal-runtime-test:1"

func TestMain(m *testing.M) {
	os.Exit(func() int {
		ctx := context.Background()
		remove, err := loadHello(ctx, testImage)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer remove()
		return m.Run()
	}())
}

// loadHello is docker load of hello under a name.
func loadHello(ctx context.Context, ref string) (remove func(), err error) {
	raw, err := rawClient()
	if err != nil {
		return nil, err
	}
	binary, err := pack.Build(ctx, "../examples/hello")
	if err != nil {
		return nil, err
	}
	img, err := pack.Image(binary, pack.Options{Path: "/hello"})
	if err != nil {
		return nil, err
	}
	var tar bytes.Buffer
	if err := pack.Tar(&tar, ref, img); err != nil {
		return nil, err
	}
	if err := pack.Load(ctx, runtime.DefaultHost, &tar); err != nil {
		return nil, err
	}
	return func() {
		if _, err := raw.ImageRemove(ctx, ref, image.RemoveOptions{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		_ = raw.Close()
	}, nil
}

// rawClient is the engine past our room, for what our room refuses to do.
func rawClient() (*client.Client, error) {
	return client.NewClientWithOpts(client.WithHost(runtime.DefaultHost), client.WithAPIVersionNegotiation())
}

// proxy stands between us and the engine, and can hang.
type proxy struct {
	mu   sync.Mutex // guards gate
	gate chan struct{}
}

func (p *proxy) hang(hang bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if hang {
		p.gate = make(chan struct{})
		return
	}
	close(p.gate)
	p.gate = nil
}

func (p *proxy) pass() {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

// Write lets nothing through while the proxy hangs.
type gated struct {
	p *proxy
	w io.Writer
}

func (g gated) Write(b []byte) (int, error) {
	g.p.pass()
	return g.w.Write(b)
}

func newProxy(t testing.TB) (*proxy, string) {
	t.Helper()
	socket := filepath.Join(socketDir(t), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("unix", strings.TrimPrefix(runtime.DefaultHost, "unix://"))
			if err != nil {
				down.Close()
				continue
			}
			group.Go(func() { io.Copy(gated{p, up}, down); up.(*net.UnixConn).CloseWrite() })
			group.Go(func() { io.Copy(gated{p, down}, up); up.Close(); down.Close() })
		}
	})
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	return p, "unix://" + socket
}

// newDocker returns the engine as a new cluster's peer sees it.
func newDocker(t testing.TB, host string, p shoal.PeerID, c shoal.PeerID) *runtime.Docker {
	t.Helper()
	return newDockerWith(t, host, p, c, nil)
}

// newDockerWith is newDocker on a machine whose owner allows something.
func newDockerWith(t testing.TB, host string, p shoal.PeerID, c shoal.PeerID, rules func() []string) *runtime.Docker {
	t.Helper()
	d, err := runtime.NewDocker(runtime.Config{
		Host: host, Cluster: c, Peer: p, Quick: 4 * time.Second, Slow: 15 * time.Second, Rules: rules,
	}, shoal.NewSystemClock(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func newCluster() shoal.PeerID { return shoal.PeerID("test-" + rand.Text()) }

func dockerFixture(t testing.TB) *runtimetest.Fixture {
	p, host := newProxy(t)
	c := newCluster()
	made := newVolumes(t)
	var rules atomic.Pointer[[]string]
	rules.Store(&[]string{})
	d := newDockerWith(t, host, peer, c, func() []string { return *rules.Load() })
	check := func(cmd ...string) *shoal.Health {
		return &shoal.Health{Test: append([]string{"CMD"}, cmd...), Interval: 200 * time.Millisecond, Timeout: 2 * time.Second, Retries: 1}
	}
	limit := shoal.Resources{MemBytes: 64 << 20, CPUMilli: 500}
	return &runtimetest.Fixture{
		Engine: d, Puller: runtime.NewPuller(d), Cluster: c, Peer: peer,
		Steady: shoal.Spec{
			Name: "steady", Image: testImage, Health: check("/hello", "check"), Limits: limit,
			Ports: []shoal.Port{{Container: 80, Protocol: "tcp"}},
		},
		Sick:   shoal.Spec{Name: "sick", Image: testImage, Health: check("/hello", "dance")},
		Crash:  shoal.Spec{Name: "crash", Image: testImage, Command: []string{"quit", "-code", "3"}},
		Greedy: shoal.Spec{Name: "greedy", Image: testImage, Command: []string{"eat", "-mb", "200"}, Limits: limit},
		Chatty: shoal.Spec{Name: "chatty", Image: testImage, Command: []string{"work", "-every", "50ms"}},
		Print:  []string{"/hello", "shout", "-length", "3"}, Cat: []string{"/hello", "cat"}, Quit: []string{"/hello", "quit", "-code", "5"},
		Publish: "127.0.0.21", Patience: 60 * time.Second, Deadline: 18 * time.Second,
		Foreign:  func(t testing.TB) (string, func() bool) { return runForeign(t, nil) },
		SetRules: func(allowed ...string) { rules.Store(&allowed) }, Volume: made.one,
		Network: foreignNetwork,
		Load: func(t testing.TB) (string, func()) {
			const ref = "shoal-runtime-test:late"
			remove, err := loadHello(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			return ref, remove
		},
		Forget: forgetImage,
		Hang:   p.hang,
	}
}

// forgetImage is docker rmi -f.
func forgetImage(t testing.TB, id string) {
	t.Helper()
	raw, err := rawClient()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_, err = raw.ImageRemove(context.WithoutCancel(t.Context()), id, image.RemoveOptions{Force: true})
	if err != nil && !cerrdefs.IsNotFound(err) {
		t.Error(err)
	}
}

// runForeign runs a container that is not ours.
func runForeign(t testing.TB, labels map[string]string) (string, func() bool) {
	t.Helper()
	raw, err := rawClient()
	if err != nil {
		t.Fatal(err)
	}
	made, err := raw.ContainerCreate(t.Context(), &container.Config{Image: testImage, Labels: labels}, nil, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := raw.ContainerRemove(context.WithoutCancel(t.Context()), made.ID, container.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
		raw.Close()
	})
	if err := raw.ContainerStart(t.Context(), made.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	return made.ID, func() bool {
		info, err := raw.ContainerInspect(t.Context(), made.ID)
		return err == nil && info.State.Running
	}
}

func TestDockerContract(t *testing.T) { runtimetest.Run(t, dockerFixture) }

// created inspects what the engine made of a spec.
func created(t *testing.T, id string) container.InspectResponse {
	t.Helper()
	raw, err := rawClient()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	info, err := raw.ContainerInspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// removeAll removes what a test made.
func removeAll(t *testing.T, d *runtime.Docker) {
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		all, err := d.List(ctx)
		if err != nil {
			t.Error(err)
		}
		for _, c := range all {
			if err := d.Remove(ctx, c.ID); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestDockerCreatesWhatTheSpecSays(t *testing.T) {
	c := newCluster()
	d := newDocker(t, runtime.DefaultHost, peer, c)
	removeAll(t, d)
	cs := spec(1, func(s *shoal.Spec) {
		s.Image = testImage
		s.Command = []string{"work"}
		s.Env = map[string]string{"COLOUR": "blue"}
		s.Labels = map[string]string{"team": "sea"}
		s.Limits = shoal.Resources{CPUMilli: 250, MemBytes: 32 << 20}
		s.StopSignal = "SIGQUIT"
		s.StopGrace = 1500 * time.Millisecond
	})
	cs.Cluster = c
	id, err := d.Create(t.Context(), cs)
	if err != nil {
		t.Fatal(err)
	}
	info := created(t, id)
	h, cfg := info.HostConfig, info.Config
	if h.Memory != 32<<20 || h.MemorySwap != 32<<20 || h.NanoCPUs != 250_000_000 || h.PidsLimit == nil || *h.PidsLimit != 4096 {
		t.Errorf("limits = memory %d, with swap %d, cpu %d, pids %v", h.Memory, h.MemorySwap, h.NanoCPUs, h.PidsLimit)
	}
	if !slices.Equal(h.SecurityOpt, []string{"no-new-privileges"}) || h.Privileged || h.RestartPolicy.Name != "no" || h.NetworkMode != "bridge" {
		t.Errorf("host configuration = %+v", h)
	}
	if h.LogConfig.Type != "json-file" || h.LogConfig.Config["max-size"] != "10m" || h.LogConfig.Config["max-file"] != "3" {
		t.Errorf("log configuration = %+v", h.LogConfig)
	}
	if cfg.StopSignal != "SIGQUIT" || *cfg.StopTimeout != 2 || !slices.Equal(cfg.Cmd, []string{"work"}) || !slices.Equal(cfg.Entrypoint, []string{"/hello"}) {
		t.Errorf("configuration = %+v", cfg)
	}
	for _, want := range []string{"COLOUR=blue", "SHOAL_SERVICE=web", "SHOAL_SLOT=1", "SHOAL_REPLICA=" + cs.Replica.String(), "SHOAL_PEER=" + string(peer)} {
		if !slices.Contains(cfg.Env, want) {
			t.Errorf("environment = %q, want %q in it", cfg.Env, want)
		}
	}
	if cfg.Labels["team"] != "sea" || cfg.Labels[runtime.LabelReplica] != cs.Replica.String() {
		t.Errorf("labels = %v", cfg.Labels)
	}
	for k := range cfg.Labels {
		if strings.Contains(k, "slot") {
			t.Errorf("label %s: the slot is the claim's word", k)
		}
	}
}

// TestDockerShowsTheUsersName: who looks at the engine sees the name that the user wrote,
// as long as it stands for what was deployed.
func TestDockerShowsTheUsersName(t *testing.T) {
	c := newCluster()
	d := newDocker(t, runtime.DefaultHost, peer, c)
	removeAll(t, d)
	found, err := d.Find(t.Context(), testImage)
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct{ name, want string }{
		{testImage, testImage},
		{"shoal-runtime-test:moved", found.ID}, // stands for nothing
	} {
		cs := spec(byte(i+1), func(s *shoal.Spec) { s.Image = tt.name })
		cs.Cluster, cs.Image = c, found.ID
		id, err := d.Create(t.Context(), cs)
		if err != nil {
			t.Fatal(err)
		}
		if info := created(t, id); info.Config.Image != tt.want || info.Image != found.ID {
			t.Errorf("container of %s shows %s of image %s, want %s of %s", tt.name, info.Config.Image, info.Image, tt.want, found.ID)
		}
	}
}

func TestDockerLeavesOtherPeersAlone(t *testing.T) {
	c := newCluster()
	a, b := newDocker(t, runtime.DefaultHost, peer, c), newDocker(t, runtime.DefaultHost, "12D3KooWPeerB", c)
	removeAll(t, a)
	cs := spec(1, func(s *shoal.Spec) { s.Image = testImage })
	cs.Cluster = c
	id := run(t, a, cs)
	if all, err := b.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("the other peer lists %+v, %v", all, err)
	}
	if err := b.Remove(t.Context(), id); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("Remove by the other peer = %v, want ErrRefused", err)
	}
	if c := only(t, a); c.State != shoal.ContainerRunning {
		t.Errorf("container = %s, want running", c.State)
	}
}

// TestDockerAdopts is a daemon that starts anew beside what runs.
func TestDockerAdopts(t *testing.T) {
	c := newCluster()
	before := newDocker(t, runtime.DefaultHost, peer, c)
	removeAll(t, before)
	cs := spec(1, func(s *shoal.Spec) { s.Image = testImage })
	cs.Cluster = c
	id := run(t, before, cs)
	was := only(t, before)

	after := newDocker(t, runtime.DefaultHost, peer, c)
	is := only(t, after)
	if is.ID != id || is.Replica != cs.Replica || is.Revision != cs.Revision || string(is.Record) != "signed" || !is.Started.Equal(was.Started) {
		t.Errorf("adopted container = %+v, want %+v", is, was)
	}
	if again, err := after.Create(t.Context(), cs); err != nil || again != id {
		t.Errorf("Create of an adopted replica = %s, %v; want %s", again, err, id)
	}
}

func TestDockerStopHasGraceAndSignal(t *testing.T) {
	c := newCluster()
	d := newDocker(t, runtime.DefaultHost, peer, c)
	removeAll(t, d)
	for i, tt := range []struct {
		command []string
		signal  string
		grace   time.Duration
		code    int
		atLeast time.Duration
	}{
		{[]string{"work"}, "", 20 * time.Second, 0, 0},
		{[]string{"work"}, "SIGQUIT", 20 * time.Second, 0, 0},
		{[]string{"work", "-stubborn"}, "", time.Second, 137, time.Second},
		{[]string{"work", "-stubborn"}, "SIGQUIT", time.Second, 137, time.Second},
		{[]string{"work"}, "", 0, 137, 0},
	} {
		cs := spec(byte(i+1), func(s *shoal.Spec) { s.Image = testImage; s.Command = tt.command })
		cs.Cluster = c
		id := run(t, d, cs)
		waitForLine(t, d, id)
		from := time.Now()
		if err := d.Stop(t.Context(), id, tt.signal, tt.grace); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(from); took < tt.atLeast || took > 15*time.Second {
			t.Errorf("%v: Stop(%q, %s) took %s", tt.command, tt.signal, tt.grace, took)
		}
		got := only(t, d)
		if got.State != shoal.ContainerExited || got.ExitCode != tt.code && tt.grace > 0 || got.OOM {
			t.Errorf("%v: Stop(%q, %s): container %s, code %d; want exited, %d", tt.command, tt.signal, tt.grace, got.State, got.ExitCode, tt.code)
		}
		if err := d.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
}

// waitForLine returns when the container's process has printed something.
func waitForLine(t *testing.T, d *runtime.Docker, id string) {
	t.Helper()
	done := errors.New("seen")
	err := d.Logs(t.Context(), id, shoal.LogOptions{Follow: true, Tail: -1}, func(shoal.LogLine) error { return done })
	if !errors.Is(err, done) {
		t.Fatalf("Logs = %v", err)
	}
}

func TestDockerPublishesOnTheAddress(t *testing.T) {
	c := newCluster()
	d := newDocker(t, runtime.DefaultHost, peer, c)
	removeAll(t, d)
	cs := spec(1, func(s *shoal.Spec) { s.Image = testImage; s.Ports = []shoal.Port{{Container: 80, Protocol: "tcp"}} })
	cs.Cluster = c
	id := run(t, d, cs)
	waitForLine(t, d, id)
	b := only(t, d).Ports[0]
	resp, err := http.Get(fmt.Sprintf("http://%s:%d/", b.HostIP, b.HostPort))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(page), "replica "+cs.Replica.String()) {
		t.Errorf("page = %q, %v", page, err)
	}
}

func TestDockerSplitsLongLines(t *testing.T) {
	c := newCluster()
	d := newDocker(t, runtime.DefaultHost, peer, c)
	removeAll(t, d)
	cs := spec(1, func(s *shoal.Spec) {
		s.Image, s.Command = testImage, []string{"shout", "-length", "150000"}
	})
	cs.Cluster = c
	id := run(t, d, cs)
	var lengths []int
	total := 0
	err := d.Logs(t.Context(), id, shoal.LogOptions{Follow: true, Tail: -1}, func(l shoal.LogLine) error {
		lengths = append(lengths, len(l.Text))
		total += strings.Count(l.Text, "a")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{65536, 65536, 150000 - 2*65536}; !slices.Equal(lengths, want) || total != 150000 {
		t.Errorf("a line of 150000 came as %v with %d letters, want %v", lengths, total, want)
	}
}

// TestDockerFindsARenamedReplica is a human who renames a container.
func TestDockerFindsARenamedReplica(t *testing.T) {
	c := newCluster()
	d := newDocker(t, runtime.DefaultHost, peer, c)
	removeAll(t, d)
	cs := spec(1, func(s *shoal.Spec) { s.Image = testImage })
	cs.Cluster = c
	id, err := d.Create(t.Context(), cs)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := rawClient()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := raw.ContainerRename(t.Context(), id, "renamed-"+strings.ToLower(rand.Text())); err != nil {
		t.Fatal(err)
	}
	if again, err := d.Create(t.Context(), cs); err != nil || again != id {
		t.Errorf("Create after a rename = %s, %v; want %s", again, err, id)
	}
}
