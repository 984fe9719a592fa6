// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/swarm"
)

// The protocols.
const (
	ControlProtocol protocol.ID = "/shoal/blobs/1"
	DataProtocol    protocol.ID = "/shoal/chunks/1"
)

// Config are the limits of one peer. Start from [Defaults].
type Config struct {
	UploadSlots   int   // chunks being sent at a time, over all blobs, slow ones not counted
	DownloadSlots int   // chunks being received and written at a time, over all blobs; each takes 1 MiB of memory
	UpRate        int64 // bytes of chunks a second to all peers; 0: no limit
	DownRate      int64 // bytes of chunks a second from all peers; 0: no limit
	Neighbours    int   // peers that are joined for one blob; twice as many may join us
	Streams       int   // data streams to one peer
	PeerBlobs     int   // blobs that one peer may be joined for
	MaxBlob       int64 // bytes that a blob may have

	// NoExchange: peers are not told of others, and what they tell of others is ignored.
	NoExchange bool

	ProbeTimeout time.Duration // how long an answer to "have?" is waited for
	Patience     time.Duration // after which an upload counts as slow
	Stall        time.Duration // without progress, after which a source is changed
	Linger       time.Duration // how long a download goes on that nobody wants, and how long an idle stream stays
}

// Defaults returns what suits a peer with links from 10 Mbit/s to 10 Gbit/s and a blob of
// 100 GiB at most.
func Defaults() Config {
	c := swarm.Defaults(0)
	return Config{
		UploadSlots: 8, DownloadSlots: 32, Neighbours: 25, Streams: 4, PeerBlobs: 256, MaxBlob: 100 << 30,
		ProbeTimeout: 2 * time.Second, Patience: c.Patience, Stall: c.Stall, Linger: 30 * time.Second,
	}
}

// Validate returns a *shoal.InvalidError for a field out of range.
func (c Config) Validate() error {
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"UploadSlots", c.UploadSlots > 0},
		{"DownloadSlots", c.DownloadSlots > 0},
		{"Neighbours", c.Neighbours > 0},
		{"Streams", c.Streams > 0},
		{"PeerBlobs", c.PeerBlobs > 0},
		{"MaxBlob", c.MaxBlob > 0 && c.MaxBlob <= maxChunks*swarm.ChunkBytes},
		{"ProbeTimeout", c.ProbeTimeout > 0},
		{"Patience", c.Patience > 0},
		{"Stall", c.Stall > 0},
		{"Linger", c.Linger > 0},
	} {
		if !f.ok {
			return &shoal.InvalidError{Field: f.name, Why: "is out of range"}
		}
	}
	if c.UpRate < 0 || c.DownRate < 0 {
		return &shoal.InvalidError{Field: "rate", Why: "must not be negative"}
	}
	return nil
}

// Blob names a blob and what the caller knows of it.
type Blob struct {
	Digest blobs.Digest
	Size   int64 // bytes; 0: not known yet
	// List is the SHA-256 over the chunks' SHA-256s in order ([shoal.BlobRef] has it in
	// Chunks). Zero: not known; then the list that most peers offer is taken, and another
	// if the whole proves it false.
	List blobs.Digest
}

// Finder knows who probably holds a blob whole. It is the seam for a DHT.
type Finder interface {
	// Find returns peers to ask first, as it knows them; none is no error. It may take as
	// long as ctx lets it.
	Find(ctx context.Context, d blobs.Digest) ([]shoal.PeerID, error)
	// Announce tells that this peer holds d whole now. It must not block.
	Announce(d blobs.Digest)
}

// Deps are what an Exchange works with.
type Deps struct {
	Host   host.Host
	Self   shoal.PeerID
	Store  *blobs.Store
	Finder Finder
	// IsMember tells whether a peer may be asked, and may ask.
	IsMember func(shoal.PeerID) bool
	// Members returns the other members that are connected or can be dialled.
	Members func() []shoal.PeerID
	Clock   shoal.Clock
	Log     *slog.Logger
	// Handle registers a members-only stream handler; nil: on Host, behind IsMember.
	Handle func(protocol.ID, network.StreamHandler)
}

// Validate returns a *shoal.InvalidError for the first thing that is missing.
func (d Deps) Validate() error {
	for _, f := range []struct {
		name    string
		missing bool
	}{
		{"Host", d.Host == nil},
		{"Self", d.Self == ""},
		{"Store", d.Store == nil},
		{"Finder", d.Finder == nil},
		{"IsMember", d.IsMember == nil},
		{"Members", d.Members == nil},
		{"Clock", d.Clock == nil},
		{"Log", d.Log == nil},
	} {
		if f.missing {
			return &shoal.InvalidError{Field: f.name, Why: "is missing"}
		}
	}
	return nil
}
