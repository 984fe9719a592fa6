// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
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
//	mount:/srv/data, mount-ro:/srv   and what lies below it; mount:X allows mount-ro:X
//	sysctl:net.core.somaxconn        rule sysctl:net.* allows what begins so
//	security:seccomp=unconfined
//	volume:NAME                      a volume of the engine that is not Shoal's
//	group:NAME                       a further group of the first process
const (
	demandPrivileged = "privileged"
	capAll           = "ALL"
)

// harmlessSecurity are security options that only take rights away.
var harmlessSecurity = []string{"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"}

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
		add("cap", name)
	}
	for _, d := range c.Devices {
		add("device", path.Clean(d.Host))
	}
	for _, g := range c.GroupAdd {
		add("group", g)
	}
	for _, m := range c.Mounts {
		switch {
		case m.Kind == MountBind && m.ReadOnly:
			add("mount-ro", path.Clean(m.Source))
		case m.Kind == MountBind:
			add("mount", path.Clean(m.Source))
		case m.External:
			add("volume", m.Source)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(c.Sysctls)) {
		add("sysctl", k)
	}
	for _, o := range c.SecurityOpt {
		if !slices.Contains(harmlessSecurity, o) {
			add("security", o)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
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
	if kind != ruleKind && (kind != "mount-ro" || ruleKind != "mount") {
		return false
	}
	switch kind {
	case "cap":
		return allowed == capAll
	case "device", "mount", "mount-ro":
		return allowed == "/" || value == allowed || strings.HasPrefix(value, allowed+"/")
	case "sysctl":
		prefix, open := strings.CutSuffix(allowed, "*")
		return open && strings.HasPrefix(value, prefix)
	}
	return false
}
