// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"errors"
	"fmt"
)

// Sentinels that callers branch on with errors.Is.
var (
	// ErrNotFound: the named service, peer, replica or container is not known here.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the wish contradicts what is there (name, project, stale version).
	ErrConflict = errors.New("conflict")
	// ErrRefused: a rule forbids it (role, policy, capacity that can never be met).
	ErrRefused = errors.New("refused")
	// ErrNotMember: the daemon belongs to no cluster yet.
	ErrNotMember = errors.New("not a member of a cluster")
	// ErrNoSpace: the disk is full, or what may be taken of it; nothing was written.
	ErrNoSpace = errors.New("no space left")
	// ErrEngineDown: the container engine does not answer.
	ErrEngineDown = errors.New("container engine does not answer")
	// ErrUnreachable: the peer does not answer, or no peer does.
	ErrUnreachable = errors.New("no peer reachable")
	// ErrTooFewAcks: the record is durable here but fewer peers than asked confirmed it in time.
	ErrTooFewAcks = errors.New("too few peers confirmed")
)

// InvalidError says which field of an input is wrong and why.
type InvalidError struct {
	Field string // as the user wrote it: "replicas", "ports[0]"
	Why   string // "must be 0-10000, got -1"
}

// Error returns "FIELD WHY".
func (e *InvalidError) Error() string { return e.Field + " " + e.Why }

// AdviceError carries an error to the user with what to do about it.
type AdviceError struct {
	Err    error  // what went wrong
	Advice string // what to do, imperative, one line
}

// Error returns "ERR; ADVICE".
func (e *AdviceError) Error() string { return fmt.Sprintf("%v; %s", e.Err, e.Advice) }

// Unwrap returns the cause.
func (e *AdviceError) Unwrap() error { return e.Err }
