// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"context"
	"net/netip"
	"time"
)

// Store is the replicated set of records, and its fold. All methods are safe for
// concurrent use. Implementations pass gossip/gossiptest.
type Store interface {
	// Update runs fn on the current folded state under the store's write lock,
	// signs the bodies it returns, appends them as one block and syncs it to disk
	// before it answers. fn sees every earlier Update; it must not block. No
	// bodies: nothing is written, and that is no error. An error of fn is
	// returned as it is and nothing is written. When ctx ends before the write
	// began nothing is written. ErrNoSpace: the disk is full.
	Update(ctx context.Context, fn func(*Desired, Stamp) ([]Body, error), opts UpdateOptions) (Ack, error)
	// Desired returns the newest folded state; never nil, cheap.
	Desired() *Desired
	// Changed returns a channel that is closed at the next change after the call.
	Changed() <-chan struct{}
}

// Stamp is what a body may need to name itself.
type Stamp struct {
	Author PeerID
	HLC    HLC
}

// UpdateOptions tell Update what to wait for.
type UpdateOptions struct {
	Acks    int           // confirmations by other peers to wait for
	Timeout time.Duration // for the confirmations; 0: 5s
}

// Ack says what became of an Update.
type Ack struct {
	HLC   HLC
	Wrote bool
	Acks  int // other peers that confirmed a synced copy; below Acks asked: ErrTooFewAcks too
}

// Views gives the current joined view of this peer.
type Views interface {
	// View returns the newest view; never nil once the peer is a member.
	View() *View
	// Changed returns a channel that is closed at the next change after the call.
	Changed() <-chan struct{}
}

// Beacon takes what this peer has to tell about itself. The newest state goes out
// with the next beat, at once if it differs from the last.
type Beacon interface {
	Publish(PeerState)
	// Confirm proves freshness: it pulls the peer's newest beat and records over a
	// direct stream, from the peer itself or, for PeerID "", from two random
	// others. nil means that the view now contains what they know.
	Confirm(ctx context.Context, peer PeerID) error
}

// ContainerSpec is what the engine needs to create one replica's container.
type ContainerSpec struct {
	Cluster  PeerID
	Peer     PeerID
	Replica  ReplicaID
	Slot     int // for the container's name and environment only, never a label
	Revision RevisionID
	Spec     *Spec
	Record   []byte // the revision's signed envelope, kept as a label
	Image    string // the engine's ID of the image, as Puller.Ensure returned it; "": Spec.Image
	Publish  string // address to publish ports on

	// Networks are what Networks.EnsureNetwork returned, none for the engine's own bridge.
	// Container.Addr is on the first. With the machine's network or none they say nothing.
	Networks []Network
	// DNS is asked for every name that the engine does not know; zero: whom the engine
	// asks. It is the Gateway of the first network.
	DNS netip.Addr
}

// Container is one of our containers as the engine sees it.
type Container struct {
	ID       string
	Name     string
	Cluster  PeerID
	Peer     PeerID
	Replica  ReplicaID
	Service  string
	Revision RevisionID
	Record   []byte // signed envelope from the label
	State    ContainerState
	Health   string // "", starting, healthy, unhealthy
	ExitCode int
	OOM      bool
	Addr     string // on its first network, else on the engine's bridge; "" if it has none
	Ports    []PortBinding
	Image    string    // resolved image ID
	Created  time.Time // engine's wall clock; zero if not known
	Started  time.Time // engine's wall clock; zero if never
}

// ContainerState is the engine's word for a container.
type ContainerState string

// The states. Everything that does not run and has run is exited.
const (
	ContainerCreated ContainerState = "created"
	ContainerRunning ContainerState = "running"
	ContainerExited  ContainerState = "exited"
)

// EngineEvent tells that something about one of our containers, or about an image of
// the engine, may have changed; the receiver looks at that, not at the event.
type EngineEvent struct {
	Container string // "" if it is about an image
	Replica   ReplicaID
	Image     string // what the engine calls it, an ID or a reference; "" if it is about a container
	Action    string // "start", "die", "health_status", ..., "load", "tag", "delete", ... for people
}

// Engine runs containers. It sees only containers that carry this peer's cluster
// and peer labels; all others do not exist for it. Every call has a deadline of
// its own beside ctx and returns ErrEngineDown (wrapped) when the engine does not
// answer. Implementations pass runtime/runtimetest.
type Engine interface {
	// Create makes a container and returns its ID. Called twice for one replica it
	// returns the first one's ID. ErrNotFound: the image, or a network, is not there.
	Create(ctx context.Context, spec ContainerSpec) (string, error)
	// Start starts it; a running one is left alone. ErrNotFound: absent.
	Start(ctx context.Context, id string) error
	// Stop sends the signal ("" the container's own), waits grace, kills. A stopped
	// or absent one is no error.
	Stop(ctx context.Context, id, signal string, grace time.Duration) error
	// Remove removes it with its anonymous volumes, killing it if it runs. Absent
	// is no error.
	Remove(ctx context.Context, id string) error
	// List returns all our containers on this peer, in any state, sorted by ID.
	List(ctx context.Context) ([]Container, error)
	// Events calls fn for each event of our containers, and of all images, until ctx
	// ends or the stream breaks; a broken stream is an error and the caller lists
	// again. fn must not block.
	Events(ctx context.Context, fn func(EngineEvent)) error
}

// Machine tells what the engine's machine is.
type Machine interface {
	// Info asks the engine for what it runs on.
	Info(ctx context.Context) (MachineInfo, error)
	// Usage returns what our containers use now.
	Usage(ctx context.Context) (Resources, error)
}

// MachineInfo describes an engine and its machine.
type MachineInfo struct {
	Engine   string // "docker 20.10.24"
	API      string // negotiated, "1.41"
	Platform string // "linux/amd64"
	Capacity Resources
}

// Wishes turns what users ask for into records.
type Wishes interface {
	// Submit validates, stamps, proposes and writes. *InvalidError, ErrNotFound,
	// ErrConflict, ErrRefused: nothing was written.
	Submit(ctx context.Context, w Wish, opts UpdateOptions) (Outcome, error)
	// Plan answers what Submit would do, and writes nothing.
	Plan(ctx context.Context, w Wish) (Outcome, error)
	// Explain says for each slot of a service which peers could hold it and why not.
	Explain(ctx context.Context, service string) (Explanation, error)
}

// Membership is how a daemon becomes and stays a member.
type Membership interface {
	// Status works at all times.
	Status() MemberStatus
	// Init makes a cluster and this peer its first member; returns a join token.
	// ErrConflict: already a member.
	Init(ctx context.Context, opts InitOptions) (token string, err error)
	// Join redeems a token. With DryRun it only checks that it could.
	Join(ctx context.Context, token string, opts JoinOptions) error
	// Leave hands over this peer's slots, stops its containers and forgets the cluster.
	Leave(ctx context.Context, opts LeaveOptions) error
	// CreateToken opens an invite.
	CreateToken(ctx context.Context, opts TokenOptions) (token string, err error)
	// RevokeToken ends an invite. ErrNotFound: no such invite.
	RevokeToken(ctx context.Context, id string) error
}

// MemberStatus is where a daemon stands.
type MemberStatus struct {
	Self    PeerID
	Cluster PeerID // "" before init or join
	Role    Role
	Listen  []string
	Version string
	Trouble string       // "" or why this peer stopped claiming (copied identity), or is a member no more
	Store   *StoreStatus // nil before init or join
}

// StoreStatus is the size of a peer's store and what it refused since it started.
type StoreStatus struct {
	Digest  Digest // of the folded records: equal on peers that agree
	Records int    // held, superseded ones included
	Live    int    // of those, the ones that count
	Blocks  int
	Refused map[string]uint64 // blocks by reason: form, cid, key, record, signature, chain, height
}

// Options of Membership.
type (
	// InitOptions configure Init.
	InitOptions struct {
		Name   string
		Labels map[string]string
	}
	// JoinOptions configure Join.
	JoinOptions struct {
		Name   string
		Labels map[string]string
		DryRun bool
	}
	// LeaveOptions configure Leave.
	LeaveOptions struct {
		Timeout time.Duration // for others to take over; 0: 60s
		Force   bool          // do not wait
	}
	// TokenOptions configure CreateToken.
	TokenOptions struct {
		TTL  time.Duration // 0: 1h
		Uses int           // 0: 1
		Role Role          // "": operator
	}
)

// Event is one line of the cluster's story as this peer saw it.
type Event struct {
	Time    time.Time // this peer's wall clock at sight, display only
	Peer    PeerID
	Kind    string // "service", "rollout", "claim", "replica", "peer", "image", "fault"
	Service string
	Slot    int // -1: none
	Text    string
}
