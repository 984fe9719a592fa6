// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package lab_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal/internal/pack"
	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/drive"
	"github.com/shoalnet/shoal/lab/topology"
)

const image = "hello:1"

// hello packs our own web server.
func hello(t *testing.T) string {
	t.Helper()
	binary, err := pack.Build(t.Context(), "../examples/hello")
	ok(t, err)
	img, err := pack.Image(binary, pack.Options{Path: "/hello"})
	ok(t, err)
	var tar bytes.Buffer
	ok(t, pack.Tar(&tar, image, img))
	file := filepath.Join(t.TempDir(), "hello.tar")
	ok(t, os.WriteFile(file, tar.Bytes(), 0o600))
	return file
}

// must returns what was said, or fails.
func must(t *testing.T) func(string, error) string {
	t.Helper()
	return func(out string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func client(t *testing.T, l *lab.Lab, host string) drive.Client {
	t.Helper()
	c, err := l.Client(host)
	ok(t, err)
	return c
}

// within runs a command in a host.
func within(t *testing.T, l *lab.Lab, host string, argv ...string) string {
	t.Helper()
	var out bytes.Buffer
	ok(t, l.Exec(t.Context(), host, argv, lab.Streams{Out: &out, Err: &out}))
	return strings.TrimSpace(out.String())
}

// Hosts have engines, names and networks of their own, and are one cluster that runs
// what it is asked to.
func TestLab(t *testing.T) {
	file := hello(t)
	from := time.Now()
	l := lab.Up(t, lab.Images(file))
	t.Logf("3 hosts up in %s", time.Since(from).Round(time.Millisecond))
	must(t)(l.Docker(t.Context(), "h1", "run", "-d", "--pull", "never", "--network", "none", "--name", "alone", image, "work"))
	for _, c := range []struct{ host, want string }{{"h1", "alone"}, {"h2", ""}, {"h3", ""}} {
		if got := must(t)(l.Docker(t.Context(), c.host, "ps", "--format", "{{.Names}}")); got != c.want {
			t.Errorf("the engine of %s runs %q, want %q", c.host, got, c.want)
		}
		if got := within(t, l, c.host, "hostname"); got != c.host {
			t.Errorf("the name of %s is %q", c.host, got)
		}
	}
	must(t)(l.Shoal(t.Context(), "h2", "run", "--name", "web", "--replicas", "6", image, "work"))
	rows, err := client(t, l, "h3").Exact(t.Context(), "web", 6, time.Minute)
	ok(t, err)
	for _, h := range l.Hosts() {
		if !slices.ContainsFunc(rows, func(r drive.Row) bool { return r.PeerName == h.Name }) {
			t.Errorf("%s holds none of 6 replicas", h.Name)
		}
	}
	if got := within(t, l, "h1", "sh", "-c", "docker ps -q | wc -l; shoal ls -o name"); got != "3\nweb" {
		t.Errorf("seen from inside there are %q, want 3 containers and web", got)
	}
	err = l.Exec(t.Context(), "h1", []string{"sh", "-c", "exit 7"}, lab.Streams{})
	if exit, isExit := errors.AsType[*exec.ExitError](err); !isExit || exit.ExitCode() != 7 {
		t.Errorf("a command that ends with 7 gives %v", err)
	}
	_, err = l.Shoal(t.Context(), "h9", "ps")
	if unknown, is := errors.AsType[*lab.UnknownHostError](err); !is || !slices.Equal(unknown.Known, []string{"h1", "h2", "h3"}) {
		t.Errorf("asked of h9: %v", err)
	}
	stats, err := l.Stats(t.Context())
	ok(t, err)
	for _, s := range stats {
		if s.CPU <= 0 || s.BytesIn == 0 || s.BytesOut == 0 || s.Written["state"] == 0 || s.Written["engine"] == 0 {
			t.Errorf("%s has used %+v", s.Host.Name, s)
		}
		for _, name := range []string{"dockerd", "containerd", "shoald"} {
			if p := proc(t, l, s.Host.Name, name); p.RSSBytes == 0 {
				t.Errorf("%s of %s takes no memory", name, s.Host.Name)
			}
		}
	}
}

// A power cut ends a host with all its containers; others take over; booted again it is
// a member as before.
func TestPowerCut(t *testing.T) {
	l := lab.Up(t, lab.Images(hello(t)))
	must(t)(l.Shoal(t.Context(), "h1", "run", "--name", "web", "--replicas", "6", image, "work"))
	_, err := client(t, l, "h1").Exact(t.Context(), "web", 6, time.Minute)
	ok(t, err)
	ok(t, l.Kill(t.Context(), "h3"))
	if h, err := l.Host("h3"); err != nil || h.IsUp || h.PID != 0 {
		t.Errorf("after a power cut it is %+v, %v", h, err)
	}
	_, err = l.Docker(t.Context(), "h3", "ps")
	if _, isDown := errors.AsType[*lab.DownError](err); !isDown {
		t.Errorf("the engine of a host without power: %v", err)
	}
	if err := l.Kill(t.Context(), "h3"); err == nil {
		t.Error("its power was cut twice")
	}
	_, err = client(t, l, "h1").Exact(t.Context(), "web", 6, time.Minute, "h3")
	ok(t, err)
	ok(t, l.Boot(t.Context(), "h3"))
	ok(t, client(t, l, "h3").Heard(t.Context(), 3, time.Minute))
	_, err = client(t, l, "h3").Exact(t.Context(), "web", 6, time.Minute)
	ok(t, err)
	if err := l.Boot(t.Context(), "h3"); err == nil {
		t.Error("a host that is up was booted")
	}
}

// A split is seen by both sides and over when it is healed; distance is felt.
func TestLinks(t *testing.T) {
	l := lab.Up(t)
	ok(t, l.Split("h1 h2 | h3", false))
	ok(t, client(t, l, "h1").Heard(t.Context(), 2, time.Minute))
	ok(t, client(t, l, "h3").Heard(t.Context(), 1, time.Minute))
	ok(t, l.Heal())
	for _, h := range l.Hosts() {
		ok(t, client(t, l, h.Name).Heard(t.Context(), 3, time.Minute))
	}
	connect := func() time.Duration {
		t.Helper()
		from := time.Now()
		within(t, l, "h1", "bash", "-c", "exec 3<>/dev/tcp/h2/4710")
		return time.Since(from)
	}
	connect() // and learn the address of h2's card
	ok(t, l.SetLink("h1", "h2", topology.Change{Delay: "200ms"}, false))
	if took := connect(); took < 400*time.Millisecond {
		t.Errorf("a connection over a round trip of 400 ms took %s", took)
	}
	ok(t, l.SetLink("h1", "h2", topology.Change{Delay: "0ms"}, true))
	if took := connect(); took < 200*time.Millisecond || took > 390*time.Millisecond {
		t.Errorf("a connection over 200 ms one way took %s", took)
	}
	ok(t, l.Heal())
	now := l.Links()
	for pair, want := range l.Topology().Links() {
		if got := now[pair].Link; got != want {
			t.Errorf("after healing %s is %+v, want %+v", pair, got, want)
		}
	}
	if err := l.SetLink("h1", "h9", topology.Change{Delay: "1ms"}, false); err == nil {
		t.Error("a link to nobody was set")
	}
}

// Hosts of a bare lab have engines and no shoald.
func TestBare(t *testing.T) {
	l := lab.Up(t, lab.Bare(), lab.Hosts(2))
	ok(t, l.LoadImage(t.Context(), "h2", hello(t)))
	if got := must(t)(l.Docker(t.Context(), "h2", "images", "--format", "{{.Repository}}:{{.Tag}}")); got != image {
		t.Errorf("the engine has images %q, want %s", got, image)
	}
	if _, err := l.Shoal(t.Context(), "h1", "ps"); err == nil {
		t.Error("a bare host has a shoald")
	}
	if err := l.Clock("h1", time.Hour); err == nil {
		t.Error("a bare host has a shoald's clock")
	}
}
