// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"cmp"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/go-connections/nat"

	"github.com/shoalnet/shoal"
)

// networkOf returns which network a container gets. Only on a bridge are there ports
// to publish.
func networkOf(s *shoal.Setup) container.NetworkMode {
	switch {
	case s.HostNetwork:
		return "host"
	case s.NoNetwork:
		return "none"
	}
	return "bridge"
}

// setUp puts a setup into what the engine is told. Mounts and devices are those that
// the gate let through; api is the engine's version.
func setUp(s *shoal.Setup, cluster shoal.PeerID, api string, cfg *container.Config, host *container.HostConfig) {
	cfg.User, cfg.WorkingDir, cfg.Hostname = s.User, s.WorkDir, s.Hostname
	cfg.Tty, cfg.OpenStdin = s.TTY, s.Stdin

	host.NetworkMode = networkOf(s)
	if !host.NetworkMode.IsBridge() {
		cfg.ExposedPorts, host.PortBindings = nil, nat.PortMap{}
	}
	if s.Init { // else as the engine is configured
		host.Init = &s.Init
	}
	host.ReadonlyRootfs, host.Privileged = s.ReadOnly, s.Privileged
	host.ShmSize = s.ShmBytes
	host.ExtraHosts = s.ExtraHosts
	host.Sysctls = s.Sysctls
	host.CapAdd, host.CapDrop, host.GroupAdd = s.CapAdd, s.CapDrop, s.GroupAdd
	host.SecurityOpt = securityOf(s.SecurityOpt)
	host.LogConfig = loggingOf(s.Logging)
	for _, ns := range []struct {
		on  bool
		set func()
	}{
		{s.HostPID, func() { host.PidMode = "host" }},
		{s.HostIPC, func() { host.IpcMode = container.IPCModeHost }},
		{s.HostUTS, func() { host.UTSMode = "host" }},
		{s.HostUser, func() { host.UsernsMode = "host" }},
	} {
		if ns.on {
			ns.set()
		}
	}
	for _, u := range s.Ulimits {
		host.Ulimits = append(host.Ulimits, &container.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, dev := range s.Devices {
		host.Devices = append(host.Devices, container.DeviceMapping{
			PathOnHost: dev.Host, PathInContainer: cmp.Or(dev.Container, dev.Host), CgroupPermissions: cmp.Or(dev.Permissions, "rwm"),
		})
	}
	for i := range s.Mounts {
		host.Mounts = append(host.Mounts, mountOf(&s.Mounts[i], cluster, api))
	}
}

// attach puts the first network and the resolver in, after setUp.
func attach(spec *shoal.ContainerSpec, host *container.HostConfig) {
	if len(spec.Networks) == 0 {
		return
	}
	host.NetworkMode = container.NetworkMode(spec.Networks[0].ID)
	if spec.DNS.IsValid() {
		host.DNS = []string{spec.DNS.String()}
	}
}

// securityOf adds what every container gets unless its spec says otherwise, which
// takes the owner's permission.
func securityOf(opts []string) []string {
	own := func(o string) bool { return strings.HasPrefix(o, "no-new-privileges") }
	if slices.ContainsFunc(opts, own) {
		return opts
	}
	return append([]string{"no-new-privileges"}, opts...)
}

// loggingOf bounds what a container may write where the engine would not.
func loggingOf(l *shoal.Logging) container.LogConfig {
	out := container.LogConfig{Type: "json-file", Config: map[string]string{}}
	if l != nil {
		out.Type = cmp.Or(l.Driver, out.Type)
		maps.Copy(out.Config, l.Options)
	}
	if _, bounded := out.Config["max-size"]; out.Type == "json-file" && !bounded {
		out.Config["max-size"] = logMaxSize
		out.Config["max-file"] = cmp.Or(out.Config["max-file"], logMaxFiles)
	}
	return out
}

// mountOf translates one mount.
func mountOf(m *shoal.Mount, cluster shoal.PeerID, api string) mount.Mount {
	out := mount.Mount{Type: mount.Type(m.Kind), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
	switch m.Kind {
	case shoal.MountVolume:
		// An anonymous one is made with the container, and goes with it.
		out.VolumeOptions = &mount.VolumeOptions{NoCopy: m.NoCopy, Labels: map[string]string{LabelCluster: string(cluster)}}
	case shoal.MountBind:
		out.BindOptions = &mount.BindOptions{
			Propagation: mount.Propagation(m.Spread),
			// An old engine would leave file systems below a read-only one writable.
			NonRecursive: m.ReadOnly && versions.LessThan(api, "1.44"),
		}
	case shoal.MountTmpfs:
		out.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: m.Bytes, Mode: fs.FileMode(m.Mode)}
	}
	return out
}
