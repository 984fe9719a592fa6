// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"log/slog"
	"slices"

	"github.com/asynkron/protoactor-go/actor"
)

// newActorSystem makes an actor system whose registry of processes has one bucket.
// protoactor picks among 1,024 by int(hash) % buckets of a 32-bit hash, which is a
// negative index for every second name where int has 32 bits. Modulo one it is 0, and
// nothing is lost: the bucket is a map in 32 parts of its own, and there are as many
// actors here as replicas.
func newActorSystem() *actor.ActorSystem {
	system := actor.NewActorSystem(
		// Its own log would tell of every dead letter; what matters is told here.
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }),
		actor.WithDeadLetterThrottleInterval(throttleInterval),
	)
	registry := system.ProcessRegistry
	own := map[string]actor.Process{} // what is there from the start, in other buckets
	for _, bucket := range registry.LocalPIDs.LocalPIDs {
		for id, process := range bucket.Items() {
			own[id] = process.(actor.Process)
		}
	}
	registry.LocalPIDs.LocalPIDs = slices.Clone(registry.LocalPIDs.LocalPIDs[:1])
	for id, process := range own {
		registry.Add(process, id)
	}
	return system
}
