// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
)

// maxDigests is how many of our own last digests count as equal records: under
// steady writing two peers are rarely at the very same one at the same time.
const maxDigests = 64

// syncLoop compares the digests on the beats with our own. Whoever differs for
// SyncAfter is synced with; one sync at a time, the next with the same peer later and
// later. What differs for AlarmAfter is said once, as an error.
func (t *Tracker) syncLoop(ctx context.Context) error {
	for {
		t.mu.Lock()
		pause := t.cfg.SyncAfter/6 + t.jitter(t.cfg.SyncAfter/6) // peers do not sync in step
		t.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		id := t.differing(t.deps.Clock.Mono())
		if id == "" || t.deps.Sync == nil {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, t.cfg.SyncTimeout)
		err := t.deps.Sync(limited, id)
		cancel()
		if err != nil && ctx.Err() == nil {
			t.deps.Log.Debug("records not synced", slog.String(logkey.Peer, string(id)), slog.Any(logkey.Err, err))
		}
	}
}

// differing notes whose records differ from ours, and returns one to sync with now,
// "" for none.
func (t *Tracker) differing(now time.Duration) shoal.PeerID {
	t.follow() // our digest of this moment
	t.mu.Lock()
	defer t.unlock()
	due := t.others(func(id shoal.PeerID, c *contact) bool {
		if c.vital.state != shoal.LifeAlive {
			return false
		}
		if slices.Contains(t.digests, c.vital.digest) {
			c.differs, c.syncs, c.syncAt, c.isAlarmed = 0, 0, 0, false
			return false
		}
		if c.differs == 0 {
			c.differs = max(now, 1)
			c.syncAt = now + t.cfg.SyncAfter
		}
		if !c.isAlarmed && now-c.differs >= t.cfg.AlarmAfter {
			c.isAlarmed = true
			t.note(slog.LevelError, "records differ from another peer's and stay so",
				slog.String(logkey.Peer, string(id)), slog.Duration(logkey.Took, now-c.differs))
		}
		return now >= c.syncAt && t.isConnected(id)
	})
	if len(due) == 0 {
		return ""
	}
	c := t.contacts[due[0]]
	wait := t.cfg.SyncAfter << min(c.syncs, 4)
	c.syncs++
	c.syncAt = now + wait + t.jitter(wait/2)
	return due[0]
}
