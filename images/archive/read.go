// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// Found is one image of an archive, all of its blobs in the store.
type Found struct {
	Names     []string // as the archive names it, as shoal.NormalizeRef writes them; may be none
	Digest    blobs.Digest
	MediaType string         // one of images/manifest
	Platforms []string       // sorted; none: not known
	Blobs     []blobs.Digest // the image itself first, then all it refers to, each once
	Size      int64          // bytes of Blobs
}

// Known finds a layer that the store has, compressed with gzip, by the digest of what it
// unpacks to, so that a base image is not stored twice. It may say what is not in the
// store any more.
type Known func(diffID blobs.Digest) (manifest.Descriptor, bool)

// Read stores the images of an archive, in the order in which it lists them, and tells the
// store what their manifests refer to. Images that it lists under several names are one
// Found. Where an archive has both forms, as newer engines write, its OCI layout is taken
// if it is whole and its layers are compressed.
//
// known may be nil. progress may be nil; it is called from Read with how many bytes of r
// were read. r is read to its end; when ctx ends Read returns at the next read of r, which
// the caller has to wake.
//
// *shoal.InvalidError: the archive is refused whole. What was stored of it nobody refers
// to, and it expires. shoal.ErrNoSpace: the store is full.
func Read(ctx context.Context, r io.Reader, s *blobs.Store, limits Limits, known Known, progress func(bytes int64)) ([]Found, error) {
	if err := limits.Validate(); err != nil {
		return nil, err
	}
	limits = limits.withDefaults()
	src, err := open(ctx, r, limits, progress)
	if err != nil {
		return nil, err
	}
	defer src.release()
	in := &intake{
		ctx: ctx, src: src, store: s, limits: limits, known: known,
		entry: bufio.NewReaderSize(nil, 256<<10), kinds: map[string]byte{}, links: map[string]string{},
		docs: map[string][]byte{}, pieces: map[string]piece{}, blobs: map[blobs.Digest]piece{}, held: map[blobs.Digest]func(){},
	}
	found, err := in.read()
	for _, release := range in.held {
		release()
	}
	return found, errors.Join(err, in.removeSpare())
}

// intake is one Read.
type intake struct {
	ctx    context.Context // of the Read
	src    *stream
	store  *blobs.Store
	limits Limits
	known  Known

	entry     *bufio.Reader           // the entry that is being read
	entries   int                     // so far
	kinds     map[string]byte         // the type of every entry, by its name
	links     map[string]string       // symbolic links, and which entry they stand for
	docBytes  int64                   // of manifests and configurations parsed, each time
	docs      map[string][]byte       // manifest.json, index.json, oci-layout
	pieces    map[string]piece        // what the other entries became, by their names
	blobs     map[blobs.Digest]piece  // those of blobs/sha256
	held      map[blobs.Digest]func() // leases, by which nothing goes before all is there
	blobCount int                     // that were stored
	spare     []blobs.Digest          // stored here, and not needed any more
	deep      string                  // a manifest.json that is not at the top
}

func (in *intake) read() ([]Found, error) {
	ender := &ender{r: in.src.r}
	tr := tar.NewReader(ender)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, in.src.why(err)
		}
		if err := in.take(h, tr); err != nil {
			return nil, err
		}
	}
	if ender.zeros < headBytes { // archive/tar takes a tar without its end
		return nil, in.src.why(io.ErrUnexpectedEOF)
	}
	if err := in.src.drain(); err != nil {
		return nil, err
	}
	if err := in.checkLinks(); err != nil {
		return nil, err
	}
	images, err := in.images()
	if err != nil {
		return nil, err
	}
	return in.settle(images)
}

// take reads one entry.
func (in *intake) take(h *tar.Header, r io.Reader) error {
	if in.entries++; in.entries > in.limits.Entries {
		return refuse("has more than %d entries; save fewer images at a time", in.limits.Entries)
	}
	if h.Typeflag == tar.TypeXGlobalHeader { // a comment, as git writes it
		return nil
	}
	name, err := in.name(h)
	if err != nil {
		return err
	}
	if err := in.note(h, name); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	if h.Size > in.limits.Blob {
		return refuse("entry %q is %d bytes, at most %d are taken; make the image smaller, or have the limit raised", clip(name), h.Size, in.limits.Blob)
	}
	in.entry.Reset(&entryReader{r: r, src: in.src})
	switch name {
	case "manifest.json", "index.json", "oci-layout":
		if h.Size > manifest.MaxBytes {
			return refuse("%s is %d bytes, at most %d are taken; save fewer images at a time", name, h.Size, manifest.MaxBytes)
		}
		in.docs[name], err = io.ReadAll(in.entry)
		return err
	}
	return in.file(name, h.Size)
}

// name returns the name of an entry as the archive's own documents may write it.
func (in *intake) name(h *tar.Header) (string, error) {
	switch {
	case len(h.Name) > maxPath:
		return "", refuse("entry %q has a name of %d bytes, at most %d are taken; save the image again", clip(h.Name), len(h.Name), maxPath)
	case path.IsAbs(h.Name):
		return "", refuse("entry %q has an absolute name; nothing in an image's archive has: save the image again", clip(h.Name))
	case slices.Contains(strings.Split(h.Name, "/"), ".."):
		return "", refuse("entry %q points out of the archive; nothing in an image's archive does: save the image again", clip(h.Name))
	}
	return path.Clean(h.Name), nil
}

// note checks the type of an entry, that it is the only one of its name, and where it
// points to.
func (in *intake) note(h *tar.Header, name string) error {
	before, isTwice := in.kinds[name]
	if isTwice && (before != tar.TypeDir || h.Typeflag != tar.TypeDir) {
		return refuse("has the entry %q twice; two readers would see two images: save the image again", clip(name))
	}
	in.kinds[name] = h.Typeflag
	const advice = "give what docker save writes, not a file system (docker export)"
	switch h.Typeflag {
	case tar.TypeReg:
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				return refuse("entry %q is a sparse file, which is not taken; make the tar without --sparse", clip(name))
			}
		}
		if base := path.Base(name); base != name && (base == "manifest.json" || base == "index.json") {
			in.deep = name
		}
		return nil
	case tar.TypeDir:
		return nil
	case tar.TypeGNUSparse:
		return refuse("entry %q is a sparse file, which is not taken; make the tar without --sparse", clip(name))
	case tar.TypeSymlink:
		if path.Base(name) != "layer.tar" || path.IsAbs(h.Linkname) || len(h.Linkname) > maxPath {
			return refuse("entry %q is a link to %q; only a layer.tar may be one, to another in the archive: %s", clip(name), clip(h.Linkname), advice)
		}
		in.links[name] = path.Join(path.Dir(name), h.Linkname)
		return nil
	case tar.TypeLink:
		return refuse("entry %q is a hard link, which is not taken; make the tar with --hard-dereference", clip(name))
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return refuse("entry %q is a device or a pipe, which no image's archive holds; %s", clip(name), advice)
	}
	return refuse("entry %q is of the type %q, which no image's archive holds; %s", clip(name), h.Typeflag, advice)
}

// checkLinks refuses links to what is not a file of the archive.
func (in *intake) checkLinks() error {
	for name, target := range in.links {
		if in.kinds[target] != tar.TypeReg {
			return refuse("entry %q is a link to %q, which is no file of the archive; save the image again", clip(name), clip(target))
		}
	}
	return nil
}

// entryReader reads the content of an entry; its errors are for the user.
type entryReader struct {
	r   io.Reader
	src *stream
}

func (e *entryReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = e.src.why(err)
	}
	return n, err
}

// images finds the images in what was read.
func (in *intake) images() ([]*image, error) {
	_, hasSaved := in.docs["manifest.json"]
	if _, ok := in.docs["index.json"]; !ok {
		if !hasSaved {
			return nil, in.nothing()
		}
		return in.saved()
	}
	images, err := in.layout()
	var lacks *absentError
	if hasSaved && (errors.As(err, &lacks) || err == nil && in.isBetterSaved(images)) {
		return in.saved()
	}
	return images, err
}

// nothing says what the archive has instead of an image.
func (in *intake) nothing() error {
	for name, p := range in.pieces {
		if strings.HasSuffix(strings.TrimSuffix(name, ".gz"), ".tar") && len(in.pieces) == 1 && p.form != formOther {
			return refuse("holds another archive, %q, and no image; unpack it and give that", clip(name))
		}
	}
	switch {
	case in.entries == 0:
		return refuse("is a tar with nothing in it; save the image again")
	case in.deep != "":
		return refuse("has %q, which belongs at its top; make the tar inside that directory (tar -C)", clip(in.deep))
	}
	return refuse("holds no image: neither manifest.json nor index.json is there; docker save writes one, docker export does not")
}
