// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package archive reads images from tar archives into the store of blobs, and writes
// them from there.
//
//	found, err := archive.Read(ctx, file, store, archive.Limits{}, known, nil)
//	err = archive.WriteOCI(ctx, out, source, root, "app:v1", nil)
//
// [Read] takes what docker save writes, old engines and new ones, and OCI image layouts
// (image-spec v1.1, image-layout.md), plain or compressed with gzip or zstd; the content
// tells, not the name. It passes over the archive once. Plain layers are compressed on the
// way, the same on every peer; compressed ones stay as they are, so that an OCI layout
// keeps its digests.
//
// An archive comes from a stranger: everything in it is counted and bounded ([Limits]),
// links are names inside the archive and never followed on a disk, and one bad thing
// refuses the whole with a *shoal.InvalidError that says what, why and what to do.
//
// The package refuses to unpack layers, to fetch what an archive only names, to give an
// image a name in the cluster, and to start goroutines.
package archive
