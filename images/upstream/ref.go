// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"fmt"
	"regexp"
	"strings"

	"cuelabs.dev/go/oci/ociregistry/ociref"

	"github.com/shoalnet/shoal"
)

const (
	hub     = "docker.io"            // what references that name no host mean
	hubHost = "registry-1.docker.io" // where its registry answers
	// hubLogin is the name under which docker keeps the login for it.
	hubLogin = "https://index.docker.io/v1/"
)

// target is what a reference names.
type target struct {
	registry string // host as references name it, with port if there is one: "docker.io"
	repo     string // "library/hello"
	tag      string // "" if there is a digest
	digest   string
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// parse reads a reference: "hello:1", "ghcr.io/x/y:v1", "10.0.0.7:5000/app@sha256:...".
// The first element is a host if there are more and it has a dot or a colon or is
// localhost (distribution's reference grammar, "domain").
func parse(ref string) (target, error) {
	wrong := func(why string) (target, error) {
		return target{}, &shoal.InvalidError{Field: "image", Why: fmt.Sprintf("%q %s", clip(ref), why)}
	}
	if len(ref) > 1024 {
		return wrong("is longer than 1024 bytes")
	}
	t := target{registry: hub, repo: ref}
	if host, rest, ok := strings.Cut(ref, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		t.registry, t.repo = canonical(host), rest
	}
	if !isHost(t.registry) {
		return wrong("names no host")
	}
	name, digest, pinned := strings.Cut(t.repo, "@")
	if pinned && !digestForm.MatchString(digest) {
		return wrong("must have a digest of sha256 and 64 hex digits after the @")
	}
	t.digest = digest
	name, tag, tagged := strings.Cut(name, ":")
	switch {
	case tagged && (tag == "" || !ociref.IsValidTag(tag)):
		return wrong("has no tag of at most 128 letters, digits, \"_\", \".\" and \"-\"")
	case !pinned && !tagged:
		tag = "latest"
	case pinned:
		tag = ""
	}
	t.tag = tag
	if t.registry == hub && !strings.Contains(name, "/") {
		name = "library/" + name
	}
	if len(name) > 255 || !ociref.IsValidRepository(name) {
		return wrong("is no name of an image")
	}
	t.repo = name
	return t, nil
}

// canonical returns the one form of a registry's name.
func canonical(host string) string {
	host = strings.ToLower(host)
	if host == "index.docker.io" || host == hubHost {
		return hub
	}
	return host
}

// host returns where the registry answers.
func (t target) host() string {
	if t.registry == hub {
		return hubHost
	}
	return t.registry
}

// place names the repository: what a login may be for, and what waits if it is not.
func (t target) place() string { return t.registry + "/" + t.repo }

// Registry returns the registry that a reference names, as people write it: "docker.io".
// "": it is no reference.
func Registry(ref string) string {
	t, err := parse(ref)
	if err != nil {
		return ""
	}
	return t.registry
}
