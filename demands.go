// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// A demand is what a container would do to the machine beyond its own confines, as a
// word that a machine's owner can allow; a rule is what an owner allows. Both are
// "privileged", "host:network", "host:pid", "host:ipc", "host:uts", "host:user", or
// KIND:VALUE of these kinds:
//
//	cap:NET_ADMIN                    rule cap:ALL allows every one
//	device:/dev/snd                  and what lies below it
//	mount:/srv/data, mount-ro:/srv   and what lies below it
//	mount-shared:/srv/data           mounts made inside show on the machine
//	sysctl:net.core.somaxconn        rule sysctl:net.* allows what begins so
//	security:seccomp=unconfined
//	logging:syslog                   a driver by which the engine itself talks to others
//	volume:NAME                      a volume of the engine that is not Shoal's
//	group:NAME                       a further group of the first process
//
// mount-shared:X allows mount:X, which allows mount-ro:X. A rule "privileged" allows
// every cap, device and security: who has the one can have the others.
const (
	demandPrivileged = "privileged"
	capAll           = "ALL"
)

// mountKinds are the kinds of bind mounts, each allowing those before it.
var mountKinds = []string{"mount-ro", "mount", "mount-shared"}

// harmlessSecurity are security options that only take rights away.
var harmlessSecurity = []string{"no-new-privileges", "no-new-privileges=true"}

// harmlessLogging are the drivers that keep the lines on the machine, where its
// engine keeps them. Others connect to an address or a socket of the user's choice,
// and as root.
var harmlessLogging = []string{"", "json-file", "local", "journald", "none"}

// PolicyError says that the owner of a machine does not allow what a spec demands. It
// is ErrRefused.
type PolicyError struct{ Demand string }

// Error names the rule that is missing and where it would stand.
func (e *PolicyError) Error() string {
	return fmt.Sprintf("its owner's policy does not allow %s (policy.yaml: allow.%s)", e.Demand, policyKey(e.Demand))
}

// Unwrap makes errors.Is(err, ErrRefused) true.
func (e *PolicyError) Unwrap() error { return ErrRefused }

// policyKey returns the key of policy.yaml that a demand's rule stands under.
func policyKey(demand string) string {
	kind, _, _ := strings.Cut(demand, ":")
	switch kind {
	case "cap":
		return "capabilities"
	case "device", "sysctl", "volume", "group":
		return kind + "s"
	case "mount-ro", "mount", "mount-shared":
		return "mounts"
	}
	return kind // privileged, host, security, logging
}

// Demands returns what a replica of s needs the machine's owner to allow, sorted.
// Paths are as the spec says: only the machine can resolve them.
func (s *Spec) Demands() []string {
	c := &s.Setup
	var out []string
	add := func(kind, value string) { out = append(out, kind+":"+value) }
	if c.Privileged {
		out = append(out, demandPrivileged)
	}
	for _, h := range []struct {
		name string
		on   bool
	}{{"network", c.HostNetwork}, {"pid", c.HostPID}, {"ipc", c.HostIPC}, {"uts", c.HostUTS}, {"user", c.HostUser}} {
		if h.on {
			add("host", h.name)
		}
	}
	for _, name := range c.CapAdd {
		add("cap", capability(name))
	}
	for _, d := range c.Devices {
		add("device", CleanPath(d.Host))
	}
	for _, g := range c.GroupAdd {
		add("group", g)
	}
	for _, m := range c.Mounts {
		switch {
		case m.Kind == MountBind:
			add(mountKind(&m), CleanPath(m.Source))
		case m.External:
			add("volume", m.Source)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(c.Sysctls)) {
		add("sysctl", k)
	}
	for _, o := range c.SecurityOpt {
		if o = securityOption(o); !slices.Contains(harmlessSecurity, o) {
			add("security", o)
		}
	}
	if c.Logging != nil && !slices.Contains(harmlessLogging, c.Logging.Driver) {
		add("logging", c.Logging.Driver)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// CleanPath writes a path of a machine as demands and rules do: clean, and with /run
// for /var/run, which is a link to it wherever engines run.
func CleanPath(name string) string {
	name = path.Clean(name)
	if rest, ok := strings.CutPrefix(name, "/var/run"); ok && (rest == "" || rest[0] == '/') {
		return "/run" + rest
	}
	return name
}

// mountKind says what a bind mount may do to what it shows.
func mountKind(m *Mount) string {
	switch {
	case m.Spread == "shared" || m.Spread == "rshared":
		return "mount-shared"
	case m.ReadOnly:
		return "mount-ro"
	}
	return "mount"
}

// capability writes a capability's name as rules do: engines read it in any case, and
// with CAP_ before it too.
func capability(name string) string {
	return strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(name)), "CAP_")
}

// securityOption writes an option as rules do: engines take KEY:VALUE for KEY=VALUE.
func securityOption(o string) string {
	if !strings.Contains(o, "=") {
		return strings.Replace(o, ":", "=", 1)
	}
	return o
}

// Forbidden returns the first of a spec's demands that none of an owner's rules
// allows; "" if all are allowed.
func Forbidden(rules, demands []string) string {
	for _, d := range demands {
		if !slices.ContainsFunc(rules, func(rule string) bool { return allows(rule, d) }) {
			return d
		}
	}
	return ""
}

// allows reports whether one rule covers a demand.
func allows(rule, demand string) bool {
	if rule == demand {
		return true
	}
	ruleKind, allowed, _ := strings.Cut(rule, ":")
	kind, value, _ := strings.Cut(demand, ":")
	if rule == demandPrivileged {
		return kind == "cap" || kind == "device" || kind == "security"
	}
	if needed := slices.Index(mountKinds, kind); needed >= 0 {
		return slices.Index(mountKinds, ruleKind) >= needed && below(value, allowed)
	}
	if kind != ruleKind {
		return false
	}
	switch kind {
	case "cap":
		return allowed == capAll
	case "device":
		return below(value, allowed)
	case "sysctl":
		prefix, open := strings.CutSuffix(allowed, "*")
		return open && strings.HasPrefix(value, prefix)
	}
	return false
}

// below reports whether a clean absolute path is dir or lies in it. A relative path
// lies nowhere.
func below(name, dir string) bool {
	return path.IsAbs(dir) && (name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/"))
}
