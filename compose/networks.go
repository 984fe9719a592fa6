// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/shoalnet/shoal"
)

// drivers are what networks may ask for: all of them are a bridge on each peer here.
var drivers = []string{"", "bridge", "overlay", "default"}

// networks reads which networks the service is on, the first first. A service that is
// only on the default network of its project, under no other name, is left without any,
// which means the same.
func (c *converter) networks() {
	if s := &c.out.Setup; len(c.service.Networks) > 0 && (s.HostNetwork || s.NoNetwork) {
		c.bad("networks", "cannot be joined with network_mode %s; remove one of the two", c.service.NetworkMode)
		return
	}
	usual := (&shoal.Spec{Project: c.out.Project}).Attachments()[0].Network
	for _, key := range c.service.NetworksByPriority() {
		top, ok := c.project.Networks[key]
		if key == "default" && !ok { // with network_mode: bridge the reader adds none
			top, ok = types.NetworkConfig{Name: usual}, true
		}
		if key == consts.Extensions {
			c.bad("networks", "names a network as x-..., which Compose takes for a note; call it otherwise there, and say name: x-... at the top")
			continue
		}
		if !ok {
			c.badNetwork(c.where.network(key), "names the network %s, which networks: at the top does not; add it there", key)
			continue
		}
		a, fits := c.attachment(key, top.Name)
		if !c.network(key, &top) || !fits {
			continue
		}
		c.keys = append(c.keys, key)
		c.out.Networks = append(c.out.Networks, a)
	}
	if is := c.out.Networks; len(is) == 1 && is[0].Network == usual && len(is[0].Aliases) == 0 {
		c.out.Networks = nil
	}
}

// attachment reads what the service says of one of its networks.
func (c *converter) attachment(key, name string) (a shoal.Attachment, fits bool) {
	a.Network = name
	in := c.service.Networks[key]
	if in == nil {
		return a, true
	}
	before := len(c.found)
	if len(in.Aliases) > 0 {
		a.Aliases = in.Aliases
	}
	if invalid, ok := errors.AsType[*shoal.InvalidError](shoal.CheckAliases("aliases", in.Aliases)); ok {
		c.badNetwork(c.where.network(key, invalid.Field), "%s", invalid.Why)
	}
	if !in.ServiceNameAliasEnabled() {
		c.badNetwork(c.where.network(key, "use_service_name_alias"), "must be true: a service has its own name in all its networks")
	}
	return a, len(c.found) == before
}

// networkKey is what a rendered file calls a network. Its default is that of services
// that name none; another one of that name, or one that Compose would take for a note,
// gets a key that no network has as its name.
func networkKey(project, name string) string {
	switch usual := (&shoal.Spec{Project: project}).Attachments()[0].Network; {
	case name == usual:
		return "default"
	case name == "default" || strings.HasPrefix(name, "x-"):
		return "_" + name
	}
	return name
}

// network judges a network of the file that the service is on.
func (c *converter) network(key string, top *types.NetworkConfig) bool {
	before := len(c.found)
	bad := func(field, format string, args ...any) {
		c.badNetwork((&where{walker: c.where.walker, section: "networks", service: key}).at(field), format, args...)
	}
	if invalid, ok := errors.AsType[*shoal.InvalidError](shoal.CheckNetworkName("name", top.Name)); ok {
		bad("name", "%s", invalid.Why)
	}
	if !slices.Contains(drivers, top.Driver) {
		bad("driver", "must be %s, got %q: each peer makes a bridge of its own", strings.Join(drivers[1:], " or "), top.Driver)
	}
	if top.Internal {
		bad("internal", "must be false: containers reach the outside in every network; for one that needs nobody say network_mode: none")
	}
	if v6 := top.EnableIPv6; v6 != nil && *v6 {
		bad("enable_ipv6", "must be false: addresses in networks are IPv4")
	}
	if v4 := top.EnableIPv4; v4 != nil && !*v4 {
		bad("enable_ipv4", "must be true: addresses in networks are IPv4")
	}
	return len(c.found) == before
}

func (c *converter) badNetwork(at Problem, format string, args ...any) {
	at.Why = fmt.Sprintf(format, args...)
	c.found = append(c.found, at)
}

// place finds what the spec calls a field. In its lists mounts are the volumes and then
// tmpfs, and networks are in the order that counts.
func (c *converter) place(field string) Problem {
	list, rest, _ := strings.Cut(field, "[")
	n, below, _ := strings.Cut(rest, "]")
	i, err := strconv.Atoi(n)
	switch {
	case err != nil:
	case list == "volumes" && i >= len(c.service.Volumes):
		return c.where.at(fmt.Sprintf("tmpfs[%d]%s", i-len(c.service.Volumes), below))
	case list == "networks" && i < len(c.keys):
		return c.where.network(c.keys[i], strings.TrimPrefix(below, "."))
	}
	return c.where.at(field)
}
