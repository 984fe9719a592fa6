// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package names_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/names"
)

const quarantine = time.Minute

var upper = netip.MustParsePrefix("10.7.128.0/17")

func list(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("svc%d.shop.shoal.", i)
	}
	return out
}

func allocate(t testing.TB, in netip.Prefix, wanted []string, former names.Addresses, now time.Duration) names.Addresses {
	t.Helper()
	got, err := names.Allocate(in, wanted, former, now, quarantine)
	if err != nil {
		t.Fatalf("Allocate(%s, %d names) = %v, want no error", in, len(wanted), err)
	}
	return got
}

// TestAllocateDerives: where there is no collision the address follows from the name
// alone, so a daemon that lost its memory gives out the same ones.
func TestAllocateDerives(t *testing.T) {
	both := allocate(t, upper, []string{"web.shop.shoal.", "db.shop.shoal."}, nil, 0)
	other := allocate(t, upper, []string{"db.shop.shoal.", "api.shop.shoal."}, nil, time.Hour)
	if a, b := both.Of("db.shop.shoal."), other.Of("db.shop.shoal."); a != b || !upper.Contains(a) {
		t.Errorf("db has %s among some names and %s among others, want one in %s", a, b, upper)
	}
	if a := both.Of("nobody"); a.IsValid() {
		t.Errorf("Of(nobody) = %s, want none", a)
	}
}

func TestAllocateFull(t *testing.T) {
	small := netip.MustParsePrefix("10.7.0.4/30") // three addresses and the broadcast one
	wanted := list(5)
	got, err := names.Allocate(small, wanted, nil, 0, quarantine)
	var full *names.FullError
	if !errors.As(err, &full) || !slices.Equal(full.Without, wanted[3:]) || full.Waiting != 0 {
		t.Fatalf("error = %v, want a FullError without %v", err, wanted[3:])
	}
	if len(got) != 3 {
		t.Errorf("%d names have an address, want 3", len(got))
	}
	for name, l := range got {
		if l.Addr == netip.MustParseAddr("10.7.0.7") {
			t.Errorf("%s got the broadcast address", name)
		}
	}
	// A name that left makes room only after its quarantine.
	got, err = names.Allocate(small, wanted[1:4], got, time.Second, quarantine)
	if !errors.As(err, &full) || full.Waiting != 1 || !strings.Contains(err.Error(), "1 of them") {
		t.Fatalf("error = %v, want one address waiting", err)
	}
	got, err = names.Allocate(small, wanted[1:4], got, time.Second+quarantine, quarantine)
	if err != nil || !got.Of(wanted[3]).IsValid() {
		t.Errorf("after the quarantine: %v, address %s, want one and no error", err, got.Of(wanted[3]))
	}
}

func TestAllocateQuarantine(t *testing.T) {
	one := allocate(t, upper, []string{"a.", "b."}, nil, 0)
	gone := allocate(t, upper, []string{"b."}, one, 10*time.Second)
	if gone.Of("a.").IsValid() {
		t.Error("a name that is not wanted still has an address")
	}
	if l := gone["a."]; l.Addr != one.Of("a.") || !l.Gone || l.Since != 10*time.Second {
		t.Errorf("lease of the name that is gone = %+v, want its address held since 10s", l)
	}
	// Time in quarantine counts from the first absence, not from the last look.
	later := allocate(t, upper, []string{"b."}, gone, 10*time.Second+quarantine-1)
	if _, held := later["a."]; !held {
		t.Error("released before its quarantine ended")
	}
	if end := allocate(t, upper, []string{"b."}, later, 10*time.Second+quarantine); len(end) != 1 {
		t.Errorf("after the quarantine %d leases are left, want 1", len(end))
	}
	if back := allocate(t, upper, []string{"a.", "b."}, later, time.Hour); back.Of("a.") != one.Of("a.") {
		t.Errorf("a name that came back has %s, want its old %s", back.Of("a."), one.Of("a."))
	}
}

func TestAllocateRange(t *testing.T) {
	for _, bad := range []netip.Prefix{{}, netip.MustParsePrefix("fd00::/64"), netip.MustParsePrefix("10.0.0.1/32")} {
		var invalid *shoal.InvalidError
		if _, err := names.Allocate(bad, nil, nil, 0, 0); !errors.As(err, &invalid) || invalid.Field != "range" {
			t.Errorf("Allocate(%s) = %v, want an InvalidError about range", bad, err)
		}
	}
	// The range moved: nothing of the old one stays. One address said twice is one's.
	a := netip.MustParseAddr("10.9.0.1")
	former := names.Addresses{"x.": {Addr: a}, "y.": {Addr: a}, "z.": {Addr: netip.MustParseAddr("10.7.200.1")}}
	got := allocate(t, netip.MustParsePrefix("10.9.0.0/24"), []string{"x.", "y.", "z."}, former, 0)
	if got.Of("x.") != a || got.Of("y.") == a || got.Of("z.") == former.Of("z.") {
		t.Errorf("addresses = %v, want x to keep its own and the others new ones", got)
	}
}

// TestAllocateProperties walks through changing sets of names in a small range.
func TestAllocateProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(24, 31).Draw(t, "bits")
		in := netip.PrefixFrom(netip.MustParseAddr("10.7.128.0"), bits)
		size := 1<<(32-bits) - 1
		pool := list(size + 3)
		var held names.Addresses
		now := time.Duration(0)
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds")) * time.Second
			wanted := rapid.SliceOfNDistinct(rapid.SampledFrom(pool), 0, len(pool), rapid.ID).Draw(t, "wanted")
			next, err := names.Allocate(in, wanted, held, now, quarantine)
			checkStep(t, in, size, wanted, held, next, now, err)
			again, _ := names.Allocate(in, wanted, maps.Clone(held), now, quarantine)
			if !maps.Equal(next, again) {
				t.Fatalf("two runs on one input differ: %v and %v", next, again)
			}
			held = next
		}
	})
}

func checkStep(t *rapid.T, in netip.Prefix, size int, wanted []string, held, next names.Addresses, now time.Duration, err error) {
	owner := map[netip.Addr]string{}
	for name, l := range next {
		if o, twice := owner[l.Addr]; twice {
			t.Fatalf("%s and %s share %s", name, o, l.Addr)
		}
		owner[l.Addr] = name
		if !in.Contains(l.Addr) {
			t.Fatalf("%s has %s outside %s", name, l.Addr, in)
		}
		if l.Gone == slices.Contains(wanted, name) {
			t.Fatalf("%s is gone: %t, want the opposite", name, l.Gone)
		}
		if l.Gone && now-l.Since >= quarantine {
			t.Fatalf("%s is held beyond its quarantine", name)
		}
	}
	for name, l := range held {
		if !slices.Contains(wanted, name) {
			if _, kept := next[name]; !kept && (!l.Gone || now-l.Since < quarantine) {
				t.Fatalf("%s was released too early", name)
			}
			continue
		}
		if next.Of(name) != l.Addr {
			t.Fatalf("%s had %s and has %s", name, l.Addr, next.Of(name))
		}
	}
	without := 0
	for _, name := range wanted {
		if !next.Of(name).IsValid() {
			without++
		}
	}
	var full *names.FullError
	if got := errors.As(err, &full); got != (without > 0) || got && len(full.Without) != without {
		t.Fatalf("%d names without an address, error %v", without, err)
	}
	if without > 0 && len(next) != size {
		t.Fatalf("%d names without an address while %d of %d are in use", without, len(next), size)
	}
}
