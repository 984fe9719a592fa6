// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package exchange moves blobs between the members of a cluster.
//
// It is the shell around package swarm, which decides who is asked for which chunk: it
// owns the streams, the disk reads, the clock and the limits. Every blob of the store,
// whole or partial, is served to any member that asks; what is fetched is served from its
// first chunk on.
//
//	x, err := exchange.New(exchange.Defaults(), exchange.Deps{...})
//	go x.Run(ctx)
//	err = x.Fetch(ctx, exchange.Blob{Digest: d}) // returns when it is whole
//
// Two protocols: [ControlProtocol], one stream for a pair of peers that carries every
// message about any blob (proto/shoal/v1/image.proto), and [DataProtocol], a few streams
// that carry chunks only, so that a slow one blocks no message. wire.go has the form.
//
// A source is found by asking the [Finder], then all members ("have?"), and from then on
// peers tell each other who else has or wants the blob. Nothing that a peer says is
// believed: sizes are bounded, a chunk is verified by the chunk list, the list by its
// hash where the caller knows it, the whole by its digest. A blob whose list nobody knows
// yet, for it just comes from a registry outside, grows: its chunks are passed on unverified,
// and a lie is found at the end of it (grow.go).
//
// The package refuses to know what an image is, to ask registries, to make room on the
// disk, and to decide who is a member.
package exchange
