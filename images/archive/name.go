// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"regexp"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// namePattern is [host[:port]/]path[:tag], the grammar of names in the distribution
// specification.
var namePattern = regexp.MustCompile(`^([a-zA-Z0-9]+([.-]+[a-zA-Z0-9]+)*(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$`)

const maxName = 512 // bytes; longer ones no engine takes

func isName(s string) bool { return len(s) <= maxName && namePattern.MatchString(s) }

// addName adds a name that an archive gives an image. A digest in it says nothing that the
// image does not, and such a name is left out.
func addName(names []string, name string) ([]string, error) {
	if strings.Contains(name, "@") || name == "" {
		return names, nil
	}
	if !isName(name) {
		return nil, refuse("names an image %q, which is no name of an image; rename it (docker tag) and save it again", clip(name))
	}
	name = shoal.NormalizeRef(name)
	if slices.Contains(names, name) {
		return names, nil
	}
	if len(names) >= maxNames {
		return nil, refuse("gives an image more than %d names; save it under fewer", maxNames)
	}
	return append(names, name), nil
}

// fullName returns the form of a name that containerd keeps: with its registry.
func fullName(name string) string {
	name = shoal.NormalizeRef(name)
	host, _, ok := strings.Cut(name, "/")
	switch {
	case !ok:
		return "docker.io/library/" + name
	case strings.ContainsAny(host, ".:") || host == "localhost":
		return name
	}
	return "docker.io/" + name
}

// tagOf returns the tag of a name, "" if it has a digest instead.
func tagOf(name string) string {
	name = shoal.NormalizeRef(name)
	if strings.Contains(name, "@") {
		return ""
	}
	return name[strings.LastIndexByte(name, ':')+1:]
}
