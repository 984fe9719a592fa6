// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"fmt"
	"slices"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/upstream"
)

// Policy implements shoal.Images.
func (r *Room) Policy(context.Context) (shoal.Policy, error) {
	p := r.deps.Records.Desired().Policy
	if p.Upstream == "" {
		p.Upstream = shoal.UpstreamPeersFirst
	}
	return p, nil
}

// SetUpstream implements shoal.Images.
func (r *Room) SetUpstream(ctx context.Context, word string) (shoal.Policy, error) {
	if err := shoal.CheckUpstream(word); err != nil {
		return shoal.Policy{}, err
	}
	_, err := r.deps.Records.Update(ctx, func(d *shoal.Desired, at shoal.Stamp) ([]shoal.Body, error) {
		if err := shoal.MayWish(r.deps.Views.View().With(d)); err != nil {
			return nil, err
		}
		now := d.Policy
		if now.Upstream == word && len(now.Heads) == 1 {
			return nil, nil // it is so already
		}
		id := shoal.RevisionID{Seq: 1, Author: at.Author}
		for _, h := range now.Heads {
			id.Seq = max(id.Seq, h.Seq+1)
		}
		return []shoal.Body{&shoal.PolicyBody{ID: id, Replaces: slices.Clone(now.Heads), Upstream: word}}, nil
	}, shoal.UpdateOptions{})
	if err != nil {
		return shoal.Policy{}, fmt.Errorf("write the cluster's policy: %w", err)
	}
	return r.Policy(ctx)
}

// whyPolicy is why nobody asks a registry outside that the machine's owner allows.
const whyPolicy = "the cluster asks no registry outside (shoal image policy): push it on a peer that has it (shoal image push)"

// asksOutside reports whether the cluster's policy lets registries outside be asked.
func (r *Room) asksOutside() bool { return r.deps.Records.Desired().Policy.AsksOutside() }

// isAllowed reports whether this peer may ask the registry that ref names, by its owner's
// word and by the cluster's.
func (r *Room) isAllowed(ref string) bool { return r.asksOutside() && r.outside.Allowed(ref) }

// mayAskNow reports whether it may at this moment, as the registry's own word has it.
func (r *Room) mayAskNow(ref string) bool {
	return r.asksOutside() && upstream.MayAsk(r.outside.Waits(), ref)
}
