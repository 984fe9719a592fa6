// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package figures is how the bench takes and shows numbers: [Pace] does a thing at a
// given rate whatever it takes, [Series] collects times and gives percentiles, and
// [Table] prints rows as aligned text, Markdown or JSON under the name of the machine
// they were taken on. It refuses to compare runs: a ratio is of two figures of one run.
package figures
