// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package registry is the OCI registry that a peer serves on its loopback address: OCI's
// distribution-spec v1.1 over the blob store, for OCI images and Docker's schema 2.
//
//	r, err := registry.New(ctx, registry.Config{Login: login}, store, backend, log)
//	err = r.Run(ctx, listener) // on 127.0.0.1 or ::1
//
// Blobs and manifests are in the store; what names stand for, and how blobs come that
// other peers have, is the [Backend]'s. A read of a blob that is still arriving waits for
// it and streams. A manifest is taken when all that it refers to is here: what other peers
// have of it comes first.
//
// The protocol is spoken by cuelabs' ociserver; what it leaves out (cancelling an upload,
// suffix ranges, the order of chunks, mounts of what is not here, pages of lists, the
// bounds) is done in front of it.
//
// A repository is a name, not a place: every blob of the store can be read in every
// repository, for whoever may read one may read all. A peer's referrers are those
// whose manifests are on this peer.
//
// The package refuses to listen on anything but loopback, to answer browsers, to fetch
// from an address that an image names, to take digests other than SHA-256, and to remove
// what something else needs.
package registry
