// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"strings"
)

// NormalizeRef returns the form in which engines list an image: without the default
// registry ("docker.io/library/hello:1" is "hello:1"), with the tag "latest" where
// there is neither tag nor digest, and without the tag where there is a digest. Two
// references that engines take for the same image have the same form.
func NormalizeRef(ref string) string {
	for _, p := range []string{"docker.io/", "index.docker.io/"} {
		if rest, ok := strings.CutPrefix(ref, p); ok {
			ref = strings.TrimPrefix(rest, "library/")
			break
		}
	}
	name, digest, pinned := strings.Cut(ref, "@")
	slash := strings.LastIndexByte(name, '/')
	colon := strings.LastIndexByte(name, ':')
	tagged := colon > slash
	switch {
	case pinned && tagged:
		return name[:colon] + "@" + digest
	case pinned || tagged:
		return ref
	}
	return name + ":latest"
}

// ImageKey returns the name of the records about an image, which keys can hold: the
// characters that they cannot are written as "_" and two hex digits.
func ImageKey(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// ImageRef returns the reference that containers of a spec are created from: its image,
// with the digest where one is known.
func (s *Spec) ImageRef() string {
	if s.Digest == "" {
		return s.Image
	}
	name, _, _ := strings.Cut(s.Image, "@")
	return name + "@" + s.Digest
}
