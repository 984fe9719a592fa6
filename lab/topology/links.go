// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalnet/shoal/lab/wire"
)

// Change is what a link becomes, as people write it. What is "" stays.
type Change struct {
	Delay  string // one way: "75ms"
	RTT    string // twice the delay; not with Delay
	Jitter string
	Loss   string // "2%" or "0.02"
	Rate   string // as tc(8) writes it: "20mbit"; "0": no bound
	Cut    *bool
}

// IsEmpty says that it changes nothing.
func (c Change) IsEmpty() bool { return c == Change{} }

// Apply returns a link that was changed. Jitter that was there and is more than a new
// delay becomes that delay.
func (c Change) Apply(l wire.Link) (wire.Link, error) {
	if c.Delay != "" && c.RTT != "" {
		return l, errors.New("delay and rtt are the same thing; name one")
	}
	for _, d := range []struct {
		name, text string
		to         *time.Duration
		part       time.Duration
	}{{"delay", c.Delay, &l.Delay, 1}, {"rtt", c.RTT, &l.Delay, 2}, {"jitter", c.Jitter, &l.Jitter, 1}} {
		if d.text == "" {
			continue
		}
		value, err := time.ParseDuration(d.text)
		if err != nil {
			return l, fmt.Errorf("%s must be a time like 75ms, got %q", d.name, d.text)
		}
		*d.to = value / d.part
	}
	if c.Jitter == "" {
		l.Jitter = min(l.Jitter, max(l.Delay, 0))
	}
	var err error
	if c.Loss != "" {
		if l.Loss, err = ParseLoss(c.Loss); err != nil {
			return l, err
		}
	}
	if c.Rate != "" {
		if l.Rate, err = ParseRate(c.Rate); err != nil {
			return l, err
		}
	}
	if c.Cut != nil {
		l.Cut = *c.Cut
	}
	return l, l.Validate()
}

// ParseLoss reads a share of packets: "2%" or "0.02".
func ParseLoss(s string) (float64, error) {
	number, isPercent := strings.CutSuffix(s, "%")
	loss, err := strconv.ParseFloat(number, 64)
	if isPercent {
		loss /= 100
	}
	switch {
	case err != nil || !(loss >= 0 && loss <= 1): // not a number is neither
		return 0, fmt.Errorf("loss must be a share like 2%% or 0.02, got %q", s)
	case loss == 1 && !isPercent:
		return 0, fmt.Errorf("loss %s could be 1%% or all; write 1%% or 100%%", s)
	}
	return loss, nil
}

// rates are tc's units, in bits a second.
var rates = []struct {
	unit string
	bits float64
}{{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}

// maxRate is more than any link this machine can make.
const maxRate = 1e12

// ParseRate reads bits a second: "20mbit". "0" is no bound.
func ParseRate(s string) (int64, error) {
	if s == "0" {
		return 0, nil
	}
	for _, r := range rates {
		number, ok := strings.CutSuffix(strings.ToLower(s), r.unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || !(n*r.bits >= wire.MinRate && n*r.bits <= maxRate) {
			break
		}
		return int64(n * r.bits), nil
	}
	return 0, fmt.Errorf("rate must be like 20mbit, from 8kbit to 1000gbit, or 0 for no bound, got %q", s)
}

// RateText is the inverse of [ParseRate].
func RateText(bits int64) string {
	for _, r := range rates {
		if unit := int64(r.bits); bits >= unit && bits%unit == 0 {
			return fmt.Sprintf("%d%s", bits/unit, r.unit)
		}
	}
	return "0"
}

// Links returns what is between every two cards of every segment, both ways.
func (t *Topology) Links() map[wire.Pair]wire.Link {
	out := map[wire.Pair]wire.Link{}
	for segment, on := range t.cards() {
		for _, from := range on {
			for _, to := range on {
				if from != to {
					out[wire.Pair{Segment: segment, From: from, To: to}] = t.link(from, to)
				}
			}
		}
	}
	return out
}

func (t *Topology) link(from, to string) wire.Link {
	l, _ := t.fold(from, to) // Validate has tried it
	return l
}

// fold applies all rules for a link.
func (t *Topology) fold(from, to string) (wire.Link, error) {
	l := t.Default
	for i := range t.Rules {
		r := &t.Rules[i]
		if t.selects(r.From, from) && t.selects(r.To, to) || !r.OneWay && t.selects(r.From, to) && t.selects(r.To, from) {
			next, err := r.Change.Apply(l)
			if err != nil {
				return l, &LineError{Line: r.Line, Err: fmt.Errorf("the link from %s to %s: %w", from, to, err)}
			}
			l = next
		}
	}
	return l, nil
}

// checkLinks tries every link.
func (t *Topology) checkLinks() error {
	for _, on := range t.cards() {
		for _, from := range on {
			for _, to := range on {
				if _, err := t.fold(from, to); from != to && err != nil {
					return err
				}
			}
		}
	}
	return nil
}

const zonePrefix = "zone:"

// selects says whether a rule's selector names a host or router.
func (t *Topology) selects(selector, name string) bool {
	zone, isZone := strings.CutPrefix(selector, zonePrefix)
	return selector == "*" || selector == name || isZone && t.zone(name) == zone
}

func (t *Topology) zone(name string) string {
	if h := t.host(name); h != nil {
		return h.Zone
	}
	if i := t.router(name); i >= 0 {
		return t.Routers[i].Zone
	}
	return ""
}

// checkRule says what is wrong with a rule: whom it names, what it says, and whether it
// says it of a link that an earlier one has named.
func (t *Topology) checkRule(r *Rule) error {
	fail := func(format string, args ...any) error {
		return &LineError{Line: r.Line, Err: fmt.Errorf(format, args...)}
	}
	for _, s := range []string{r.From, r.To} {
		zone, isZone := strings.CutPrefix(s, zonePrefix)
		isKnown := func(name string) bool { return t.zone(name) == zone }
		switch {
		case s == "*" || slices.Contains(t.names(), s):
		case isZone && zone != "" && slices.ContainsFunc(t.names(), isKnown):
		case isZone:
			return fail("nobody is in the zone %q", zone)
		default:
			return fail("%w, or zone:NAME, or *", t.unknown(s))
		}
	}
	if t.isOne(r.From) && t.isOne(r.To) {
		if _, err := t.Between(r.From, r.To); err != nil {
			return fail("%w", err)
		}
	}
	if r.Change.IsEmpty() {
		return fail("the link %s says nothing of what is between them", r.text())
	}
	// With room for every jitter, so that only what is wrong with the rule itself is.
	if _, err := r.Change.Apply(wire.Link{Delay: wire.MaxDelay}); err != nil {
		return fail("the link %s: %w", r.text(), err)
	}
	for i := range t.Rules {
		if other := &t.Rules[i]; other == r {
			break
		} else if r.overlaps(other) {
			return fail("the link %s is named twice; line %d has it already", r.text(), other.Line)
		}
	}
	return nil
}

// isOne says that a selector names a host or router.
func (t *Topology) isOne(selector string) bool { return slices.Contains(t.names(), selector) }

func (r *Rule) text() string {
	if r.OneWay {
		return "from " + r.From + " to " + r.To
	}
	return "between " + r.From + " and " + r.To
}

// overlaps says that both rules name the same link, in a direction that both have.
func (r *Rule) overlaps(o *Rule) bool {
	same := r.From == o.From && r.To == o.To
	turned := r.From == o.To && r.To == o.From
	return same || turned && (!r.OneWay || !o.OneWay)
}
