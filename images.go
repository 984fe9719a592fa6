// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"context"
	"fmt"
	"io"
	"time"
)

// BlobRef is one blob of an image, as its record binds it.
type BlobRef struct {
	Digest string // "sha256:" and 64 hex digits
	Size   int64
	// Chunks binds the list of the blob's chunks: "sha256:..." of the chunks' SHA-256s one
	// after the other. "": who wrote the record did not have the blob.
	Chunks string
}

// ImageInfo is what this peer knows about the image of one name.
type ImageInfo struct {
	Name      string // as NormalizeRef writes it
	Digest    string // of its manifest or index
	Platforms []string
	Size      int64 // of all blobs that the record binds
	Here      int64 // bytes of those on this peer
	Copies    int   // peers heard that hold all of it, this one included
	MinCopies int   // below which no peer drops it to make room
	Pinned    bool
	Services  []string // that use this digest now, sorted
	Rivals    []string // other digests that the name stands for elsewhere, until one wins
	Author    PeerID   // who gave the name its digest
	Since     HLC      // when, display only
}

// ImageBlob is one blob of an image and who holds it.
type ImageBlob struct {
	BlobRef
	Kind     string // "index", "manifest", "config", "layer"
	Platform string // of the manifest that refers to it; "" for an index
	Here     int64  // bytes on this peer
	Holders  []PeerID
	Partial  []PeerID // that have a part of it
}

// ImageDetail is everything that is known about one image.
type ImageDetail struct {
	ImageInfo
	MediaType string
	Blobs     []ImageBlob
	Silent    []PeerID // members that did not answer who holds what
}

// ImageChange is one change of a name. Exactly one of the fields after Name is set.
type ImageChange struct {
	Name      string // for To also NAME@DIGEST, which settles what of several rivals counts
	To        string // a further name for the same digest
	Remove    bool   // the name stands for nothing any more
	Pin       *bool  // never dropped to make room
	MinCopies int    // 1-100
}

// CollectOptions say how much to remove.
type CollectOptions struct {
	All    bool  // everything that no service needs and nothing pins
	Room   int64 // bytes to make; 0 without All: only what expired
	DryRun bool
}

// Collected is what a collection removed, or would.
type Collected struct {
	Blobs int
	Bytes int64
	Used  int64 // bytes that stay
	Limit int64 // 0: none
}

// RegistryLogin is how to speak to this peer's own registry.
type RegistryLogin struct {
	Address  string // "127.0.0.1:5050"; "": it serves none
	User     string // "": anybody on this machine may
	Password string
}

// ImageProgress is how far a move of an image is.
type ImageProgress struct {
	What  string // "receive", "fetch", "load", "done"
	Done  int64  // bytes
	Total int64  // 0: not known
	Rate  int64  // bytes a second, lately
	Peers int    // it comes from; 0: none, or not from peers
	From  string // the registry outside it comes from; "": none
}

// Left returns how long the rest takes at the rate of now, 0 if that is not known.
func (p ImageProgress) Left() time.Duration {
	if p.Rate <= 0 || p.Total <= p.Done {
		return 0
	}
	return time.Duration(float64(p.Total-p.Done) / float64(p.Rate) * float64(time.Second)).Round(time.Second)
}

// String says it in one line, for people: "120.0/269.0 MB, 40.0 MB/s from 3 peers, 4s left".
func (p ImageProgress) String() string {
	const mega = 1e6
	s := fmt.Sprintf("%.1f MB", float64(p.Done)/mega)
	if p.Total > 0 {
		s = fmt.Sprintf("%.1f/%.1f MB", float64(p.Done)/mega, float64(p.Total)/mega)
	}
	if p.Rate > 0 {
		s += fmt.Sprintf(", %.1f MB/s", float64(p.Rate)/mega)
	}
	switch {
	case p.From != "":
		s += " from " + p.From
	case p.Peers == 1:
		s += " from 1 peer"
	case p.Peers > 1:
		s += fmt.Sprintf(" from %d peers", p.Peers)
	}
	if left := p.Left(); left > 0 {
		s += fmt.Sprintf(", %s left", left)
	}
	return s
}

// EngineImage is an image of the engine.
type EngineImage struct {
	ID       string   // what containers can be created from whatever happens to names
	Names    []string // as NormalizeRef writes them, digests included, sorted
	Platform string   // "linux/amd64"
	Size     int64
}

// ImageStore is the engine's own images. Every call is ErrEngineDown (wrapped) when
// the engine does not answer. Implementations pass runtime/runtimetest.
type ImageStore interface {
	// Find returns the image the engine holds under a name, a digest or an ID.
	// ErrNotFound: none.
	Find(ctx context.Context, ref string) (EngineImage, error)
	// Images returns the references the engine holds, sorted.
	Images(ctx context.Context) ([]string, error)
	// Pull has the engine pull from a registry on this machine. ErrUnreachable: the
	// engine cannot reach it; ErrNotFound: it is not there. progress may be nil and is
	// told bytes of what the engine unpacked. What a pull that broke left is taken up by
	// the next.
	Pull(ctx context.Context, from string, login RegistryLogin, progress func(ImageProgress)) error
	// Load gives the engine an archive as docker save writes it.
	Load(ctx context.Context, archive io.Reader) error
	// Save writes an image as docker save does. ErrNotFound: absent, nothing is written.
	Save(ctx context.Context, ref string, w io.Writer) error
	// Tag gives an image that the engine holds another name, which no other has then, and
	// takes away those by which it was pulled from a registry on this machine.
	Tag(ctx context.Context, id, ref string) error
}

// Puller makes images available to the engine.
type Puller interface {
	// Ensure returns when the engine can create containers from ref ("app:v1", or
	// "app:v1@sha256:..." which no later push of app:v1 changes), and what ID it has
	// there. progress may be nil; it must not block. ErrNotFound: it cannot be had.
	// Called twice it is cheap, called at once for the same image it moves it once.
	Ensure(ctx context.Context, ref string, progress func(ImageProgress)) (id string, err error)
	// Images returns the references the engine holds, sorted.
	Images(ctx context.Context) ([]string, error)
}

// Images is what users do with images, seen from this peer. A ref is a name, with or
// without tag, or name@digest. ErrNotFound: no peer knows it. ErrConflict: the name
// stands for several digests. All are safe for concurrent use.
type Images interface {
	// List returns every name that has a digest, sorted.
	List(ctx context.Context) ([]ImageInfo, error)
	// Inspect asks the other peers what they hold of an image.
	Inspect(ctx context.Context, ref string) (ImageDetail, error)
	// Change changes a name everywhere. ErrConflict: services use what is to be removed.
	Change(ctx context.Context, change ImageChange) (ImageInfo, error)
	// Collect removes from this peer what is not needed.
	Collect(ctx context.Context, opts CollectOptions) (Collected, error)
	// Policy returns what operators want of the whole cluster.
	Policy(ctx context.Context) (Policy, error)
	// SetUpstream says for the whole cluster whether registries outside may be asked, by a
	// word that CheckUpstream takes.
	SetUpstream(ctx context.Context, word string) (Policy, error)
	// Login says how to speak to this peer's registry.
	Login(ctx context.Context) (RegistryLogin, error)
}

// ImageMover moves images in and out of the cluster on this peer. progress may be
// nil; it is called from one goroutine.
type ImageMover interface {
	// Push takes an image of this peer's engine, under another name if as is not "".
	Push(ctx context.Context, ref, as string, progress func(ImageProgress)) ([]ImageInfo, error)
	// Import takes an archive: docker save or OCI layout, a tar, plain or gzip or zstd. as names
	// it where the archive does not, or otherwise. *InvalidError: it is refused whole,
	// and no name was changed. Nothing is named before archive says io.EOF: one whose
	// Read fails is cut off, whatever came of it.
	Import(ctx context.Context, archive io.Reader, as string, progress func(ImageProgress)) ([]ImageInfo, error)
	// Export writes an image as an OCI layout, or as docker save does, which is for one
	// platform. What is not here comes from the other peers first.
	Export(ctx context.Context, ref, format, platform string, w io.Writer, progress func(ImageProgress)) error
	// Pull brings an image to this peer, for its own platform.
	Pull(ctx context.Context, ref string, progress func(ImageProgress)) (ImageInfo, error)
}

// Formats of Export.
const (
	FormatOCI    = "oci"
	FormatDocker = "docker"
)

// ResolvedImage is what a name stands for when a wish is accepted.
type ResolvedImage struct {
	Digest    string   // "": only engines know it, by name
	Platforms []string // sorted; none: not known
}

// Resolver turns the name of an image into its digest.
type Resolver interface {
	// Resolve asks the records, then, where that is allowed, the registry that the name
	// names. No Digest and no error: an engine of some peer has it under this name and
	// nobody pushed it. ErrNotFound: nobody has it. *InvalidError: ref is none.
	Resolve(ctx context.Context, ref string) (ResolvedImage, error)
}
