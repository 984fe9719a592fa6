// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

var bounds = []time.Duration{time.Millisecond, time.Second}

// anyTraffic is that of some connections, or none.
func anyTraffic(t *rapid.T) shoal.Traffic {
	count := rapid.Uint64Max(1 << 40)
	histogram := rapid.Custom(func(t *rapid.T) shoal.Histogram {
		if rapid.Bool().Draw(t, "is empty") {
			return shoal.Histogram{}
		}
		return shoal.Histogram{Bounds: bounds, Counts: rapid.SliceOfN(count, 3, 3).Draw(t, "counts"), Sum: time.Duration(count.Draw(t, "sum"))}
	})
	return shoal.Traffic{
		Open: int(rapid.Uint16().Draw(t, "open")), Total: count.Draw(t, "total"), In: count.Draw(t, "in"), Out: count.Draw(t, "out"),
		Refused: rapid.MapOfN(rapid.SampledFrom([]string{"no replica", "silent"}), count, 0, 2).Draw(t, "refused"),
		Retries: count.Draw(t, "retries"), Connect: histogram.Draw(t, "connect"), FirstByte: histogram.Draw(t, "first byte"),
	}
}

// Sums of traffic are those of its parts whatever the order, and leave the parts alone.
func TestTrafficPlus(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyTraffic(t), anyTraffic(t)
		sum, back := a.Plus(b), b.Plus(a)
		if diff := cmp.Diff(sum, back); diff != "" {
			t.Fatalf("a+b is not b+a:\n%s", diff)
		}
		if sum.Open != a.Open+b.Open || sum.Total != a.Total+b.Total || sum.In != a.In+b.In || sum.Out != a.Out+b.Out || sum.Retries != a.Retries+b.Retries {
			t.Fatalf("%+v + %+v = %+v", a, b, sum)
		}
		for why, n := range sum.Refused {
			if n != a.Refused[why]+b.Refused[why] {
				t.Fatalf("refused %q: %d, want %d", why, n, a.Refused[why]+b.Refused[why])
			}
		}
		if got, want := sum.Connect.Count(), a.Connect.Count()+b.Connect.Count(); got != want {
			t.Fatalf("%d connects, want %d", got, want)
		}
		if got, want := sum.FirstByte.Sum, a.FirstByte.Sum+b.FirstByte.Sum; got != want {
			t.Fatalf("first bytes took %v, want %v", got, want)
		}
		if diff := cmp.Diff(sum, a.Plus(b)); diff != "" {
			t.Fatalf("the second sum differs, so the first wrote to its parts:\n%s", diff)
		}
	})
}
