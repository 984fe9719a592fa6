// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package topology says what hosts a lab has and what is between them. [Parse] reads it
// from a file, [Ready] has ready-made ones; then
//
//	place, _ := t.Place("h1") // its segment, its address
//	links := t.Links()        // what package wire puts between every two cards
//
// All hosts are on one segment, [Outside], but those behind a router: they are on a
// segment of their own with it, and are seen outside under its address, as at home.
//
// The package is pure. It refuses a topology as a whole, with the line that is wrong,
// and knows nothing of processes.
package topology
