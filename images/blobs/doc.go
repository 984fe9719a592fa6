// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package blobs is the store of image blobs on a peer's disk.
//
// A blob is named by the SHA-256 of its content. It comes in one of two ways: as a stream
// whose name is known at its end ([Store.Upload], docker push), or in chunks from many
// peers in any order ([Store.Begin], [Store.WriteChunk]), each verified by a list of the
// chunks' hashes, or by nothing while nobody knows that list ([Store.Grow]). In all the whole is hashed before it counts as there. [Store.Read] gives
// a blob that is there, and one that is still arriving: a read waits for its chunks.
//
//	s, err := blobs.Open(dir, blobs.Config{Limit: 20 << 30, Expire: time.Hour}, clock)
//	have, err := s.Begin(digest, size, list)
//	done, err := s.WriteChunk(digest, 7, chunk)
//
// What was written survives kill -9, and a power cut loses at most the last chunks: after
// either the store opens with every chunk it can prove. See journal.go. Of what grew it can
// prove nothing.
//
// Room is made by [Store.Collect] only, for the caller knows which images are needed and of
// which blobs others have copies; a write that finds no room fails with shoal.ErrNoSpace.
//
// The package refuses to know what a manifest or a tag is ([Store.SetRefs] tells it what a
// blob refers to), to talk to peers, and to start goroutines. One process has a directory
// open at a time: whoever opens it sees to that.
package blobs
