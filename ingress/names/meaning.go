// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package names

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/shoalnet/shoal"
)

// meaning is what a name that is ours stands for. The zero value: it does not exist.
type meaning struct {
	exists bool
	apex   bool
	svc    *service
	of     part
	slot   slot         // for partSlot
	ports  []shoal.Port // for names that begin with a port; else nil
	ptr    string       // for a reverse name
}

// part is how much of a service a name means.
type part int

const (
	partWhole part = iota // the one address
	partReady             // every ready replica
	partSlot              // one slot
)

// mean returns what a name means, and whether it is ours.
func (z *Zone) mean(name string) (meaning, bool) {
	labels := dns.SplitDomainName(strings.ToLower(name))
	if len(labels) == 0 {
		return meaning{}, false
	}
	if addr, ok := reversed(labels); ok {
		full, exists := z.reverse[addr]
		return meaning{exists: exists, ptr: full}, z.ranges.Contains(addr)
	}
	rest, under := labels, labels[len(labels)-1]+"." == Suffix
	if under {
		rest = labels[:len(labels)-1]
	}
	if m, ok := z.meanService(rest); ok {
		return m, true
	}
	switch {
	case !under:
		return meaning{}, false
	case len(rest) == 0:
		return meaning{exists: true, apex: true}, true
	}
	// A name above one that exists must not be denied (RFC 8020).
	return meaning{exists: len(rest) == 1 && z.projects[rest[0]]}, true
}

// meanService looks for a known service in the labels before the suffix; false if there is
// none. What a known service does not have (a slot, a port) is ours and does not exist.
func (z *Zone) meanService(labels []string) (meaning, bool) {
	port, proto, labels := cutPort(labels)
	m := meaning{exists: true}
	if m.svc = z.find(labels); m.svc == nil {
		if len(labels) < 2 {
			return meaning{}, false
		}
		index, isSlot := slotLabel(labels[0])
		if labels[0] != "tasks" && !isSlot {
			return meaning{}, false
		}
		if m.svc = z.find(labels[1:]); m.svc == nil {
			return meaning{}, false
		}
		m.of = partReady
		if isSlot {
			m.of = partSlot
			i, found := slices.BinarySearchFunc(m.svc.slots, index, func(s slot, index int) int { return cmp.Compare(s.index, index) })
			if !found {
				return meaning{}, true
			}
			m.slot = m.svc.slots[i]
		}
	}
	if proto != "" {
		m.ports = slices.DeleteFunc(slices.Clone(m.svc.ports), func(p shoal.Port) bool {
			return p.Protocol != proto || port != 0 && p.Container != port
		})
		m.exists = len(m.ports) > 0
	}
	return m, true
}

func (z *Zone) find(labels []string) *service {
	if len(labels) == 0 || len(labels) > 2 {
		return nil
	}
	return z.known[strings.Join(labels, ".")]
}

// cutPort takes _80._tcp or _tcp off the front. proto is "" if there is neither, port is 0
// for all ports.
func cutPort(labels []string) (port uint16, proto string, rest []string) {
	if len(labels) < 2 || !strings.HasPrefix(labels[0], "_") {
		return 0, "", labels
	}
	if p, ok := protoLabel(labels[0]); ok {
		return 0, p, labels[1:]
	}
	p, ok := protoLabel(labels[1])
	n, err := strconv.ParseUint(labels[0][1:], 10, 16)
	if !ok || err != nil || n == 0 || labels[0][1] == '0' {
		return 0, "", labels
	}
	return uint16(n), p, labels[2:]
}

func protoLabel(label string) (string, bool) {
	return strings.TrimPrefix(label, "_"), label == "_tcp" || label == "_udp"
}

// slotLabel reads a slot as it is written: no sign, no leading zero.
func slotLabel(label string) (int, bool) {
	n, err := strconv.ParseUint(label, 10, 31)
	return int(n), err == nil && (label == "0" || label[0] != '0') && n < shoal.MaxReplicas
}

// reversed reads 4.3.2.1.in-addr.arpa.
func reversed(labels []string) (netip.Addr, bool) {
	if len(labels) != 6 || labels[4] != "in-addr" || labels[5] != "arpa" {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
	return a, err == nil && a.Is4()
}
