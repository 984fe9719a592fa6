// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal/internal/pack"
	"github.com/shoalnet/shoal/lab/drive"
	"github.com/shoalnet/shoal/lab/driver"
	"github.com/shoalnet/shoal/lab/topology"
)

// smoke is a lab of three hosts that the built command has made, and what was measured.
type smoke struct {
	*testing.T
	name    string
	driver  *driver.Client
	figures [][2]string
}

const patience = time.Minute

// TestSmoke goes through what a lab is for, on three hosts with engines of their own, and
// prints its figures. Afterwards the machine is as it was.
func TestSmoke(t *testing.T) {
	before := machine()
	s := &smoke{T: t, name: fmt.Sprintf("smoke-%d", os.Getpid())}
	s.driver = driver.Dial(s.name)
	t.Cleanup(func() {
		if err := driver.Remove(context.WithoutCancel(t.Context()), s.name); err != nil {
			t.Error(err)
		}
	})
	s.up()
	for _, step := range []struct {
		name string
		fn   func()
	}{
		{"deploy, look, scale, remove a container behind its back", s.demo},
		{"a power cut", s.powerCut},
		{"a cut link", s.cutLink},
		{"50 ms of round trip", s.near},
		{"150 ms and 2 % loss everywhere", s.far},
	} {
		from := time.Now()
		if step.fn(); t.Failed() {
			t.Fatalf("failed at: %s", step.name)
		}
		t.Logf("%s: ok in %.1f s", step.name, time.Since(from).Seconds())
	}
	s.end(before)
	var table strings.Builder
	for _, f := range s.figures {
		fmt.Fprintf(&table, "  %-52s %s\n", f[0], f[1])
	}
	t.Logf("figures\n%s", &table)
}

func (s *smoke) figure(what, format string, args ...any) {
	s.figures = append(s.figures, [2]string{what, fmt.Sprintf(format, args...)})
}

func (s *smoke) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// lab runs the built shoal-lab.
func (s *smoke) lab(args ...string) string {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), filepath.Join(programs, "shoal-lab"), append([]string{"--name", s.name}, args...)...)
	out, err := drive.Capture(cmd)
	s.ok(err)
	return out
}

func (s *smoke) do(v driver.Verb, a driver.Ask) {
	s.Helper()
	s.ok(s.driver.Do(s.Context(), v, a, nil))
}

func (s *smoke) hosts() []driver.Host {
	s.Helper()
	var all []driver.Host
	s.ok(s.driver.Do(s.Context(), driver.Hosts, driver.Ask{}, &all))
	return all
}

// on is the shoal command for a host's daemon.
func (s *smoke) on(host string) drive.Client {
	s.Helper()
	all := s.hosts()
	i := slices.IndexFunc(all, func(h driver.Host) bool { return h.Name == host })
	return drive.Client{Bin: filepath.Join(programs, "shoal"), Socket: all[i].Socket}
}

func (s *smoke) shoal(host string, args ...string) {
	s.Helper()
	_, err := s.on(host).Run(s.Context(), args...)
	s.ok(err)
}

// exact waits until a host sees exactly n replicas of web, all ready.
func (s *smoke) exact(host string, n int, lost ...string) []drive.Row {
	s.Helper()
	rows, err := s.on(host).Exact(s.Context(), "web", n, patience, lost...)
	s.ok(err)
	return rows
}

func (s *smoke) up() {
	binary, err := pack.Build(s.Context(), "../../examples/hello")
	s.ok(err)
	img, err := pack.Image(binary, pack.Options{Path: "/hello"})
	s.ok(err)
	var tar bytes.Buffer
	s.ok(pack.Tar(&tar, "hello:1", img))
	file := filepath.Join(s.TempDir(), "hello.tar")
	s.ok(os.WriteFile(file, tar.Bytes(), 0o600))
	from := time.Now()
	s.lab("up", "3", "--image", file)
	s.figure("3 hosts up, one cluster", "%.1f s", time.Since(from).Seconds())
	var stats []driver.Stat
	s.ok(s.driver.Do(s.Context(), driver.Stats, driver.Ask{}, &stats))
	for _, h := range stats {
		const mib = 1 << 20
		s.figure("memory of "+h.Host, "%d MiB: shoald %d, dockerd %d, containerd %d", h.RSS[driver.Total]/mib, h.RSS["shoald"]/mib, h.RSS["dockerd"]/mib, h.RSS["containerd"]/mib)
	}
}

func (s *smoke) demo() {
	from := time.Now()
	s.shoal("h1", "deploy", "-f", "../../examples/hello/compose.yaml", "-y")
	s.figure("deploy of 4 replicas", "%.1f s", time.Since(from).Seconds())
	for _, h := range []string{"h1", "h2", "h3"} {
		s.exact(h, 3)
	}
	from = time.Now()
	s.shoal("h3", "scale", "web=6")
	before := s.exact("h1", 6)
	s.figure("scale from 3 to 6", "%.1f s", time.Since(from).Seconds())
	victim := before[slices.IndexFunc(before, func(r drive.Row) bool { return r.PeerName == "h2" })]
	for _, h := range s.hosts() { // each host's engine has its own containers and no others
		ids := strings.Fields(s.lab("docker", h.Name, "ps", "-q", "--no-trunc", "--filter", "name=web"))
		for _, r := range before {
			if slices.Contains(ids, r.Container) != (r.PeerName == h.Name) {
				s.Errorf("container %s of %s: in the engine of %s %v", r.Container, r.PeerName, h.Name, slices.Contains(ids, r.Container))
			}
		}
	}
	s.lab("docker", "h2", "rm", "-f", victim.Container)
	s.ok(drive.Until(s.Context(), patience, "the container is replaced", func() error {
		rows, err := s.on("h1").Exact(s.Context(), "web", 6, time.Millisecond)
		if err == nil && slices.ContainsFunc(rows, func(r drive.Row) bool { return r.Container == victim.Container }) {
			err = errors.New("it is still listed")
		}
		return err
	}))
}

func (s *smoke) powerCut() {
	from := time.Now()
	s.do(driver.Kill, driver.Ask{Host: "h3"})
	s.exact("h1", 6, "h3")
	s.figure("power cut of a host to 6 replicas on the others", "%.1f s", time.Since(from).Seconds())
	s.shoal("h2", "run", "--name", "late", "--replicas", "2", "hello:1", "work")
	from = time.Now()
	s.do(driver.Boot, driver.Ask{Host: "h3"})
	s.ok(s.on("h3").Known(s.Context(), []string{"h1", "h2", "h3"}, patience))
	s.figure("boot to a member that knows the others", "%.1f s", time.Since(from).Seconds())
	s.exact("h3", 6)
	_, err := s.on("h3").Exact(s.Context(), "late", 2, patience)
	s.ok(err)
	s.shoal("h3", "rm", "late", "-y")
}

// cutLink cuts two of three apart: the third passes records on, and nothing is restarted.
func (s *smoke) cutLink() {
	before := s.exact("h1", 6)
	s.do(driver.Split, driver.Ask{Sides: "h1 | h2"})
	s.shoal("h1", "scale", "web=8", "--timeout", "60s")
	from := time.Now()
	after := s.exact("h2", 8)
	s.figure("8 replicas seen behind a cut link", "%.1f s", time.Since(from).Seconds())
	for _, r := range before {
		if !slices.ContainsFunc(after, func(now drive.Row) bool { return now.Container == r.Container }) {
			s.Errorf("%s/%d was restarted for a cut link", r.Service, r.Slot)
		}
	}
	if passed := s.between("h1", "h2"); passed.WhileCut == 0 || !passed.Cut {
		s.Errorf("the cut link says %+v", passed)
	}
	s.do(driver.Heal, driver.Ask{})
	for _, h := range []string{"h1", "h2"} {
		s.ok(s.on(h).Heard(s.Context(), 3, patience))
		s.exact(h, 8)
	}
}

func (s *smoke) between(a, b string) driver.Link {
	s.Helper()
	var all []driver.Link
	s.ok(s.driver.Do(s.Context(), driver.Links, driver.Ask{}, &all))
	i := slices.IndexFunc(all, func(l driver.Link) bool { return l.From == a && l.To == b })
	return all[i]
}

// near asks for 50 ms and measures them, within a tenth.
func (s *smoke) near() {
	s.do(driver.SetLink, driver.Ask{Host: "h1", Other: "h2", Change: topology.Change{RTT: "50ms"}})
	f := s.fly("h1", "h2", 500)
	// What else runs on this machine makes packets late and never early: the best of many counts.
	for range 20 {
		if f.P50 <= 55*time.Millisecond {
			break
		}
		s.Logf("50 ms of round trip are %+v; once more", f)
		f = s.fly("h1", "h2", 500)
	}
	s.figure("50 ms of round trip asked for", "p50 %.1f ms, p99 %.1f ms", ms(f.P50), ms(f.P99))
	if f.P50 < 45*time.Millisecond || f.P50 > 55*time.Millisecond || f.Back != f.Sent {
		s.Errorf("a round trip of 50 ms is %+v", f)
	}
	s.do(driver.Heal, driver.Ask{})
}

// far is a bad day: the cluster does what it is asked.
func (s *smoke) far() {
	for _, ends := range [][2]string{{"h1", "h2"}, {"h1", "h3"}, {"h2", "h3"}} {
		s.do(driver.SetLink, driver.Ask{Host: ends[0], Other: ends[1], Change: topology.Change{RTT: "150ms", Loss: "2%"}})
	}
	before := s.between("h1", "h2")
	f := s.fly("h1", "h2", 2000)
	after := s.between("h1", "h2")
	s.figure("150 ms of round trip asked for", "p50 %.1f ms, p99 %.1f ms", ms(f.P50), ms(f.P99))
	lost := 100 * float64(after.Lost-before.Lost) / float64(after.Lost-before.Lost+after.Packets-before.Packets)
	s.figure("2 % loss asked for", "%.1f %% one way by the switch's count, %d of %d round trips (79 expected)", lost, f.Sent-f.Back, f.Sent)
	if f.P50 < 135*time.Millisecond || f.P50 > 165*time.Millisecond || lost < 1 || lost > 3.5 {
		s.Errorf("150 ms and 2 %% are %+v and %.1f %%", f, lost)
	}
	from := time.Now()
	s.shoal("h2", "scale", "web=4", "--timeout", "60s")
	s.exact("h1", 4)
	s.figure("scale from 8 to 4 over them", "%.1f s", time.Since(from).Seconds())
	from = time.Now()
	s.shoal("h3", "scale", "web=7", "--timeout", "60s")
	s.exact("h2", 7)
	s.figure("scale from 4 to 7 over them", "%.1f s", time.Since(from).Seconds())
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// fly sends packets from one host to another and back.
func (s *smoke) fly(from, to string, n int) flight {
	s.Helper()
	self, err := os.Executable()
	s.ok(err)
	const port = ":7007"
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	server := s.within(ctx, to, self, probeCommand, "serve", port)
	out, err := server.StdoutPipe()
	s.ok(err)
	s.ok(server.Start())
	defer func() {
		cancel()
		_ = server.Wait() // it was killed
	}()
	_, err = bufio.NewReader(out).ReadString('\n') // it is ready
	s.ok(err)
	text, err := drive.Capture(s.within(ctx, from, self, probeCommand, "ask", to+port, fmt.Sprint(n)))
	s.ok(err)
	var f flight
	s.ok(json.Unmarshal([]byte(text), &f))
	return f
}

// within is a command on a host.
func (s *smoke) within(ctx context.Context, host string, argv ...string) *exec.Cmd {
	s.Helper()
	var c driver.Command
	s.ok(s.driver.Do(ctx, driver.Exec, driver.Ask{Host: host, Args: argv}, &c))
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Env = c.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // nsenter has a child
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// end removes the lab; the machine must be as it was.
func (s *smoke) end(before []string) {
	status, err := s.on("h1").Status(s.Context())
	s.ok(err)
	ours := []string{"ps", "-aq", "--filter", "label=net.shoal.cluster=" + status.Cluster}
	if s.lab(append([]string{"docker", "h1"}, ours...)...) == "" {
		s.Errorf("the engine of h1 has no container of the cluster %s", status.Cluster)
	}
	from := time.Now()
	s.lab("down")
	s.figure("down", "%.1f s", time.Since(from).Seconds())
	if diff := cmp.Diff(before, machine()); diff != "" {
		s.Errorf("the machine is not as it was (-before +after):\n%s", diff)
	}
	// This machine's own engine, if it runs one, has never had a container of the lab.
	if out, err := drive.Capture(exec.CommandContext(s.Context(), "docker", ours...)); err == nil && out != "" {
		s.Errorf("this machine's engine has containers of the lab: %s", out)
	}
}
