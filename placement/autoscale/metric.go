// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package autoscale

import (
	"fmt"
	"math"
	"strings"

	"github.com/shoalnet/shoal"
)

// Metric is one load of a service, as far as it is known.
type Metric struct {
	Name   string  // "cpu", "memory", "connections", "requests"
	Load   float64 // of all replicas that report, together
	Target float64 // what one replica should have of it; above 0
	Shown  float64 // Target as people read it: 60 of "60%"
	Unit   string  // of Shown: "%", "", "/s"

	// Used: it is what replicas use, each for itself. Missing are those of the wanted ones
	// of which nothing is known: they start, are not heard, or were not measured yet.
	Used    bool
	Missing int
	// Blind: nothing is known of it, or not enough to take anything away.
	Blind bool
}

// combine returns what the metric that calls for most calls for, its reading, and those of
// all. A metric of which nothing is known calls for no change, so that nothing is taken
// away, and does not keep the others from calling for more; silent is said of it.
func combine(metrics []Metric, current int, a *shoal.Autoscale, silent string) (n int, why, says string) {
	n = -1
	var all []string
	for i := range metrics {
		m := &metrics[i]
		called, reading := m.calls(current, a)
		if m.nobody(current) {
			reading += silent
		}
		all = append(all, reading)
		if called > n {
			n, why = called, reading
		}
	}
	return max(n, 0), why, strings.Join(all, ", ")
}

// calls returns how many replicas the metric calls for, and its reading.
//
// The rules are those of the HorizontalPodAutoscaler. The ratio of what the reporting
// replicas have to what they should have decides the direction; near 1 nothing changes.
// Then those of which nothing is known count against that direction: as unused where there
// are to be more, as used to their target where there are to be fewer. If that turns the
// direction, or comes near to 1, nothing changes.
func (m *Metric) calls(current int, a *shoal.Autoscale) (n int, reading string) {
	if m.Used && current == 0 {
		return 0, m.Name + " of nobody"
	}
	reporting := current - m.Missing
	if m.nobody(current) {
		return current, "nobody reports " + m.Name
	}
	if current == 0 {
		return above(m.Load / m.Target), fmt.Sprintf("%s %s%s in all", m.Name, number(m.Load/m.Target*m.Shown), m.Unit)
	}
	near := float64(a.Tolerance)/100 + 1e-9
	ratio := m.Load / m.Target / float64(reporting)
	reading = fmt.Sprintf("%s %s%s of %s%[3]s", m.Name, number(ratio*m.Shown), m.Unit, number(m.Shown))
	n = current
	switch {
	case ratio > 1+near && m.Load/m.Target > float64(current)*(1+near):
		n = max(current, above(m.Load/m.Target))
	case ratio < 1-near && !m.Blind:
		load := m.Load/m.Target + float64(m.Missing)
		if load < float64(current)*(1-near) {
			n = min(current, above(load))
		}
	}
	return n, reading
}

// nobody reports whether no wanted replica's holder says what that uses.
func (m *Metric) nobody(current int) bool { return m.Used && current > 0 && m.Missing >= current }

// measured is the metric as others may read it.
func (m *Metric) measured(current int) shoal.Measured {
	out := shoal.Measured{Metric: m.Name, Unit: m.Unit, Target: m.Shown, Missing: m.Missing}
	if out.Known = !m.Used || m.Missing < current; out.Known {
		out.Observed = m.Load / m.Target * m.Shown / float64(max(current-m.Missing, 1))
	}
	return out
}

// above returns the next whole number, but takes what is a rounding error above one for
// it. A load of nothing calls for none.
func above(x float64) int {
	return int(math.Ceil(min(x, shoal.MaxReplicas) - 1e-9))
}

// number writes a number as people would: with a decimal where it is small.
func number(x float64) string {
	if x < 10 && x != math.Trunc(x) {
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}
