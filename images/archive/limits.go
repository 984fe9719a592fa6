// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"cmp"
	"fmt"

	"github.com/shoalnet/shoal"
)

// Limits bound what an archive may hold; 0 is the default of a field. Sizes of manifests
// and configurations and counts of layers and images are bounded by images/manifest.
type Limits struct {
	Bytes   int64 // of the archive, decompressed; 256 GiB
	Entries int   // of the tar; 100,000
	Blob    int64 // bytes of one entry, and of one layer decompressed; 64 GiB
	// Ratio is how many bytes one compressed byte may become, in the archive and in a layer,
	// once there are more than 64 MiB; 200. Images have 2 to 4, a file of zeros has 1,000.
	Ratio int64
}

// Bounds that nobody has asked to change.
const (
	slack       = 64 << 20  // bytes before the ratio counts: small things may be all zeros
	maxPieces   = 4096      // blobs of one archive: 128 images of 32 layers that they do not share
	maxDocBytes = 256 << 20 // of JSON parsed for one archive, a small one as 4 KiB: some seconds of work
	maxNames    = 1024      // of images of one archive
	maxPath     = 512       // bytes of an entry's name; engines use 80
	maxDepth    = 3         // of indexes, one in the other
)

// Validate returns a *shoal.InvalidError for a field out of range.
func (l Limits) Validate() error {
	for field, n := range map[string]int64{"bytes": l.Bytes, "entries": int64(l.Entries), "blob": l.Blob, "ratio": l.Ratio} {
		if n < 0 {
			return &shoal.InvalidError{Field: "limits." + field, Why: fmt.Sprintf("must not be negative, got %d", n)}
		}
	}
	return nil
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Bytes:   cmp.Or(l.Bytes, 256<<30),
		Entries: cmp.Or(l.Entries, 100_000),
		Blob:    cmp.Or(l.Blob, 64<<30),
		Ratio:   cmp.Or(l.Ratio, 200),
	}
}

// refuse returns the error about an archive.
func refuse(format string, args ...any) error {
	return &shoal.InvalidError{Field: "archive", Why: fmt.Sprintf(format, args...)}
}

// absentError says that an archive lacks a blob that it names: it may still hold the image
// in its other form.
type absentError struct{ shoal.InvalidError }

func absent(format string, args ...any) error {
	return &absentError{shoal.InvalidError{Field: "archive", Why: fmt.Sprintf(format, args...)}}
}

// Unwrap lets callers see a *shoal.InvalidError.
func (e *absentError) Unwrap() error { return &e.InvalidError }

// clip shortens hostile text for an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
