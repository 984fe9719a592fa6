// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// stopTime is what a daemon gets to stop in order.
const stopTime = 20 * time.Second

// daemon is one built shoald on a loopback address of its own.
type daemon struct {
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process has ended
	log    string
	client *api.Client
}

// daemons are a cluster of three on this machine's one engine.
type daemons struct {
	list    []*daemon
	engine  *engine
	cluster string // after init
	sockets string // directory
}

// settled returns the cluster, started at the first call and settled: grace over,
// first lists and beats done.
func (b *bench) settled(ctx context.Context) (*daemons, error) {
	if b.daemons != nil {
		return b.daemons, nil
	}
	if err := built("bin/shoald", "bin/shoal"); err != nil {
		return nil, err
	}
	b.daemons = &daemons{engine: b.engine, sockets: b.sockets}
	err := b.daemons.start(ctx, b.dir, b.docker)
	if err == nil {
		err = sleep(ctx, graceTime+8*time.Second)
	}
	return b.daemons, err
}

const daemonCount = 3

func (d *daemons) start(ctx context.Context, dir, docker string) error {
	for i := range daemonCount {
		if err := d.startOne(ctx, i, dir, docker); err != nil {
			return err
		}
	}
	first := d.list[0].client
	if err := until(ctx, "the daemons answer", func() bool {
		for _, one := range d.list {
			if _, err := one.client.Status(ctx); err != nil {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	if _, err := first.Init(ctx, shoal.InitOptions{}); err != nil {
		return err
	}
	status, err := first.Status(ctx)
	if err != nil {
		return err
	}
	d.cluster = status.Cluster
	if err := os.WriteFile(filepath.Join(dir, clusterFile), []byte(d.cluster), 0o600); err != nil {
		return err
	}
	for _, one := range d.list[1:] {
		token, err := first.CreateToken(ctx, shoal.TokenOptions{})
		if err != nil {
			return err
		}
		if _, err := one.client.Join(ctx, token, shoal.JoinOptions{}); err != nil {
			return err
		}
	}
	return until(ctx, "all daemons hear all", func() bool {
		for _, one := range d.list {
			if s, err := one.client.Status(ctx); err != nil || s.Freshness == nil || s.Freshness.Heard != daemonCount {
				return false
			}
		}
		return true
	})
}

func (d *daemons) startOne(ctx context.Context, i int, dir, docker string) error {
	ip, name := fmt.Sprintf("127.0.0.%d", 41+i), fmt.Sprintf("d%d", i)
	socket := filepath.Join(d.sockets, name+".sock")
	one := &daemon{ended: make(chan struct{}), log: filepath.Join(dir, name+".log")}
	log, err := os.Create(one.log)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the daemon has its own descriptor
	// Its end is stop's: an interruption must not reach it before its containers' turn.
	one.cmd = command(context.WithoutCancel(ctx), "bin/shoald", "--data", filepath.Join(dir, name), "--socket", socket,
		"--listen", ip, "--publish", ip, "--registry", ip+":5050", "--upstream", "none", "--name", name, "--docker", docker)
	one.cmd.Stdout, one.cmd.Stderr = log, log
	if one.client, err = api.Dial(socket); err != nil {
		return err
	}
	if err := one.cmd.Start(); err != nil {
		return fmt.Errorf("start a daemon: %w", err)
	}
	go func() {
		_ = one.cmd.Wait() // how it ended is in its log
		close(one.ended)
	}()
	d.list = append(d.list, one)
	return nil
}

// stop ends the daemons, then removes their containers and those made beside them.
func (d *daemons) stop(ctx context.Context) error {
	for _, one := range d.list {
		_ = one.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	}
	for _, one := range d.list {
		select {
		case <-one.ended:
		case <-time.After(stopTime):
			_ = one.cmd.Process.Kill() // as above
			<-one.ended
		}
		one.client.Close()
	}
	if d.cluster == "" {
		return nil
	}
	return d.engine.sweep(ctx, d.cluster)
}

// lastWords returns the end of each daemon's log.
func (d *daemons) lastWords() string {
	var out strings.Builder
	for _, one := range d.list {
		text, err := os.ReadFile(one.log)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(&out, "\n== the end of %s\n%s", filepath.Base(one.log), strings.Join(lines[max(0, len(lines)-10):], "\n"))
	}
	return out.String()
}
