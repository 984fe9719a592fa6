// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
)

// Known is a shoal.Resolver that asks nobody: it answers from the records of a store
// and what the view tells of engines.
type Known struct {
	Store shoal.Store
	Views shoal.Views
}

// Resolve implements [shoal.Resolver].
func (k Known) Resolve(_ context.Context, ref string) (shoal.ResolvedImage, error) {
	return shoal.ResolveImage(k.Views.View().With(k.Store.Desired()), ref)
}

const (
	// resolveTime is how long all images of one wish may take to be resolved: a registry
	// outside may have to be asked, and a user waits.
	resolveTime = 15 * time.Second
	// resolveAtOnce is how many are resolved at a time.
	resolveAtOnce = 8
)

// finding is what an image of a wish stands for when the wish is accepted.
type finding struct {
	shoal.ResolvedImage
	err  error  // why that is not known
	note string // what the user should know; "": nothing
}

// findings are by what the user wrote. nil: nothing is resolved.
type findings map[string]finding

// resolve asks what each distinct image of a deploy stands for, once. It does I/O, so it
// is done before the store is locked. An image that a service has already, sent back
// with the digest that was read, is not asked for.
func (k *Desk) resolve(ctx context.Context, w shoal.Wish) (findings, error) {
	if w.Deploy == nil || k.images == nil {
		return nil, nil
	}
	d := k.store.Desired()
	if err := shoal.MayWish(k.views.View().With(d)); err != nil {
		return nil, err
	}
	out := findings{}
	var refs []string
	ask := func(ref string) {
		if _, twice := out[ref]; twice || shoal.CheckImage(ref) != nil {
			return // the stamp refuses what is no reference
		}
		out[ref] = finding{}
		refs = append(refs, ref)
	}
	for i := range w.Deploy.Specs {
		s := &w.Deploy.Specs[i]
		old, _ := d.Service(s.Name)
		if !returned(s, old) {
			ask(s.Image)
		}
		if s.PreDeploy != nil && s.PreDeploy.Image != "" && !returnedPre(s, old) {
			ask(s.PreDeploy.Image)
		}
	}
	limited, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	found := make([]finding, len(refs))
	var group errgroup.Group
	group.SetLimit(resolveAtOnce)
	for i, ref := range refs {
		group.Go(func() error {
			found[i].ResolvedImage, found[i].err = k.images.Resolve(limited, ref)
			return nil
		})
	}
	_ = group.Wait() // the errors are in the findings
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v := k.views.View()
	for i, ref := range refs {
		found[i].note = noteOn(v, ref, found[i])
		out[ref] = found[i]
	}
	return out, nil
}

// returned reports whether a spec is what somebody read of the service and sent back,
// with the same image: then what the name stands for now is not what was asked.
func returned(s *shoal.Spec, old *shoal.Service) bool {
	return old != nil && s.Digest != "" && s.Image == old.Spec.Image && s.Digest == old.Spec.Digest
}

// noteOn says what a user should know of an image that has no digest, as far as all
// members that are up have told what their engines hold.
func noteOn(v *shoal.View, ref string, f finding) string {
	if f.err != nil && !errors.Is(f.err, shoal.ErrNotFound) {
		return fmt.Sprintf("what %s stands for is not known: %v", ref, f.err)
	}
	up := 0
	for i := range v.Peers() {
		p := &v.Peers()[i]
		if p.Removed || p.Left() || !v.Alive(p.ID) {
			continue
		}
		up++
		if st := v.State(p.ID); st == nil || len(st.Images) >= maxImages {
			return ""
		}
	}
	switch holders := shoal.EngineHolders(v, ref); {
	case f.Digest != "" || len(holders) == up:
		return ""
	case f.err != nil:
		return fmt.Sprintf("no peer has %s; \"shoal image push %s\" on one that has it gives it to all", ref, ref)
	case len(holders) == 1:
		return fmt.Sprintf("%s is only in the engine of %s; \"shoal image push %s\" there gives it to all", ref, nameSome(v, holders), ref)
	case len(holders) > 1:
		return fmt.Sprintf("%s is only in the engines of %s; \"shoal image push %s\" there gives it to all", ref, nameSome(v, holders), ref)
	}
	return ""
}

// maxImages is the bound of shoal.PeerState.Images: a full list proves no absence.
const maxImages = 1024

// nameSome names the first of these peers, and counts the others.
func nameSome(v *shoal.View, ids []shoal.PeerID) string {
	const most = 5
	var names []string
	for _, id := range ids[:min(most, len(ids))] {
		p, _ := v.Peer(id)
		names = append(names, p.Name())
	}
	if more := len(ids) - most; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// settle puts into a spec, which says nothing of it yet or was returned, what its image
// stands for, and returns what the user should know of it.
func (f findings) settle(spec *shoal.Spec, old *shoal.Service) (note string, err error) {
	keep := func() { spec.Digest, spec.Platforms = old.Spec.Digest, old.Spec.Platforms }
	if returned(spec, old) {
		keep()
		return "", nil
	}
	if f == nil {
		return "", nil
	}
	found, asked := f[spec.Image]
	isSame := old != nil && old.Spec.Image == spec.Image && old.Spec.Digest != ""
	var invalid *shoal.InvalidError
	switch {
	case !asked:
		return "", &shoal.AdviceError{
			Err:    fmt.Errorf("service %q changed meanwhile: %w", spec.Name, shoal.ErrConflict),
			Advice: "look at it again",
		}
	case errors.Is(found.err, shoal.ErrConflict), errors.As(found.err, &invalid):
		return "", fmt.Errorf("service %s: %w", spec.Name, found.err)
	case isSame && cmp.Or(found.Digest, old.Spec.Digest) == old.Spec.Digest:
		keep() // also the platforms: to know more of them is no change
		if found.Digest == "" {
			return fmt.Sprintf("%s stands for nothing now; it keeps %s", spec.Image, brief(spec.Digest)), nil
		}
		return "", nil
	}
	spec.Digest, spec.Platforms = found.Digest, found.Platforms
	return found.note, nil
}

// imageText says which image a spec is made of: "app:v1 (sha256:0123456789ab)".
func imageText(s *shoal.Spec) string {
	if s.Digest == "" || strings.Contains(s.Image, "@") {
		return s.Image
	}
	return fmt.Sprintf("%s (%s)", s.Image, brief(s.Digest))
}

// imageChange says what a new revision does to the image, "" if nothing.
func imageChange(old, now *shoal.Spec) string {
	switch {
	case old.Image != now.Image:
		return fmt.Sprintf("image %s -> %s", old.Image, imageText(now))
	case old.Digest == now.Digest:
		return ""
	}
	was, is := "by name", "by name"
	if old.Digest != "" {
		was = brief(old.Digest)
	}
	if now.Digest != "" {
		is = brief(now.Digest)
	}
	return fmt.Sprintf("image %s (%s -> %s)", now.Image, was, is)
}

// brief shortens a digest as engines do, to 12 hex digits.
func brief(digest string) string { return digest[:min(len(digest), len("sha256:")+12)] }
