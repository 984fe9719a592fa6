// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package brake

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
)

// Cause is what is at fault.
type Cause int

// The causes.
const (
	Application Cause = iota + 1 // one revision of one service
	Machine                      // one peer
	Engine                       // one peer, as one of several with the same engine
	Cluster                      // something that all share
)

// Verdict says what is at fault, and by which numbers.
type Verdict struct {
	Cause    Cause
	Service  string           // Application
	Revision shoal.RevisionID // Application
	Image    string           // Application: that the revision runs, "" if it is not remembered
	Replicas int              // Application: that fail now
	Peer     shoal.PeerID     // Machine, Engine
	Engine   string           // Engine: its version
	Services []string         // Machine, Engine: that fail there, sorted

	Failing, Of int // holders of an application; peers with an engine, or in the cluster
	Shares      int // Cluster: services that fail
	All         int // Cluster: of so many
}

// String is the verdict for people. That on a peer does not name it: "3 services fail on
// it and nowhere else: api, db, web".
func (v Verdict) String() string {
	switch v.Cause {
	case Application:
		what := v.Image
		if what == "" {
			what = fmt.Sprintf("revision %d", v.Revision.Seq)
		}
		return fmt.Sprintf("%s of %s fails on %d of %d holders within %ds", what, v.Service, v.Failing, v.Of, Window/time.Second)
	case Machine:
		return fmt.Sprintf("%d services fail on it and hardly elsewhere: %s", len(v.Services), names(v.Services))
	case Engine:
		return fmt.Sprintf("%d services fail on %d of %d peers with %s and nowhere else: %s", len(v.Services), v.Failing, v.Of, v.Engine, names(v.Services))
	case Cluster:
		return fmt.Sprintf("%d of %d services that were fine fail, on %d of %d peers: it must be what they share", v.Shares, v.All, v.Failing, v.Of)
	}
	return ""
}

func names(services []string) string {
	const most = 5
	if more := len(services) - most; more > 0 {
		return strings.Join(services[:most], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(services, ", ")
}

// The pace of a braked revision: all its failing replicas together start about once in
// perReplica, however many they are, until each waits for the longest.
const (
	perReplica = 5 * time.Second
	longest    = 5 * time.Minute
)

// Pace returns the first and the longest back-off of a braked revision's replicas.
func (v Verdict) Pace() (first, most time.Duration) {
	return min(time.Duration(max(v.Replicas, 2))*perReplica, longest), longest
}

// Verdicts are all that one look found, sorted by cause, service, revision and peer.
type Verdicts []Verdict

// Of returns the verdict on a revision of a service, if it is at fault.
func (l Verdicts) Of(service string, rev shoal.RevisionID) (Verdict, bool) {
	return l.find(func(v Verdict) bool { return v.Cause == Application && v.Service == service && v.Revision == rev })
}

// At returns the verdict on a peer, if it, or its engine, is at fault.
func (l Verdicts) At(peer shoal.PeerID) (Verdict, bool) {
	return l.find(func(v Verdict) bool { return v.Peer == peer && (v.Cause == Machine || v.Cause == Engine) })
}

// Shared returns the verdict on the whole cluster, if there is one.
func (l Verdicts) Shared() (Verdict, bool) {
	return l.find(func(v Verdict) bool { return v.Cause == Cluster })
}

func (l Verdicts) find(is func(Verdict) bool) (Verdict, bool) {
	i := slices.IndexFunc(l, is)
	if i < 0 {
		return Verdict{}, false
	}
	return l[i], true
}
