// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package names

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// Lease is the virtual address of one name.
type Lease struct {
	Addr netip.Addr
	// Gone: the name is not wanted any more. The address waits until nobody can have a
	// cached answer that still says it, then it is free.
	Gone  bool
	Since time.Duration // the caller's clock, when it was first not wanted; 0 if not Gone
}

// Addresses are the virtual addresses that one network of this peer has given out, by
// name. It is a value: nobody writes to it after [Allocate] has returned it.
type Addresses map[string]Lease

// Of returns the address of a name that is wanted; the zero Addr if it has none.
func (a Addresses) Of(name string) netip.Addr {
	if l := a[name]; !l.Gone {
		return l.Addr
	}
	return netip.Addr{}
}

// FullError says which names got no address. Those that did are in the Addresses beside it.
type FullError struct {
	Range   netip.Prefix
	Without []string // in the order asked for
	Waiting int      // addresses that are in quarantine and will be free after it
}

// Error names the first of those without, and says whether waiting helps.
func (e *FullError) Error() string {
	more := ""
	if n := len(e.Without) - 1; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("addresses %s are all in use, %d of them until their names are forgotten: none for %s%s", e.Range, e.Waiting, e.Without[0], more)
}

// Allocate gives each name an address of the range in, which is the upper half of a
// subnet; its last address is the subnet's broadcast address and is never given out.
//
// A name that has an address in former keeps it, also if it was gone in between. A new
// name gets the address that its hash says, or the next free one above, round the range.
// A name of former that is not wanted holds its address for quarantine, which must be
// more than [ServiceTTL], from the first now at which it was missing; now is monotonic.
// Names that come earlier get an address first when there is not one for all: the error
// is then a *[FullError], and the Addresses hold all others. A range that is not IPv4 or
// has no room for one address is a *shoal.InvalidError.
func Allocate(in netip.Prefix, names []string, former Addresses, now, quarantine time.Duration) (Addresses, error) {
	if !in.IsValid() || !in.Addr().Is4() || in.Bits() > 31 {
		return nil, &shoal.InvalidError{Field: "range", Why: fmt.Sprintf("must be an IPv4 prefix of at most 31 bits, got %s", in)}
	}
	p := &pool{in: in.Masked(), taken: make(map[netip.Addr]bool, len(names)), held: make(Addresses, len(names))}
	p.carry(names, former, now, quarantine)
	var without []string
	for _, name := range names {
		if _, has := p.held[name]; has {
			continue
		}
		addr, ok := p.free(name)
		if !ok {
			without = append(without, name)
			continue
		}
		p.give(name, Lease{Addr: addr})
	}
	if len(without) > 0 {
		return p.held, &FullError{Range: p.in, Without: without, Waiting: p.waiting}
	}
	return p.held, nil
}

// pool is an allocation in the making.
type pool struct {
	in      netip.Prefix
	held    Addresses
	taken   map[netip.Addr]bool
	waiting int
}

// carry takes over what stays of the former allocation. Names go in sorted order, so that
// a former one that says one address twice still gives the same result everywhere.
func (p *pool) carry(names []string, former Addresses, now, quarantine time.Duration) {
	wanted := make(map[string]bool, len(names))
	for _, n := range names {
		wanted[n] = true
	}
	// Those wanted first: an address is theirs rather than that of a name that is gone.
	for _, stays := range []bool{true, false} {
		for _, name := range slices.Sorted(maps.Keys(former)) {
			l := former[name]
			if wanted[name] != stays || !p.usable(l.Addr) {
				continue
			}
			switch {
			case stays:
				l = Lease{Addr: l.Addr}
			case !l.Gone:
				l = Lease{Addr: l.Addr, Gone: true, Since: now}
			}
			if l.Gone && now-l.Since >= quarantine {
				continue
			}
			p.give(name, l)
		}
	}
}

func (p *pool) give(name string, l Lease) {
	p.held[name], p.taken[l.Addr] = l, true
	if l.Gone {
		p.waiting++
	}
}

// size is how many addresses may be given out.
func (p *pool) size() uint32 { return uint32(1)<<(32-p.in.Bits()) - 1 }

// usable reports whether a former address still lies in the range and is free.
func (p *pool) usable(a netip.Addr) bool {
	return p.in.Contains(a) && !p.taken[a] && a != p.at(p.size())
}

func (p *pool) at(offset uint32) netip.Addr {
	base := p.in.Addr().As4()
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(base[:])+offset)
	return netip.AddrFrom4(b)
}

// free returns the first free address at or above the one that the name's hash says.
func (p *pool) free(name string) (netip.Addr, bool) {
	size := p.size()
	if len(p.taken) >= int(size) {
		return netip.Addr{}, false
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	start := uint32(h.Sum64() % uint64(size))
	for i := range size {
		if a := p.at((start + i) % size); !p.taken[a] {
			return a, true
		}
	}
	return netip.Addr{}, false
}
