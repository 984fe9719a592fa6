// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// Bounds on what the machine's file may say.
const (
	maxResolvers = 8
	maxConf      = 64 << 10
)

// Upstream is one of the machine's resolvers.
type Upstream struct {
	Addr    netip.Addr
	LeftOut bool // it is an address of ours; asking it would be asking ourselves
	Shunned bool // it did not answer lately, and is asked after the others
	Asked   uint64
	Failed  uint64 // no answer, or one that says it cannot
}

// upstream is an Upstream in the making; the forwarder's mutex guards it.
type upstream struct {
	addr          netip.Addr
	until         time.Time // shunned until then
	silent        int       // questions in a row without an answer
	asked, failed uint64
}

// readResolvers returns the servers that a resolv.conf(5) names, in its order.
func readResolvers(path string) ([]netip.Addr, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read resolvers: %w", err)
	}
	defer func() { _ = file.Close() }()
	conf, err := dns.ClientConfigFromReader(io.LimitReader(file, maxConf))
	if err != nil {
		return nil, fmt.Errorf("read resolvers of %s: %w", path, err)
	}
	var out []netip.Addr
	for _, s := range conf.Servers {
		a, err := netip.ParseAddr(s)
		if err == nil && len(out) < maxResolvers && !slices.Contains(out, a.Unmap()) {
			out = append(out, a.Unmap())
		}
	}
	return out, nil
}

// take replaces the resolvers by those of addrs; what is known of one stays. mu is held.
func (f *Forwarder) take(addrs []netip.Addr) {
	next := make([]*upstream, len(addrs))
	for i, a := range addrs {
		next[i] = &upstream{addr: a}
		for _, u := range f.upstreams {
			if u.addr == a {
				next[i] = u
			}
		}
	}
	f.upstreams = next
}

// order returns the resolvers to ask, those that answered lately first.
func (f *Forwarder) order(now time.Time) []*upstream {
	f.mu.Lock()
	all := slices.Clone(f.upstreams)
	shunned := make(map[*upstream]int, len(all))
	for _, u := range all {
		if now.Before(u.until) {
			shunned[u] = 1
		}
	}
	f.mu.Unlock()
	all = slices.DeleteFunc(all, func(u *upstream) bool { return f.own(u.addr) })
	slices.SortStableFunc(all, func(a, b *upstream) int { return cmp.Compare(shunned[a], shunned[b]) })
	return all
}

// maxSilent is how often in a row a resolver may be silent before it is shunned. Fewer
// would make one lost datagram send everybody to the next resolver, which may know other
// names; one that answers SERVFAIL is alive and is never shunned.
const maxSilent = 3

// note counts what became of a question: whether an answer came, and whether it is of use.
func (f *Forwarder) note(u *upstream, came, useful bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u.asked++
	if !useful {
		u.failed++
	}
	if came {
		u.silent, u.until = 0, time.Time{}
		return
	}
	if u.silent++; u.silent >= maxSilent {
		u.until = time.Now().Add(f.cfg.Shun)
	}
}

// Upstreams returns the machine's resolvers in the order of its file.
func (f *Forwarder) Upstreams() []Upstream {
	f.mu.Lock()
	out := make([]Upstream, len(f.upstreams))
	for i, u := range f.upstreams {
		out[i] = Upstream{Addr: u.addr, Shunned: time.Now().Before(u.until), Asked: u.asked, Failed: u.failed}
	}
	f.mu.Unlock()
	for i := range out {
		out[i].LeftOut = f.own(out[i].Addr)
	}
	return out
}
