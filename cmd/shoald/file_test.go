// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shoalnet/shoal/node"
)

func TestParseFile(t *testing.T) {
	t.Parallel()
	const whole = `# everything
data: /srv/shoal
socket: /run/other.sock
listen: [192.0.2.1, "192.0.2.2:4711"]
advertise: 203.0.113.7
publish: 192.0.2.1
name: osaka
labels:
  zone: eu
  rack: 12
reserve:
  cpu: 0.5
  memory: 1.5 GiB
profile: wan
docker: unix:///run/docker.sock
policy: /srv/policy.yaml
images:
  registry: 127.0.0.1:5000
  open: true
  limit: 50GiB
  share: 0.2
  upstream: [ghcr.io, "10.0.0.7:5000"]
  insecure: "10.0.0.7:5000"
  up: 10MiB
  down: 50MiB
metrics: {listen: "127.0.0.1:4711"}
mdns: true
network:
  upnp: false
  relay: "on"
  names: off
  pool: 172.30.0.0/16
back-by: 1m30s
log-level: debug
`
	got := defaults()
	if err := parseFile([]byte(whole), &got); err != nil {
		t.Fatal(err)
	}
	want := config{level: -4, Config: node.Config{
		Dir: "/srv/shoal", Socket: "/run/other.sock", Listen: []string{"192.0.2.1", "192.0.2.2:4711"},
		Advertise: []string{"203.0.113.7"}, Publish: "192.0.2.1", Name: "osaka",
		Labels: map[string]string{"zone": "eu", "rack": "12"}, Profile: "wan",
		Docker: "unix:///run/docker.sock", Policy: "/srv/policy.yaml", MDNS: true, NoUPnP: true, Relay: "on", Names: "off", Pool: netip.MustParsePrefix("172.30.0.0/16"), BackBy: 90 * time.Second, Version: version,
		Metrics: "127.0.0.1:4711",
	}}
	want.Reserved.CPUMilli, want.Reserved.MemBytes = 500, 3<<29
	want.Images = node.DefaultImages()
	want.Images.Registry, want.Images.AnyPort, want.Images.Open = "127.0.0.1:5000", false, true
	want.Images.Blobs.Limit, want.Images.Blobs.Share = 50<<30, 0.2
	want.Images.Upstream.Registries, want.Images.Upstream.Insecure = []string{"ghcr.io", "10.0.0.7:5000"}, []string{"10.0.0.7:5000"}
	want.Images.Exchange.UpRate, want.Images.Exchange.DownRate = 10<<20, 50<<20
	if diff := cmp.Diff(want.Config, got.Config, cmpopts.EquateComparable(netip.Prefix{})); diff != "" || got.level != want.level {
		t.Errorf("level %v, config (-want +got):\n%s", got.level, diff)
	}
	for _, none := range []string{"", "# nothing\n", "---\n", "null\n", "{}\n", "listen: []\nlabels: {}\n"} {
		got := defaults()
		if err := parseFile([]byte(none), &got); err != nil || got.Name != "" || len(got.Listen) != 0 {
			t.Errorf("parse %q = %v, %+v, want the defaults", none, err, got)
		}
	}
}

func TestParseFileRefuses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"\n\nlisen: 127.0.0.1\n":              `line 3: unknown key "lisen"; did you mean "listen"?`,
		"label: {a: b}":                       `line 1: unknown key "label"; did you mean "labels"?`,
		"reserve-cpu: 1":                      `line 1: unknown key "reserve-cpu"; did you mean "reserve.cpu"?`,
		"reserve: {cpus: 1}":                  `line 1: unknown key "reserve.cpus"; did you mean "reserve.cpu"?`,
		"nonsense: 1":                         `line 1: unknown key "nonsense"; see shoald --help`,
		"name: a\ndata: /x\nname: b":          "line 3: name: is there twice, first in line 1",
		"labels:\n  a: x\n  a: y":             "line 3: labels.a: is there twice, first in line 2",
		"back-by: 5":                          `line 1: back-by: missing unit (try "5s")`,
		"back-by: '5'":                        `line 1: back-by: missing unit (try "5s")`,
		"back-by: 5 minutes":                  `line 1: back-by: must be a duration like 30s or 1m30s, got "5 minutes"`,
		"back-by: 1h":                         "line 1: back-by: must be 0s-2m, got 1h",
		"back-by: -1s":                        "line 1: back-by: must be 0s-2m, got -1s",
		"reserve:\n  memory: 512":             `line 2: reserve.memory: missing unit (try "512MiB")`,
		"reserve: {memory: 1ZB}":              `line 1: reserve.memory: must be a size like 512MiB, got "1ZB"`,
		"reserve: {memory: -1GiB}":            `line 1: reserve.memory: must be a size like 512MiB, got "-1GiB"`,
		"reserve: {memory: 9999999t}":         `line 1: reserve.memory: "9999999t" is more than any machine has`,
		"reserve: {cpu: half}":                `line 1: reserve.cpu: must be a number of cores like 0.5, 0-4096, got "half"`,
		"reserve: {cpu: .nan}":                `line 1: reserve.cpu: must be a number of cores like 0.5, 0-4096, got ".nan"`,
		"reserve: {cpu: -1}":                  `line 1: reserve.cpu: must be a number of cores like 0.5, 0-4096, got "-1"`,
		"reserve: {cpu: 1e309}":               `line 1: reserve.cpu: must be a number of cores like 0.5, 0-4096, got "1e309"`,
		"reserve: 512MiB":                     `line 1: reserve: must be keys and values, got "512MiB"`,
		"images: {registry: '0.0.0.0:5050'}":  `line 1: images.registry: must be a loopback address and port like 127.0.0.1:5050, or off, got "0.0.0.0:5050"`,
		"images: {registry: localhost}":       `line 1: images.registry: must be a loopback address and port like 127.0.0.1:5050, or off, got "localhost"`,
		"images: {share: 20}":                 `line 1: images.share: must be a number 0-1, got "20"`,
		"images: {limit: 50}":                 `line 1: images.limit: missing unit (try "50MiB")`,
		"images: {upstream: [ghcr.io, none]}": `line 1: images.upstream: none stands alone`,
		"metrics: {listen: localhost}":        `line 1: metrics.listen: must be an IP and a port like 127.0.0.1:4711, or off, got "localhost"`,
		"mdns: yes":                           `line 1: mdns: must be true or false, got "yes"`,
		"mdns: 1":                             `line 1: mdns: must be true or false, got the number "1" (text goes in quotes)`,
		"network: {names: on}":                `line 1: network.names: must be auto or off, got "on"`,
		"network: {pool: 10.0.0.1}":           `line 1: network.pool: must be a range like 10.213.0.0/16, got "10.0.0.1"`,
		"network: {pool: 10.0.0.0/24}":        `line 1: network.pool: must be an IPv4 range of 8 to 22 bits like 10.213.0.0/16, got 10.0.0.0/24`,
		"network: {pool: 'fd00::/16'}":        `line 1: network.pool: must be an IPv4 range of 8 to 22 bits like 10.213.0.0/16, got fd00::/16`,
		"name: 12":                            `line 1: name: must be text, got the number "12" (text goes in quotes)`,
		"name: true":                          `line 1: name: must be text, got "true"`,
		"name:\ndata: /x":                     "line 1: name: must be text, got nothing",
		"name: [a]":                           "line 1: name: must be text, got a list",
		"name: To/kyo":                        `line 1: name: must match [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?, got "To/kyo"`,
		"listen: {a: b}":                      "line 1: listen: must be text or a list of texts, got keys and values",
		"listen:\n- 127.0.0.1\n- [x]":         "line 3: listen: must be text or a list of texts, got a list",
		"listen:\n- 127.0.0.1\n- localhost":   `line 3: listen: must be IP or IP:PORT, got "localhost"`,
		"listen: 127.0.0.1:0":                 `line 1: listen: port must be 1-65535, got "0"`,
		"labels: zone=eu":                     `line 1: labels: must be keys and values, like {zone: eu, disk: ssd}, got "zone=eu"`,
		"labels:\n  zone: [a]":                "line 2: labels.zone: must be text, got a list",
		"labels:\n  zone:":                    "line 2: labels.zone: must be text, got nothing",
		"labels: {\"a b\": c}":                `line 1: labels.a b: "a b=c" is not KEY=VALUE of letters, digits and . _ : / -`,
		"profile: man":                        `line 1: profile: must be lan or wan, got "man"`,
		"publish: eth0":                       `line 1: publish: must be an IP address, got "eth0"`,
		"docker: here":                        `line 1: docker: must be an engine's address like unix:///var/run/docker.sock, got "here"`,
		"socket: s.sock":                      `line 1: socket: must be an absolute path, got "s.sock"`,
		"data: ''":                            "line 1: data: must name a directory",
		"log-level: loud":                     `line 1: log-level: must be debug, info, warn or error, got "loud"`,
		"- name":                              `line 1: must be keys and values, like "name: osaka", got a list`,
		"just text":                           `line 1: must be keys and values, like "name: osaka", got "just text"`,
		"name: &a x\ndata: *a":                "line 1: name: must be text, got an anchor or alias",
		"name: !!binary YQ==":                 `line 1: name: must be text, got a value of type "!!binary"`,
		"<<: {name: a}":                       `line 1: a key must be plain text, got a value of type "!!merge"`,
		"1: a":                                `line 1: a key must be plain text, got the number "1" (text goes in quotes)`,
		"name: a\n---\nname: b":               "line 2: a second document; the file holds one",
		"name: a\n\tdata: b":                  "line 2: not YAML: found a tab character that violates indentation",
		"a: [":                                "line 1: not YAML: did not find expected node content",
	} {
		c := defaults()
		err := parseFile([]byte(in), &c)
		if err == nil || err.Error() != want {
			t.Errorf("parse %q:\n got %v\nwant %s", in, err, want)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	var all bytes.Buffer
	if err := sample(&all); err != nil {
		f.Fatal(err)
	}
	f.Add(all.String())
	f.Add(strings.ReplaceAll(all.String(), "\n#", "\n"))
	f.Add("a: &a [*a]\n? {x: y}\n: z\n")
	f.Add("labels: {\"\\u202e\": \"\\0\"}\nreserve: {memory: 1e300g, cpu: 0x1p-2}")
	f.Fuzz(func(t *testing.T, in string) {
		c := defaults()
		if err := parseFile([]byte(in), &c); err != nil {
			if strings.ContainsAny(err.Error(), "\x00\x1b") {
				t.Errorf("parse %q = %q, which a terminal would obey", in, err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("parse %q is accepted, but %v", in, err)
		}
	})
}

// TestSample holds that the printed file says nothing as it is, and is right with all
// its examples in force.
func TestSample(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := sample(&b); err != nil {
		t.Fatal(err)
	}
	c := defaults()
	if err := parseFile(b.Bytes(), &c); err != nil || c.Name != "" {
		t.Errorf("parse the sample = %v, %+v, want the defaults", err, c)
	}
	var live []string
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, "# ") || strings.HasPrefix(line, "#  ") {
			live = append(live, strings.TrimPrefix(line, "#"))
		}
	}
	if err := parseFile([]byte(strings.Join(live, "")), &c); err != nil {
		t.Errorf("parse its examples: %v", err)
	}
	for i := range settings {
		if s := &settings[i]; s.usage == "" || s.example == "" || s.set == nil || (s.clear != nil) != (s.form == list || s.form == pairs) {
			t.Errorf("the row of %q is not whole", s.key)
		}
	}
	compareFile(t, "../../packaging/shoald.yaml", b.String())
}

func TestReferenceIsFresh(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := reference(&b); err != nil {
		t.Fatal(err)
	}
	compareFile(t, "../../docs/configuration.md", b.String())
}

// compareFile wants a generated file to begin with what the tables say.
func compareFile(t *testing.T, name, want string) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(got), want) {
		t.Errorf("%s is stale; run \"make docs\"", name)
	}
}
