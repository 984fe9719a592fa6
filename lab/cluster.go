// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal/lab/drive"
)

const (
	// joinsAtOnce is how many strangers a peer lets in at a time.
	joinsAtOnce = 4
	// heardWithin is how long peers may take to hear each other, and hostHeard what each
	// of them adds.
	heardWithin = 30 * time.Second
	hostHeard   = time.Second
)

// form makes the hosts one cluster, and waits until each hears all.
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
		return fmt.Errorf("make a cluster on %s: %w", first.name, err)
	}
	if len(hosts) == 1 {
		return nil
	}
	token, err := at.Run(ctx, "token", "create", "-q", "--uses", strconv.Itoa(len(hosts)-1))
	if err == nil {
		token, err = drive.Token(token)
	}
	if err != nil {
		return fmt.Errorf("make a token on %s: %w", first.name, err)
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
	group, hears := errgroup.WithContext(ctx)
	group.SetLimit(joinsAtOnce)
	for _, m := range hosts {
		group.Go(func() error {
			c, err := l.client(m)
			if err == nil {
				err = c.Heard(hears, len(hosts), heardWithin+time.Duration(len(hosts))*hostHeard)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (l *Lab) join(ctx context.Context, m *machine, token string) error {
	c, err := l.client(m)
	if err != nil {
		return err
	}
	if _, err := c.Run(ctx, "join", token); err != nil {
		return fmt.Errorf("join %s: %w", m.name, err)
	}
	return nil
}

// client asks the daemon of a host that runs.
func (l *Lab) client(m *machine) (drive.Client, error) {
	h, err := m.running()
	if err != nil {
		return drive.Client{}, err
	}
	return drive.Client{Bin: l.cfg.Binaries.Shoal, Socket: h.Path(daemonSocket)}, nil
}
