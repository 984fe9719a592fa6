// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// Epoch is the time of the first log line of every replica.
func Epoch() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

// Logs implements [shoal.Remote]: three lines a second apart for each slot, each slot
// a few milliseconds later than the one before; then, following, silence.
func (c *Cluster) Logs(ctx context.Context, peer shoal.PeerID, q shoal.LogQuery, fn func(shoal.LogLine) error) error {
	c.mu.Lock()
	lost, view := c.lost[peer], c.seen()
	c.mu.Unlock()
	if lost {
		return errors.New("dial: no route")
	}
	for n := range 3 {
		for _, claim := range view.ClaimsBy(peer) {
			line := shoal.LogLine{
				Peer: peer, Service: claim.Service, Slot: claim.Slot, Replica: claim.Replica, Stderr: n == 2,
				Time: Epoch().Add(time.Duration(n)*time.Second + time.Duration(claim.Slot)*time.Millisecond),
				Text: fmt.Sprintf("line %d of %s/%d", n, claim.Service, claim.Slot),
			}
			skip := claim.Service != q.Service || q.Slot >= 0 && q.Slot != claim.Slot || q.Tail >= 0 && n < 3-q.Tail
			if skip || line.Time.Before(q.Since) || !q.Until.IsZero() && line.Time.After(q.Until) {
				continue
			}
			if err := fn(line); err != nil {
				return err
			}
		}
	}
	if q.Follow {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// Status implements [shoal.Membership].
func (c *Cluster) Status() shoal.MemberStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := shoal.MemberStatus{Self: c.self, Version: "test", Trouble: c.trouble, Listen: []string{"/ip4/127.0.0.11/tcp/4001"}}
	if c.member {
		st.Cluster, st.Role = PeerID("cluster"), shoal.RoleOperator
	}
	return st
}

// Init implements [shoal.Membership].
func (c *Cluster) Init(_ context.Context, opts shoal.InitOptions) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.member {
		return "", &shoal.AdviceError{Err: fmt.Errorf("this peer is a member of a cluster already: %w", shoal.ErrConflict), Advice: `run "shoal leave" first`}
	}
	name := opts.Name
	if name == "" {
		name = "tokyo"
	}
	c.self = PeerID(name)
	c.enter(name)
	return "shoal1-good-token", nil
}

// Join implements [shoal.Membership].
func (c *Cluster) Join(_ context.Context, token string, opts shoal.JoinOptions) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.member:
		return &shoal.AdviceError{Err: fmt.Errorf("this peer is a member of another cluster: %w", shoal.ErrConflict), Advice: `run "shoal leave" first`}
	case token != "shoal1-good-token":
		return &shoal.InvalidError{Field: "token", Why: "has a wrong checksum"}
	case !opts.DryRun:
		c.enter("tokyo", "osaka")
	}
	return nil
}

// Leave implements [shoal.Membership].
func (c *Cluster) Leave(context.Context, shoal.LeaveOptions) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.member, c.peers, c.services = false, nil, nil
	c.rebuild()
	return nil
}

// CreateToken implements [shoal.Membership].
func (c *Cluster) CreateToken(_ context.Context, opts shoal.TokenOptions) (string, error) {
	c.Change(func() {
		ttl := opts.TTL
		if ttl == 0 {
			ttl = time.Hour
		}
		role := opts.Role
		if role == "" {
			role = shoal.RoleOperator
		}
		c.invites = append(c.invites, shoal.Invite{
			ID: fmt.Sprintf("inv%d", len(c.invites)+1), Issuer: c.self, Role: role, Uses: max(1, opts.Uses), ExpiresAt: c.clock.Wall().Add(ttl).Unix(),
		})
	})
	return "shoal1-good-token", nil
}

// RevokeToken implements [shoal.Membership].
func (c *Cluster) RevokeToken(_ context.Context, id string) error {
	err := fmt.Errorf("no invite %q: %w", id, shoal.ErrNotFound)
	c.Change(func() {
		for i := range c.invites {
			if c.invites[i].ID == id {
				c.invites[i].Revoked, err = true, nil
			}
		}
	})
	return err
}

// Metrics says how many members there are.
func (c *Cluster) Metrics() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const head = "# HELP shoal_members Peers that this cluster in memory has.\n# TYPE shoal_members gauge\n"
	return fmt.Appendf(nil, head+"shoal_members %d\n", len(c.peers)), nil
}

// Deps are what an api.Server in front of this cluster needs.
func (c *Cluster) Deps() api.Deps {
	return api.Deps{
		Membership: c, Doctor: c, Clock: c.clock, Log: slog.New(slog.DiscardHandler), Metrics: c.Metrics,
		Cluster: func() (*api.Cluster, bool) {
			c.mu.Lock()
			defer c.mu.Unlock()
			out := &api.Cluster{Wishes: c, Views: c, Remote: c, Reach: reacher{c}, Rollouts: c, Scaling: c.scaling}
			if !c.images.absent {
				out.Images, out.Mover = library{c}, library{c}
			}
			return out, c.member
		},
	}
}

// Serve puts a server in front of c until the test ends, and returns its socket.
func Serve(t testing.TB, c *Cluster) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shoal") //nolint:usetesting // the path of t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s.sock")
	stop := Start(t, c.Deps(), socket)
	t.Cleanup(func() {
		stop()
		_ = os.RemoveAll(dir)
	})
	return socket
}

// Start serves on socket until the returned function is called.
func Start(t testing.TB, deps api.Deps, socket string) (stop func()) {
	t.Helper()
	srv, err := api.NewServer(api.Config{Socket: socket}, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	for tick := time.NewTicker(2 * time.Millisecond); !srv.Serving(); {
		select {
		case err := <-ended:
			t.Fatalf("serve: %v", err)
		case <-tick.C:
		}
	}
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
}
