// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal/lab/drive"
)

const (
	// joinsAtOnce is how many strangers a peer lets in at a time.
	joinsAtOnce = 4
	// exitUnreachable is how the shoal command says that nobody answers.
	exitUnreachable = 6
	// patience with a peer that joins, and with peers that are to hear each other: so
	// long, and so much longer for each of them.
	patience     = 30 * time.Second
	patienceMore = time.Second
)

// form makes the hosts one cluster, and waits until each hears and knows all.
func (l *Lab) form(ctx context.Context) error {
	hosts := l.hosts()
	l.cfg.Progress("making them one cluster")
	first := hosts[0]
	for _, m := range hosts {
		if m.of.Behind == "" { // one that everybody can dial
			first = m
			break
		}
	}
	at, err := l.client(first)
	if err != nil {
		return err
	}
	if _, err := at.Run(ctx, "init", "-q"); err != nil {
		return notFormed(first, "make a cluster", err)
	}
	if len(hosts) == 1 {
		return nil
	}
	token, err := at.Run(ctx, "token", "create", "-q", "--uses", strconv.Itoa(len(hosts)-1))
	if err == nil {
		token, err = drive.Token(token)
	}
	if err != nil {
		return notFormed(first, "make a token", err)
	}
	group, joins := errgroup.WithContext(ctx)
	group.SetLimit(joinsAtOnce)
	for _, m := range hosts {
		if m != first {
			group.Go(func() error { return l.join(joins, m, token) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	names := make([]string, len(hosts))
	for i, m := range hosts {
		names[i] = m.name
	}
	group, hears := errgroup.WithContext(ctx)
	group.SetLimit(joinsAtOnce)
	for _, m := range hosts {
		group.Go(func() error {
			c, err := l.client(m)
			if err == nil {
				err = c.Known(hears, names, l.patience())
			}
			if err != nil {
				return notFormed(m, "hear the others", err)
			}
			return nil
		})
	}
	return group.Wait()
}

// join makes a host a member. Who is not reached within 3 s is asked again: over far links
// that lose packets, and with many hosts on few processors, that happens without a fault.
func (l *Lab) join(ctx context.Context, m *machine, token string) error {
	c, err := l.client(m)
	if err != nil {
		return err
	}
	for from := time.Now(); ; {
		_, err := c.Run(ctx, "join", token)
		if err == nil {
			return nil
		}
		if exit, isExit := errors.AsType[*exec.ExitError](err); !isExit || exit.ExitCode() != exitUnreachable || time.Since(from) > l.patience() {
			return notFormed(m, "join", err)
		}
	}
}

// notFormed says what a daemon did not do, and what its log tells of it.
func notFormed(m *machine, what string, err error) error {
	return &BootError{Host: m.name, What: daemon, Last: lastLine(m.log(daemon)), Err: fmt.Errorf("%s: %w", what, err)}
}

func (l *Lab) patience() time.Duration {
	return patience + time.Duration(len(l.machines))*patienceMore
}

// client asks the daemon of a host that runs.
func (l *Lab) client(m *machine) (drive.Client, error) {
	h, err := m.running()
	if err != nil {
		return drive.Client{}, err
	}
	return drive.Client{Bin: l.cfg.Binaries.Shoal, Socket: h.Path(daemonSocket)}, nil
}
