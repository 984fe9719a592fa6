// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package des is a discrete-event model of a cluster's placement: virtual time,
// links with distance and loss, records that arrive late, deaths that are seen at
// different times, and on every peer the very placement.Decide that the daemon runs.
//
// A [Sim] is driven by a scenario function that returns a [Result]: how many
// containers were started beyond the necessary, whether any service dipped below
// its number, how long it took. The same seed gives the same run. PLACEMENT.md's
// header states the times of the model; its tables are what the tests compare with.
//
// It refuses to model what placement does not decide: bytes, engines, signatures.
package des
