// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package metrics tells Prometheus what one peer does and believes. [New] takes where
// snapshots come from; an [Exporter] writes them as text, and serves them over HTTP where
// the machine's owner wants that.
//
// Every metric is a row of one table, which docs/metrics.md shows. It refuses to ask
// anybody: what is not in the [Snapshot] is not told. Labels have services, peers and words
// of ours as values, never a replica, an address or anything else that there are many of.
package metrics
