// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
)

var (
	// accountPattern is one half of a user: a number or what useradd accepts.
	accountPattern  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)
	hostnamePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*$`)
	driverPattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9_./:-]{0,127}$`)
	sysctlPattern   = regexp.MustCompile(`^[a-z0-9_]+(\.[A-Za-z0-9_-]+)+$`)
)

// What a name may be at most; the kernel's limits.
const (
	maxHostname = 64
	maxPath     = 4095
)

// minShm catches a size without a unit: a smaller /dev/shm serves nobody.
const minShm = 64 << 10

// checkSetup checks how the container is set up.
func (s *Spec) checkSetup() error {
	c := &s.Setup
	checks := []func() error{
		c.checkIdentity, c.checkMounts, c.checkHosts, c.checkLimits, c.checkSysctls, c.checkLogging,
		c.checkRights, c.checkDevices, s.checkNetwork,
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Why: fmt.Sprintf(format, args...)}
}

// checkPath returns what is wrong with a path; "" if it is absolute and clean.
func checkPath(p string) string {
	switch {
	case p == "":
		return "is empty"
	case len(p) > maxPath:
		return fmt.Sprintf("has %d bytes, at most %d are allowed", len(p), maxPath)
	case hasControl(p):
		return fmt.Sprintf("%q holds a control character", p)
	case !path.IsAbs(p):
		return fmt.Sprintf("%q is not absolute", p)
	case slices.Contains(strings.Split(p, "/"), ".."):
		return fmt.Sprintf("%q holds \"..\"", p)
	case path.Clean(p) != p:
		return fmt.Sprintf("%q should be written %q", p, path.Clean(p))
	}
	return ""
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func (c *Setup) checkIdentity() error {
	if c.User != "" {
		user, group, grouped := strings.Cut(c.User, ":")
		if !accountPattern.MatchString(user) || grouped && !accountPattern.MatchString(group) {
			return invalid("user", "must be USER or USER:GROUP, names or numbers, got %q", c.User)
		}
	}
	for i, g := range c.GroupAdd {
		if !accountPattern.MatchString(g) {
			return invalid(fmt.Sprintf("group_add[%d]", i), "must be a name or a number, got %q", g)
		}
	}
	if c.WorkDir != "" {
		if why := checkPath(c.WorkDir); why != "" {
			return invalid("working_dir", "%s", why)
		}
	}
	if c.Hostname == "" {
		return nil
	}
	if len(c.Hostname) > maxHostname || !hostnamePattern.MatchString(c.Hostname) {
		return invalid("hostname", "must be at most %d letters, digits, - and dots, got %q", maxHostname, c.Hostname)
	}
	if c.HostUTS {
		return invalid("hostname", "cannot be set with uts: host: it would rename the machine")
	}
	return nil
}

func (c *Setup) checkHosts() error {
	for i, h := range c.ExtraHosts {
		field := fmt.Sprintf("extra_hosts[%d]", i)
		name, ip, _ := strings.Cut(h, ":")
		if !hostnamePattern.MatchString(name) {
			return invalid(field, "must be NAME:IP or NAME:host-gateway, got %q", h)
		}
		if _, err := netip.ParseAddr(ip); err != nil && ip != "host-gateway" {
			return invalid(field, "has %q for %s, want an IP address or host-gateway", ip, name)
		}
	}
	return nil
}

// ulimits are the limits that Linux knows.
var ulimits = []string{
	"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
	"rss", "rtprio", "rttime", "sigpending", "stack",
}

func (c *Setup) checkLimits() error {
	if c.ShmBytes != 0 && c.ShmBytes < minShm {
		return invalid("shm_size", "must be at least 64 KiB, got %d bytes (missing a unit?)", c.ShmBytes)
	}
	seen := map[string]bool{}
	for _, u := range c.Ulimits {
		field := "ulimits." + u.Name
		switch {
		case !slices.Contains(ulimits, u.Name):
			return invalid("ulimits", "has %q, want one of %s", u.Name, strings.Join(ulimits, ", "))
		case seen[u.Name]:
			return invalid(field, "is there twice")
		case u.Soft < -1 || u.Hard < -1:
			return invalid(field, "must be -1 (no limit) or more, got soft %d, hard %d", u.Soft, u.Hard)
		case u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard):
			return invalid(field, "has soft %d above hard %d", u.Soft, u.Hard)
		}
		seen[u.Name] = true
	}
	return nil
}

// ownSysctls are the kernel settings that a container has for itself; the others
// are the whole machine's and the engine refuses them.
var ownSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
	"kernel.shmmni", "kernel.shm_rmid_forced", "kernel.domainname",
}

func (c *Setup) checkSysctls() error {
	for _, k := range sortedKeys(c.Sysctls) {
		v, ipc := c.Sysctls[k], strings.HasPrefix(k, "fs.mqueue.") || slices.Contains(ownSysctls, k)
		field := "sysctls." + k
		switch {
		case !sysctlPattern.MatchString(k):
			return invalid("sysctls", "has the name %q, want one like net.core.somaxconn", k)
		case strings.TrimSpace(v) == "" || hasControl(strings.ReplaceAll(v, "\t", " ")):
			return invalid(field, "has the value %q", v)
		case strings.HasPrefix(k, "net.") && c.HostNetwork:
			return invalid(field, "cannot be set with network_mode: host: it is the machine's own; set it there")
		case ipc && c.HostIPC:
			return invalid(field, "cannot be set with ipc: host: it is the machine's own; set it there")
		case !ipc && !strings.HasPrefix(k, "net."):
			return invalid(field, "is the whole machine's, not a container's; set it on the machine")
		}
	}
	return nil
}

func (c *Setup) checkLogging() error {
	if c.Logging == nil {
		return nil
	}
	if !driverPattern.MatchString(c.Logging.Driver) {
		return invalid("logging.driver", "must be a name like json-file, got %q", c.Logging.Driver)
	}
	for _, k := range sortedKeys(c.Logging.Options) {
		if k == "" || hasControl(k) || strings.ContainsRune(c.Logging.Options[k], 0) {
			return invalid("logging.options", "%q is empty or holds a control character", k)
		}
	}
	return nil
}

// checkNetwork checks what the network mode leaves no room for.
func (s *Spec) checkNetwork() error {
	c := &s.Setup
	switch {
	case c.HostNetwork && c.NoNetwork:
		return invalid("network_mode", "cannot be host and none")
	case c.HostNetwork && len(s.Ports) > 0:
		return invalid("ports", "cannot be published with network_mode: host: the container listens on the machine itself; remove one of the two")
	case c.NoNetwork && len(s.Ports) > 0:
		return invalid("ports", "cannot be published with network_mode: none: nothing reaches the container; remove one of the two")
	}
	return nil
}

// checkPlace checks what placement is told beyond constraints.
func (s *Spec) checkPlace() error {
	if s.SpreadBy != "" && !selectorKey.MatchString(s.SpreadBy) {
		return invalid("x-shoal.spread", "must be the key of a label, got %q", s.SpreadBy)
	}
	if s.Restarts < 0 {
		return invalid("restarts", "must not be negative, got %d", s.Restarts)
	}
	return nil
}
