// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shoalnet/shoal/bench/reachwire"
)

// part is a process that the requests of reach go through.
type part struct {
	reachwire.Addresses
	cmd   *exec.Cmd
	ended chan struct{}
}

// startPart starts a part, whose end somebody has to wait for.
func startPart(cmd *exec.Cmd) (*part, error) {
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	return &part{cmd: cmd, ended: make(chan struct{})}, nil
}

// wait runs in a goroutine of its own, once all output is read.
func (p *part) wait() {
	_ = p.cmd.Wait() // it is ended on purpose
	close(p.ended)
}

// stop ends the process and returns once it is gone.
func (p *part) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.ended:
	case <-time.After(stopTime):
		_ = p.cmd.Process.Kill() // as above
		<-p.ended
	}
}

// rss returns the bytes of memory that the process has in.
func (p *part) rss() (int64, error) {
	u, err := usageOf(p.cmd.Process.Pid)
	return u.rss, err
}

// startReach starts a bench-reach, and returns once it has said where it answers.
func startReach(ctx context.Context, args ...string) (*part, error) {
	if err := built("bin/bench-reach"); err != nil {
		return nil, err
	}
	cmd := command(ctx, "bin/bench-reach", args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p, err := startPart(cmd)
	if err != nil {
		return nil, err
	}
	err = json.NewDecoder(out).Decode(&p.Addresses)
	go p.wait()
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("bench-reach %s: %w", args[0], err)
	}
	return p, nil
}

// haproxyConf is Debian's default configuration as far as it matters to connections:
// one thread for each processor, its own bound on connections. Only the timeouts are
// longer, since connections are held open.
const haproxyConf = `defaults
	mode tcp
	timeout connect 5s
	timeout client 10m
	timeout server 10m
listen web
	bind %s
	balance roundrobin
`

// errNoHAProxy means that there is nothing to compare with.
var errNoHAProxy = errors.New("no haproxy on the PATH; apt-get install haproxy")

// startHAProxy starts one in front of the replicas, and returns once it answers, as Local.
func startHAProxy(ctx context.Context, dir string, replicas []string) (*part, error) {
	name, err := exec.LookPath("haproxy")
	if err != nil {
		if name = "/usr/sbin/haproxy"; built(name) != nil { // Debian's, which no user's PATH has
			return nil, errNoHAProxy
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	at := l.Addr().String()
	if err := l.Close(); err != nil { // nobody else takes it so soon
		return nil, err
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, haproxyConf, at)
	for i, one := range replicas {
		fmt.Fprintf(&conf, "\tserver r%d %s\n", i, one)
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
		return nil, err
	}
	p, err := startPart(command(ctx, name, "-db", "-f", file))
	if err != nil {
		return nil, err
	}
	p.Local = at
	go p.wait()
	err = until(ctx, "haproxy answers", func() bool {
		c, err := connect(ctx, at)
		if err == nil {
			c.close()
		}
		return err == nil
	})
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}
