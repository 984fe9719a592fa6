// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import "time"

// Phase is a replica's place in its life.
type Phase int

// The phases, in the order of a life. Stopped and Failed end it; Lost means that
// the engine no longer knows the container.
const (
	PhaseUnknown Phase = iota
	PhasePending
	PhasePulling
	PhaseCreating
	PhaseStarting
	PhaseRunning // started, not yet ready
	PhaseReady
	PhaseStopping
	PhaseStopped
	PhaseFailed
	PhaseLost
)

var phaseNames = [...]string{
	"unknown", "pending", "pulling", "creating", "starting", "running",
	"ready", "stopping", "stopped", "failed", "lost",
}

// String returns the lower-case name.
func (p Phase) String() string {
	if p < 0 || int(p) >= len(phaseNames) {
		return "unknown"
	}
	return phaseNames[p]
}

// Health states of a replica, as the engine names them.
const (
	HealthNone      = ""
	HealthStarting  = "starting"
	HealthHealthy   = "healthy"
	HealthUnhealthy = "unhealthy"
)

// PortBinding is where one container port can be reached.
type PortBinding struct {
	Container uint16
	Protocol  string
	HostIP    string
	HostPort  uint16
}

// ReplicaStatus is what a holder says about one of its replicas.
type ReplicaStatus struct {
	ID        ReplicaID
	Service   string
	Slot      int
	Revision  RevisionID
	Phase     Phase
	Health    string // "", starting, healthy, unhealthy
	Addr      string // container address on its network, "" if none
	Ports     []PortBinding
	Restarts  int
	Failures  int // runs that ended badly, and launches that failed, at this revision
	ExitCode  int
	Reason    string // why it is not ready, one line
	Container string // engine's container ID, "" before it exists
	Image     string // digest the engine resolved
	StartedAt int64  // holder's wall clock, Unix seconds, display only; 0 before
}

// Refusal says why a peer does not take slots of a service for now. It makes the
// peer infeasible in every view.
type Refusal struct {
	Service  string
	Revision RevisionID
	Reason   string
}

// EngineStatus is the health of a peer's container engine.
type EngineStatus struct {
	Down   bool
	Reason string // "no answer for 12s"
}

// PeerState is what a peer tells about itself on its beats. Slices are sorted by
// their key and never written to after publication.
type PeerState struct {
	Free     Resources // allocatable minus what its replicas reserve
	Used     Resources // measured, 0 if not measured
	Replicas []ReplicaStatus
	Images   []string // references its engine holds, sorted, at most 1024
	// Blobs are the blobs of images that it holds whole, sorted, at most 4096.
	Blobs []BlobKey
	// Upstreams are the registries outside that it may ask, sorted, at most 32.
	Upstreams []Upstream
	Refusals  []Refusal
	Engine    EngineStatus
	// Trouble is why it takes no new slots for now, by its own judgement: too much fails
	// on it that does well elsewhere. What it holds it keeps. "": it takes them.
	Trouble string
	// Loads are what its replicas of autoscaled services use, by replica, and Carried what it
	// carries for its own clients to services, by service; each at most 4096, and told anew
	// only where much has changed.
	Loads   []ReplicaLoad
	Carried []Carried
}

// ReplicaLoad is what a replica used lately.
type ReplicaLoad struct {
	Replica  ReplicaID
	CPUMilli int64 // thousandths of a core
	MemBytes int64
}

// Carried is what one peer carries to a service for its own clients.
type Carried struct {
	Service string
	Open    int   // connections now
	Rate    int64 // new ones in a thousand seconds, lately
}

// BlobKey is a blob's digest in short: the first 8 bytes of its SHA-256, big-endian.
// Two blobs with one key are an accident that costs a question in vain, no more.
type BlobKey uint64

// Upstream is a registry outside that a peer may ask for images.
type Upstream struct {
	Registry string // "docker.io"; "*": any
	Waits    string // why it must not be asked now ("429, again in 40s"); "": it may
}

// Boot tells two lives of one peer apart: Counter is fsynced beside its key,
// Nonce is random. Equal counters with different nonces are a copied identity.
type Boot struct {
	Counter uint64
	Nonce   uint64
}

// LifeState is this peer's own opinion of another; it is never recorded.
type LifeState int

// The states.
const (
	LifeUnknown   LifeState = iota // not heard since our own boot
	LifeAlive                      // heard within the threshold
	LifeSuspect                    // 3 intervals missed
	LifeDead                       // 5 missed, ping failed, no fresher word from others
	LifeReturning                  // said "back by"; its slots are not open until then
)

var lifeNames = [...]string{"unknown", "alive", "suspect", "dead", "returning"}

// String returns the lower-case name.
func (s LifeState) String() string {
	if s < 0 || int(s) >= len(lifeNames) {
		return "unknown"
	}
	return lifeNames[s]
}

// Life is what this peer knows of another's being alive. Times are this peer's
// own monotonic clock.
type Life struct {
	State  LifeState
	Heard  time.Duration // receipt of its newest beat, minus the age at the relayer
	Uptime time.Duration // of its daemon, as its newest beat said
	BackBy time.Duration // own clock; only for LifeReturning
	RTT    time.Duration // 0 if never measured
	Digest Digest        // of its folded records, from its newest beat
}
