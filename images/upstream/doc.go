// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package upstream asks registries outside for what no peer has.
//
//	c, err := upstream.New(upstream.Config{Registries: []string{"docker.io"}}, clock, log)
//	found, err := c.Resolve(ctx, "hello:1")
//	r, size, err := c.Blob(ctx, "hello:1", digest, have)
//
// A registry that fails, or says that it was asked too much, is not asked again before a
// time that it names or that grows with each failure: until then every question is a
// [*WaitError] at once, and [Client.Waits] tells it to the other peers. [Turn] says, equally
// on every peer, whose turn it is to ask for a digest, so that a registry is asked once.
//
// The name of a registry is a user's word; whatever follows from it is a stranger's: where
// an answer sends us, how long and how large it is are bounded, addresses of this machine's
// link and cloud are never dialled, and what has a digest is verified (manifests) or has to
// be by the caller (blobs). Credentials come from docker's configuration of this peer, go
// to the registry they are for, and are never logged.
//
// The package refuses to keep what it fetched, to write to a registry, and to start anything
// that outlives its callers.
//
// The HTTP is net/http's: two kinds of GET, where redirects, Range and the heads of refusals
// have to be in our hand. The handshakes of logins are those of cuelabs' ociauth.
package upstream
