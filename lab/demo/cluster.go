// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shoalnet/shoal/lab/drive"
)

const (
	image   = "hello:1"
	foreign = "shoal-demo-foreign" // a container that is not ours
)

// peer is one daemon of the demo.
type peer struct {
	name string
	ip   string
	id   string // after init or join
}

// demo is the cluster under test. All its files are in dir.
type demo struct {
	dir     string
	cluster string // after init
	lost    string // name of the peer that was killed, while it is
	peers   []*peer
	laps    []lap
}

// lap is how long one step took.
type lap struct {
	what string
	took time.Duration
}

func newDemo() (*demo, error) {
	dir, err := filepath.Abs(".demo")
	if err != nil {
		return nil, fmt.Errorf("find the demo's directory: %w", err)
	}
	return &demo{dir: dir, peers: []*peer{
		{name: "one", ip: "127.0.0.11"}, {name: "two", ip: "127.0.0.12"}, {name: "three", ip: "127.0.0.13"},
	}}, nil
}

func (d *demo) path(p *peer, what string) string { return filepath.Join(d.dir, p.name+what) }

// start starts a peer's daemon, detached, so that it outlives the demo.
func (d *demo) start(ctx context.Context, p *peer) error {
	log, err := os.OpenFile(d.path(p, ".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close() //nolint:errcheck // the daemon has its own descriptor
	args := []string{
		"bin/shoald", "--config", "/dev/null", "--data", d.path(p, ""), "--socket", d.path(p, ".sock"),
		"--listen", p.ip, "--publish", p.ip, "--registry", p.ip + ":5050", "--name", p.name,
	}
	fmt.Printf("\n$ %s &\n", d.show(args))
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // it outlives us on purpose
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	if err := os.WriteFile(d.path(p, ".pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return fmt.Errorf("write pid: %w", err)
	}
	go func() { _ = cmd.Wait() }() // reap it if it ends before we do
	return drive.Until(ctx, 15*time.Second, "the daemon of "+p.name+" answers", func() error {
		_, err := d.client(p).Run(ctx, "version")
		return err
	})
}

// pid returns a peer's daemon's process, 0 if it does not run.
func (d *demo) pid(p *peer) int {
	text, err := os.ReadFile(d.path(p, ".pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	// The pid may have been given to somebody else since.
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != "shoald" {
		return 0
	}
	return pid
}

// client asks a peer's daemon.
func (d *demo) client(p *peer) drive.Client {
	return drive.Client{Bin: "bin/shoal", Socket: d.path(p, ".sock")}
}

// shoal runs a command of the user's, shown with its output.
func (d *demo) shoal(ctx context.Context, p *peer, args ...string) (string, error) {
	return d.command(ctx, d.client(p).Args(args...)...)
}

// command prints a command, runs it, and prints what it says.
func (d *demo) command(ctx context.Context, args ...string) (string, error) {
	fmt.Printf("\n$ %s\n", d.show(args))
	out, err := drive.Capture(exec.CommandContext(ctx, args[0], args[1:]...))
	for line := range strings.Lines(out) {
		fmt.Print("  ", line)
	}
	return out, err
}

// show is a command line as one would type it here.
func (d *demo) show(args []string) string {
	here, _ := os.Getwd() // for display only
	return strings.ReplaceAll(strings.Join(args, " "), here+"/", "")
}

// exact waits until a service has exactly n replicas, all ready, one a slot, on
// living peers, and returns them.
func (d *demo) exact(ctx context.Context, p *peer, service string, n int, within time.Duration) ([]drive.Row, error) {
	return d.client(p).Exact(ctx, service, n, within, d.lost)
}

// step runs and times one step.
func (d *demo) step(what string, fn func() error) error {
	fmt.Printf("\n--- %s\n", what)
	from := time.Now()
	if err := fn(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	took := time.Since(from)
	d.laps = append(d.laps, lap{what, took})
	fmt.Printf("ok in %.2f s\n", took.Seconds())
	return nil
}

// containers returns the IDs of containers with a label.
func containers(ctx context.Context, label string) ([]string, error) {
	out, err := drive.Capture(exec.CommandContext(ctx, "docker", "ps", "-aq", "--no-trunc", "--filter", "label="+label))
	return strings.Fields(out), err
}

// showLogs prints the end of each daemon's log.
func (d *demo) showLogs() {
	for _, p := range d.peers {
		text, err := os.ReadFile(d.path(p, ".log"))
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(os.Stderr, "\n== last lines of %s\n%s\n", d.path(p, ".log"), strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}

// down stops the daemons and removes their containers and networks, the image and all
// files.
func (d *demo) down(ctx context.Context) error {
	cluster, _ := os.ReadFile(filepath.Join(d.dir, "cluster")) // absent: up never got that far
	for _, p := range d.peers {
		if err := d.stop(ctx, p); err != nil {
			return err
		}
	}
	if len(cluster) > 0 {
		label := "net.shoal.cluster=" + string(cluster)
		if err := errors.Join(removeContainers(ctx, label), removeNetworks(ctx, label)); err != nil {
			return err
		}
	}
	if _, err := os.Stat(d.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := drive.Capture(exec.CommandContext(ctx, "docker", "rm", "-f", foreign)); err != nil && !strings.Contains(err.Error(), "No such container") {
		return err
	}
	if _, err := drive.Capture(exec.CommandContext(ctx, "docker", "image", "rm", image)); err != nil && !strings.Contains(err.Error(), "No such image") {
		return err
	}
	if err := os.RemoveAll(d.dir); err != nil {
		return fmt.Errorf("remove %s: %w", d.dir, err)
	}
	fmt.Println("the demo is gone: no daemon, container, network, image or file of it is left")
	return nil
}

// stop ends a peer's daemon in order and waits for it.
func (d *demo) stop(ctx context.Context, p *peer) error {
	pid := d.pid(p)
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	return drive.Until(ctx, 20*time.Second, p.name+" stops", func() error {
		if d.pid(p) != 0 {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	})
}

func removeContainers(ctx context.Context, label string) error {
	ids, err := containers(ctx, label)
	if err != nil || len(ids) == 0 {
		return err
	}
	_, err = drive.Capture(exec.CommandContext(ctx, "docker", append([]string{"rm", "-f", "-v"}, ids...)...))
	return err
}

func removeNetworks(ctx context.Context, label string) error {
	out, err := drive.Capture(exec.CommandContext(ctx, "docker", "network", "ls", "-q", "--filter", "label="+label))
	if ids := strings.Fields(out); err == nil && len(ids) > 0 {
		_, err = drive.Capture(exec.CommandContext(ctx, "docker", append([]string{"network", "rm"}, ids...)...))
	}
	return err
}
