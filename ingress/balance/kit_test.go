// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// tb is what a test and a check of rapid share.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

var (
	policies = []shoal.LB{shoal.LBRoundRobin, shoal.LBWeighted, shoal.LBLeastConn, shoal.LBLeastTime, shoal.LBHash, shoal.LBRandom, shoal.LBP2C}
	prefers  = []shoal.Prefer{shoal.PreferLocal, shoal.PreferZone, shoal.PreferAny}
)

// replica returns the ID of the i-th replica.
func replica(i int) shoal.ReplicaID {
	var id shoal.ReplicaID
	binary.BigEndian.PutUint64(id[:8], mix(uint64(i)+1000))
	binary.BigEndian.PutUint64(id[8:], uint64(i))
	return id
}

func number(id shoal.ReplicaID) int { return int(binary.BigEndian.Uint64(id[8:])) }

// backends returns n that are eligible, the i-th with slot i.
func backends(n int) []Backend {
	out := make([]Backend, n)
	for i := range out {
		out[i] = Backend{Replica: replica(i), Slot: i, Holder: "other", Ready: true, Alive: true, Weight: 1}
	}
	return out
}

func table(seed uint64, p shoal.LB, all []Backend) *Table {
	t := New(seed)
	t.Update(Snapshot{Policy: p, Self: "self", Backends: all})
	return t
}

// client returns the i-th client's address.
func client(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// pick returns the number of the replica picked for a client, and fails if there is none.
func pick(t tb, table *Table, c netip.Addr, now time.Duration) int {
	t.Helper()
	b, ok := table.Pick(c, nil, now)
	if !ok {
		t.Fatalf("Pick(%v) = none", c)
	}
	return number(b.Replica)
}

// counts picks n times for n clients, at once, and returns how often each of size
// replicas was; each connection is closed before the next if brief.
func counts(t testing.TB, table *Table, n, size int, brief bool) []int {
	t.Helper()
	out := make([]int, size)
	for i := range n {
		at := pick(t, table, client(i), 0)
		out[at]++
		if brief {
			table.Closed(replica(at))
		}
	}
	return out
}

// chiSquare is how far counts are from equal.
func chiSquare(counts []int) float64 {
	sum := 0
	for _, c := range counts {
		sum += c
	}
	want := float64(sum) / float64(len(counts))
	x := 0.0
	for _, c := range counts {
		x += (float64(c) - want) * (float64(c) - want) / want
	}
	return x
}

// chi999 is the 99.9 % quantile of chi-square for ten counts, 9 degrees of freedom.
const chi999 = 27.88

func row(t tb, table *Table, i int, now time.Duration) Row {
	t.Helper()
	for _, r := range table.Rows(now) {
		if r.Replica == replica(i) {
			return r
		}
	}
	t.Fatalf("Rows has no replica %d", i)
	return Row{}
}
