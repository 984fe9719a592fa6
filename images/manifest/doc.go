// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package manifest reads the manifests, indexes and configurations of images: those of
// OCI's image specification v1.1 and Docker's schema 2.
//
//	m, err := manifest.Parse(contentType, raw)
//	for _, d := range m.Refs() { ... } // what has to be there for m to be whole
//
// Everything it reads may come from a stranger, so sizes and counts are bounded, what
// could make somebody fetch from an address (foreign layers, urls) is refused, and an
// error says which field is wrong. It refuses to write anything and to look at layers.
package manifest
