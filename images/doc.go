// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package images is this peer's share of the cluster's images: names in records, blobs
// on disk and from the other peers, its registry on loopback, and what its engine is fed.
//
//	room, err := images.New(ctx, cfg, deps)
//	go room.Run(ctx)
//	id, err := room.Ensure(ctx, "app:v1@sha256:...", progress) // shoal.Puller
//
// A name stands for a digest, which a record binds with every blob of the image
// (catalog.go). Bytes come from peers that have them, and only where no peer has any from
// a registry outside, fetched by one peer of each connected side, from which the others get
// it as it arrives (bring.go, outside.go, download.go). The engine pulls from this peer's
// own registry while the blobs still arrive, or is handed an archive where it cannot reach
// that (feed.go). Room is made by what is used least, never from what a service needs or too
// few others hold (keep.go).
//
// The package refuses to run containers, to unpack layers, and to ask a registry outside
// for bytes that a peer has. Its rooms: images/manifest, blobs, swarm, exchange, archive,
// registry, upstream.
package images
