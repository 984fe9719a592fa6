// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/node/policy"
)

// everything has every key, and the rules that it means.
const everything = `# what this machine lets containers do
allow:
  privileged: true
  host: [network, pid, ipc, uts, user]
  capabilities: [NET_ADMIN, ALL]
  devices: [/dev/snd, /dev/serial/by-id/usb-1]
  mounts:
    - {path: /srv/media, read_only: true}
    - path: /srv/data
    - {path: /mnt/shared, shared: true}
    - {path: /var/run/docker.sock, read_only: false}
  sysctls: [net.core.somaxconn, "net.ipv4.*"]
  security: [seccomp=unconfined, "label=type:x"]
  logging: [syslog]
  volumes: [shared]
  groups: [video, 44]
`

var everyRule = []string{
	"privileged", "host:network", "host:pid", "host:ipc", "host:uts", "host:user", "cap:NET_ADMIN", "cap:ALL",
	"device:/dev/snd", "device:/dev/serial/by-id/usb-1", "mount-ro:/srv/media", "mount:/srv/data", "mount-shared:/mnt/shared",
	"mount:/run/docker.sock", "sysctl:net.core.somaxconn", "sysctl:net.ipv4.*", "security:seccomp=unconfined", "security:label=type:x",
	"logging:syslog", "volume:shared", "group:video", "group:44",
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"everything", everything, everyRule},
		{"nothing", "", nil},
		{"a comment", "# nothing yet\n", nil},
		{"null", "allow:\n", nil},
		{"empty", "allow: {}", nil},
		{"a key without a value", "allow:\n  mounts:\n  host: []\n  privileged: false\n", nil},
		{"a rule twice", "allow: {groups: [video, video]}", []string{"group:video"}},
		{"the order of the reference", "allow:\n  groups: [a]\n  host: [pid]\n", []string{"host:pid", "group:a"}},
		{"every directory", "allow: {mounts: [{path: /}]}", []string{"mount:/"}},
	} {
		if got, err := policy.Parse("policy.yaml", []byte(tt.text)); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: Parse = %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	many := "allow:\n  groups:\n"
	for i := range 65 {
		many += fmt.Sprintf("    - g%d\n", i)
	}
	for _, tt := range []struct{ text, want string }{
		{"allow: [", "f:1: is not YAML: did not find expected node content"},
		{"allow:\n\tx: 1", "f:2: is not YAML: found character that cannot start any token"},
		{"- a", "f:1: the file must be of the form KEY: VALUE, got a list"},
		{"allow: true", `f:1: allow must be of the form KEY: VALUE, got "true"`},
		{"deny: {}", `f:1: unknown key "deny"; a policy has only allow`},
		{"allow:\n  privileged: false\n  mount: []", `f:3: unknown key "mount"; allow has privileged, host, capabilities, devices, mounts, sysctls, security, logging, volumes, groups`},
		{"allow:\n  host: [pid]\n  host: [ipc]", `f:3: key "host" stands there twice`},
		{"allow: {}\n---\nallow: {privileged: true}", "f:2: begins a second document; one is all a policy has"},
		{"allow: &a {}", "f:1: anchors and aliases are not allowed in a policy"},
		{"allow: {host: &h [pid], groups: *h}", "f:1: anchors and aliases are not allowed in a policy"},
		{"allow: {privileged: 1}", `f:1: privileged: must be true or false, got "1"`},
		{"allow: {privileged: 'true'}", `f:1: privileged: must be true or false, got "true"`},
		{"allow:\n  privileged: [true]", "f:2: privileged: must be true or false, got a list"},
		{"allow: {host: network}", `f:1: host must be a list, got "network"`},
		{"allow: {host: [net]}", `f:1: host: must be network, pid, ipc, uts, user, got "net"`},
		{"allow: {host: [true]}", `f:1: host: must be text, got "true"`},
		{"allow: {capabilities: [CAP-X]}", `f:1: capabilities: must be a capability in capital letters, without CAP_, or ALL, got "CAP-X"`},
		{"allow: {devices: [snd]}", `f:1: devices: must be an absolute path without . and .. and without / at its end, got "snd"`},
		{"allow: {mounts: [/srv]}", `f:1: a mount must be of the form KEY: VALUE, got "/srv"`},
		{"allow:\n  mounts:\n  - path: /srv/../etc", `f:3: path: must be an absolute path without . and .. and without / at its end, got "/srv/../etc"`},
		{"allow: {mounts: [{path: /srv/}]}", `f:1: path: must be an absolute path without . and .. and without / at its end, got "/srv/"`},
		{"allow: {mounts: [{read_only: true}]}", "f:1: a mount must have a path"},
		{"allow: {mounts: [{path: /a, ro: true}]}", `f:1: unknown key "ro"; a mount has path, read_only, shared`},
		{"allow: {mounts: [{path: /a, read_only: true, shared: true}]}", "f:1: a mount is read_only or shared, not both"},
		{"allow: {sysctls: ['*']}", `f:1: sysctls: must be a name like net.core.somaxconn, or net.core.*, got "*"`},
		{"allow: {sysctls: [net.core*]}", `f:1: sysctls: must be a name like net.core.somaxconn, or net.core.*, got "net.core*"`},
		{"allow: {security: [unconfined]}", `f:1: security: must be an option like seccomp=unconfined, got "unconfined"`},
		{"allow: {volumes: [../a]}", `f:1: volumes: must be the name of a volume, got "../a"`},
		{"allow: {volumes: [{a: b}]}", "f:1: volumes: must be text, got keys and values"},
		{"allow: {groups: ['']}", `f:1: groups: must be a group's name or number, got ""`},
		{many, "f:67: is one rule too many: 64 are allowed; a rule for a directory allows what lies in it"},
		{"allow:\n  volumes: [" + strings.Repeat("a", 250) + "]", "f:2: is a rule of 257 bytes, at most 256 are allowed"},
		{strings.Repeat("#", policy.MaxBytes+1), "f:1: has 65537 bytes, at most 65536 are allowed"},
	} {
		rules, err := policy.Parse("f", []byte(tt.text))
		if _, ok := errors.AsType[*shoal.InvalidError](err); !ok || err.Error() != tt.want || rules != nil {
			t.Errorf("Parse(%.80q) = %q, %v; want %q", tt.text, rules, err, tt.want)
		}
	}
}

// FuzzParse: whatever stands in a file, Parse ends; what it takes is within the
// bounds of a peer's facts, and a rule allows what it says.
func FuzzParse(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte("allow: {mounts: [{path: /}]}"))
	f.Add([]byte("? &a\n: *a"))
	f.Add([]byte("--- \n...\n---"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		rules, err := policy.Parse("f", raw)
		if err != nil {
			if _, ok := errors.AsType[*shoal.InvalidError](err); !ok || !strings.HasPrefix(err.Error(), "f:") || rules != nil {
				t.Fatalf("Parse = %q, %v; want an InvalidError about a line, and no rules", rules, err)
			}
			return
		}
		if len(rules) > 64 {
			t.Fatalf("%d rules", len(rules))
		}
		for i, r := range rules {
			if len(r) > 256 || strings.ContainsAny(r, "\x00\n") || slices.Contains(rules[:i], r) {
				t.Fatalf("rule %q is too long, more than a line, or there twice", r)
			}
		}
		if d := shoal.Forbidden(rules, rules); d != "" {
			t.Fatalf("rule %q does not allow itself", d)
		}
	})
}
