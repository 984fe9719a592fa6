// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// volumePattern is the engines' grammar of volume names.
var volumePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$`)

// maxMounts bounds the mounts of one container.
const maxMounts = 256

func (c *Setup) checkMounts() error {
	if len(c.Mounts) > maxMounts {
		return invalid("volumes", "has %d, at most %d are allowed", len(c.Mounts), maxMounts)
	}
	seen := map[string]bool{}
	for i := range c.Mounts {
		m := &c.Mounts[i]
		field := fmt.Sprintf("volumes[%d]", i)
		if why := checkPath(m.Target); why != "" {
			return invalid(field+".target", "%s", why)
		}
		if m.Target == "/" {
			return invalid(field+".target", "is /; a mount cannot take the place of the whole root")
		}
		if seen[m.Target] {
			return invalid(field, "mounts something on %s, and so does another", m.Target)
		}
		seen[m.Target] = true
		if err := m.check(field); err != nil {
			return err
		}
	}
	return nil
}

// propagations are the ways in which later mounts below a bind may travel.
var propagations = []string{"private", "rprivate", "shared", "rshared", "slave", "rslave"}

func (m *Mount) check(field string) error {
	switch m.Kind {
	case MountVolume:
		if m.Source == "" && m.External {
			return invalid(field, "is external and has no name")
		}
		if m.Source != "" && !volumePattern.MatchString(m.Source) {
			return invalid(field+".source", "must match [a-zA-Z0-9][a-zA-Z0-9_.-]*, got %q (a path begins with / or ./)", m.Source)
		}
	case MountBind:
		if why := checkPath(m.Source); why != "" {
			return invalid(field+".source", "%s", why)
		}
		if m.Spread != "" && !slices.Contains(propagations, m.Spread) {
			return invalid(field+".bind.propagation", "must be one of %s, got %q", strings.Join(propagations, ", "), m.Spread)
		}
	case MountTmpfs:
		if m.Source != "" {
			return invalid(field+".source", "must be empty for tmpfs, got %q", m.Source)
		}
		if m.Bytes < 0 || m.Mode > 0o7777 {
			return invalid(field+".tmpfs", "has size %d and mode %o, want 0 or more and 0-7777", m.Bytes, m.Mode)
		}
	default:
		return invalid(field+".type", "must be volume, bind or tmpfs, got %q", m.Kind)
	}
	return m.checkStrangers(field)
}

// checkStrangers refuses what belongs to another kind of mount.
func (m *Mount) checkStrangers(field string) error {
	for _, x := range []struct {
		of   MountKind
		name string
		set  bool
	}{
		{MountVolume, "external", m.External},
		{MountVolume, "volume.nocopy", m.NoCopy},
		{MountBind, "bind.create_host_path", m.Create},
		{MountBind, "bind.propagation", m.Spread != ""},
		{MountTmpfs, "tmpfs.size", m.Bytes != 0},
		{MountTmpfs, "tmpfs.mode", m.Mode != 0},
	} {
		if x.set && m.Kind != x.of {
			return invalid(field+"."+x.name, "goes with type %s, not %s", x.of, m.Kind)
		}
	}
	return nil
}

// capabilities are those of Linux, capability.h.
var capabilities = []string{
	capAll, "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE",
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL",
	"LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE",
	"NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG",
	"SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE",
	"SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM",
}

func (c *Setup) checkRights() error {
	for _, l := range []struct {
		field string
		of    []string
	}{{"cap_add", c.CapAdd}, {"cap_drop", c.CapDrop}} {
		for i, name := range l.of {
			if !slices.Contains(capabilities, name) {
				return invalid(fmt.Sprintf("%s[%d]", l.field, i), "%q is not a capability of Linux (like NET_ADMIN, or ALL)", name)
			}
		}
	}
	for i, o := range c.SecurityOpt {
		if err := checkSecurity(fmt.Sprintf("security_opt[%d]", i), o); err != nil {
			return err
		}
	}
	return nil
}

func checkSecurity(field, o string) error {
	kind, value, _ := strings.Cut(securityOption(o), "=")
	switch {
	case kind == "no-new-privileges" && slices.Contains([]string{"", "true", "false"}, value):
	case kind == "seccomp" && value == "unconfined":
	case kind == "seccomp":
		return invalid(field, "%q names a profile of seccomp; only the engine's own and seccomp=unconfined can be had", o)
	case kind == "apparmor" && value != "" && !hasControl(value):
	case kind == "label" && value != "" && !hasControl(value):
	default:
		return invalid(field, "%q is not known; want no-new-privileges, seccomp=unconfined, apparmor=PROFILE or label=LABEL", o)
	}
	return nil
}

func (c *Setup) checkDevices() error {
	for i, d := range c.Devices {
		field := fmt.Sprintf("devices[%d]", i)
		if why := checkPath(d.Host); why != "" {
			return invalid(field, "%s", why)
		}
		if d.Container != "" {
			if why := checkPath(d.Container); why != "" {
				return invalid(field, "inside the container: %s", why)
			}
		}
		if strings.Trim(d.Permissions, "rwm") != "" || len(d.Permissions) > 3 {
			return invalid(field, "has the permissions %q, want some of rwm", d.Permissions)
		}
	}
	return nil
}
