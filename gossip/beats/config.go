// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoalnet/shoal"
)

// Config holds the pace and the thresholds (DESIGN.md section 5). Start from a
// profile: [LAN], [WAN] or [Sim].
type Config struct {
	Interval      time.Duration // between beats in a small cluster; grows, see interval
	MaxInterval   time.Duration // it never grows beyond, and no peer may claim a longer one
	Suspect       int           // missed intervals until suspect
	Dead          int           // missed intervals until the probe that decides
	MinGap        time.Duration // between beats when changes come fast
	FullEvery     int           // beats from one that holds the whole state to the next
	PingTimeout   time.Duration // how long a ping waits; what Pinger does, too
	PingEvery     time.Duration // routine ping of each peer, for the round-trip time
	PullTimeout   time.Duration // of one pull
	ExchangeEvery time.Duration // a pull from a random peer, whatever gossip does
	SyncAfter     time.Duration // records that differ this long are synced
	AlarmAfter    time.Duration // and this long, reported
	SyncTimeout   time.Duration // of one sync of records
	MaxBackBy     time.Duration // how long "back by" may reserve slots
}

// LAN is for one site: a death is noticed after 5 s when its ping is refused, after 6 s
// when it is not answered.
func LAN() Config {
	return Config{
		Interval: time.Second, MaxInterval: 10 * time.Second, Suspect: 3, Dead: 5,
		MinGap: 20 * time.Millisecond, FullEvery: 30,
		PingTimeout: time.Second, PingEvery: 15 * time.Second,
		PullTimeout: 2 * time.Second, ExchangeEvery: 5 * time.Second,
		SyncAfter: 3 * time.Second, AlarmAfter: 30 * time.Second, SyncTimeout: 10 * time.Second,
		MaxBackBy: 2 * time.Minute,
	}
}

// WAN is for several sites: the same five seconds (PLACEMENT.md section 3 counts
// with them on both), but more patience with pings, pulls and syncs.
func WAN() Config {
	c := LAN()
	c.MinGap = 50 * time.Millisecond
	c.PingTimeout, c.PingEvery = 2*time.Second, 30*time.Second
	c.PullTimeout, c.ExchangeEvery = 5*time.Second, 10*time.Second
	c.SyncAfter, c.SyncTimeout = 5*time.Second, 30*time.Second
	return c
}

// Sim is LAN, so that a simulation shows what a LAN would do.
func Sim() Config { return LAN() }

// Validate returns an *InvalidError for the first field that makes no sense.
func (c Config) Validate() error {
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"Interval", c.Interval},
		{"MinGap", c.MinGap},
		{"PingTimeout", c.PingTimeout},
		{"PingEvery", c.PingEvery},
		{"PullTimeout", c.PullTimeout},
		{"ExchangeEvery", c.ExchangeEvery},
		{"SyncAfter", c.SyncAfter},
		{"AlarmAfter", c.AlarmAfter},
		{"SyncTimeout", c.SyncTimeout},
		{"MaxBackBy", c.MaxBackBy},
	} {
		if f.d < time.Millisecond {
			return &shoal.InvalidError{Field: f.name, Why: fmt.Sprintf("must be at least 1ms, got %v", f.d)}
		}
	}
	switch {
	case c.MaxInterval < c.Interval:
		return &shoal.InvalidError{Field: "MaxInterval", Why: fmt.Sprintf("must be at least Interval, got %v", c.MaxInterval)}
	case c.Suspect < 1 || c.Dead < c.Suspect:
		return &shoal.InvalidError{Field: "Dead", Why: fmt.Sprintf("must be at least Suspect (%d), got %d", c.Suspect, c.Dead)}
	case c.FullEvery < 1:
		return &shoal.InvalidError{Field: "FullEvery", Why: fmt.Sprintf("must be at least 1, got %d", c.FullEvery)}
	}
	return nil
}

// interval is how often a peer beats among n members whose median round trip is
// rtt. One beat costs every member about 0.2 ms of a core (a signature check and
// the relaying), so more than 50 beats a second would cost an idle daemon more than
// the 1 % of a core of DESIGN.md section 14: from 50 members on the interval grows
// with n. And 4 round trips must fit in, so that a lost beat can be pulled before
// the next is due. Whole tenths of the base, so that it does not quiver.
func (c Config) interval(n int, rtt time.Duration) time.Duration {
	d := max(c.Interval, c.Interval*time.Duration(n)/50, 4*rtt)
	grain := max(c.Interval/10, 1)
	return min((d+grain-1)/grain*grain, c.MaxInterval)
}

// Signer signs with this peer's key; gossip has the same.
type Signer interface {
	PeerID() shoal.PeerID
	Sign(message []byte) ([]byte, error)
}

// Pinger proves that a peer lives (links.Links): it answers only if that peer's
// process answered, on a fresh stream or, with isFresh, failing that on a forced new
// connection with full handshake, each within PingTimeout. It ends with ctx, and at
// once when the other side refuses; it works for several callers at a time.
type Pinger interface {
	Ping(ctx context.Context, peer shoal.PeerID, isFresh bool) (time.Duration, error)
}

// Records is what a Tracker needs of the [shoal.Store].
type Records interface {
	Desired() *shoal.Desired
	Changed() <-chan struct{}
}

// Deps are what a Tracker works with.
type Deps struct {
	Cluster shoal.PeerID // its beats are void in any other
	Boot    shoal.Boot   // of this life; Counter from 1
	Signer  Signer
	Host    host.Host
	PubSub  *pubsub.PubSub // unsigned and authorless messages are enough: beats are signed
	Records Records
	Pinger  Pinger
	// Sync fetches the records that peer has and we lack; nil: never.
	Sync  func(ctx context.Context, peer shoal.PeerID) error
	Clock shoal.Clock
	Log   *slog.Logger
	// Handle registers a members-only stream handler; nil: on Host, behind IsMember.
	Handle func(protocol.ID, network.StreamHandler)
	// IsMember tells whether a peer may ask; nil: members by the records.
	IsMember func(shoal.PeerID) bool
}

// Validate returns an *InvalidError for the first thing that is missing.
func (d Deps) Validate() error {
	for name, missing := range map[string]bool{
		"Cluster": d.Cluster == "", "Boot": d.Boot.Counter == 0, "Signer": d.Signer == nil, "Host": d.Host == nil,
		"PubSub": d.PubSub == nil, "Records": d.Records == nil, "Pinger": d.Pinger == nil, "Clock": d.Clock == nil, "Log": d.Log == nil,
	} {
		if missing {
			return &shoal.InvalidError{Field: name, Why: "is missing"}
		}
	}
	return nil
}
