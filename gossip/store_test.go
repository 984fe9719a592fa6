// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	ds "github.com/ipfs/go-datastore"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip/fold"
)

// alone starts a store without a network whose first member is admitted.
func alone(t testing.TB, cfg func(*Config)) (*cluster, *running) {
	t.Helper()
	c := newCluster(t, 1)
	conf := c.config()
	if cfg != nil {
		cfg(&conf)
	}
	s := start(t, conf, c.deps(t, c.members[0]))
	if err := s.Inject(t.Context(), c.admissions()); err != nil {
		t.Fatalf("Inject = %v", err)
	}
	return c, s
}

func TestUpdateSeesThePrevious(t *testing.T) {
	_, s := alone(t, nil)
	changed := s.Changed()
	s.deploy(t, "web")
	select {
	case <-changed:
	default:
		t.Error("Changed was not closed by an Update that returned")
	}
	if _, ok := s.Desired().Service("web"); !ok {
		t.Error("Desired lacks the service that Update wrote")
	}
	before := s.Stats().Blocks
	ack, err := s.Update(t.Context(), func(d *shoal.Desired, _ shoal.Stamp) ([]shoal.Body, error) {
		if _, ok := d.Service("web"); !ok {
			t.Error("the function of Update does not see the earlier Update")
		}
		return nil, nil
	}, shoal.UpdateOptions{})
	if err != nil || ack.Wrote || s.Stats().Blocks != before {
		t.Errorf("Update without bodies = %+v, %v and %d blocks, want nothing written", ack, err, s.Stats().Blocks-before)
	}
	if svc, _ := s.Desired().Service("web"); !svc.Fresh {
		t.Error("a service deployed here is not fresh")
	}
}

func TestUpdateErrorsWriteNothing(t *testing.T) {
	_, s := alone(t, nil)
	before := s.Stats().Records
	mine := errors.New("mine")
	for name, c := range map[string]struct {
		fn   func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error)
		want func(error) bool
	}{
		"own error": {
			func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error) { return nil, mine },
			func(err error) bool { return err == mine }, //nolint:errorlint // returned as it is, the contract says
		},
		"panic": {
			func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error) { panic("boom") },
			func(err error) bool { return err != nil && strings.Contains(err.Error(), "boom") },
		},
		"bad body": {
			func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
				return []shoal.Body{service("ok", as), service("NOT a name", as)}, nil
			},
			func(err error) bool { var inv *shoal.InvalidError; return errors.As(err, &inv) },
		},
		"too large": {
			func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
				var out []shoal.Body
				for i := range 5 {
					b := service(fmt.Sprintf("big-%d", i), as).(*shoal.RevisionBody)
					b.Spec.Env = map[string]string{"A": strings.Repeat("x", 30<<10)}
					out = append(out, b)
				}
				return out, nil
			},
			func(err error) bool { var inv *shoal.InvalidError; return errors.As(err, &inv) },
		},
	} {
		ack, err := s.Update(t.Context(), c.fn, shoal.UpdateOptions{})
		if !c.want(err) || ack.Wrote {
			t.Errorf("%s: Update = %+v, %v", name, ack, err)
		}
	}
	if n := s.Stats().Records; n != before {
		t.Errorf("%d records were written by updates that failed", n-before)
	}
	s.deploy(t, "still-works")
}

func TestUpdateAfterItsContextWritesNothing(t *testing.T) {
	c := newCluster(t, 1)
	s, err := New(c.config(), c.deps(t, c.members[0])) // never run: the update waits for ever
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Update(ctx, nil, shoal.UpdateOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Update = %v, want context.Canceled", err)
	}
	_, run := alone(t, nil)
	run.stop()
	if _, err := run.Update(t.Context(), nil, shoal.UpdateOptions{}); !errors.Is(err, errStopped) {
		t.Errorf("Update after Run = %v, want errStopped", err)
	}
}

func TestTooFewAcksAlone(t *testing.T) {
	_, s := alone(t, nil)
	ack, err := s.Update(t.Context(), func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{service("web", as)}, nil
	}, shoal.UpdateOptions{Acks: 1})
	if !errors.Is(err, shoal.ErrTooFewAcks) || !ack.Wrote || ack.Acks != 0 {
		t.Errorf("Update = %+v, %v, want it written and ErrTooFewAcks", ack, err)
	}
}

// gate lets a test hold a datastore's syncs, and counts them.
type gate struct {
	ds.Batching
	mu    sync.Mutex
	syncs int
	hold  chan struct{} // a sync waits for it, if set
	fail  error
}

func (g *gate) Sync(ctx context.Context, k ds.Key) error {
	g.mu.Lock()
	g.syncs++
	hold, fail := g.hold, g.fail
	g.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if fail != nil {
		return fail
	}
	return g.Batching.Sync(ctx, k)
}

func (g *gate) set(hold chan struct{}, fail error) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold, g.fail = hold, fail
	return g.syncs
}

// gated starts a store on a datastore with a gate.
func gated(t testing.TB) (*cluster, *running, *gate) {
	t.Helper()
	disk := NewMemoryDisk()
	g := &gate{Batching: disk.rows}
	disk.rows = g
	c, s := alone(t, func(cfg *Config) { cfg.Memory = disk })
	return c, s, g
}

// What arrives while a disk sync runs forms the next block, with one sync of its own.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s, g := gated(t)
		before := s.Stats()
		hold := make(chan struct{})
		syncs := g.set(hold, nil)
		const n = 50
		var wg sync.WaitGroup
		for i := range n + 1 {
			wg.Go(func() { s.deploy(t, fmt.Sprintf("web-%d", i)) })
			if i == 0 {
				synctest.Wait() // the first is in its sync
			}
		}
		synctest.Wait() // the others wait
		g.set(nil, nil)
		close(hold)
		wg.Wait()
		after := s.Stats()
		if wrote, synced := after.Wrote-before.Wrote, g.set(nil, nil)-syncs; wrote != 2 || synced != 2 {
			t.Errorf("%d updates made %d blocks and %d disk syncs, want 2 and 2", n+1, wrote, synced)
		}
		if got := after.Records - before.Records; got != n+1 {
			t.Errorf("%d records, want %d", got, n+1)
		}
	})
}

func TestFailedDiskWritesNothingAndHeals(t *testing.T) {
	_, s, g := gated(t)
	s.deploy(t, "before")
	digest := s.Digest()
	broken := errors.New("disk broke")
	g.set(nil, broken)
	_, err := s.Update(t.Context(), func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
		return []shoal.Body{service("lost", as)}, nil
	}, shoal.UpdateOptions{})
	if !errors.Is(err, broken) {
		t.Fatalf("Update = %v, want the disk's error", err)
	}
	if s.Digest() != digest {
		t.Error("a failed update is visible")
	}
	g.set(nil, nil)
	s.deploy(t, "after")
	if _, ok := s.Desired().Service("after"); !ok {
		t.Error("the store does not go on after a failed sync")
	}
}

func TestBigGroupsAreSplitIntoBlocks(t *testing.T) {
	_, s := alone(t, nil)
	big := func(i int) {
		_, err := s.Update(t.Context(), func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
			b := service(fmt.Sprintf("big-%d", i), as).(*shoal.RevisionBody)
			b.Spec.Env = map[string]string{"A": strings.Repeat("x", 30<<10), "B": strings.Repeat("y", 20<<10)}
			return []shoal.Body{b}, nil
		}, shoal.UpdateOptions{})
		if err != nil {
			t.Errorf("Update %d = %v", i, err)
		}
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() { big(i) })
	}
	wg.Wait()
	all, err := s.rows.all(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if b, err := s.rows.block(t.Context(), c); err != nil || len(b.data) > maxUpdateBytes+4096 {
			t.Errorf("block of %d bytes, %v", len(b.data), err)
		}
	}
	if got := fold.Resolve(foldOf(t, s.Store), s.cfg.Cluster).Digest; got != s.Digest() {
		t.Errorf("digest of all blocks = %s, of the store %s", got, s.Digest())
	}
	if len(s.Desired().Services) != 20 {
		t.Errorf("%d services, want 20", len(s.Desired().Services))
	}
}

func TestInject(t *testing.T) {
	c, s := alone(t, nil)
	blocksBefore := s.Stats().Blocks
	if err := s.Inject(t.Context(), c.admissions()); err != nil || s.Stats().Blocks != blocksBefore {
		t.Errorf("second Inject = %v and %d more blocks, want none", err, s.Stats().Blocks-blocksBefore)
	}
	stranger := newAuthor(t, "stranger")
	_, env := stranger.record(t, 1, &shoal.MarkBody{Peer: stranger.id})
	var no *refused
	if err := s.Inject(t.Context(), [][]byte{env}); !errors.As(err, &no) || no.reason != reasonChain {
		t.Errorf("Inject of a stranger's record = %v, want refused for its chain", err)
	}
	if got := len(s.Desired().Peers); got != 1 {
		t.Errorf("%d members, want 1", got)
	}
}
