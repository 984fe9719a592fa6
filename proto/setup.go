// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"math"
	"reflect"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// setupMessage returns nil for a setup that says nothing.
func setupMessage(s *shoal.Setup) *shoalv1.Setup {
	if reflect.ValueOf(*s).IsZero() {
		return nil
	}
	m := &shoalv1.Setup{
		User: s.User, WorkDir: s.WorkDir, Hostname: s.Hostname, Init: s.Init, Tty: s.TTY, Stdin: s.Stdin,
		ReadOnly: s.ReadOnly, ShmBytes: s.ShmBytes, ExtraHosts: s.ExtraHosts, Sysctls: s.Sysctls,
		Privileged: s.Privileged, CapAdd: s.CapAdd, CapDrop: s.CapDrop, GroupAdd: s.GroupAdd, SecurityOpt: s.SecurityOpt,
		HostNetwork: s.HostNetwork, NoNetwork: s.NoNetwork, HostPid: s.HostPID, HostIpc: s.HostIPC,
		HostUts: s.HostUTS, HostUser: s.HostUser,
	}
	for _, x := range s.Mounts {
		m.Mounts = append(m.Mounts, &shoalv1.Mount{
			Kind: string(x.Kind), Source: x.Source, Target: x.Target, ReadOnly: x.ReadOnly, External: x.External,
			NoCopy: x.NoCopy, Create: x.Create, Spread: x.Spread, Bytes: x.Bytes, Mode: x.Mode,
		})
	}
	for _, u := range s.Ulimits {
		m.Ulimits = append(m.Ulimits, &shoalv1.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, d := range s.Devices {
		m.Devices = append(m.Devices, &shoalv1.Device{Host: d.Host, Container: d.Container, Permissions: d.Permissions})
	}
	if l := s.Logging; l != nil {
		m.Logging = &shoalv1.Logging{Driver: l.Driver, Options: l.Options}
	}
	return m
}

func setupOf(m *shoalv1.Setup) shoal.Setup {
	if m == nil {
		return shoal.Setup{}
	}
	s := shoal.Setup{
		User: m.GetUser(), WorkDir: m.GetWorkDir(), Hostname: m.GetHostname(), Init: m.GetInit(), TTY: m.GetTty(), Stdin: m.GetStdin(),
		ReadOnly: m.GetReadOnly(), ShmBytes: m.GetShmBytes(), ExtraHosts: m.GetExtraHosts(), Sysctls: m.GetSysctls(),
		Privileged: m.GetPrivileged(), CapAdd: m.GetCapAdd(), CapDrop: m.GetCapDrop(), GroupAdd: m.GetGroupAdd(), SecurityOpt: m.GetSecurityOpt(),
		HostNetwork: m.GetHostNetwork(), NoNetwork: m.GetNoNetwork(), HostPID: m.GetHostPid(), HostIPC: m.GetHostIpc(),
		HostUTS: m.GetHostUts(), HostUser: m.GetHostUser(),
	}
	for _, x := range m.GetMounts() {
		s.Mounts = append(s.Mounts, shoal.Mount{
			Kind: shoal.MountKind(x.GetKind()), Source: x.GetSource(), Target: x.GetTarget(), ReadOnly: x.GetReadOnly(), External: x.GetExternal(),
			NoCopy: x.GetNoCopy(), Create: x.GetCreate(), Spread: x.GetSpread(), Bytes: x.GetBytes(), Mode: x.GetMode(),
		})
	}
	for _, u := range m.GetUlimits() {
		s.Ulimits = append(s.Ulimits, shoal.Ulimit{Name: u.GetName(), Soft: u.GetSoft(), Hard: u.GetHard()})
	}
	for _, d := range m.GetDevices() {
		s.Devices = append(s.Devices, shoal.Device{Host: d.GetHost(), Container: d.GetContainer(), Permissions: d.GetPermissions()})
	}
	if l := m.GetLogging(); l != nil {
		s.Logging = &shoal.Logging{Driver: l.GetDriver(), Options: l.GetOptions()}
	}
	return s
}

// setup checks the bounds of a setup.
func (c *checker) setup(s *shoal.Setup) {
	c.words("setup", maxText, s.User, s.WorkDir, s.Hostname)
	c.between("shm_size", s.ShmBytes, 0, math.MaxInt64>>8)
	c.list("extra_hosts", s.ExtraHosts, maxMounts, maxText)
	c.list("cap_add", s.CapAdd, maxMounts, maxWord)
	c.list("cap_drop", s.CapDrop, maxMounts, maxWord)
	c.list("group_add", s.GroupAdd, maxMounts, maxWord)
	c.list("security_opt", s.SecurityOpt, maxMounts, maxText)
	c.pairs("sysctls", s.Sysctls)
	c.count("volumes", len(s.Mounts), maxMounts)
	for _, m := range s.Mounts {
		c.words("volumes", maxText, string(m.Kind), m.Source, m.Target, m.Spread)
		c.between("volumes", m.Bytes, 0, math.MaxInt64>>8)
	}
	c.count("ulimits", len(s.Ulimits), maxMounts)
	for _, u := range s.Ulimits {
		c.text("ulimits", u.Name, maxWord)
	}
	c.count("devices", len(s.Devices), maxMounts)
	for _, d := range s.Devices {
		c.words("devices", maxText, d.Host, d.Container, d.Permissions)
	}
	if s.Logging != nil {
		c.text("logging", s.Logging.Driver, maxWord)
		c.pairs("logging", s.Logging.Options)
	}
}
