// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"strings"
)

// Wish is one thing a user asks for. Exactly one of its fields is set.
type Wish struct {
	Deploy  *DeployWish
	Scale   *ScaleWish
	Remove  *RemoveWish
	Operate *OperateWish
	Rollout *RolloutWish
	Run     *RunWish
	Peer    *PeerWish
}

// DeployWish asks for services in the shape of specs, all or none of them.
type DeployWish struct {
	Specs      []Spec
	ResetScale bool // write the file's replicas even if the file did not change them
	Create     bool // refuse services that exist ("shoal run")
	// IfRevision names, by service, the revision that must be current; another one
	// is ErrConflict and nothing is written. The zero revision: it must not exist.
	IfRevision map[string]RevisionID
	// KeepScale leaves the number of replicas of services that exist as it is.
	KeepScale bool
	// Prune names the project whose services are removed that neither Specs nor Keep
	// names; "": none are.
	Prune string
	Keep  []string
	// Remove names services to remove beside, each with the revision that the user
	// saw: another one is ErrConflict and nothing is written. One that is gone is no
	// error. This is how what was shown of a prune is made so, and nothing else.
	Remove map[string]RevisionID
	// AllowUnplaced accepts services that no peer could ever run as the cluster is
	// recorded: one that can will come. Without it they are ErrRefused.
	AllowUnplaced bool
}

// ScaleWish asks for another number of replicas.
type ScaleWish struct {
	Targets []ScaleTarget
}

// ScaleTarget is one "web=10", "web+2" or "web-1".
type ScaleTarget struct {
	Service  string
	Relative bool
	N        int // the number, or the signed difference
	// Why the load calls for N, one line; "": a user asks. Only with Base, the base that must
	// be in force: another one is ErrConflict.
	Why  string
	Base RevisionID
}

// RemoveWish asks for services to go.
type RemoveWish struct {
	Services       []string
	IgnoreNotFound bool
}

// Operation is what a user asks of a running service.
type Operation string

// The operations.
const (
	OpStop    Operation = "stop"    // no replica runs, the service stays
	OpStart   Operation = "start"   // as many as before run again
	OpRestart Operation = "restart" // every replica is replaced by a new one, in waves
)

// OperateWish asks for an operation on services, all or none of them. Stopping what
// is stopped and starting what is not changes nothing.
type OperateWish struct {
	Services []string
	Op       Operation
}

// RolloutChange is what is asked of a rollout.
type RolloutChange string

// The changes of a rollout.
const (
	RolloutPause   RolloutChange = "pause"    // no more slots change
	RolloutResume  RolloutChange = "resume"   // they go on
	RolloutPromote RolloutChange = "promote"  // the canary has shown enough
	RolloutBack    RolloutChange = "rollback" // an earlier revision comes back, as a new one
	RolloutSettle  RolloutChange = "settle"   // it is over, and what failure means for it: peers say so, not users
)

// RolloutWish asks for a change of how a service comes to its current revision. What is
// so already changes nothing.
type RolloutWish struct {
	Service string
	Change  RolloutChange
	// To of RolloutBack: the sequence of an earlier revision, or its whole name
	// ("7@PEER"); "": the last one that was good, else the last one.
	To string
	// Of is the revision that it is about; another one is current: ErrConflict. Zero:
	// whichever is current.
	Of  RevisionID
	Why string // one line; "": a user said so
	// Failure of RolloutBack is what failed first, where that is why; zero: not known.
	Failure Failure
}

// RunWish asks for a run of a job with a schedule whose time has come. Peers ask for it;
// users restart the job.
type RunWish struct {
	Service string
	// Of is the revision that it was due by; another one is current: ErrConflict.
	Of RevisionID
	At int64 // its time, Unix seconds; one that is not after the last run's changes nothing
}

// PeerChange is what a user asks of a peer.
type PeerChange string

// The changes of a peer.
const (
	PeerCordon   PeerChange = "cordon"   // takes no new slots
	PeerUncordon PeerChange = "uncordon" // lifts all marks
	PeerDrain    PeerChange = "drain"    // also hands over present ones
	PeerUndrain  PeerChange = "undrain"  // lifts drains; what was only cordoned stays so
	PeerEdit     PeerChange = "edit"     // its name or labels
	PeerRemove   PeerChange = "remove"   // ends its membership
)

// PeerWish asks for a change of one peer.
type PeerWish struct {
	Peer   PeerID
	Change PeerChange
	// Of PeerEdit: the new name ("": as it is), labels to set and to take away.
	Name  string
	Set   map[string]string
	Unset []string
	// Force lets PeerRemove remove a peer that is alive and holds slots.
	Force bool
}

// ChangeKind is the sign a plan line begins with.
type ChangeKind string

// The kinds of change.
const (
	ChangeCreate ChangeKind = "+"
	ChangeUpdate ChangeKind = "~"
	ChangeRemove ChangeKind = "-"
	ChangeNone   ChangeKind = "="
)

// Change is one line of a plan.
type Change struct {
	Kind     ChangeKind
	Service  string     // "" for a change of a peer
	Peer     PeerID     // "" for a change of a service
	Revision RevisionID // the revision that would be, or is, current
	Details  []string   // "image hello:1 -> hello:2", "replicas 3 -> 6"
	Slots    []PeerID   // by slot: where replicas would go or are; "" unplaced
	Unplaced []string   // for each unplaced slot, why
	Replicas int        // wanted afterwards, of a stopped service once it is started; of a drain: that it moves or ends
	Stopped  bool       // afterwards: no replica is wanted until it is started
	Notes    []string   // "scale stays 6 (the file says 3; --reset-scale)"
}

// Outcome is the answer to a wish: the changes, and how safe they are.
type Outcome struct {
	Changes []Change
	Acks    int // peers beside this one that hold the record durably
	After   HLC // stamp of the written block
}

// Explanation says why a service's replicas are where they are.
type Explanation struct {
	Service string
	Lines   []ExplainLine
	Slots   []ExplainSlot // every wanted slot, and those still held beyond
	// Never is why no peer could ever hold a slot as the cluster is recorded; "" if
	// one could.
	Never string
}

// ExplainSlot says where one slot stands.
type ExplainSlot struct {
	Slot     int
	Proposed PeerID   // by whoever accepted the wish, "" if nobody was
	Holders  []PeerID // who claim it, the winner first
	Home     PeerID   // where its data is, "" if it has none
	Behind   string   // why its holder keeps an older revision, "" if it does not, or will change
	Waits    []string // what this peer's own last decision said about it, and Behind
}

// ExplainLine is one peer's verdict for one slot.
type ExplainLine struct {
	Slot     int // -1: for every slot
	Peer     PeerID
	Feasible bool
	Score    string
	Reason   string
}

// MayWish refuses a peer that is no operator, naming operators it hears: what users ask
// for is written under the name of the peer that took it. ErrRefused.
func MayWish(v *View) error {
	me, ok := v.Peer(v.Self())
	if ok && me.Role == RoleOperator && !me.Removed {
		return nil
	}
	var operators []string
	for i := range v.Peers() {
		if p := &v.Peers()[i]; p.Role == RoleOperator && !p.Removed && v.Alive(p.ID) {
			operators = append(operators, p.Name())
		}
	}
	heard := "none is heard"
	if len(operators) > 0 {
		heard = strings.Join(operators, ", ")
	}
	return &AdviceError{
		Err:    fmt.Errorf("this peer is not an operator: %w", ErrRefused),
		Advice: "ask an operator (" + heard + ")",
	}
}
