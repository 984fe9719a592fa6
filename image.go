// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import "strings"

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
