// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"

	"github.com/shoalnet/shoal"
)

// epoch is part of the topic's name and of every sync request. Roll-over to a next
// one is not built yet.
const epoch = 0

// Config says where a Store keeps its rows and how patient it is. Start from [LAN],
// [WAN] or [Sim] and set Cluster and Dir.
type Config struct {
	Dir     string      // of the database, ours alone; "": Memory
	Memory  *MemoryDisk // used when Dir is ""; nil: a new one
	Cluster shoal.PeerID

	// WroteBefore: this peer has been a member with records of its own. If the store is
	// then found empty it is refilled before anything is written, as our next bodies
	// must contain what our lost ones said.
	WroteBefore bool
	RefillWait  time.Duration // at most this long; alone in the cluster there is nobody to ask

	SyncInterval time.Duration // between syncs with a random connected member, give or take a half
	SyncTimeout  time.Duration // of one sync
	FrameTimeout time.Duration // of one frame of it
	GapDelay     time.Duration // a pushed block may wait this long for its parents before they are fetched
	AckTimeout   time.Duration // default of UpdateOptions.Timeout
	Reserve      uint64        // bytes kept free on the disk: less is ErrNoSpace

	hooks hooks // of tests
}

// LAN returns the settings for peers within a few milliseconds of each other.
func LAN() Config {
	return Config{
		RefillWait:   15 * time.Second,
		SyncInterval: 10 * time.Second,
		SyncTimeout:  2 * time.Minute,
		FrameTimeout: 10 * time.Second,
		GapDelay:     50 * time.Millisecond,
		AckTimeout:   5 * time.Second,
		Reserve:      64 << 20,
	}
}

// WAN returns the settings for peers up to a few hundred milliseconds apart.
func WAN() Config {
	c := LAN()
	c.RefillWait = 60 * time.Second
	c.SyncInterval = 30 * time.Second
	c.FrameTimeout = 30 * time.Second
	c.GapDelay = 500 * time.Millisecond
	return c
}

// Sim returns the settings for simulated peers: those of LAN, in memory.
func Sim() Config {
	c := LAN()
	c.Reserve = 0
	return c
}

// Validate checks that every duration is set.
func (c *Config) Validate() error {
	if c.Cluster == "" {
		return &shoal.InvalidError{Field: "cluster", Why: "must be set"}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"refill wait", c.RefillWait},
		{"sync interval", c.SyncInterval},
		{"sync timeout", c.SyncTimeout},
		{"frame timeout", c.FrameTimeout},
		{"gap delay", c.GapDelay},
		{"ack timeout", c.AckTimeout},
	} {
		if d.value <= 0 {
			return &shoal.InvalidError{Field: d.name, Why: fmt.Sprintf("must be positive, got %v", d.value)}
		}
	}
	return nil
}

// Sequence hands out this peer's author sequence numbers, each once in the life of
// its key: it is kept beside the key, not in the store.
type Sequence interface {
	// Next returns a number that was never returned before.
	Next() (uint64, error)
	// Skip makes sure that no number up to n is handed out any more: a record of ours
	// with that number exists.
	Skip(n uint64) error
}

// Deps are what a Store works with. Host and PubSub may be nil: the store is alone
// then. All functions must be safe for concurrent use.
type Deps struct {
	Host     host.Host
	PubSub   *pubsub.PubSub // from NewPubSub
	Signer   Signer
	Sequence Sequence
	Clock    shoal.Clock
	Log      *slog.Logger

	// Chain returns this peer's own admission chain, nil while there is none.
	Chain func() [][]byte
	// VerifyChain checks an admission chain (links.VerifyChain).
	VerifyChain func(cluster, peer shoal.PeerID, chain [][]byte) (shoal.Role, error)
	// OnChain is told of every admission chain seen for the first time, verified, in
	// order, on a goroutine that does nothing urgent; nil: nobody wants to know. They
	// are kept in the store too.
	OnChain func(peer shoal.PeerID, chain [][]byte)
	// Allowed reports whether streams with a peer may be used; nil: whoever is connected.
	Allowed func(peer shoal.PeerID) bool
}

func (d *Deps) validate() error {
	switch {
	case d.Signer == nil, d.Sequence == nil, d.Clock == nil, d.Log == nil, d.Chain == nil, d.VerifyChain == nil:
		return errors.New("a store needs Signer, Sequence, Clock, Log, Chain and VerifyChain")
	case (d.Host == nil) != (d.PubSub == nil):
		return errors.New("a store needs both Host and PubSub, or neither")
	}
	return nil
}
