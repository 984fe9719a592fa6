// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"testing"
	"time"
)

func BenchmarkPick(b *testing.B) {
	for _, p := range policies {
		for _, n := range []int{10, 1000} {
			for _, refusing := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/n=%d/refusing=%v", p, n, refusing), func(b *testing.B) {
					tab := table(1, p, backends(n))
					for i := range n {
						tab.Connected(replica(i), time.Millisecond, time.Duration(i)*time.Millisecond)
					}
					if refusing {
						tab.Refused(replica(3), 0)
					}
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						x, _ := tab.Pick(client(i&0xffff), nil, time.Second/2)
						tab.Closed(x.Replica)
					}
				})
			}
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			s := Snapshot{Backends: backends(n)}
			tab := New(1)
			b.ReportAllocs()
			for b.Loop() {
				tab.Update(s)
			}
		})
	}
}
