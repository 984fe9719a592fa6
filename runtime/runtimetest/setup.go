// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtimetest

import (
	"errors"
	"testing"

	"github.com/shoalnet/shoal"
)

// with is f.Steady with another setup.
func (f *Fixture) with(s shoal.Setup) *shoal.Spec {
	spec := f.Steady
	spec.Setup = s
	return &spec
}

// policy wants what the owner does not allow refused with the rule's name, and
// everything else created.
func policy(t *testing.T, f *Fixture) {
	harmless := shoal.Setup{
		User: "1000:1000", Hostname: "here", ReadOnly: true, CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges:true"},
		Mounts: []shoal.Mount{{Kind: shoal.MountTmpfs, Target: "/tmp", Bytes: 1 << 20}},
	}
	f.create(t, f.Container(f.with(harmless)))
	for _, tt := range []struct {
		of   shoal.Setup
		want string
	}{
		{shoal.Setup{Privileged: true}, "privileged"},
		{shoal.Setup{HostPID: true}, "host:pid"},
		{shoal.Setup{HostNetwork: true}, "host:network"},
		{shoal.Setup{CapAdd: []string{"cap_net_admin"}}, "cap:NET_ADMIN"},
		{shoal.Setup{Devices: []shoal.Device{{Host: "/dev/null"}}}, "device:/dev/null"},
		{shoal.Setup{GroupAdd: []string{"44"}}, "group:44"},
		{shoal.Setup{Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}}, "sysctl:net.ipv4.ip_unprivileged_port_start"},
		{shoal.Setup{SecurityOpt: []string{"seccomp:unconfined"}}, "security:seccomp=unconfined"},
		{shoal.Setup{Logging: &shoal.Logging{Driver: "syslog"}}, "logging:syslog"},
		{shoal.Setup{Mounts: []shoal.Mount{{Kind: shoal.MountBind, Source: "/", Target: "/host", ReadOnly: true}}}, "mount-ro:/"},
	} {
		f.SetRules()
		_, err := f.Engine.Create(t.Context(), f.Container(f.with(tt.of)))
		var forbidden *shoal.PolicyError
		if !errors.As(err, &forbidden) || forbidden.Demand != tt.want || !errors.Is(err, shoal.ErrRefused) {
			t.Errorf("Create = %v, want the policy's refusal of %s", err, tt.want)
		}
		if tt.of.Mounts != nil || tt.of.Logging != nil {
			continue // neither is for every engine to have
		}
		f.SetRules("volume:other", tt.want)
		f.create(t, f.Container(f.with(tt.of)))
	}
	f.SetRules("mount:/", "mount:/run/docker.sock", "volume:")
	for _, m := range []shoal.Mount{
		{Kind: "npipe", Source: "/x", Target: "/x"},
		{Kind: shoal.MountBind, Source: "srv", Target: "/x"},
		{Kind: shoal.MountBind, Source: "/srv", Target: "/x", Spread: "sideways"},
		{Kind: shoal.MountVolume, Source: "/etc", Target: "/x"},
		{Kind: shoal.MountVolume, Source: "a/../../etc", Target: "/x"},
		{Kind: shoal.MountVolume, External: true, Target: "/x"},
		{Kind: shoal.MountTmpfs, Source: "/etc", Target: "/x"},
		{Kind: shoal.MountTmpfs, Target: "x"},
	} {
		_, err := f.Engine.Create(t.Context(), f.Container(f.with(shoal.Setup{Mounts: []shoal.Mount{m}})))
		if _, ok := errors.AsType[*shoal.InvalidError](err); !ok {
			t.Errorf("Create with the mount %+v = %v, want an InvalidError", m, err)
		}
	}
}

// volumes wants foreign ones refused unless they are external and allowed, and ours
// made once for all.
func volumes(t *testing.T, f *Fixture) {
	mount := func(name string, external bool) shoal.ContainerSpec {
		return f.Container(f.with(shoal.Setup{Mounts: []shoal.Mount{{Kind: shoal.MountVolume, Source: name, Target: "/data", External: external}}}))
	}
	ours, theirs := f.Volume(t, true), f.Volume(t, false)
	f.create(t, mount(ours, false))
	f.create(t, mount(ours, false))
	if _, err := f.Engine.Create(t.Context(), mount(theirs, false)); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("Create with a volume that is not ours = %v, want ErrRefused", err)
	}
	if _, err := f.Engine.Create(t.Context(), mount(theirs, true)); err == nil || err.Error() != (&shoal.PolicyError{Demand: "volume:" + theirs}).Error() {
		t.Errorf("Create with an external volume that nobody allows = %v", err)
	}
	f.SetRules("volume:"+theirs, "volume:nobody-has-this")
	f.create(t, mount(theirs, true))
	if _, err := f.Engine.Create(t.Context(), mount("nobody-has-this", true)); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("Create with an external volume that is not there = %v, want ErrRefused", err)
	}
	if _, err := f.Engine.Create(t.Context(), mount(theirs, false)); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("Create with a foreign volume, allowed but not external = %v, want ErrRefused", err)
	}
	// Anonymous ones are everybody's.
	f.create(t, mount("", false))
}

// networks wants no address and no port where a container has no bridge.
func networks(t *testing.T, f *Fixture) {
	f.SetRules("host:network")
	for _, s := range []shoal.Setup{{NoNetwork: true}, {HostNetwork: true}} {
		spec := f.with(s)
		spec.Image, spec.Command, spec.Health = f.Chatty.Image, f.Chatty.Command, nil
		c := f.must(t, f.start(t, f.Container(spec)))
		if c.State != shoal.ContainerRunning || c.Addr != "" || len(c.Ports) != 0 {
			t.Errorf("container of %+v = %s, address %q, ports %v; want it running with neither", s, c.State, c.Addr, c.Ports)
		}
	}
}
