// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

func TestLoadNetworks(t *testing.T) {
	on := func(network string, aliases ...string) shoal.Attachment {
		return shoal.Attachment{Network: network, Aliases: aliases}
	}
	for name, c := range map[string]struct {
		service, top string
		want         []shoal.Attachment
	}{
		"nothing said":           {"", "", nil},
		"the default by name":    {"networks: [default]", "", nil},
		"none of a list":         {"networks: []", "", nil},
		"the default, other one": {"", "default: {name: x}", []shoal.Attachment{on("x")}},
		"an external default":    {"", "default: {external: true, name: x}", []shoal.Attachment{on("x")}},
		"an alias there":         {"networks: {default: {aliases: [www]}}", "", []shoal.Attachment{on("shop_default", "www")}},
		"a list goes by name":    {"networks: [b, a]", "{a: , b: }", []shoal.Attachment{on("shop_a"), on("shop_b")}},
		"priority counts more":   {"networks: {a: , b: {priority: 1}, c: {priority: 1}}", "{a: , b: , c: }", []shoal.Attachment{on("shop_b"), on("shop_c"), on("shop_a")}},
		"external":               {"networks: [proxy]", "proxy: {external: true}", []shoal.Attachment{on("proxy")}},
		"no aliases":             {"networks: {a: {aliases: []}}", "a: ", []shoal.Attachment{on("shop_a")}},
		"dots and hyphens":       {"networks: {a.b-c: }", "a.b-c: {driver: overlay}", []shoal.Attachment{on("shop_a.b-c")}},
		"a driver by default":    {"networks: [a]", "a: {driver: default, ipam: {}, driver_opts: {}, internal: false, enable_ipv6: false, enable_ipv4: true}", []shoal.Attachment{on("shop_a")}},
		"by its own name, too":   {"networks: {a: {use_service_name_alias: true}}", "a: ", []shoal.Attachment{on("shop_a")}},
		"the engine's bridge":    {"network_mode: bridge", "", nil},
		"bridge and default":     {"network_mode: bridge\n    networks: [default]", "", nil},
		"that of another":        {"networks: [a]", "a: {name: shop_default}", nil},
	} {
		text := networksFile(c.service, c.top)
		p, err := fromText(t, text, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c.want, p.Specs[0].Networks); diff != "" {
			t.Errorf("%s: want (-), got (+):\n%s", name, diff)
		}
	}
}

func TestLoadRefusesNetworks(t *testing.T) {
	for name, c := range map[string]struct{ service, top, want string }{
		"unknown":           {"networks: [back]", "front: ", "stdin:4: services.web.networks[0]: names the network back, which networks: at the top does not; add it there"},
		"unknown in a map":  {"networks:\n      back:", "front: ", "stdin:5: services.web.networks.back: names the network back"},
		"no label":          {"networks:\n      back:\n        aliases:\n          - db\n          - my_db", "back: ", "stdin:8: services.web.networks.back.aliases[1]: must match"},
		"a dotted alias":    {"networks: {back: {aliases: [db.local]}}", "back: ", "stdin:4: services.web.networks.back.aliases[0]: must match"},
		"one name, two":     {"networks: [a, b]", "{a: {name: x}, b: {name: x}}", "stdin:4: services.web.networks[1]: is \"x\" for the second time"},
		"an address":        {"networks: {a: {ipv4_address: 10.0.0.7}}", "a: ", "stdin:4: services.web.networks.a.ipv4_address: is not supported: " + ownAddress},
		"a MAC address":     {"networks: {a: {mac_address: '02:42:ac:11:00:02'}}", "a: ", "services.web.networks.a.mac_address: is not supported"},
		"unknown key":       {"networks: {a: {alias: b}}", "a: ", "services.web.networks.a.alias: is no key that Shoal knows"},
		"not by its name":   {"networks: {a: {use_service_name_alias: false}}", "a: ", "services.web.networks.a.use_service_name_alias: must be true"},
		"driver":            {"networks: [a]", "a:\n    driver: macvlan", "stdin:7: networks.a.driver: must be bridge or overlay or default, got \"macvlan\""},
		"driver by default": {"", "default: {driver: host}", "stdin:6: networks.default.driver: must be"},
		"internal":          {"networks: [a]", "a: {internal: true}", "stdin:6: networks.a.internal: must be false"},
		"IPv6":              {"networks: [a]", "a: {enable_ipv6: true}", "networks.a.enable_ipv6: must be false"},
		"no IPv4":           {"networks: [a]", "a: {enable_ipv4: false}", "networks.a.enable_ipv4: must be true"},
		"ipam":              {"networks: [a]", "a: {ipam: {config: [{subnet: 10.1.0.0/16}]}}", "stdin:6: networks.a.ipam: is not supported: " + ownAddress},
		"driver options":    {"networks: [a]", "a: {driver_opts: {mtu: 9000}}", "networks.a.driver_opts: is not supported"},
		"no name":           {"networks: [a]", "a: {name: 'x/y'}", "stdin:6: networks.a.name: must be up to 128 letters"},
		"a long name":       {"networks: [a]", "a: {name: " + strings.Repeat("x", 129) + "}", "networks.a.name: must be up to 128 letters"},
		"old external":      {"networks: [a]", "a: {external: {name: x}}", "networks.a.external.name: is not supported"},
		"the machine's":     {"network_mode: host\n    networks: [default]", "", "services.web.networks: cannot be joined with network_mode host"},
		"of a container":    {"network_mode: 'container:db'", "", "services.web.network_mode: must be host"},
		"too many":          {"networks: [" + manyNetworks(17, ", ") + "]", "{" + manyNetworks(17, ": , ") + ": }", "services.web.networks: has 17 entries"},
		"a note":            {"networks: [x-a]", "x-a: ", "stdin:4: services.web.networks: names a network as x-..., which"},
		"dnsrr":             {"deploy: {endpoint_mode: dnsrr}", "", "services.web.deploy.endpoint_mode: must be vip, got \"dnsrr\""},
		"dnsrr by variable": {"deploy: {endpoint_mode: '${NO:-dnsrr}'}", "", "services.web.deploy.endpoint_mode: must be vip, got \"dnsrr\""},
	} {
		text := networksFile(c.service, c.top)
		p, err := fromText(t, text, Options{})
		var all *Error
		if !errors.As(err, &all) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Load = %+v, %v, want %q", name, p, err, c.want)
		}
		if all != nil && len(all.Problems) != 1 {
			t.Errorf("%s: %d problems, want one: %v", name, len(all.Problems), err)
		}
	}
}

// networksFile is a file with one service, and with networks at the top if there are any.
func networksFile(service, top string) string {
	text := "services:\n  web:\n    image: hello\n    " + service + "\n"
	if top != "" {
		text += "networks:\n  " + top + "\n"
	}
	return text
}

func manyNetworks(n int, between string) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i)
	}
	return strings.Join(names, between)
}

// An override and what a service extends are found, too.
func TestLoadNetworksPlaces(t *testing.T) {
	_, err := fromText(t, `services:
  base:
    image: hello
    networks: [front]
  web:
    extends: base
    networks:
      front: {aliases: [www, W3]}
      back:
networks:
  front:
`, Options{})
	want := `stdin:8: services.web.networks.front.aliases[1]: must match [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?, got "W3"
stdin:9: services.web.networks.back: names the network back, which networks: at the top does not; add it there`
	if err == nil || err.Error() != want {
		t.Errorf("Load: %v\nwant %s", err, want)
	}
}

// TestRenderNetworks: what is rendered is read as the same networks, whatever they are called.
func TestRenderNetworks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SampledFrom([]string{"default", "shop_default", "shop_back", "back", "a.b", "x-y", "B"})
		labels := rapid.SampledFrom([]string{"web", "www", "db", "0"})
		specs := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) shoal.Spec {
			s := shoal.Spec{
				Name: labels.Draw(t, "name"), Project: "shop", Image: "hello", Mode: shoal.ModeReplicated,
				Strategy: shoal.StrategySpread, OnPartition: shoal.PartitionAvailable, Restart: shoal.Restart{Condition: shoal.RestartAny},
			}
			for _, name := range rapid.SliceOfNDistinct(names, 0, 5, rapid.ID).Draw(t, "networks") {
				a := shoal.Attachment{Network: name, Aliases: rapid.SliceOfNDistinct(labels, 0, 3, rapid.ID).Draw(t, "aliases")}
				if len(a.Aliases) == 0 {
					a.Aliases = nil
				}
				s.Networks = append(s.Networks, a)
			}
			return s
		}), 1, 3, func(s shoal.Spec) string { return s.Name }).Draw(t, "specs")
		var file bytes.Buffer
		if err := Render(&file, specs, false); err != nil {
			t.Fatal(err)
		}
		p, err := Load(t.Context(), Options{Files: []string{"-"}, Stdin: bytes.NewReader(file.Bytes()), Strict: true})
		if err != nil {
			t.Fatalf("Load of what was rendered: %v\n%s", err, file.Bytes())
		}
		got := map[string][]shoal.Attachment{}
		for i := range p.Specs {
			got[p.Specs[i].Name] = p.Specs[i].Attachments()
		}
		for i := range specs {
			if diff := cmp.Diff(specs[i].Attachments(), got[specs[i].Name]); diff != "" {
				t.Fatalf("%s: want (-), got (+):\n%s\n%s", specs[i].Name, diff, file.Bytes())
			}
		}
	})
}

// TestRenderNoProject: services that no file made stay on the network that they are on.
func TestRenderNoProject(t *testing.T) {
	s := shoal.Spec{
		Name: "web", Image: "hello", Mode: shoal.ModeReplicated, Replicas: 1,
		Strategy: shoal.StrategySpread, OnPartition: shoal.PartitionAvailable, Restart: shoal.Restart{Condition: shoal.RestartAny},
	}
	var file bytes.Buffer
	if err := Render(&file, []shoal.Spec{s}, false); err != nil {
		t.Fatal(err)
	}
	p, err := fromText(t, file.String(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.Attachments(), p.Specs[0].Networks); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}
