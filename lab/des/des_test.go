// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package des

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal/placement"
)

// TestMain trades memory for time: a run makes many short-lived views.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

// scenario measures something for one seed.
type scenario func(Setup) Result

// sum is what several seeds of a scenario found.
type sum struct {
	name               string
	runs               int
	starts, extra      float64 // mean
	maxExtra           int
	unheld, records    float64 // mean
	dips, over         int
	notFull            int
	took, maxTook      time.Duration // mean over full ones
	excess             float64       // replica-seconds, mean
	balance            float64       // worst max/mean
	decides            float64
	inexact            error
	worstSeed, lastOdd uint64
}

const header = "%-34s %5s %8s %10s %7s %5s %8s %7s %14s %8s %5s"

func (s sum) String() string {
	return fmt.Sprintf("%-34s %5d %8.1f %6.2f/%-3d %7.1f %5d %8.1f %7.0f %6.2fs/%5.2fs %7.0fs %5.2f", s.name, s.runs, s.starts,
		s.extra, s.maxExtra, s.unheld, s.dips, s.records, s.decides, s.took.Seconds(), s.maxTook.Seconds(), s.excess, s.balance)
}

func headline() string {
	return fmt.Sprintf(header, "scenario", "seeds", "starts", "extra/max", "unheld", "dips", "records", "decides",
		"full mean/max", "excess", "bal")
}

// seeds returns which seeds to run: SHOAL_SEED=7 one, SHOAL_SEEDS=n the first n
// (`make sim SUITE=placement SEED=7`, `SEEDS=100`), else the first few.
func seeds(t testing.TB, few int) (first, n uint64) {
	t.Helper()
	read := func(name string) uint64 {
		text := os.Getenv(name)
		if text == "" {
			return 0
		}
		v, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s=%q: %v", name, text, err)
		}
		return v
	}
	if seed := read("SHOAL_SEED"); seed > 0 {
		return seed, 1
	}
	if n := read("SHOAL_SEEDS"); n > 0 {
		return 1, n
	}
	return 1, uint64(few)
}

// measure runs a scenario over its seeds and checks what must hold in every run:
// no peer over its capacity, and exactly n at the end.
func measure(t *testing.T, name string, first, n uint64, set Setup, play scenario) sum {
	t.Helper()
	out := sum{name: name}
	for seed := first; seed < first+n; seed++ {
		set.Seed = seed
		r := play(set)
		out.runs++
		out.starts += float64(r.Starts)
		out.extra += float64(r.Extra)
		if r.Extra > out.maxExtra {
			out.maxExtra, out.worstSeed = r.Extra, seed
		}
		out.unheld += float64(r.Unheld)
		out.records += float64(r.Records)
		out.decides += float64(r.Decides)
		out.dips += r.Dips
		out.over += r.Over
		out.excess += r.Excess.Seconds()
		out.balance = max(out.balance, float64(r.Max)/r.Mean)
		if r.Took < 0 {
			out.notFull++
		} else {
			out.took += r.Took
			out.maxTook = max(out.maxTook, r.Took)
		}
		if r.Exact != nil {
			out.inexact, out.lastOdd = r.Exact, seed
		}
	}
	for _, v := range []*float64{&out.starts, &out.extra, &out.unheld, &out.records, &out.excess, &out.decides} {
		*v /= float64(out.runs)
	}
	if full := out.runs - out.notFull; full > 0 {
		out.took /= time.Duration(full)
	}
	t.Logf("\n%s\n%s", headline(), out)
	if out.over > 0 {
		t.Errorf("%s: a peer ran more than fits, %d times", name, out.over)
	}
	if out.inexact != nil {
		t.Errorf("%s: not exact at the end: %v; %s", name, out.inexact, replay(t, out.lastOdd))
	}
	return out
}

func replay(t *testing.T, seed uint64) string {
	return fmt.Sprintf("replay with SHOAL_SEED=%d go test ./lab/des -run '^%s$' -v", seed, strings.ReplaceAll(t.Name(), "/", "$/^"))
}

func lan(peers int, off ...func(*placement.Config)) Setup {
	return setup(peers, LANNet(), placement.LAN(), off)
}

func wan(peers int, off ...func(*placement.Config)) Setup {
	return setup(peers, WANNet(), placement.WAN(), off)
}

func setup(peers int, net Net, cfg placement.Config, off []func(*placement.Config)) Setup {
	for _, f := range off {
		f(&cfg)
	}
	return Setup{Peers: peers, Net: net, Config: cfg}
}

// The scenarios with their numbers bound.
func deploys(n int) scenario    { return func(s Setup) Result { return Deploy(s, n) } }
func concurrent(n int) scenario { return func(s Setup) Result { return Concurrent(s, n) } }
func splits(minority int) scenario {
	return func(s Setup) Result { return Split(s, 120, minority) }
}
func restarts(n int) scenario { return func(s Setup) Result { return Restart(s, n) } }
func deafs(n int) scenario    { return func(s Setup) Result { return Deaf(s, n) } }
func stales(n int) scenario   { return func(s Setup) Result { return Stale(s, n) } }
func failures(dying, lost int) scenario {
	return func(s Setup) Result { return Failure(s, dying, lost) }
}
func blackouts(n int) scenario { return func(s Setup) Result { return Blackout(s, n) } }

// TestCounters holds PLACEMENT.md's numbers: each row says how much is allowed.
func TestCounters(t *testing.T) {
	noReuse := func(c *placement.Config) { c.NoReuse = true }
	slow := lan(20)
	slow.Redial = 4 * time.Second
	for _, c := range []struct {
		name     string
		small    int // seeds
		set      Setup
		play     scenario
		mean     float64       // extra starts allowed, mean
		most     int           // in one run
		full     time.Duration // all slots ready by then, in the mean
		healed   bool          // no dip is allowed, and starts are counted in all
		noRecord bool
	}{
		{"deploy LAN 3/10", 8, lan(3), deploys(10), 0, 0, 1600 * time.Millisecond, false, false},
		{"deploy LAN 5/30", 8, lan(5), deploys(30), 0, 0, 1600 * time.Millisecond, false, false},
		{"deploy LAN 20/100", 6, lan(20), deploys(100), 0, 0, 1600 * time.Millisecond, false, false},
		{"deploy WAN 5/30", 8, wan(5), deploys(30), 0.2, 3, 3 * time.Second, false, false},
		{"deploy WAN 20/100", 8, wan(20), deploys(100), 0.2, 3, 3 * time.Second, false, false},
		{"3 deploys at once LAN 20/120", 2, lan(20), concurrent(120), 0, 0, 2100 * time.Millisecond, false, false},
		{"3 deploys at once WAN 20/120", 2, wan(20), concurrent(120), 0.5, 2, 4 * time.Second, false, false},
		{"1 of 5 dies LAN, 300 lost", 2, lan(5), failures(1, 300), 0, 0, 8 * time.Second, false, false},
		{"1 of 20 dies LAN, 100 lost", 2, lan(20), failures(1, 100), 0, 0, 8 * time.Second, false, false},
		{"1 of 20 dies WAN, 100 lost", 2, wan(20), failures(1, 100), 0, 0, 8500 * time.Millisecond, false, false},
		{"3 of 20 die LAN, 90 lost", 2, lan(20), failures(3, 90), 0.5, 2, 8 * time.Second, false, false},
		{"3 of 20 die WAN, 90 lost", 3, wan(20), failures(3, 90), 3, 6, 9 * time.Second, false, false},
		{"split 50/50 heals LAN", 3, lan(20), splits(10), 2, 2, 6 * time.Second, true, false},
		{"split 50/50 heals WAN", 2, wan(20), splits(10), 2, 2, 6 * time.Second, true, false},
		{"split 80/20 heals LAN", 2, lan(20), splits(4), 2, 2, 6 * time.Second, true, false},
		{"split heals over 4 s LAN", 2, slow, splits(10), 2, 2, 9 * time.Second, true, false},
		{"split 50/50 heals LAN, no re-use", 3, lan(20, noReuse), splits(10), 2, 2, 6 * time.Second, true, false},
		{"split 50/50 heals WAN, no re-use", 2, wan(20, noReuse), splits(10), 2, 2, 7 * time.Second, true, false},
		{"all restart in 60 s LAN 20/120", 4, lan(20), restarts(120), 0, 0, 63 * time.Second, false, true},
		{"all restart in 60 s LAN 5/30", 8, lan(5), restarts(30), 0, 0, 63 * time.Second, false, true},
		{"deaf peer LAN 5/30", 4, lan(5), deafs(30), 2, 4, 3500 * time.Millisecond, false, false},
		{"deaf peer WAN 20/100", 3, wan(20), deafs(100), 2, 4, 5 * time.Second, false, false},
		{"stale peer sees a death LAN 5", 4, lan(5), stales(150), 0, 0, 8 * time.Second, false, false},
		{"half silent for 3 s LAN 20", 4, lan(20), blackouts(120), 0, 0, time.Second, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			first, n := seeds(t, c.small)
			got := measure(t, c.name, first, n, c.set, c.play)
			if got.extra > c.mean || got.maxExtra > c.most {
				t.Errorf("extra starts %.2f mean, %d most; want at most %.2f and %d; %s",
					got.extra, got.maxExtra, c.mean, c.most, replay(t, got.worstSeed))
			}
			if got.notFull > 0 || got.took > c.full {
				t.Errorf("full after %v in the mean, never in %d runs; want at most %v", got.took, got.notFull, c.full)
			}
			if c.healed && got.dips > 0 {
				t.Errorf("%d dips below n", got.dips)
			}
			if c.noRecord && got.records > 0 {
				t.Errorf("%.1f records written, want none", got.records)
			}
		})
	}
}

// TestSameSeedSameRun: a run can be replayed.
func TestSameSeedSameRun(t *testing.T) {
	set := wan(10)
	set.Seed = 42
	if a, b := Split(set, 60, 5), Split(set, 60, 5); a != b {
		t.Errorf("seed 42 gives\n%+v, then\n%+v", a, b)
	}
	set.Seed = 43
	if a, b := Failure(set, 1, 30), Failure(set, 1, 30); a != b {
		t.Errorf("seed 43 gives\n%+v, then\n%+v", a, b)
	}
}
