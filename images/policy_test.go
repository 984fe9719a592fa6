// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/shoalnet/shoal"
)

// TestPolicyNone: one word at one peer keeps every peer from asking outside, whatever the
// owners of their machines allow, and another word lets them again.
func TestPolicyNone(t *testing.T) {
	o := newOutside(t)
	w := newWorld(t, 2, o.allow)
	img := newImage(t, 1, 1<<20)
	tag, err := name.NewTag(o.host+"/team/app:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
	digest, _ := img.Digest()
	ref := o.host + "/team/app:v1@" + digest.String()
	o.mu.Lock()
	clear(o.asked)
	o.mu.Unlock()

	a, b := w.members[0].room, w.members[1].room
	if p, err := a.Policy(t.Context()); err != nil || p.Upstream != shoal.UpstreamPeersFirst {
		t.Errorf("Policy of a new cluster = %+v, %v", p, err)
	}
	var bad *shoal.InvalidError
	if _, err := a.SetUpstream(t.Context(), "never"); !errors.As(err, &bad) {
		t.Errorf("SetUpstream of no word = %v, want invalid", err)
	}
	if p, err := a.SetUpstream(t.Context(), shoal.UpstreamNone); err != nil || p.Upstream != shoal.UpstreamNone {
		t.Fatalf("SetUpstream = %+v, %v", p, err)
	}
	eventually(t, "the other peer knows", func() bool { return !b.asksOutside() })
	if _, err := b.Ensure(t.Context(), ref, nil); !errors.Is(err, shoal.ErrNotFound) || !strings.Contains(err.Error(), "shoal image policy") {
		t.Errorf("Ensure = %v, want that the policy forbids it", err)
	}
	if _, err := b.Resolve(t.Context(), o.host+"/team/app:v1"); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Resolve = %v, want not found", err)
	}
	o.mu.Lock()
	if len(o.asked) > 0 {
		t.Errorf("the registry was asked for %v", sortedKeys(o.asked))
	}
	o.mu.Unlock()
	if _, err := b.SetUpstream(t.Context(), shoal.UpstreamPeersFirst); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Ensure(t.Context(), ref, nil); err != nil {
		t.Errorf("Ensure once it is allowed again = %v", err)
	}
}
