// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
)

// TurnAfter is how long a peer may bring nothing before one more asks: the time after
// which a source counts as stuck everywhere (FACTS 6).
const TurnAfter = 10 * time.Second

// MayAsk reports whether a peer that tells these registries on its beats may ask now for
// an image. A registry that it names counts before "*", and a wait for the image's
// repository ("docker.io/library/hello") as well as one for its registry.
func MayAsk(told []shoal.Upstream, ref string) bool {
	t, err := parse(ref)
	if err != nil {
		return false
	}
	may := false
	for _, u := range told {
		switch u.Registry {
		case t.registry, t.place():
			if u.Waits != "" {
				return false
			}
			may = may || u.Registry == t.registry
		case "*":
			may = may || !isLocal(t.registry)
		}
	}
	return may
}

// Turn reports whether it is self's turn to ask a registry for a digest. peers are all
// that are heard and [MayAsk], self included if it may; their order does not matter. since
// is how long nothing of it has come from anywhere: at once it is one peer's turn, after
// 10 s without progress a second one's as well, and so on. Everybody who knows the same
// peers agrees, and a peer that comes or goes leaves the order of the others as it is
// (rendezvous hashing: Thaler and Ravishankar 1998).
func Turn(self shoal.PeerID, peers []shoal.PeerID, digest string, since time.Duration) bool {
	if !slices.Contains(peers, self) {
		return false
	}
	before := map[shoal.PeerID]bool{}
	mine := weight(self, digest)
	for _, p := range peers {
		w := weight(p, digest)
		if c := bytes.Compare(w[:], mine[:]); c > 0 || c == 0 && strings.Compare(string(p), string(self)) < 0 {
			before[p] = true
		}
	}
	return max(since, 0) >= time.Duration(len(before))*TurnAfter
}

func weight(p shoal.PeerID, digest string) [sha256.Size]byte {
	return sha256.Sum256([]byte(digest + "\x00" + string(p)))
}
