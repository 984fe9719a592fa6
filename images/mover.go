// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/archive"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// Push implements shoal.ImageMover.
func (r *Room) Push(ctx context.Context, ref, as string, progress func(shoal.ImageProgress)) ([]shoal.ImageInfo, error) {
	if err := shoal.CheckImage(ref); err != nil {
		return nil, err
	}
	img, err := r.deps.Engine.Find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if as == "" {
		as = ref
	}
	in, out := io.Pipe()
	var infos []shoal.ImageInfo
	g, work := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := r.deps.Engine.Save(work, ref, out)
		_ = out.CloseWithError(err) // nil is the end of the archive
		return err
	})
	g.Go(func() error {
		var err error
		infos, err = r.take(work, in, as, img.Size, progress)
		_ = in.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // wakes the engine's side
		return err
	})
	return infos, g.Wait()
}

// Import implements shoal.ImageMover.
func (r *Room) Import(ctx context.Context, in io.Reader, as string, progress func(shoal.ImageProgress)) ([]shoal.ImageInfo, error) {
	return r.take(ctx, in, as, 0, progress)
}

// take stores an archive and gives its images their names: as, or those it has itself.
func (r *Room) take(ctx context.Context, in io.Reader, as string, size int64, progress func(shoal.ImageProgress)) ([]shoal.ImageInfo, error) {
	if as != "" {
		name, digest, err := splitRef(as)
		if err == nil && digest != "" {
			err = &shoal.InvalidError{Field: "as", Why: fmt.Sprintf("%q has a digest; a name with a tag is needed, or none", as)}
		}
		if err != nil {
			return nil, err
		}
		as = name
	}
	if err := shoal.MayWish(r.deps.Views.View()); err != nil {
		return nil, err
	}
	if err := r.makeRoom(size); err != nil {
		return nil, err
	}
	found, err := archive.Read(ctx, in, r.store, archive.Limits{}, r.layers(ctx), receiving(progress, size))
	if err != nil {
		return nil, err
	}
	named, err := naming(found, as)
	if err != nil {
		return nil, err
	}
	var infos []shoal.ImageInfo
	for _, n := range named {
		own, err := r.store.Stat(n.Digest)
		if err != nil {
			return infos, err
		}
		if err := r.adopt(ctx, n.name, manifest.Descriptor{MediaType: n.MediaType, Digest: n.Digest.String(), Size: own.Size}, false); err != nil {
			return infos, err
		}
		info, _, err := r.look(n.name)
		if err != nil {
			return infos, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// receiving turns bytes read into progress.
func receiving(progress func(shoal.ImageProgress), size int64) func(int64) {
	if progress == nil {
		return nil
	}
	return func(n int64) {
		p := shoal.ImageProgress{What: "receive", Done: n, Total: size}
		if n > size { // what an engine says of an image's size is not what it saves
			p.Total = 0
		}
		progress(p)
	}
}

type namedImage struct {
	archive.Found
	name string
}

// naming says which names the images of an archive get, all before any is given.
func naming(found []archive.Found, as string) ([]namedImage, error) {
	if as != "" {
		if len(found) != 1 {
			return nil, &shoal.InvalidError{Field: "as", Why: fmt.Sprintf("names one image, and the archive has %d", len(found))}
		}
		return []namedImage{{found[0], as}}, nil
	}
	var out []namedImage
	for _, f := range found {
		if len(f.Names) == 0 {
			return nil, &shoal.InvalidError{Field: "archive", Why: fmt.Sprintf("does not name image %s; say how it is called with --as NAME", short(f.Digest.String()))}
		}
		for _, name := range f.Names {
			out = append(out, namedImage{f, name})
		}
	}
	return out, nil
}

// layers finds layers that are here by what they unpack to: of two layers of images that
// records bind, the same one of the same image.
func (r *Room) layers(ctx context.Context) archive.Known {
	var by map[blobs.Digest]manifest.Descriptor
	return func(diffID blobs.Digest) (manifest.Descriptor, bool) {
		if by == nil {
			by = r.unpacked(ctx)
		}
		d, ok := by[diffID]
		return d, ok
	}
}

func (r *Room) unpacked(ctx context.Context) map[blobs.Digest]manifest.Descriptor {
	out := map[blobs.Digest]manifest.Descriptor{}
	for _, info := range r.store.List() {
		if len(info.Refs) == 0 || !info.Complete || info.Size > manifest.MaxBytes {
			continue
		}
		raw, err := r.readSmall(ctx, info.Digest)
		if err != nil {
			continue
		}
		m, err := manifest.Parse("", raw)
		if err != nil || m.IsIndex() {
			continue
		}
		raw, err = r.readHere(ctx, m.Config)
		if err != nil {
			continue
		}
		config, err := manifest.ParseConfig(raw)
		if err != nil || len(config.DiffIDs) != len(m.Layers) {
			continue
		}
		for i, id := range config.DiffIDs {
			plain, err := blobs.ParseDigest(id)
			if err != nil {
				continue
			}
			own, err := blobs.ParseDigest(m.Layers[i].Digest)
			if err != nil {
				continue
			}
			if here, err := r.store.Stat(own); err == nil && here.Complete {
				out[plain] = m.Layers[i]
			}
		}
	}
	return out
}

// Export implements shoal.ImageMover.
func (r *Room) Export(ctx context.Context, ref, format, platform string, w io.Writer, progress func(shoal.ImageProgress)) error {
	name, _, err := splitRef(ref)
	if err != nil {
		return err
	}
	machine := platform
	switch {
	case format != shoal.FormatOCI && format != shoal.FormatDocker:
		return &shoal.InvalidError{Field: "format", Why: fmt.Sprintf("must be %s or %s, got %q", shoal.FormatOCI, shoal.FormatDocker, format)}
	case machine == "" && format == shoal.FormatDocker:
		machine = r.machine()
	}
	img, err := r.want(ref)
	if err != nil {
		return err
	}
	if err := r.bringAll(ctx, img, machine, progress); err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	release := r.hold(img)
	defer release()
	if format == shoal.FormatOCI {
		root := img.pieces[0].Descriptor
		if one, ok := img.one(); ok && platform != "" {
			root = one
		}
		return archive.WriteOCI(ctx, w, r.source, root, name, nil)
	}
	one, ok := img.one()
	if !ok {
		return fmt.Errorf("export %s: it has no manifest for %s: %w", name, machine, shoal.ErrNotFound)
	}
	return archive.WriteDocker(ctx, w, r.source, one, []string{name}, nil)
}

// Pull implements shoal.ImageMover.
func (r *Room) Pull(ctx context.Context, ref string, progress func(shoal.ImageProgress)) (shoal.ImageInfo, error) {
	name, digest, err := splitRef(ref)
	if err != nil {
		return shoal.ImageInfo{}, err
	}
	img, err := r.want(ref)
	isUpstream := false
	if errors.Is(err, shoal.ErrNotFound) && r.isAllowed(ref) {
		found, outErr := r.lookOutside(ctx, ref)
		if outErr != nil {
			return shoal.ImageInfo{}, fmt.Errorf("%w; and its registry: %w", err, outErr)
		}
		isUpstream = true
		img, err = r.want(repository(name) + "@" + found.Digest)
	}
	if err != nil {
		return shoal.ImageInfo{}, err
	}
	if err := r.bringAll(ctx, img, r.machine(), progress); err != nil {
		return shoal.ImageInfo{}, fmt.Errorf("pull %s: %w", name, err)
	}
	if isUpstream && digest == "" {
		if err := r.adopt(ctx, name, img.pieces[0].Descriptor, true); err != nil {
			return shoal.ImageInfo{}, err
		}
	}
	info, _, err := r.look(ref)
	if errors.Is(err, shoal.ErrNotFound) { // a digest that no name stands for
		info = shoal.ImageInfo{Name: ref, Digest: img.root.Digest}
		for _, p := range img.pieces {
			info.Size += p.Size
		}
		info.Here, err = info.Size, nil
	}
	return info, err
}
