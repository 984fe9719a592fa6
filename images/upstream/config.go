// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ociref"

	"github.com/shoalnet/shoal"
)

// Config says which registries outside this peer may ask, and how.
type Config struct {
	// Registries are the hosts that may be asked, as references name them ("docker.io",
	// "ghcr.io", "10.0.0.7:5000"); "*" is any but those on this machine; none: none.
	Registries []string
	// DockerConfig is the directory of docker's config.json, from which logins come; "":
	// .docker in the home of whom the daemon runs as.
	DockerConfig string
	// Insecure are hosts that are spoken to by plain HTTP, for registries on the local
	// network. They have to be allowed, too.
	Insecure []string
	// Roots sign the certificates of registries; nil: those that the system trusts.
	Roots *x509.CertPool
	// Timeout is how long a name may take to resolve and an address to answer; 0: 10s.
	// The beginning of an answer may take three (a token, the registry, and where that
	// sends us), a whole manifest six.
	Timeout time.Duration
	// Stall is how long a sender may send nothing; 0: 30s.
	Stall time.Duration
}

const maxRegistries = 16 // half of what a beat tells, see maxTold

// Validate returns a *shoal.InvalidError for a field that is wrong.
func (c Config) Validate() error {
	for _, l := range []struct {
		field string
		hosts []string
	}{{"registries", c.Registries}, {"insecure", c.Insecure}} {
		if len(l.hosts) > maxRegistries {
			return &shoal.InvalidError{Field: l.field, Why: fmt.Sprintf("are %d, at most %d are taken", len(l.hosts), maxRegistries)}
		}
		for i, h := range l.hosts {
			if all := h == "*" && l.field == "registries"; !all && !isHost(canonical(h)) {
				return &shoal.InvalidError{
					Field: fmt.Sprintf("%s[%d]", l.field, i), Why: fmt.Sprintf("must be a host as references name it, as \"ghcr.io\" or \"10.0.0.7:5000\", got %q", clip(h)),
				}
			}
		}
	}
	switch {
	case slices.ContainsFunc(c.Insecure, func(h string) bool { return canonical(h) == hub }):
		return &shoal.InvalidError{Field: "insecure", Why: "docker.io is not on the local network"}
	case c.Timeout < 0:
		return &shoal.InvalidError{Field: "timeout", Why: "must not be negative"}
	case c.Stall < 0:
		return &shoal.InvalidError{Field: "stall", Why: "must not be negative"}
	}
	return nil
}

// filled returns c with its defaults, and hosts in the form of [target.registry].
func (c Config) filled() Config {
	each := func(hosts []string) []string {
		out := make([]string, len(hosts))
		for i, h := range hosts {
			out[i] = canonical(h)
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	c.Registries, c.Insecure = each(c.Registries), each(c.Insecure)
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Stall == 0 {
		c.Stall = 30 * time.Second
	}
	return c
}

// allows reports whether a registry may be asked. "*" does not stand for this machine:
// what its names stand for is another thing on every peer, mostly our own registry.
func (c Config) allows(registry string) bool {
	if slices.Contains(c.Registries, registry) {
		return true
	}
	return slices.Contains(c.Registries, "*") && (!isLocal(registry) || slices.Contains(c.Insecure, registry))
}

// lists reports whether the user listed the host and port of an address to dial.
func (c Config) lists(host, port string) bool {
	for _, h := range slices.Concat(c.Registries, c.Insecure) {
		name, p, err := net.SplitHostPort(h)
		if err != nil {
			name, p = h, "443"
			if slices.Contains(c.Insecure, h) {
				p = "80"
			}
		}
		if p == port && strings.Trim(name, "[]") == host {
			return true
		}
	}
	return false
}

func isHost(s string) bool {
	// References take localhost for a host, although it has no dot.
	return s == "localhost" || len(s) <= 255 && ociref.IsValidHost(s)
}

// isLocal reports whether a host, with or without port, is named as one of this machine.
func isLocal(registry string) bool {
	name := registry
	if h, _, err := net.SplitHostPort(registry); err == nil {
		name = h
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && (addr.Unmap().IsLoopback() || addr.IsUnspecified())
}

// clip shortens text of others for a message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
