// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package carry

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoalnet/shoal"
)

// Protocol is that of a stream to a holder. proto/shoal/v1/reach.proto has its form.
const Protocol protocol.ID = "/shoal/reach/1"

// Config bounds what a peer carries.
type Config struct {
	DialTimeout   time.Duration // to a container of this peer
	AnswerTimeout time.Duration // to open a stream and hear the holder's answer; better longer than DialTimeout
	AskTimeout    time.Duration // for an asker to say what it wants
	Budget        time.Duration // to find a replica for one connection, all attempts together
	Attempts      int           // replicas that one connection is tried on
	KeepAlive     time.Duration // between probes of a silent TCP connection
	Idle          time.Duration // after which a silent TCP connection is broken; 0: never

	Conns          int // open at a listener
	ConnsPerClient int // open at a listener from one address

	FlowIdle       time.Duration // after which a silent UDP flow is forgotten
	Flows          int           // at a listener
	FlowsPerClient int           // at a listener from one address
	FlowQueue      int           // datagrams that wait in a flow
	FlowBytes      int64         // that wait in all flows of a listener

	Streams        int     // that other peers have open here
	StreamsPerPeer int     // that one of them has
	AsksPerSecond  float64 // of one peer; twice as many may come at once
}

// Defaults returns what suits a machine that carries for a small cluster.
//
// FlowIdle is 60 s: applications that keep a UDP flow alive do so every 15 to 30 s
// (RFC 8085 section 3.5 allows no more than one in 15 s, WireGuard has 25 s), so it lasts
// through one lost probe, while 10,000 flows still let 160 clients come in a second.
// The probes of KeepAlive find a vanished client after four, that is after a minute.
func Defaults() Config {
	return Config{
		DialTimeout: 3 * time.Second, AnswerTimeout: 5 * time.Second, AskTimeout: 5 * time.Second,
		Budget: 12 * time.Second, Attempts: 5, KeepAlive: 15 * time.Second,
		Conns: 50_000, ConnsPerClient: 4096,
		FlowIdle: time.Minute, Flows: 10_000, FlowsPerClient: 1024, FlowQueue: 32, FlowBytes: 32 << 20,
		Streams: 16_384, StreamsPerPeer: 8192, AsksPerSecond: 5000,
	}
}

// Validate returns an *shoal.InvalidError about what does not do.
func (c *Config) Validate() error {
	for _, f := range []struct {
		name string
		is   bool
	}{
		{"dial timeout", c.DialTimeout > 0},
		{"answer timeout", c.AnswerTimeout > 0},
		{"ask timeout", c.AskTimeout > 0},
		{"budget", c.Budget > 0},
		{"attempts", c.Attempts > 0},
		{"keep alive", c.KeepAlive > 0},
		{"conns", c.Conns > 0 && c.ConnsPerClient > 0},
		{"flow idle", c.FlowIdle > 0},
		{"flows", c.Flows > 0 && c.FlowsPerClient > 0},
		{"flow queue", c.FlowQueue > 0 && c.FlowBytes > 0},
		{"streams", c.Streams > 0 && c.StreamsPerPeer > 0},
		{"asks per second", c.AsksPerSecond > 0},
	} {
		if !f.is {
			return &shoal.InvalidError{Field: f.name, Why: "must be above 0"}
		}
	}
	if c.Idle < 0 {
		return &shoal.InvalidError{Field: "idle", Why: fmt.Sprintf("must not be below 0, got %v", c.Idle)}
	}
	return nil
}

// Targets says where the replicas of this peer are. It is safe for concurrent use.
type Targets interface {
	// Target returns where the asked port of a replica of this peer is. asker is the peer
	// that wants it, this one included. A *Refusal is passed on with its reason; any
	// other error counts as NotReady.
	Target(ctx context.Context, asker shoal.PeerID, a Ask) (Place, error)
}

// Deps are what a Carrier works with. All but Wake are needed.
type Deps struct {
	Self    shoal.PeerID
	Targets Targets
	// Open opens a stream of [Protocol] to a holder. Whether a relayed link will do is
	// its choice.
	Open  func(ctx context.Context, holder shoal.PeerID) (network.Stream, error)
	Clock shoal.Clock
	Log   *slog.Logger
	// Wake is told that a client came to a service of which no replica can be tried. true:
	// one will be started, and the connection waits for it as long as Config.Budget allows.
	// It must not block. nil: none is ever started for it.
	Wake func(service string) bool
}

// Validate returns an *shoal.InvalidError about what is missing.
func (d *Deps) Validate() error {
	if d.Self == "" || d.Targets == nil || d.Open == nil || d.Clock == nil || d.Log == nil {
		return &shoal.InvalidError{Field: "deps", Why: "must have Self, Targets, Open, Clock and Log"}
	}
	return nil
}
