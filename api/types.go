// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"time"

	"github.com/shoalnet/shoal"
)

// The values a Client returns. Their JSON names are what "-o json" prints and stay as
// they are: times RFC 3339 UTC, ages and durations in seconds, sizes in bytes.

// Listing is an answer of many, and how fresh it is.
type Listing[T any] struct {
	Items     []T
	Freshness Freshness
}

// Freshness says how much of the cluster the asked peer heard recently.
type Freshness struct {
	Members int          `json:"members"`
	Heard   int          `json:"heard"`
	Oldest  float64      `json:"oldest_seconds"`
	Newest  float64      `json:"newest_seconds"` // -1: nothing was heard
	Silent  []SilentPeer `json:"silent,omitempty"`
	Trouble string       `json:"trouble,omitempty"`
	Agree   int          `json:"agree"`            // peers heard that hold the same records, the asked one included
	Differ  []string     `json:"differ,omitempty"` // names of those heard that do not
}

// SilentPeer is a member not heard recently.
type SilentPeer struct {
	ID    string  `json:"id"`
	Name  string  `json:"name"`
	State string  `json:"state"`
	Age   float64 `json:"age_seconds"` // -1: never heard
}

// Service is one service of a listing.
type Service struct {
	Name      string            `json:"name"`
	Mode      string            `json:"mode"`
	Project   string            `json:"project,omitempty"`
	Image     string            `json:"image"`
	Replicas  int               `json:"replicas"` // wanted
	Ready     int               `json:"ready"`
	Unplaced  int               `json:"unplaced"`
	Revision  string            `json:"revision"`
	Ports     []Port            `json:"ports,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Accepted  time.Time         `json:"accepted,omitzero"`
	Conflicts int               `json:"conflicts"`
	Stopped   bool              `json:"stopped"`
	Autoscale *Autoscaled       `json:"autoscale,omitempty"`
	Job       *Job              `json:"job,omitempty"`
}

// Job says how far a service is that runs to its end: in slots.
type Job struct {
	Completed int    `json:"completed"`
	Failed    int    `json:"failed"` // given up
	Running   int    `json:"running"`
	Why       string `json:"why,omitempty"`      // how the first of those failed, else how the last attempt of a slot did
	Attempts  int    `json:"attempts,omitempty"` // of that slot

	Schedule string    `json:"schedule,omitempty"` // "0 3 * * * Europe/Vienna"; "": it runs once
	Next     time.Time `json:"next,omitzero"`      // when it runs next by that; zero: not known
	Run      time.Time `json:"run,omitzero"`       // the time of the run that all of this is about; zero: there was none yet
}

// IsAsleep reports whether a job has not run by its schedule yet.
func (j *Job) IsAsleep() bool { return j.Schedule != "" && j.Run.IsZero() }

// Autoscaled says how a service is scaled by its load.
type Autoscaled struct {
	Min     int    `json:"min"`
	Max     int    `json:"max"`
	Targets string `json:"targets"`        // "cpu 60%, connections 100"
	Wanted  int    `json:"wanted"`         // what the asked peer calls for
	Says    string `json:"says,omitempty"` // what it measures, and what holds it
	Last    string `json:"last,omitempty"` // why there are as many replicas as there are, if the load called for them

	Metrics []AutoscaleMetric `json:"metrics,omitempty"` // each target, as the asked peer measures it
}

// AutoscaleMetric is one target of an autoscaled service, and what a replica has of it.
type AutoscaleMetric struct {
	Metric   string   `json:"metric"` // cpu, memory, connections or requests
	Unit     string   `json:"unit"`   // of both numbers: %, /s or none
	Target   float64  `json:"target"`
	Observed *float64 `json:"observed"` // null: nobody reports it
	Missing  int      `json:"missing"`  // wanted replicas of which nothing is reported
}

// Port is one container port; where it is published as far as that is known.
type Port struct {
	Container uint16 `json:"container"`
	Protocol  string `json:"protocol"`
	HostIP    string `json:"host_ip,omitempty"`
	HostPort  uint16 `json:"host_port,omitempty"`
	Host      bool   `json:"host,omitempty"` // on the peer that holds the replica only
}

// Replica is one replica, or one slot without any.
type Replica struct {
	Service   string    `json:"service"`
	Slot      int       `json:"slot"`
	ID        string    `json:"replica,omitempty"`
	Peer      string    `json:"peer,omitempty"`
	PeerName  string    `json:"peer_name,omitempty"`
	State     string    `json:"state"`
	Health    string    `json:"health,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Restarts  int       `json:"restarts"`
	ExitCode  int       `json:"exit_code"`
	Ports     []Port    `json:"ports,omitempty"`
	Addr      string    `json:"addr,omitempty"`
	Image     string    `json:"image,omitempty"`
	Digest    string    `json:"digest,omitempty"`
	Revision  string    `json:"revision,omitempty"`
	Current   bool      `json:"current"`
	Started   time.Time `json:"started,omitzero"`
	Container string    `json:"container,omitempty"`
}

// Peer is one member.
type Peer struct {
	ID            string            `json:"id"`
	Name          string            `json:"name"`
	State         string            `json:"state"`
	Self          bool              `json:"self"`
	Seen          float64           `json:"seen_seconds"` // -1: never
	RTT           float64           `json:"rtt_seconds"`
	Path          string            `json:"path"`  // from the peer asked; "": there is no link
	Pings         int               `json:"pings"` // of the last 20
	PingsLost     int               `json:"pings_lost"`
	Role          string            `json:"role"`
	Zone          string            `json:"zone,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	*Room                           // nil, and not in the JSON, while its records have not arrived or its engine never answered
	CPUUsed       int64             `json:"cpu_used_milli"`
	MemUsed       int64             `json:"mem_used_bytes"`
	Replicas      int               `json:"replicas"`
	Engine        string            `json:"engine"`
	EngineAPI     string            `json:"engine_api"`
	EngineTrouble string            `json:"engine_trouble,omitempty"`
	Trouble       string            `json:"trouble,omitempty"` // why it takes no new slots for now
	Version       string            `json:"version"`
	Cordoned      bool              `json:"cordoned"`
	Draining      bool              `json:"draining"`
	Platforms     []string          `json:"platforms,omitempty"`
	Addrs         []string          `json:"addrs,omitempty"`
	PublishAddr   string            `json:"publish_addr,omitempty"`
	Allows        []string          `json:"allowed_policy,omitempty"` // rules of its owner
}

// Room is what a peer has for containers. Free is less than nothing where replicas
// reserve more than it has now.
type Room struct {
	CPUMilli int64 `json:"cpu_milli"`
	CPUFree  int64 `json:"cpu_free_milli"`
	Mem      int64 `json:"mem_bytes"`
	MemFree  int64 `json:"mem_free_bytes"`
}

// Token is one invite; the token itself is shown only once, when it is made.
type Token struct {
	ID      string    `json:"id"`
	Issuer  string    `json:"issuer"`
	Role    string    `json:"role"`
	Expires time.Time `json:"expires"`
	Uses    int       `json:"uses"`
	Used    int       `json:"used"`
	State   string    `json:"state"`
}

// Place is where a slot is or would go; empty: nowhere.
type Place struct {
	Peer string `json:"peer"`
	Name string `json:"peer_name"`
}

// Change is one line of a plan.
type Change struct {
	Kind     string   `json:"change"`            // + ~ - =
	Service  string   `json:"service,omitempty"` // or
	Peer     string   `json:"peer,omitempty"`
	PeerName string   `json:"peer_name,omitempty"`
	Revision string   `json:"revision,omitempty"`
	Details  []string `json:"details,omitempty"`
	Places   []Place  `json:"slots,omitempty"`
	Unplaced []string `json:"unplaced,omitempty"`
	Replicas int      `json:"replicas"` // wanted afterwards; of a drain: that it moves or ends
	Notes    []string `json:"notes,omitempty"`
	Stopped  bool     `json:"stopped,omitempty"` // afterwards
}

// Outcome is the answer to a wish.
type Outcome struct {
	Changes    []Change  `json:"changes"`
	Accepted   bool      `json:"accepted"`
	Acks       int       `json:"acks"`
	AcksWanted int       `json:"acks_wanted"`
	Freshness  Freshness `json:"-"`
}

// Progress is how far a service has come.
type Progress struct {
	Service  Service   `json:"service"`
	Replicas []Replica `json:"replicas,omitempty"`
	Exists   bool      `json:"exists"`
	Settled  bool      `json:"settled"`
	Trouble  string    `json:"trouble,omitempty"`
	// TroubleSlot is the slot that Trouble is about.
	TroubleSlot int      `json:"trouble_slot"`
	Rollout     *Rollout `json:"rollout,omitempty"` // nil: not known
}

// ServiceDetail is all about a service.
type ServiceDetail struct {
	Service
	Spec      shoal.Spec
	Rows      []Replica
	Heads     []string
	Lost      []shoal.Conflict // concurrent wishes that lost
	Verdicts  []Verdict
	Freshness Freshness
}

// Verdict says whether a peer may hold a slot (-1: any), and why not.
type Verdict struct {
	Slot     int    `json:"slot"`
	Peer     string `json:"peer"`
	PeerName string `json:"peer_name"`
	Feasible bool   `json:"feasible"`
	Score    string `json:"score,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// PeerDetail is all about a peer.
type PeerDetail struct {
	Peer
	Rows      []Replica
	Images    []string
	Refusals  []string
	Marks     []Mark
	Edits     []Edit
	Freshness Freshness
}

// Mark is a cordon or drain in force on a peer.
type Mark struct {
	Drain bool  `json:"drain"`
	By    Place `json:"by"`
}

// Edit is an operator's word on a peer's name (Label is "") or on one of its labels.
type Edit struct {
	Label string `json:"label"`
	Value string `json:"value"`
	Gone  bool   `json:"gone"`
	Own   string `json:"own"` // what the peer says of itself
	By    Place  `json:"by"`
}

// Held is a slot that a peer still answers for, or a replica that it is stopping.
type Held struct {
	Replica
	Stays bool   // its data is there: a drain does not move it
	Stuck bool   // no other peer could take it now
	Why   string // what it waits for
}

// Status says where a daemon stands.
type Status struct {
	Self      string     `json:"self"`
	Cluster   string     `json:"cluster,omitempty"` // "": not a member
	Role      string     `json:"role,omitempty"`
	Listen    []string   `json:"listen,omitempty"`
	Version   string     `json:"version"`
	API       string     `json:"api"`
	Trouble   string     `json:"trouble,omitempty"`
	Freshness *Freshness `json:"freshness,omitempty"`
	Store     *Store     `json:"store,omitempty"`
}

// Store is the size of the asked peer's store.
type Store struct {
	Digest  string            `json:"digest"`
	Records int64             `json:"records"`
	Live    int64             `json:"live"`
	Blocks  int64             `json:"blocks"`
	Refused map[string]uint64 `json:"refused,omitempty"` // blocks by reason
}

// WishOptions go with every wish.
type WishOptions struct {
	PlanOnly   bool
	Acks       int
	AckTimeout time.Duration // 0: the daemon's default
}

// LogRequest selects lines.
type LogRequest struct {
	shoal.LogQuery        // Slot -1: all
	Peer           string // only this holder; "": all
}

// LogLine is one line of a replica.
type LogLine struct {
	Time     time.Time `json:"time,omitzero"`
	Service  string    `json:"service"`
	Slot     int       `json:"slot"`
	Replica  string    `json:"replica"`
	Peer     string    `json:"peer"`
	PeerName string    `json:"peer_name"`
	Stderr   bool      `json:"stderr"`
	Text     string    `json:"text"`
}

// Event is one line of the cluster's story as the asked peer saw it.
type Event struct {
	Time     time.Time `json:"time"`
	Kind     string    `json:"kind"`
	Peer     string    `json:"peer,omitempty"`
	PeerName string    `json:"peer_name,omitempty"`
	Service  string    `json:"service,omitempty"`
	Slot     int       `json:"slot"` // -1: none
	Text     string    `json:"text"`
}
