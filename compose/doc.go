// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package compose turns Compose files into specs. Reading, merging and
// interpolation are compose-go's; what a key means to Shoal is one table
// (keys.go): supported, harmless (named once), or meaningful and not supported
// (refused, all at once, with file and line).
//
// Use [Load]. It refuses a file whole rather than dropping a key silently.
package compose
