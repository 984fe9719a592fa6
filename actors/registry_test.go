// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"testing"

	"github.com/asynkron/protoactor-go/actor"
)

// TestRegistryIndex holds what keeps protoactor's negative index away where int has
// 32 bits: one bucket. "make test-32" spawns the names for real.
func TestRegistryIndex(t *testing.T) {
	system := newActorSystem()
	defer system.Shutdown()
	registry := system.ProcessRegistry
	if n := len(registry.LocalPIDs.LocalPIDs); n != 1 {
		t.Errorf("the registry has %d buckets, want 1: a 32-bit int makes int(hash) %% buckets negative", n)
	}
	for _, id := range []string{"deadletter", "eventstream"} {
		if _, ok := registry.GetLocal(id); !ok {
			t.Errorf("%s is not registered any more", id)
		}
	}
	// Half of all names have a hash above 1<<31.
	props := actor.PropsFromFunc(func(actor.Context) {})
	pids := map[string]*actor.PID{}
	for range 100 {
		pid := system.Root.SpawnPrefix(props, "replica")
		pids[pid.Id] = pid
	}
	if len(pids) != 100 {
		t.Fatalf("spawned %d actors, want 100", len(pids))
	}
	for id, pid := range pids {
		if _, ok := registry.Get(pid); !ok {
			t.Errorf("%s is not found", id)
		}
		if err := system.Root.PoisonFuture(pid).Wait(); err != nil {
			t.Errorf("stop %s: %v", id, err)
		}
		if _, ok := registry.Get(pid); ok {
			t.Errorf("%s is found after its end", id)
		}
	}
}
