// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	units "github.com/docker/go-units"

	"github.com/shoalnet/shoal"
)

// setup reads how the container is set up.
func (c *converter) setup() {
	in := c.service
	s := &c.out.Setup
	s.User, s.WorkDir, s.Hostname = in.User, in.WorkingDir, in.Hostname
	s.Init = in.Init != nil && *in.Init
	s.TTY, s.Stdin, s.ReadOnly, s.Privileged = in.Tty, in.StdinOpen, in.ReadOnly, in.Privileged
	s.ShmBytes = c.bytes("shm_size", in.ShmSize)
	s.CapAdd, s.CapDrop = capabilities(in.CapAdd), capabilities(in.CapDrop)
	s.GroupAdd, s.SecurityOpt = in.GroupAdd, in.SecurityOpt
	if len(in.Sysctls) > 0 {
		s.Sysctls = in.Sysctls
	}
	s.ExtraHosts = in.ExtraHosts.AsList(":")
	slices.Sort(s.ExtraHosts)
	if len(s.ExtraHosts) == 0 {
		s.ExtraHosts = nil
	}
	for _, name := range slices.Sorted(maps.Keys(in.Ulimits)) {
		u := in.Ulimits[name]
		limit := shoal.Ulimit{Name: name, Soft: int64(u.Soft), Hard: int64(u.Hard)}
		if u.Single != 0 {
			limit.Soft, limit.Hard = int64(u.Single), int64(u.Single)
		}
		s.Ulimits = append(s.Ulimits, limit)
	}
	if l := in.Logging; l != nil {
		s.Logging = &shoal.Logging{Driver: l.Driver}
		if s.Logging.Driver == "" {
			s.Logging.Driver = "json-file"
		}
		if len(l.Options) > 0 {
			s.Logging.Options = l.Options
		}
	}
	for _, d := range in.Devices {
		device := shoal.Device{Host: d.Source, Container: d.Target, Permissions: d.Permissions}
		if device.Container == device.Host {
			device.Container = ""
		}
		if device.Permissions == "rwm" {
			device.Permissions = ""
		}
		s.Devices = append(s.Devices, device)
	}
	c.namespaces()
	c.pull()
	for i := range in.Volumes {
		c.volume(i)
	}
	for i, text := range in.Tmpfs {
		c.tmpfs(fmt.Sprintf("tmpfs[%d]", i), text)
	}
}

// capabilities are written as the kernel's lists do, without CAP_.
func capabilities(in []string) []string {
	var out []string
	for _, name := range in {
		out = append(out, strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
	}
	return out
}

// namespaces reads what a container may share with its machine.
func (c *converter) namespaces() {
	in, s := c.service, &c.out.Setup
	for _, n := range []struct {
		field, value string
		host         *bool
		own          []string // what means nothing but the usual
	}{
		{"network_mode", in.NetworkMode, &s.HostNetwork, []string{"", "none", "bridge", "default"}},
		{"pid", in.Pid, &s.HostPID, []string{""}},
		{"ipc", in.Ipc, &s.HostIPC, []string{"", "private"}},
		{"uts", in.Uts, &s.HostUTS, []string{""}},
		{"userns_mode", in.UserNSMode, &s.HostUser, []string{""}},
	} {
		if *n.host = n.value == "host"; *n.host || slices.Contains(n.own, n.value) {
			continue
		}
		words := append([]string{"host"}, n.own[1:]...)
		c.bad(n.field, "must be %s, got %q; containers do not share with each other", strings.Join(words, " or "), n.value)
	}
	s.NoNetwork = in.NetworkMode == "none"
}

// pull accepts what does not ask for a newer image than the cluster knows, or for a build.
func (c *converter) pull() {
	switch policy := c.service.PullPolicy; policy {
	case "", types.PullPolicyMissing, types.PullPolicyIfNotPresent, types.PullPolicyNever:
	default:
		c.bad("pull_policy", "%s is not supported: an image is fetched once, and not built here; shoal image push what is newer, and deploy again", policy)
	}
}

// volume reads the i-th volume.
func (c *converter) volume(i int) {
	v, field := &c.service.Volumes[i], fmt.Sprintf("volumes[%d]", i)
	m := shoal.Mount{Kind: shoal.MountKind(v.Type), Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly}
	switch v.Type {
	case types.VolumeTypeVolume:
		c.named(field, &m, v)
	case types.VolumeTypeBind:
		if v.Bind != nil {
			m.Create, m.Spread = bool(v.Bind.CreateHostPath), v.Bind.Propagation
			if v.Bind.SELinux != "" {
				c.bad(field, "asks for SELinux labels (%s): nothing is relabelled; do it on the machine, or use security_opt: [label=...]", v.Bind.SELinux)
			}
		}
		c.relative(i, field, v.Source)
	case types.VolumeTypeTmpfs:
		m.Source = ""
		if v.Tmpfs != nil {
			m.Bytes, m.Mode = int64(v.Tmpfs.Size), v.Tmpfs.Mode
		}
	default:
		c.bad(field, "must be a volume, bind or tmpfs, got %q", v.Type)
	}
	c.out.Setup.Mounts = append(c.out.Setup.Mounts, m)
}

// named reads a volume of the engine: its name there, and whose it is.
func (c *converter) named(field string, m *shoal.Mount, v *types.ServiceVolumeConfig) {
	m.NoCopy = v.Volume != nil && v.Volume.NoCopy
	if v.Source == "" {
		return // without a name: gone with the replica
	}
	top, ok := c.project.Volumes[v.Source]
	if !ok {
		c.bad(field, "names the volume %s, which volumes: at the top does not; add it there", v.Source)
		return
	}
	m.Source, m.External = top.Name, bool(top.External)
	if top.Driver != "" && top.Driver != "local" {
		p := (&where{walker: c.where.walker, section: "volumes", service: v.Source}).at("driver")
		p.Why = fmt.Sprintf("must be local, got %q: %s", top.Driver, swarmVolume)
		c.found = append(c.found, p)
	}
}

// relative warns of a path that was relative in the file: the directory is that of
// this machine, and the replica may be on another.
func (c *converter) relative(i int, field, source string) {
	if c.where.bindIsAbsolute(i) {
		return
	}
	p := c.where.at(field)
	p.Why = fmt.Sprintf("means %s on whichever machine holds the replica; files are not copied there", filepath.ToSlash(source))
	c.warnings = append(c.warnings, p)
}

// tmpfs reads "PATH:size=64m,mode=1777".
func (c *converter) tmpfs(field, text string) {
	target, options, _ := strings.Cut(text, ":")
	m := shoal.Mount{Kind: shoal.MountTmpfs, Target: target}
	for o := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(o), "=")
		var err error
		switch key {
		case "", "rw", "noexec", "nosuid", "nodev": // as it is anyway
		case "ro":
			m.ReadOnly = true
		case "size":
			m.Bytes, err = units.RAMInBytes(value)
		case "mode":
			var mode uint64
			mode, err = strconv.ParseUint(value, 8, 32)
			m.Mode = uint32(mode) //nolint:gosec // ParseUint has 32 bits
		default:
			c.bad(field, "has the option %q; size, mode and ro are supported", o)
		}
		if err != nil {
			c.bad(field, "has %s, want a size like 64m or a mode like 1777", o)
		}
	}
	c.out.Setup.Mounts = append(c.out.Setup.Mounts, m)
}
