// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package steward asks for what a service's spec says should happen by itself. It watches
// the rollouts of this peer's view, and where one has gone wrong it pauses it or goes back;
// where one has come to all slots, and they stay healthy, it says that it has settled. It
// watches the load of autoscaled services, and asks for as many replicas as that calls for.
// It begins the runs of jobs whose time has come.
//
//	s := steward.New(steward.Config{}, steward.Deps{Self: id, Views: views, Wishes: desk, Clock: clock, Log: log})
//	err := s.Run(ctx)
//	report, err := s.Rollout("web")
//	scaling, ok := s.Scaling("web")
//
// Nobody leads. Every operator that is heard watches the same; they act in an order that
// follows from the service and the revision, each some time after the one before, and what
// has been done already nobody does again. Two that did it all the same wrote equal wishes,
// which merge.
//
// The package refuses to choose which slots change (placement/rollout does, on every
// holder), to compute what a load calls for (placement/autoscale does) and to write records
// itself: it asks for a wish as a user would.
package steward
