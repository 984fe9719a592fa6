// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/archive"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
	"github.com/shoalnet/shoal/internal/logkey"
)

// Images implements shoal.Puller.
func (r *Room) Images(ctx context.Context) ([]string, error) { return r.deps.Engine.Images(ctx) }

// Ensure implements shoal.Puller.
func (r *Room) Ensure(ctx context.Context, ref string, progress func(shoal.ImageProgress)) (string, error) {
	_, digest, err := splitRef(ref)
	if err != nil {
		return "", err
	}
	if digest == "" { // only engines know it: it is there or it is not
		img, err := r.deps.Engine.Find(ctx, ref)
		return img.ID, err
	}
	return r.feeding.do(ctx, ref, progress, func(ctx context.Context, progress func(shoal.ImageProgress)) (string, error) {
		return r.feed(ctx, ref, progress)
	})
}

// feed gives the engine an image by its digest, unless it has it.
func (r *Room) feed(ctx context.Context, ref string, progress func(shoal.ImageProgress)) (string, error) {
	name, _, err := splitRef(ref)
	if err != nil {
		return "", err
	}
	w, err := r.want(ref)
	if err != nil {
		return "", err
	}
	if id, err := r.inEngine(ctx, w, name); err == nil || !errors.Is(err, shoal.ErrNotFound) {
		return id, err
	}
	if err := r.inspect(ctx, w, r.machine()); err != nil {
		return "", fmt.Errorf("image %s: %w", name, err)
	}
	release := r.hold(w)
	defer release()
	if id, err := r.inEngine(ctx, w, name); err == nil || !errors.Is(err, shoal.ErrNotFound) {
		return id, err
	}
	began := r.deps.Clock.Mono()
	if r.registry != nil && r.reachable(ctx) {
		err = r.feedByPull(ctx, w, name, progress)
	} else {
		err = r.feedByLoad(ctx, w, name, progress)
	}
	if err != nil {
		return "", fmt.Errorf("image %s: %w", name, err)
	}
	id, err := r.inEngine(ctx, w, name)
	if err != nil {
		return "", fmt.Errorf("image %s was given to the engine, which does not show it: %w", name, err)
	}
	r.deps.Log.Info("image in the engine", logkey.Image, ref, logkey.Took, r.deps.Clock.Mono()-began)
	return id, nil
}

// hold keeps the blobs of an image that are here from being removed.
func (r *Room) hold(w *wanted) (release func()) {
	var all []func()
	for _, p := range w.pieces {
		if d, err := blobs.ParseDigest(p.Digest); err == nil {
			if let, err := r.store.Lease(d); err == nil {
				all = append(all, let)
			}
		}
	}
	return func() {
		for _, let := range all {
			let()
		}
	}
}

// inEngine returns the engine's ID of an image, which it gives its name. Engines call an image by the digest of its
// configuration, or of its manifest where their images are containerd's; what was pulled
// is known by the digest it was pulled by.
func (r *Room) inEngine(ctx context.Context, w *wanted, name string) (string, error) {
	candidates := []string{w.ref}
	for _, p := range w.pieces {
		if p.kind != kindLayer {
			candidates = append(candidates, p.Digest)
		}
	}
	for _, ref := range candidates {
		img, err := r.deps.Engine.Find(ctx, ref)
		if err == nil {
			r.name(ctx, img, name)
			return img.ID, nil
		}
		if !errors.Is(err, shoal.ErrNotFound) {
			return "", err
		}
	}
	return "", fmt.Errorf("image %s is not in the engine: %w", w.ref, shoal.ErrNotFound)
}

// feedByPull has the engine pull from this peer's registry, while the blobs arrive.
func (r *Room) feedByPull(ctx context.Context, w *wanted, name string, progress func(shoal.ImageProgress)) error {
	from := r.login.Address + "/" + repoOf(name) + "@" + w.root.Digest
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.bringAll(ctx, w, r.machine(), progress) })
	g.Go(func() error {
		err := r.deps.Engine.Pull(ctx, from, r.login, nil)
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("engine's pull from this peer's registry: %w", err)
		}
		return err
	})
	return g.Wait()
}

// feedByLoad hands the engine an archive.
func (r *Room) feedByLoad(ctx context.Context, w *wanted, name string, progress func(shoal.ImageProgress)) error {
	if err := r.bringAll(ctx, w, r.machine(), progress); err != nil {
		return err
	}
	one, ok := w.one()
	if !ok {
		return fmt.Errorf("it has no manifest for %s: %w", r.machine(), shoal.ErrNotFound)
	}
	in, out := io.Pipe()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := archive.WriteDocker(ctx, out, r.source, one, []string{name}, nil)
		return errors.Join(err, out.CloseWithError(err))
	})
	g.Go(func() error {
		err := r.deps.Engine.Load(ctx, in)
		_ = in.CloseWithError(err) // wakes the writer
		return err
	})
	return g.Wait()
}

// one returns the manifest of an image that was inspected for one machine.
func (w *wanted) one() (manifest.Descriptor, bool) {
	for _, p := range w.pieces {
		if p.kind == kindManifest {
			return p.Descriptor, true
		}
	}
	return manifest.Descriptor{}, false
}

// source is what archives are written from.
func (r *Room) source(ctx context.Context, d blobs.Digest) (io.ReadCloser, int64, error) {
	in, err := r.store.Read(ctx, d)
	if err != nil {
		return nil, 0, err
	}
	return struct {
		io.Reader
		io.Closer
	}{in.Stream(0, -1), in}, in.Size(), nil
}

// name gives an image the name that its user gave it, unless another image has the name in
// the engine that did not come from the cluster: it is its owner's.
func (r *Room) name(ctx context.Context, img shoal.EngineImage, name string) {
	if _, has := slices.BinarySearch(img.Names, name); has {
		return
	}
	now, err := r.deps.Engine.Find(ctx, name)
	switch {
	case err == nil && !r.isOurs(now.ID):
		return
	case err != nil && !errors.Is(err, shoal.ErrNotFound):
		return
	}
	if err := r.deps.Engine.Tag(ctx, img.ID, name); err != nil && ctx.Err() == nil {
		r.deps.Log.Warn("image has not got its name in the engine", logkey.Image, name, logkey.Err, err)
	}
}

// isOurs reports whether the store knows an image of the engine.
func (r *Room) isOurs(id string) bool {
	d, err := blobs.ParseDigest(id)
	if err != nil {
		return false
	}
	_, err = r.store.Stat(d)
	return err == nil
}

// Whether the engine reaches the registry is asked again after a while: daemons restart
// and firewalls change.
const (
	reachFor  = 10 * time.Minute
	reachTime = 5 * time.Second
)

// probeRepo is a repository that only the probe asks for.
const probeRepo = "shoal-probe"

// reach remembers whether the engine reaches this peer's registry.
type reach struct {
	mu     sync.Mutex // guards what follows; held while the engine is asked
	until  time.Duration
	isOK   bool
	nonce  string
	nonces sync.Mutex // guards seen and nonce
	seen   bool
}

// reachable reports whether the engine reaches this peer's registry: engines without root,
// in a machine of their own or on another one do not. It has the engine ask for an image
// that nobody has, and looks whether the question arrives.
func (r *Room) reachable(ctx context.Context) bool {
	p := &r.reach
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := r.deps.Clock.Mono(); p.until > now {
		return p.isOK
	}
	p.nonces.Lock()
	p.nonce, p.seen = newPassword(), false
	repo := probeRepo + "/" + p.nonce
	p.nonces.Unlock()
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	err := r.deps.Engine.Pull(ctx, r.login.Address+"/"+repo+"@"+blobs.DigestOf(nil).String(), r.login, nil)
	p.nonces.Lock()
	p.isOK = p.seen
	p.nonces.Unlock()
	if errors.Is(err, shoal.ErrEngineDown) {
		return p.isOK // asked again the next time
	}
	p.until = r.deps.Clock.Mono() + reachFor
	if !p.isOK {
		r.deps.Log.Warn("the engine does not reach this peer's registry; images are loaded instead", "registry", r.login.Address, logkey.Err, err)
	}
	return p.isOK
}

// probed notes that the engine asked for what only the probe asks for.
func (r *Room) probed(repo string) bool {
	nonce, ok := strings.CutPrefix(repo, probeRepo+"/")
	if !ok {
		return false
	}
	r.reach.nonces.Lock()
	defer r.reach.nonces.Unlock()
	if nonce == r.reach.nonce {
		r.reach.seen = true
	}
	return true
}
