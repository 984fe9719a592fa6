// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package compose turns Compose files into specs. Merging and interpolation are
// compose-go's; what a key means to Shoal is one table (keys.go), which docs/compose.md
// is made of: supported, harmless (named once), or meaningful and not supported.
//
// Use [Load]. All that is wrong with the files of a project is one [Error], with file,
// line and key; a file is refused whole rather than a key dropped silently.
package compose
