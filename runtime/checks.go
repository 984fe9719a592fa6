// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

var (
	// What engines take as the name of a volume; anything else could be a path.
	volumePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$`)
	sysctlPattern = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-zA-Z0-9_-]+)+$`)
	spreads       = []string{"", "rprivate", "private", "rshared", "shared", "rslave", "slave"}
)

// checkSetup refuses a setup whose demands could not be judged by its words, whoever
// let it through.
func checkSetup(s *shoal.Setup) error {
	for i := range s.Mounts {
		if err := checkMount(fmt.Sprintf("volumes[%d]", i), &s.Mounts[i]); err != nil {
			return err
		}
	}
	for i, d := range s.Devices {
		if !path.IsAbs(d.Host) || d.Container != "" && !path.IsAbs(d.Container) {
			return &shoal.InvalidError{Field: fmt.Sprintf("devices[%d]", i), Why: fmt.Sprintf("must be absolute paths, got %q", d.Host+":"+d.Container)}
		}
		if strings.Trim(d.Permissions, "rwm") != "" {
			return &shoal.InvalidError{Field: fmt.Sprintf("devices[%d]", i), Why: fmt.Sprintf("permissions must be of r, w and m, got %q", d.Permissions)}
		}
	}
	for k := range s.Sysctls {
		if !sysctlPattern.MatchString(k) {
			return &shoal.InvalidError{Field: "sysctls", Why: fmt.Sprintf("must be names like net.core.somaxconn, got %q", k)}
		}
		if s.HostNetwork && strings.HasPrefix(k, "net.") {
			return &shoal.InvalidError{Field: "sysctls", Why: fmt.Sprintf("%s would be the machine's own with its network; remove one of them", k)}
		}
	}
	if s.HostNetwork && s.NoNetwork {
		return &shoal.InvalidError{Field: "network_mode", Why: "must be host or none, got both"}
	}
	if s.ShmBytes < 0 {
		return &shoal.InvalidError{Field: "shm_size", Why: "must not be negative"}
	}
	return nil
}

func checkMount(field string, m *shoal.Mount) error {
	bad := func(format string, args ...any) error {
		return &shoal.InvalidError{Field: field, Why: fmt.Sprintf(format, args...)}
	}
	if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
		return bad("must have an absolute path in the container as target, got %q", m.Target)
	}
	switch m.Kind {
	case shoal.MountVolume:
		if (m.Source != "" || m.External) && !volumePattern.MatchString(m.Source) {
			return bad("must name its volume with letters, digits, _ . and -, got %q", m.Source)
		}
	case shoal.MountBind:
		if !path.IsAbs(m.Source) {
			return bad("must have an absolute path as source, got %q", m.Source)
		}
		if !slices.Contains(spreads, m.Spread) {
			return bad("has the propagation %q, which no engine knows", m.Spread)
		}
	case shoal.MountTmpfs:
		if m.Source != "" || m.Bytes < 0 {
			return bad("is in memory: it has no source, and a size that is not negative")
		}
	default:
		return bad("must be of kind volume, bind or tmpfs, got %q", m.Kind)
	}
	return nil
}
