// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoalnet/shoal/images/swarm"
)

const chunk = swarm.ChunkBytes

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestFetch(t *testing.T) {
	w := newWorld(t, many(2, quick())...)
	a, b := w.peers[0], w.peers[1]
	for name, size := range map[string]int{"one byte": 1, "less than a chunk": chunk - 1, "a chunk": chunk, "some chunks": 5*chunk + 17} {
		blob := content(uint64(size), size)
		a.put(blob)
		began := time.Now()
		if err := b.fetch(blobOf(blob)); err != nil {
			t.Fatalf("%s: Fetch = %v", name, err)
		}
		t.Logf("%s: %v", name, time.Since(began))
		b.has(blob)
	}
}
