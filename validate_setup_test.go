// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

func validSpec() shoal.Spec {
	return shoal.Spec{
		Name: "web", Image: "hello:1", Mode: shoal.ModeReplicated, Replicas: 1, Strategy: shoal.StrategySpread,
		OnPartition: shoal.PartitionAvailable, Restart: shoal.Restart{Condition: shoal.RestartAny},
	}
}

func TestValidateTakesAFullSetup(t *testing.T) {
	s := validSpec()
	s.SpreadBy, s.Restarts = "rack", 3
	s.Setup = shoal.Setup{
		User: "1000:www-data", WorkDir: "/srv", Hostname: "web-1.example", Init: true, ShmBytes: 64 << 20,
		ExtraHosts: []string{"db:10.0.0.1", "v6:::1", "host:host-gateway"},
		Mounts: []shoal.Mount{
			{Kind: shoal.MountVolume, Source: "shop_data", Target: "/data", NoCopy: true},
			{Kind: shoal.MountVolume, Target: "/anonymous"},
			{Kind: shoal.MountBind, Source: "/", Target: "/host", ReadOnly: true, Spread: "rslave"},
			{Kind: shoal.MountTmpfs, Target: "/tmp", Bytes: 1 << 20, Mode: 0o1777},
		},
		Ulimits: []shoal.Ulimit{{Name: "nofile", Soft: 1024, Hard: 4096}, {Name: "memlock", Soft: -1, Hard: -1}},
		Sysctls: map[string]string{"net.core.somaxconn": "1024", "kernel.sem": "250\t32000 100 128"},
		Logging: &shoal.Logging{Driver: "json-file", Options: map[string]string{"max-size": "10m"}},
		CapAdd:  []string{"NET_ADMIN"}, CapDrop: []string{"ALL"},
		Devices:     []shoal.Device{{Host: "/dev/ttyUSB0", Container: "/dev/tty0", Permissions: "rw"}},
		GroupAdd:    []string{"44", "video"},
		SecurityOpt: []string{"no-new-privileges:true", "seccomp=unconfined", "apparmor=docker-default"},
	}
	if err := s.Validate(); err != nil {
		t.Errorf("Validate: %v, want none", err)
	}
}

func mount(m shoal.Mount) func(*shoal.Spec) {
	return func(s *shoal.Spec) { s.Setup.Mounts = append(s.Setup.Mounts, m) }
}

func bind(source, target string) func(*shoal.Spec) {
	return mount(shoal.Mount{Kind: shoal.MountBind, Source: source, Target: target})
}

func setup(c shoal.Setup) func(*shoal.Spec) { return func(s *shoal.Spec) { s.Setup = c } }

func TestValidateRefusesSetups(t *testing.T) {
	for want, change := range map[string]func(*shoal.Spec){
		`volumes[0].target is /; a mount cannot take the place of the whole root`: bind("/srv", "/"),
		`volumes[0].target "data" is not absolute`:                                bind("/srv", "data"),
		`volumes[0].target "/a/../b" holds ".."`:                                  bind("/srv", "/a/../b"),
		`volumes[0].target "/a//b" should be written "/a/b"`:                      bind("/srv", "/a//b"),
		`volumes[0].target is empty`:                                              bind("/srv", ""),
		`volumes[0].source "./x" is not absolute`:                                 bind("./x", "/x"),
		`volumes[0].source "/srv/../etc" holds ".."`:                              bind("/srv/../etc", "/x"),
		`volumes[0].source "/a\x00" holds a control character`:                    bind("/a\x00", "/x"),
		`volumes[0].bind.propagation must be one of private, rprivate, shared, rshared, slave, rslave, got "odd"`: mount(
			shoal.Mount{Kind: shoal.MountBind, Source: "/a", Target: "/x", Spread: "odd"}),
		`volumes[1] mounts something on /x, and so does another`: func(s *shoal.Spec) { bind("/a", "/x")(s); bind("/b", "/x")(s) },
		`volumes[0].source must match [a-zA-Z0-9][a-zA-Z0-9_.-]*, got "a/b" (a path begins with / or ./)`: mount(
			shoal.Mount{Kind: shoal.MountVolume, Source: "a/b", Target: "/x"}),
		`volumes[0] is external and has no name`:                             mount(shoal.Mount{Kind: shoal.MountVolume, External: true, Target: "/x"}),
		`volumes[0].type must be volume, bind or tmpfs, got "npipe"`:         mount(shoal.Mount{Kind: "npipe", Target: "/x"}),
		`volumes[0].source must be empty for tmpfs, got "x"`:                 mount(shoal.Mount{Kind: shoal.MountTmpfs, Source: "x", Target: "/x"}),
		`volumes[0].tmpfs.size goes with type tmpfs, not bind`:               mount(shoal.Mount{Kind: shoal.MountBind, Source: "/a", Target: "/x", Bytes: 1}),
		`cap_add[0] "CAP_NET_ADMIN" is not a capability of Linux`:            setup(shoal.Setup{CapAdd: []string{"CAP_NET_ADMIN"}}),
		`cap_drop[0] "EVERYTHING" is not a capability`:                       setup(shoal.Setup{CapDrop: []string{"EVERYTHING"}}),
		`devices[0] "dev/snd" is not absolute`:                               setup(shoal.Setup{Devices: []shoal.Device{{Host: "dev/snd"}}}),
		`devices[0] inside the container: "snd" is not absolute`:             setup(shoal.Setup{Devices: []shoal.Device{{Host: "/dev/snd", Container: "snd"}}}),
		`devices[0] has the permissions "rx", want some of rwm`:              setup(shoal.Setup{Devices: []shoal.Device{{Host: "/dev/snd", Permissions: "rx"}}}),
		`ulimits has "files", want one of core, cpu`:                         setup(shoal.Setup{Ulimits: []shoal.Ulimit{{Name: "files"}}}),
		`ulimits.nofile has soft 10 above hard 5`:                            setup(shoal.Setup{Ulimits: []shoal.Ulimit{{Name: "nofile", Soft: 10, Hard: 5}}}),
		`ulimits.nofile has soft -1 above hard 5`:                            setup(shoal.Setup{Ulimits: []shoal.Ulimit{{Name: "nofile", Soft: -1, Hard: 5}}}),
		`ulimits.nofile must be -1 (no limit) or more, got soft -2, hard -1`: setup(shoal.Setup{Ulimits: []shoal.Ulimit{{Name: "nofile", Soft: -2, Hard: -1}}}),
		`shm_size must be at least 64 KiB, got 512 bytes (missing a unit?)`:  setup(shoal.Setup{ShmBytes: 512}),
		`sysctls has the name "somaxconn", want one like net.core.somaxconn`: setup(shoal.Setup{Sysctls: map[string]string{"somaxconn": "1"}}),
		`sysctls.vm.max_map_count is the whole machine's, not a container's`: setup(shoal.Setup{Sysctls: map[string]string{"vm.max_map_count": "1"}}),
		`sysctls.net.core.somaxconn has the value ""`:                        setup(shoal.Setup{Sysctls: map[string]string{"net.core.somaxconn": ""}}),
		`sysctls.net.core.somaxconn cannot be set with network_mode: host`: setup(
			shoal.Setup{HostNetwork: true, Sysctls: map[string]string{"net.core.somaxconn": "1"}}),
		`extra_hosts[0] has "10.0.0" for db, want an IP address or host-gateway`:  setup(shoal.Setup{ExtraHosts: []string{"db:10.0.0"}}),
		`extra_hosts[0] must be NAME:IP or NAME:host-gateway, got "a b:10.0.0.1"`: setup(shoal.Setup{ExtraHosts: []string{"a b:10.0.0.1"}}),
		`security_opt[0] "seccomp=p.json" names a profile of seccomp`:             setup(shoal.Setup{SecurityOpt: []string{"seccomp=p.json"}}),
		`security_opt[0] "magic" is not known`:                                    setup(shoal.Setup{SecurityOpt: []string{"magic"}}),
		`network_mode cannot be host and none`:                                    setup(shoal.Setup{HostNetwork: true, NoNetwork: true}),
		`hostname cannot be set with uts: host: it would rename the machine`:      setup(shoal.Setup{Hostname: "a", HostUTS: true}),
		`hostname must be at most 64 letters, digits, - and dots, got "-a"`:       setup(shoal.Setup{Hostname: "-a"}),
		`logging.driver must be a name like json-file, got "Json File"`:           setup(shoal.Setup{Logging: &shoal.Logging{Driver: "Json File"}}),
		`user must be USER or USER:GROUP, names or numbers, got "a:b:c"`:          setup(shoal.Setup{User: "a:b:c"}),
		`group_add[0] must be a name or a number, got ""`:                         setup(shoal.Setup{GroupAdd: []string{""}}),
		`working_dir "srv" is not absolute`:                                       setup(shoal.Setup{WorkDir: "srv"}),
		`ports cannot be published with network_mode: host: the container listens on the machine itself; remove one of the two`: func(s *shoal.Spec) {
			s.Setup.HostNetwork, s.Ports = true, []shoal.Port{{Container: 80, Published: 80, Protocol: "tcp"}}
		},
		`x-shoal.spread must be the key of a label, got "a b"`: func(s *shoal.Spec) { s.SpreadBy = "a b" },
		`restarts must not be negative, got -1`:                func(s *shoal.Spec) { s.Restarts = -1 },
		`healthcheck.timeout 40s is longer than the interval 30s; one check that hangs would hide the next`: func(s *shoal.Spec) {
			s.Health = &shoal.Health{Timeout: 40 * time.Second}
		},
		`healthcheck.test must be CMD or CMD-SHELL and a command`: func(s *shoal.Spec) { s.Health = &shoal.Health{Test: []string{"CMD-SHELL", " "}} },
	} {
		s := validSpec()
		change(&s)
		err := s.Validate()
		var bad *shoal.InvalidError
		if !errors.As(err, &bad) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Validate = %v, want %s", err, want)
		}
	}
}

func TestCheckAliases(t *testing.T) {
	if err := shoal.CheckAliases("networks.back.aliases", []string{"db", "db-1", "0"}); err != nil {
		t.Errorf("CheckAliases(labels) = %v, want nil", err)
	}
	long := make([]string, 33)
	for i := range long {
		long[i] = "a" + strings.Repeat("b", i)
	}
	for want, aliases := range map[string][]string{
		"networks.back.aliases[1] must match":        {"db", "d_b"},
		"networks.back.aliases[0] must match":        {"db.shop"},
		"networks.back.aliases[2] is \"db\" for the": {"db", "x", "db"},
		"networks.back.aliases has 33 entries":       long,
	} {
		err := shoal.CheckAliases("networks.back.aliases", aliases)
		var invalid *shoal.InvalidError
		if !errors.As(err, &invalid) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("CheckAliases(%q) = %v, want %s...", aliases, err, want)
		}
	}
}
