// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package drive drives the built shoal command as a user would, for the demo and the
// lab: it runs it, reads what it prints with -o json, and waits until a cluster looks as
// it should. It starts nothing that stays, and refuses to look inside a daemon.
package drive

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Client asks one daemon. It holds nothing open and is safe for concurrent use.
type Client struct {
	Bin    string // the shoal command
	Socket string // the daemon's control socket, a path
}

// Args is the command line that asks this daemon.
func (c Client) Args(args ...string) []string {
	return append([]string{c.Bin, "-H", "unix://" + c.Socket}, args...)
}

// Run runs a command and returns its standard output; what it said on standard error
// is in the error.
func (c Client) Run(ctx context.Context, args ...string) (string, error) {
	full := c.Args(args...)
	return Capture(exec.CommandContext(ctx, full[0], full[1:]...))
}

// read runs a command with -o json and decodes what it prints.
func (c Client) read(ctx context.Context, into any, args ...string) error {
	text, err := c.Run(ctx, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf("read shoal %s -o json: %w", strings.Join(args, " "), err)
	}
	return nil
}

// Status is the part of "shoal version -o json" that drivers read.
type Status struct {
	Self      string `json:"self"`    // "": it is in no cluster
	Cluster   string `json:"cluster"` // the same
	Freshness struct {
		Heard int `json:"heard"` // peers, itself included
	} `json:"freshness"`
	Store struct {
		Digest  string            `json:"digest"`
		Records int               `json:"records"`
		Refused map[string]uint64 `json:"refused"`
	} `json:"store"`
}

// Refusals is how many blocks were refused for any reason.
func (s *Status) Refusals() uint64 {
	sum := uint64(0)
	for _, n := range s.Store.Refused {
		sum += n
	}
	return sum
}

// Status asks the daemon how it is.
func (c Client) Status(ctx context.Context) (Status, error) {
	var v struct {
		Server Status `json:"server"`
	}
	err := c.read(ctx, &v, "version")
	return v.Server, err
}

// Row is one line of "shoal ps -o json".
type Row struct {
	Service   string `json:"service"`
	Slot      int    `json:"slot"`
	Replica   string `json:"replica"`
	PeerName  string `json:"peer_name"`
	State     string `json:"state"`
	Container string `json:"container"`
	Ports     []struct {
		Container int    `json:"container"`
		HostIP    string `json:"host_ip"`
		HostPort  int    `json:"host_port"`
	} `json:"ports"`
}

// Rows asks for all replicas of a service but those that are silent or on peers that
// are known to be lost: what these said last is listed for a while.
func (c Client) Rows(ctx context.Context, service string, lost ...string) ([]Row, error) {
	var rows []Row
	if err := c.read(ctx, &rows, "ps", service); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rows, func(r Row) bool { return r.State == "silent" || slices.Contains(lost, r.PeerName) }), nil
}

// Exact waits until a service has exactly n replicas, all ready, one a slot, none on a
// lost peer, and returns them.
func (c Client) Exact(ctx context.Context, service string, n int, within time.Duration, lost ...string) (rows []Row, err error) {
	err = Until(ctx, within, fmt.Sprintf("%s has exactly %d ready replicas", service, n), func() error {
		if rows, err = c.Rows(ctx, service, lost...); err != nil {
			return err
		}
		slots := map[int]bool{}
		for _, r := range rows {
			if r.State != "ready" {
				return fmt.Errorf("%s/%d is %s", service, r.Slot, r.State)
			}
			slots[r.Slot] = true
		}
		if len(rows) != n || len(slots) != n {
			return fmt.Errorf("%d replicas in %d slots", len(rows), len(slots))
		}
		return nil
	})
	return rows, err
}

// Heard waits until the daemon hears n peers, itself included.
func (c Client) Heard(ctx context.Context, n int, within time.Duration) error {
	return Until(ctx, within, fmt.Sprintf("the peer hears %d", n), func() error {
		s, err := c.Status(ctx)
		if err == nil && s.Freshness.Heard != n {
			err = fmt.Errorf("it hears %d", s.Freshness.Heard)
		}
		return err
	})
}

// Known waits until the daemon lists peers of all these names as alive: it hears them,
// and has the records that say who they are.
func (c Client) Known(ctx context.Context, names []string, within time.Duration) error {
	return Until(ctx, within, fmt.Sprintf("the peer knows all of %d", len(names)), func() error {
		var peers []struct {
			Name  string `json:"name"`
			State string `json:"state"`
		}
		if err := c.read(ctx, &peers, "peer", "ls"); err != nil {
			return err
		}
		alive := map[string]bool{}
		for _, p := range peers {
			alive[p.Name] = p.State == "alive"
		}
		for _, name := range names {
			if !alive[name] {
				return fmt.Errorf("it does not know %s as alive", name)
			}
		}
		return nil
	})
}

// Capture runs a command and returns its standard output; standard error is in the
// error.
func Capture(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// pause is how long Until waits between two looks.
const pause = 50 * time.Millisecond

// Until tries a check again and again until it says nil, at least once. The error says
// what was waited for and what the check said last.
func Until(ctx context.Context, within time.Duration, what string, check func() error) error {
	limit, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("called off before %s: %w; %w", what, err, ctx.Err())
		case <-limit.Done():
			return fmt.Errorf("not within %s: %s: %w", within, what, err)
		case <-time.After(pause):
		}
	}
}

// Token finds the token in what "shoal init" or "shoal token create" printed.
func Token(out string) (string, error) {
	for word := range strings.FieldsSeq(out) {
		if strings.HasPrefix(word, "shoal1-") {
			return word, nil
		}
	}
	return "", fmt.Errorf("no token in %q", out)
}
