// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import "time"

// Resources is an amount of CPU and memory. Zero means "not stated".
type Resources struct {
	CPUMilli int64 // thousandths of a core
	MemBytes int64
}

// Add returns r + o.
func (r Resources) Add(o Resources) Resources {
	return Resources{CPUMilli: r.CPUMilli + o.CPUMilli, MemBytes: r.MemBytes + o.MemBytes}
}

// Sub returns r - o; the result may be negative.
func (r Resources) Sub(o Resources) Resources {
	return Resources{CPUMilli: r.CPUMilli - o.CPUMilli, MemBytes: r.MemBytes - o.MemBytes}
}

// Fits reports whether need is within r in both dimensions.
func (r Resources) Fits(need Resources) bool {
	return need.CPUMilli <= r.CPUMilli && need.MemBytes <= r.MemBytes
}

// Mode says how many replicas a service wants.
type Mode string

// The modes.
const (
	ModeReplicated    Mode = "replicated"     // slots 0..n-1
	ModeGlobal        Mode = "global"         // one slot per feasible peer
	ModeReplicatedJob Mode = "replicated-job" // slots 0..n-1, each of which runs until it ended well
	ModeGlobalJob     Mode = "global-job"     // the same on every feasible peer
)

// Strategy says which feasible peer a slot prefers.
type Strategy string

// The strategies.
const (
	StrategySpread  Strategy = "spread"  // fewest replicas of the service, then least loaded
	StrategyBinpack Strategy = "binpack" // most loaded that still fits
)

// OnPartition says what happens to slots on the other side of a split.
type OnPartition string

// The partition policies (docs/promises.md).
const (
	PartitionAvailable OnPartition = "available" // each side restores n
	PartitionSticky    OnPartition = "sticky"    // never replaced elsewhere by itself
	PartitionFixed     OnPartition = "fixed"     // never more than n; refused until the guard exists
)

// Op is the operator of a selector.
type Op string

// The six selector forms of the command line: k=v, k!=v, k in (a,b),
// k notin (a,b), k, !k.
const (
	OpEqual     Op = "="
	OpNotEqual  Op = "!="
	OpIn        Op = "in"
	OpNotIn     Op = "notin"
	OpExists    Op = "exists"
	OpNotExists Op = "!exists"
)

// Selector is one condition on a label. Key is a peer's label key, or the
// pseudo-labels "peer" (name), "peer.id", "zone", "platform".
type Selector struct {
	Key    string
	Op     Op
	Values []string // one for = and !=, one or more for in and notin, none else
}

// Port is one container port to publish on the holder.
type Port struct {
	Container uint16
	Published uint16 // 0: the engine of the holder picks one
	Protocol  string // "tcp" or "udp"
	Host      bool   // on the peer that holds the replica only; false: on every peer
}

// Health is how a replica proves that it is ready. Zero durations and counts mean
// the engine's defaults (30s, 30s, 0, 3).
type Health struct {
	Disable     bool     // ignore the image's own HEALTHCHECK
	Test        []string // engine form: {"CMD", ...} or {"CMD-SHELL", line}; empty: the image's
	Interval    time.Duration
	Timeout     time.Duration
	StartPeriod time.Duration
	Retries     int
}

// RestartCondition says after which exits a replica is started again.
type RestartCondition string

// The restart conditions.
const (
	RestartAny       RestartCondition = "any"
	RestartOnFailure RestartCondition = "on-failure" // exit code not 0
	RestartNone      RestartCondition = "none"
)

// Restart is a service's restart policy. Back-off starts at Delay and doubles up
// to a limit of the lifecycle room.
type Restart struct {
	Condition   RestartCondition
	Delay       time.Duration // first back-off; 0: the default (1s)
	MaxAttempts int           // 0: without end
	Window      time.Duration // running this long forgives earlier failures; 0: the default
}

// Spec is the immutable body of one revision of a service. A copy is safe to
// share as long as nobody writes to its slices and maps; nobody may.
type Spec struct {
	Name    string // [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?
	Project string // the Compose project it came from; "" for shoal run

	Image string
	// Digest is what Image stood for when the wish was accepted, "sha256:..."; "": only
	// engines know the image, by name. Platforms are those the image is for, none if
	// that is not known. Both are set by who accepts the wish, never by a user.
	Digest     string
	Platforms  []string
	Entrypoint []string // nil: the image's
	Command    []string // nil: the image's
	Env        map[string]string
	Labels     map[string]string
	Ports      []Port
	Networks   []Attachment // see Attachments

	Limits       Resources // enforced by the engine
	Reservations Resources // counted by placement
	PidsLimit    int64     // 0: the runtime's default
	Setup        Setup

	Mode        Mode
	Replicas    int // what the file said; the scale intents decide (Service.Replicas)
	Constraints []Selector
	Strategy    Strategy
	MaxPerPeer  int // 0: no limit
	Priority    int // higher first when room is short
	OnPartition OnPartition
	// SpreadBy is the label whose values the slots are spread over first; "": zone.
	SpreadBy string
	// VolumesAnywhere lets slots with data move to peers that do not have it.
	VolumesAnywhere bool
	// LB and Prefer say which replica serves a connection.
	LB     LB
	Prefer Prefer
	// ProxyProtocol: connections to published ports begin with a PROXY protocol v2 header,
	// which tells the client's address.
	ProxyProtocol bool
	// Restarts counts the restarts that users asked for. It only makes a new revision.
	Restarts int

	Health     *Health // nil: the image's own, if any
	Restart    Restart
	StopSignal string        // "": the image's, else SIGTERM
	StopGrace  time.Duration // 0: 10s
	Rollout    Rollout
	// Rollback is how this revision takes the place of one that went wrong; nil: as
	// Rollout, but that a failure pauses it.
	Rollback *Rollout
	// Autoscale sets the number of replicas by their load; nil: users do.
	Autoscale *Autoscale
	// Job says how a service in one of the job modes runs to its end; nil in the others.
	Job *Job
	// DependsOn are the services that a revision waits for before it begins, by name.
	DependsOn []Dependency
	// PreDeploy is run before a revision begins; nil: nothing is.
	PreDeploy *PreDeploy
	// Schedule begins a job anew at its times; nil: it runs once.
	Schedule *Schedule
	// Run is the time of the run that this revision is, Unix seconds; 0: there was none yet.
	// Only with Schedule. No user says it.
	Run int64
}

// Size is what placement counts for one replica: the reservation, or the limit
// where nothing is reserved.
func (s *Spec) Size() Resources {
	r := s.Reservations
	if r.CPUMilli == 0 {
		r.CPUMilli = s.Limits.CPUMilli
	}
	if r.MemBytes == 0 {
		r.MemBytes = s.Limits.MemBytes
	}
	return r
}
