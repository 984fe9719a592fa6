// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/bridge"
	"github.com/shoalnet/shoal/ingress/names/resolver"
)

// NameChecks says whether the names of services work in this peer's containers, by
// network: what is in the way, and what was turned away since the daemon started.
func (r *Room) NameChecks(ctx context.Context) []shoal.Check {
	if r.networks == nil {
		return nil
	}
	all := shoal.Check{Area: "names", Name: "containers", State: shoal.CheckOK}
	lanes := r.networks.all()
	if err := r.networks.able(ctx); err != nil {
		all.State, all.Detail, all.Remedy = shoal.CheckWarn, "do not work: "+plainly(err), remedyFor(err)
		if errors.Is(err, errNamesOff) {
			all.State, all.Remedy = shoal.CheckSkip, ""
		}
		return []shoal.Check{all}
	}
	var out []shoal.Check
	up := 0
	for _, l := range lanes {
		st := l.state()
		if st.isUp {
			up++
		}
		out = append(out, l.check(&st))
		if st.full != nil {
			out = append(out, shoal.Check{
				Area: "names", Name: l.network.Name + " has room", State: shoal.CheckFail, Detail: oneLine(st.full),
				Remedy: "put fewer services or slots on this network, or wait where names are being forgotten",
			})
		}
		for _, c := range l.zone.Load().Clashes() {
			out = append(out, shoal.Check{
				Area: "names", Name: c.Name + " on " + l.network.Name, State: shoal.CheckWarn,
				Detail: "is wanted by several: " + c.Holder + " has it, not " + strings.Join(c.Others, ", "), Remedy: "use full names, or another alias",
			})
		}
	}
	all.Detail = fmt.Sprintf("%d of %d networks answer", up, len(lanes))
	return append([]shoal.Check{all}, out...)
}

// check says how one network is.
func (l *lane) check(st *laneState) shoal.Check {
	c := shoal.Check{Area: "names", Name: l.network.Name, State: shoal.CheckOK}
	if !st.isUp || st.server == nil {
		c.State, c.Detail = shoal.CheckWarn, "begins to answer"
		if st.trouble != nil {
			c.State, c.Detail, c.Remedy = shoal.CheckFail, plainly(st.trouble), remedyFor(st.trouble)
		}
		return c
	}
	asked, carried := st.server.Stats(), st.span.Stats()
	parts := []string{
		fmt.Sprintf("%d services by %s", st.services, l.network.Gateway),
		fmt.Sprintf("%d questions, %d of them for others", asked.Asked, asked.Forwarded),
		fmt.Sprintf("%d connections", carried.Streams),
	}
	for reason := resolver.Stranger; reason <= resolver.Slow; reason++ {
		parts = count(parts, asked.Refused[reason], "questions: "+reason.String())
	}
	for reason := bridge.Stranger; reason <= bridge.Busy; reason++ {
		parts = count(parts, carried.Refused[reason], "connections: "+reason.String())
	}
	parts = count(parts, carried.TurnedAway, "packets of other networks turned away")
	parts = count(parts, l.nobody.Load(), "connections to addresses of nobody")
	switch {
	case asked.Refused[resolver.Loop] > 0:
		c.State, c.Remedy = shoal.CheckWarn, "a resolver of this machine ("+l.networks.room.cfg.Resolvers+") asks us what we ask it; name another"
	case len(carried.Failed) > 0:
		c.State, c.Remedy = shoal.CheckWarn, "free the port on this machine (ss -lnp), or declare another"
		parts = append(parts, "closed: "+failures(carried.Failed))
	case !carried.Redirects:
		parts = append(parts, "only declared ports answer")
	}
	c.Detail = strings.Join(parts, "; ")
	return c
}

func count(parts []string, n uint64, what string) []string {
	if n == 0 {
		return parts
	}
	return append(parts, fmt.Sprintf("%d %s", n, what))
}

// failures names the first endpoints that are not open.
func failures(failed map[bridge.Endpoint]error) string {
	const most = 3
	var out []string
	for e, err := range failed {
		out = append(out, e.String()+": "+oneLine(err))
	}
	slices.Sort(out)
	if more := len(out) - most; more > 0 {
		out = append(out[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, "; ")
}

// plainly is an error without its advice, which is the remedy.
func plainly(err error) string {
	text := oneLine(err)
	if advice, ok := errors.AsType[*shoal.AdviceError](err); ok {
		text = strings.TrimSuffix(text, "; "+advice.Advice)
	}
	return text
}

// remedyFor says what to do about what keeps names from working.
func remedyFor(err error) string {
	advice, ok := errors.AsType[*shoal.AdviceError](err)
	switch {
	case ok:
		return advice.Advice
	case errors.Is(err, errApart):
		return "run the engine as root on this machine, or reach services by published ports"
	case errors.Is(err, shoal.ErrConflict):
		return "let what has it (ss -lnp 'sport = :53') listen on the addresses that it needs, and not on every one; shoald tries again by itself"
	case errors.Is(err, shoal.ErrNotFound):
		return "run shoald on the machine of its engine; it tries again by itself"
	}
	return "see the log of shoald; it tries again by itself"
}
