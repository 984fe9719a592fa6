// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"errors"
	"path"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestDemands(t *testing.T) {
	bind := func(source string, readOnly bool, spread string) Setup {
		return Setup{Mounts: []Mount{{Kind: MountBind, Source: source, Target: "/x", ReadOnly: readOnly, Spread: spread}}}
	}
	for _, tt := range []struct {
		name string
		of   Setup
		want []string
	}{
		{"nothing", Setup{}, nil},
		{"what stays inside", Setup{
			User: "0", Init: true, TTY: true, ReadOnly: true, ShmBytes: 1, NoNetwork: true, ExtraHosts: []string{"a:1.2.3.4"},
			CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"},
			Ulimits: []Ulimit{{Name: "nofile", Soft: 1, Hard: 1}}, Logging: &Logging{Driver: "local"},
			Mounts: []Mount{{Kind: MountTmpfs, Target: "/tmp"}, {Kind: MountVolume, Target: "/a"}, {Kind: MountVolume, Source: "data", Target: "/b"}},
		}, nil},
		{"privileged", Setup{Privileged: true}, []string{"privileged"}},
		{"namespaces", Setup{HostNetwork: true, HostPID: true, HostIPC: true, HostUTS: true, HostUser: true}, []string{"host:ipc", "host:network", "host:pid", "host:user", "host:uts"}},
		{"capabilities are one by any name", Setup{CapAdd: []string{"NET_ADMIN", "CAP_NET_ADMIN", "cap_net_admin", "all"}}, []string{"cap:ALL", "cap:NET_ADMIN"}},
		{"devices", Setup{Devices: []Device{{Host: "/dev//snd/../snd/"}}}, []string{"device:/dev/snd"}},
		{"groups", Setup{GroupAdd: []string{"video", "44"}}, []string{"group:44", "group:video"}},
		{"bind", bind("/srv/../etc/", false, ""), []string{"mount:/etc"}},
		{"the engine's socket by both names", bind("/var/run/docker.sock", false, ""), []string{"mount:/run/docker.sock"}},
		{"what only looks like it", bind("/var/runner", false, ""), []string{"mount:/var/runner"}},
		{"bind, read-only", bind("/srv", true, "rslave"), []string{"mount-ro:/srv"}},
		{"bind, shared", bind("/srv", true, "rshared"), []string{"mount-shared:/srv"}},
		{"bind, relative", bind("../etc", false, "rprivate"), []string{"mount:../etc"}},
		{"external volume", Setup{Mounts: []Mount{{Kind: MountVolume, Source: "theirs", External: true}}}, []string{"volume:theirs"}},
		{"sysctls", Setup{Sysctls: map[string]string{"net.core.somaxconn": "1", "kernel.shmmax": "2"}}, []string{"sysctl:kernel.shmmax", "sysctl:net.core.somaxconn"}},
		{"security options", Setup{SecurityOpt: []string{"seccomp:unconfined", "seccomp=unconfined", "no-new-privileges:false", "label:type:x"}}, []string{"security:label=type:x", "security:no-new-privileges=false", "security:seccomp=unconfined"}},
		{"logging that leaves the engine", Setup{Logging: &Logging{Driver: "syslog", Options: map[string]string{"syslog-address": "unix:///run/docker.sock"}}}, []string{"logging:syslog"}},
	} {
		if got := (&Spec{Setup: tt.of}).Demands(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: Demands() = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestForbidden(t *testing.T) {
	for _, tt := range []struct {
		rule, demand string
		allowed      bool
	}{
		{"privileged", "privileged", true},
		{"privileged", "cap:SYS_ADMIN", true},
		{"privileged", "device:/dev/sda", true},
		{"privileged", "security:seccomp=unconfined", true},
		{"privileged", "mount:/etc", false},
		{"privileged", "host:network", false},
		{"cap:ALL", "privileged", false},
		{"host:network", "host:pid", false},
		{"cap:ALL", "cap:NET_ADMIN", true},
		{"cap:NET_ADMIN", "cap:ALL", false},
		{"cap:NET_ADMIN", "cap:NET_RAW", false},
		{"device:/dev/snd", "device:/dev/snd/pcm", true},
		{"device:/dev/snd", "device:/dev/sndx", false},
		{"device:/dev/snd", "device:/dev", false},
		{"mount:/srv", "mount:/srv", true},
		{"mount:/srv", "mount:/srv/a/b", true},
		{"mount:/srv", "mount-ro:/srv/a", true},
		{"mount:/srv", "mount-shared:/srv", false},
		{"mount-ro:/srv", "mount:/srv", false},
		{"mount-shared:/srv", "mount:/srv/a", true},
		{"mount-shared:/srv", "mount-ro:/srv/a", true},
		{"mount:/srv", "mount:/srv2", false},
		{"mount:/srv", "mount:/", false},
		{"mount:/", "mount:/etc", true},
		{"mount:/", "mount:../etc", false},
		{"mount:/", "device:/dev/sda", false},
		{"mount:", "mount:/etc", false},
		{"sysctl:net.*", "sysctl:net.core.somaxconn", true},
		{"sysctl:net.*", "sysctl:netx", false},
		{"sysctl:net.core", "sysctl:net.core.somaxconn", false},
		{"sysctl:net.core.somaxconn", "sysctl:net.*", false},
		{"security:seccomp=unconfined", "security:apparmor=unconfined", false},
		{"volume:*", "volume:a", false},
		{"group:video", "group:video", true},
		{"logging:syslog", "logging:gelf", false},
		{"", "", true},
		{"", "privileged", false},
	} {
		if got := Forbidden([]string{tt.rule}, []string{tt.demand}) == ""; got != tt.allowed {
			t.Errorf("rule %q allows %q: %t, want %t", tt.rule, tt.demand, got, tt.allowed)
		}
	}
	if got := Forbidden(nil, []string{"cap:A", "cap:B"}); got != "cap:A" {
		t.Errorf("Forbidden(nil) = %q, want the first demand", got)
	}
}

// TestPathRules: a rule for a directory allows exactly what lies in it, however the
// spec writes the path.
func TestPathRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.SampledFrom([]string{"a", "b", "ab", "..", ".", ""})
		draw := func(name string) string {
			return "/" + strings.Join(rapid.SliceOfN(part, 0, 5).Draw(t, name), "/")
		}
		dir, source := path.Clean(draw("rule")), draw("source")
		s := &Spec{Setup: Setup{Mounts: []Mount{{Kind: MountBind, Source: source, Target: "/x"}}}}
		got := Forbidden([]string{"mount:" + dir}, s.Demands()) == ""
		want := false
		for p := path.Clean(source); ; p = path.Dir(p) {
			if want = want || p == dir; p == "/" {
				break
			}
		}
		if got != want {
			t.Fatalf("rule mount:%s allows %s: %t, want %t", dir, source, got, want)
		}
	})
}

// TestRulesOnlyAdd: more rules never forbid what fewer allowed, and the rules that are
// the demands themselves allow them.
func TestRulesOnlyAdd(t *testing.T) {
	word := rapid.SampledFrom([]string{
		"privileged", "host:pid", "cap:ALL", "cap:NET_ADMIN", "device:/dev", "device:/dev/snd", "mount:/", "mount-ro:/srv",
		"mount:/srv", "mount-shared:/srv", "sysctl:*", "sysctl:net.*", "sysctl:net.core.somaxconn", "security:a=b", "volume:v", "group:g",
	})
	rapid.Check(t, func(t *rapid.T) {
		demands, rules := rapid.SliceOf(word).Draw(t, "demands"), rapid.SliceOf(word).Draw(t, "rules")
		if d := Forbidden(demands, demands); d != "" {
			t.Fatalf("%q is not allowed by itself", d)
		}
		few, more := Forbidden(rules, demands), Forbidden(append(rules, word.Draw(t, "one more")), demands)
		if few == "" && more != "" {
			t.Fatalf("one more rule forbids %q", more)
		}
		if few != "" && slices.Contains(rules, few) {
			t.Fatalf("%q is forbidden although a rule names it", few)
		}
	})
}

func TestPolicyError(t *testing.T) {
	for demand, key := range map[string]string{
		"privileged": "privileged", "host:pid": "host", "cap:NET_ADMIN": "capabilities", "device:/dev/snd": "devices",
		"mount:/etc": "mounts", "mount-ro:/etc": "mounts", "mount-shared:/etc": "mounts", "sysctl:a.b": "sysctls",
		"security:a=b": "security", "volume:v": "volumes", "group:g": "groups", "logging:syslog": "logging",
	} {
		err := error(&PolicyError{Demand: demand})
		want := "its owner's policy does not allow " + demand + " (policy.yaml: allow." + key + ")"
		if err.Error() != want || !errors.Is(err, ErrRefused) {
			t.Errorf("error = %q, want %q and ErrRefused", err, want)
		}
	}
}
