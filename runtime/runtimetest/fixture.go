// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package runtimetest is the contract of shoal.Engine, shoal.Machine, shoal.Console,
// shoal.ImageStore, shoal.Networks and shoal.Puller as one test suite. Every implementation runs it:
//
//	func TestContract(t *testing.T) { runtimetest.Run(t, newFixture) }
//
// It refuses to know what is behind the ports, and removes every container and network it made.
package runtimetest

import (
	"context"
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// Engine is all that an engine room offers.
type Engine interface {
	shoal.Engine
	shoal.Machine
	shoal.Console
	shoal.ImageStore
	shoal.Networks
}

// Fixture is one engine to test, fresh for each case, and what it can be asked for.
type Fixture struct {
	Engine  Engine
	Puller  shoal.Puller
	Cluster shoal.PeerID
	Peer    shoal.PeerID

	Steady shoal.Spec // healthy soon, obeys the stop signal, publishes its port 80
	Sick   shoal.Spec // unhealthy soon
	Crash  shoal.Spec // exits with code 3 by itself, soon
	Greedy shoal.Spec // killed for its memory limit, soon
	Chatty shoal.Spec // prints three lines or more and runs on

	// Commands in a Steady container: Print writes "aaa" and a newline, Cat its input,
	// Quit ends with code 5.
	Print, Cat, Quit []string

	Publish  string // address to publish on
	Patience time.Duration
	Deadline time.Duration // within which every call of a hanging engine has to return

	// Foreign runs a container that is not ours, and tells whether it still runs.
	Foreign func(t testing.TB) (id string, runs func() bool)
	// SetRules makes the machine's owner allow exactly this.
	SetRules func(rules ...string)
	// Volume makes a volume that is not ours, or with ours its name only, and has it
	// removed after the test.
	Volume func(t testing.TB, ours bool) (name string)
	// Network makes a network that is not ours, and has it removed after the test. Its
	// Subnet, ID and Name are set.
	Network func(t testing.TB) shoal.Network
	// Load gives the engine one more image, which remove takes from it again.
	Load func(t testing.TB) (ref string, remove func())
	// Forget takes an image from the engine, with all its names; one that is absent too.
	Forget func(t testing.TB, id string)
	// Hang makes the engine hang, or ends that.
	Hang func(hang bool)
}

// Container returns what Create needs for a new replica of a spec.
func (f *Fixture) Container(spec *shoal.Spec) shoal.ContainerSpec {
	var id shoal.ReplicaID
	_, _ = rand.Read(id[:]) // never fails
	return shoal.ContainerSpec{
		Cluster: f.Cluster, Peer: f.Peer, Replica: id, Slot: 4,
		Revision: shoal.RevisionID{Seq: 7, Author: f.Peer},
		Spec:     spec, Record: []byte("signed \x00 envelope"), Publish: f.Publish,
	}
}

// create creates a replica's container.
func (f *Fixture) create(t testing.TB, cs shoal.ContainerSpec) string {
	t.Helper()
	id, err := f.Engine.Create(t.Context(), cs)
	if err != nil {
		t.Fatalf("Create = %v", err)
	}
	return id
}

// start creates and starts a replica's container.
func (f *Fixture) start(t testing.TB, cs shoal.ContainerSpec) string {
	t.Helper()
	id := f.create(t, cs)
	if err := f.Engine.Start(t.Context(), id); err != nil {
		t.Fatalf("Start = %v", err)
	}
	return id
}

// find returns one container from the engine's list.
func (f *Fixture) find(t testing.TB, id string) (shoal.Container, bool) {
	t.Helper()
	all, err := f.Engine.List(t.Context())
	if err != nil {
		t.Fatalf("List = %v", err)
	}
	i := slices.IndexFunc(all, func(c shoal.Container) bool { return c.ID == id })
	if i < 0 {
		return shoal.Container{}, false
	}
	return all[i], true
}

// must is find for a container that has to be there.
func (f *Fixture) must(t testing.TB, id string) shoal.Container {
	t.Helper()
	c, ok := f.find(t, id)
	if !ok {
		t.Fatalf("List has no container %s", id)
	}
	return c
}

// await lists until the container is as wanted.
func (f *Fixture) await(t testing.TB, id, want string, is func(shoal.Container) bool) shoal.Container {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	patience := time.NewTimer(f.Patience)
	defer patience.Stop()
	for {
		c := f.must(t, id)
		if is(c) {
			return c
		}
		select {
		case <-tick.C:
		case <-patience.C:
			t.Fatalf("after %s the container is %+v, want %s", f.Patience, c, want)
		}
	}
}

// clean removes what a case made.
func (f *Fixture) clean(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	all, err := f.Engine.List(ctx)
	if err != nil {
		t.Errorf("clean up: List = %v", err)
	}
	for _, c := range all {
		if err := f.Engine.Remove(ctx, c.ID); err != nil {
			t.Errorf("clean up: Remove = %v", err)
		}
	}
	f.cleanNetworks(ctx, t)
}
