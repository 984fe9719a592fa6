// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"time"

	"github.com/shoalnet/shoal"
)

// EventKind says what happened.
type EventKind int

// The events. Those of a peer that is not connected, and answers to an ask that is over,
// are ignored, but for a chunk that came all the same.
const (
	EventTick   EventKind = iota + 1 // time passed; wanted at least twice a second
	EventJoin                        // Peer is connected for this blob and has Chunks
	EventLeave                       // Peer is connected no more
	EventHas                         // Peer says that it has Chunk now
	EventPause                       // nothing more is wanted for now: asks are taken back, others are served
	EventResume                      // what is missing is wanted again

	// What becomes of our asks.
	EventHead  // Peer begins to send Chunk for Ask
	EventMore  // more bytes came for Ask; once a second is enough
	EventChunk // Chunk came from Peer for Ask, is verified and on disk
	EventBad   // Chunk came from Peer and is not what the chunk list says
	EventFail  // Ask ended without a chunk: refused, reset, broken off

	// What others ask of us.
	EventAsk    // Peer asks for Chunk, or for Any but those in Not
	EventCancel // Peer takes back Ask
	EventSent   // the last byte for Ask is handed to the network
	EventUnsent // sending for Ask failed
)

// What stands for no particular chunk.
const (
	// Any in an ask leaves the choice of the chunk to the uploader.
	Any = -1
	// ChunkBytes is the length of every chunk but the last.
	ChunkBytes = 1 << 20
)

// Event is something that happened at a time; which fields count depends on Kind.
type Event struct {
	Kind   EventKind
	Now    time.Duration // monotonic; an earlier time than before counts as the same
	Peer   shoal.PeerID
	Ask    uint64 // who asks numbers its asks, from 1
	Chunk  int
	Chunks Bitmap
	Not    Bitmap
}

// RequestKind says what is to be done.
type RequestKind int

// The requests.
const (
	RequestAsk     RequestKind = iota + 1 // ask Peer for Chunk, or for Any but those in Not
	RequestCancel                         // take back Ask from Peer; drop what still comes of it
	RequestHave                           // tell everybody connected that we have Chunk
	RequestSend                           // send Chunk to Peer for its Ask; answer Sent or Unsent
	RequestStop                           // stop sending for Peer's Ask; no answer
	RequestRefuse                         // tell Peer that nothing comes for its Ask
	RequestDrop                           // Peer lied (Why): disconnect it for this blob, count it
	RequestStalled                        // nothing came from Peer in Config.Stall; others are asked instead
	RequestStarved                        // nothing came from anybody in Config.Stall: find more sources
	RequestDone                           // every chunk is here
)

// Request is something to do; which fields count depends on Kind.
type Request struct {
	Kind  RequestKind
	Peer  shoal.PeerID
	Ask   uint64
	Chunk int
	Not   Bitmap // not to be changed
	Why   string // of a drop, for people
}
