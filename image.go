// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Bounds of what a record says of an image. The distribution grammar allows 255
// characters of name, host included, and 128 of tag (github.com/distribution/reference).
const (
	MaxImageName = 255
	MaxImageTag  = 128
	MaxBlobs     = 1000 // of one image
	MaxPlatforms = 64   // of one image
)

// The distribution reference grammar: [host[:port]/]path[:tag][@digest].
var (
	hostPattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*(:[0-9]+)?$`)
	pathPattern = regexp.MustCompile(`^[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*$`)
	tagPattern  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

// CheckImage reports whether ref is a reference to an image: a name, with or without
// tag, with or without digest. The error is an *InvalidError of the field "image" that
// says what is wrong with which part.
func CheckImage(ref string) error { return CheckRef("image", ref) }

// CheckRef is CheckImage for a reference in another field.
func CheckRef(field, ref string) error {
	if ref == "" {
		return &InvalidError{Field: field, Why: "is missing"}
	}
	if why := badReference(ref); why != "" {
		if len(ref) > 2*MaxImageName {
			ref = ref[:MaxImageName] + "..."
		}
		return &InvalidError{Field: field, Why: fmt.Sprintf("%q is not an image reference: %s", ref, why)}
	}
	return nil
}

// CheckDigest reports whether s is a digest as images have them: "sha256:" and 64 hex
// digits. The error is an *InvalidError of that field.
func CheckDigest(field, s string) error {
	if why := badDigest(s); why != "" {
		return &InvalidError{Field: field, Why: fmt.Sprintf("%.100q %s", s, why)}
	}
	return nil
}

// CheckImageName reports whether s is a name that a record can give a digest: as
// [NormalizeRef] writes it, with a tag and without a digest.
func CheckImageName(s string) error {
	if err := CheckImage(s); err != nil {
		return err
	}
	switch want := NormalizeRef(s); {
	case strings.Contains(s, "@"):
		return &InvalidError{Field: "image", Why: fmt.Sprintf("%q has a digest: only a name with a tag can be given one", s)}
	case want != s:
		return &InvalidError{Field: "image", Why: fmt.Sprintf("%q is another name of %q", s, want)}
	}
	return nil
}

// badReference says what is wrong with a reference, "" if nothing is.
func badReference(ref string) string {
	named, digest, pinned := strings.Cut(ref, "@")
	if pinned {
		if why := badDigest(digest); why != "" {
			return "its digest " + why
		}
	}
	name, tag, tagged := named, "", false
	if at := strings.LastIndexByte(named, ':'); at > strings.LastIndexByte(named, '/') {
		name, tag, tagged = named[:at], named[at+1:], true
	}
	switch {
	case name == "":
		return "it has no name"
	case tagged && tag == "":
		return fmt.Sprintf("its tag is empty; write %s, or %s:TAG", name, name)
	case len(name) > MaxImageName:
		return fmt.Sprintf("its name has %d characters, at most %d are allowed", len(name), MaxImageName)
	case len(tag) > MaxImageTag:
		return fmt.Sprintf("its tag has %d characters, at most %d are allowed", len(tag), MaxImageTag)
	case tagged && !tagPattern.MatchString(tag):
		return fmt.Sprintf("the tag %q must start with a letter, a digit or _ and have only these, . and -", tag)
	}
	return badName(name, ref[len(name):])
}

// badName says what is wrong with a name, which rest follows. Its first part is a
// host if it has a dot, a port or upper case, or is "localhost", and others follow.
func badName(name, rest string) string {
	path := name
	if host, after, ok := strings.Cut(name, "/"); ok && (strings.ContainsAny(host, ".:") || host != strings.ToLower(host) || host == "localhost") {
		if !hostPattern.MatchString(host) {
			return fmt.Sprintf("%q is not a registry's host and port", host)
		}
		path = after
	}
	for part := range strings.SplitSeq(path, "/") {
		switch {
		case part == "":
			return "a part of its name is empty"
		case pathPattern.MatchString(part):
		case pathPattern.MatchString(strings.ToLower(part)):
			return fmt.Sprintf("the repository must be lower case; write %s", strings.TrimSuffix(name, path)+strings.ToLower(path)+rest)
		default:
			return fmt.Sprintf("%q must have only a-z and 0-9, with . - or _ between them", part)
		}
	}
	return ""
}

// badDigest says what is wrong with a digest, "" if nothing is.
func badDigest(s string) string {
	hex, ok := strings.CutPrefix(s, "sha256:")
	switch {
	case s == "":
		return "is empty"
	case !ok:
		return "must be sha256:, and 64 hex digits"
	case len(hex) != 64:
		return fmt.Sprintf("has %d hex digits, sha256 has 64", len(hex))
	case strings.Trim(hex, "0123456789abcdef") != "":
		return "must have only the hex digits 0-9 and a-f"
	}
	return ""
}

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
// characters that they cannot are written as "_" and two hex digits. It has at most
// 1024 characters for a name that [CheckImageName] takes.
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

// BlobKeyOf returns a digest in short; false if it is none.
func BlobKeyOf(digest string) (BlobKey, bool) {
	if badDigest(digest) != "" {
		return 0, false
	}
	key, err := strconv.ParseUint(digest[len("sha256:"):][:16], 16, 64)
	return BlobKey(key), err == nil
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
