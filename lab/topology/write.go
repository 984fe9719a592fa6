// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal/lab/wire"
)

// YAML returns the file that Parse reads as this topology.
func (t *Topology) YAML() []byte {
	disk := object(text("state"), text(fmt.Sprint(t.Disk.State)), text("engine"), text(fmt.Sprint(t.Disk.Engine)))
	root := object(text("network"), text(t.Network.String()), text("disk"), disk, text("default"), linkNode(t.Default))
	routers, hosts := object(), object()
	for _, r := range t.Routers {
		body := object()
		set(body, "zone", r.Zone)
		routers.Content = append(routers.Content, text(r.Name), body)
	}
	for i := range t.Hosts {
		h, body := &t.Hosts[i], object()
		set(body, "zone", h.Zone)
		set(body, "behind", h.Behind)
		if len(h.Labels) > 0 {
			labels := object()
			for _, k := range slices.Sorted(maps.Keys(h.Labels)) {
				labels.Content = append(labels.Content, text(k), text(h.Labels[k]))
			}
			body.Content = append(body.Content, text("labels"), labels)
		}
		hosts.Content = append(hosts.Content, text(h.Name), body)
	}
	links := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range t.Rules {
		links.Content = append(links.Content, t.Rules[i].node())
	}
	root.Content = append(root.Content, text("routers"), routers, text("hosts"), hosts, text("links"), links)
	raw, err := yaml.Marshal(root)
	if err != nil { // it is made of strings
		panic(err)
	}
	return raw
}

func linkNode(l wire.Link) *yaml.Node {
	return object(
		text("delay"), text(l.Delay.String()), text("jitter"), text(l.Jitter.String()),
		text("loss"), text(lossText(l.Loss)), text("rate"), text(RateText(l.Rate)), text("cut"), truth(l.Cut),
	)
}

// lossText is the inverse of ParseLoss.
func lossText(loss float64) string {
	if loss == 1 {
		return "100%"
	}
	return strconv.FormatFloat(loss, 'g', -1, 64)
}

func (r *Rule) node() *yaml.Node {
	n := object()
	if r.OneWay {
		set(n, "from", r.From)
		set(n, "to", r.To)
	} else {
		ends := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle, Content: []*yaml.Node{text(r.From), text(r.To)}}
		n.Content = append(n.Content, text("between"), ends)
	}
	for _, p := range [][2]string{{"delay", r.Change.Delay}, {"rtt", r.Change.RTT}, {"jitter", r.Change.Jitter}, {"loss", r.Change.Loss}, {"rate", r.Change.Rate}} {
		set(n, p[0], p[1])
	}
	if r.Change.Cut != nil {
		n.Content = append(n.Content, text("cut"), truth(*r.Change.Cut))
	}
	return n
}

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

func truth(b bool) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(b)}
}

func object(pairs ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Content: pairs}
}

// set adds a key whose value is not empty.
func set(to *yaml.Node, key, value string) {
	if value != "" {
		to.Content = append(to.Content, text(key), text(value))
	}
}
