// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/exchange"
	"github.com/shoalnet/shoal/images/manifest"
	"github.com/shoalnet/shoal/images/upstream"
)

// outlook says who asks a registry outside for a blob that no peer has.
type outlook struct {
	isOurs bool
	why    string // why nobody does, "" if somebody does
}

// outsideFor decides whose turn it is to ask for a blob of ref that is wanted since began.
// While peers bring something of it it is nobody's.
func (r *Room) outsideFor(b exchange.Blob, ref string, began time.Duration) outlook {
	if ref == "" {
		return outlook{why: "push the image on a peer that has it (shoal image push)"}
	}
	if !r.asksOutside() {
		return outlook{why: whyPolicy}
	}
	var may []shoal.PeerID
	if upstream.MayAsk(r.outside.Waits(), ref) {
		may = append(may, r.deps.Self)
	}
	var waits string
	for id, st := range r.heard() {
		if upstream.MayAsk(st.Upstreams, ref) {
			may = append(may, id)
		}
	}
	for _, u := range r.outside.Waits() {
		if u.Waits != "" {
			waits = fmt.Sprintf("%s: %s", u.Registry, u.Waits)
		}
	}
	switch {
	case len(may) > 0:
		fedAt := r.exchange.FedAt(b.Digest)
		since := r.deps.Clock.Mono() - max(began, fedAt)
		isFed := fedAt > 0 && since < upstream.TurnAfter
		return outlook{isOurs: !isFed && upstream.Turn(r.deps.Self, may, b.Digest.String(), since)}
	case waits != "":
		return outlook{why: "no registry outside may be asked now (" + waits + ")"}
	}
	return outlook{why: "push it on a peer that has it (shoal image push), or allow its registry (upstream in the daemon's configuration)"}
}

// resolveTime bounds the question what a name stands for outside: a deploy waits for it.
const resolveTime = 12 * time.Second

// Resolve implements shoal.Resolver.
func (r *Room) Resolve(ctx context.Context, ref string) (shoal.ResolvedImage, error) {
	known, err := shoal.ResolveImage(r.deps.Views.View(), ref)
	if err == nil || !errors.Is(err, shoal.ErrNotFound) || !r.isAllowed(ref) {
		return known, err
	}
	found, outErr := r.lookOutside(ctx, ref)
	switch {
	case outErr == nil:
		return shoal.ResolvedImage{Digest: found.Digest, Platforms: found.Platforms}, nil
	case errors.Is(outErr, shoal.ErrNotFound):
		return known, err
	}
	return known, fmt.Errorf("%w; and its registry could not be asked: %w", err, outErr)
}

// lookOutside asks the registry what a name stands for, and keeps the manifest, so that the
// registry is not asked again for it.
func (r *Room) lookOutside(ctx context.Context, ref string) (upstream.Found, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	found, err := r.outside.Resolve(ctx, ref)
	if err != nil {
		return found, err
	}
	m, err := manifest.Parse(found.MediaType, found.Raw)
	if err != nil {
		return found, err
	}
	if _, err := r.store.Put(found.Raw); err != nil {
		return found, err
	}
	return found, r.noteRefs(ctx, manifest.Descriptor{Digest: found.Digest}, m)
}
