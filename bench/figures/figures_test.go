// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package figures

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPercentilesAreFiguresThatWereTaken(t *testing.T) {
	var s Series
	if got := s.At(50); got != 0 {
		t.Errorf("At(50) of none = %v, want 0", got)
	}
	for i := range 200 { // from the largest down: the order does not count
		s.Add(float64(200 - i))
	}
	for percent, want := range map[int]float64{0: 1, 1: 2, 50: 100, 99: 198, 100: 200} {
		if got := s.At(percent); got != want {
			t.Errorf("At(%d) = %v, want %v", percent, got, want)
		}
	}
	var one Series
	one.AddTime(1500 * time.Millisecond)
	if one.At(1) != 1.5 || one.At(99) != 1.5 || one.Len() != 1 {
		t.Errorf("of one figure: At(1) = %v, At(99) = %v, want 1.5", one.At(1), one.At(99))
	}
}

func TestFiguresReadWell(t *testing.T) {
	for _, c := range []struct {
		f    Figure
		want string
	}{
		{Figure{}, "-"},
		{Of(0.00072, Seconds), "0.72 ms"},
		{Of(0.0114, Seconds), "11.4 ms"},
		{Of(0.2, Seconds), "200 ms"},
		{Of(1.534, Seconds), "1.53 s"},
		{Of(45.2e6, Bytes), "45.2 MB"},
		{Of(0, Bytes), "0 B"},
		{Of(20480, Bytes), "20.5 kB"},
		{Of(0.61, Percent), "0.61 %"},
		{Of(1.05, Plain), "1.05"},
	} {
		if got := c.f.String(); got != c.want {
			t.Errorf("%+v reads %q, want %q", c.f, got, c.want)
		}
	}
}

// A call that takes long must not hold up those after it, or its wait would be
// missing from their figures.
func TestPaceIsAnOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var mu sync.Mutex
		var at []time.Duration
		err := Pace(t.Context(), 20, 40, func(_ context.Context, i int) error {
			mu.Lock()
			at = append(at, time.Since(begin))
			mu.Unlock()
			if i == 3 {
				time.Sleep(time.Second)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(at)
		for i, d := range at {
			if want := time.Duration(i) * 50 * time.Millisecond; d != want {
				t.Errorf("call %d began after %s, want %s", i, d, want)
			}
		}
		if took := time.Since(begin); len(at) != 40 || took != 1950*time.Millisecond {
			t.Errorf("%d calls in %s, want 40 in 1.95 s", len(at), took)
		}
	})
}

func TestPaceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("disk is full")
		begin := time.Now()
		err := Pace(t.Context(), 20, 1000, func(_ context.Context, i int) error {
			if i == 2 {
				return broken
			}
			return nil
		})
		if took := time.Since(begin); !errors.Is(err, broken) || took > time.Second {
			t.Errorf("Pace = %v after %s, want the error at once", err, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
		defer cancel()
		if err := Pace(ctx, 20, 1000, func(context.Context, int) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Pace = %v, want the end of its context", err)
		}
		err = Pace(t.Context(), 1000, 5000, func(ctx context.Context, _ int) error {
			select {
			case <-time.After(time.Hour):
				return nil
			case <-ctx.Done():
				return nil
			}
		})
		if !errors.Is(err, ErrTooSlow) {
			t.Errorf("Pace of calls that pile up = %v, want %v", err, ErrTooSlow)
		}
	})
}

func sample() *Table {
	var one, three Series
	for i := range 100 {
		one.AddTime(time.Duration(i+1) * 10 * time.Microsecond)
		three.AddTime(time.Duration(i+1) * 11 * time.Microsecond)
	}
	first := NewRow("write", "local write", 1, &one, Seconds)
	return &Table{
		Machine: Machine{CPU: "Z80", Cores: 1, Memory: 64e9, Kernel: "Linux 6", Disk: "ext4", Engine: "docker 20", Go: "go1.26"},
		Run:     "quick",
		Rows: []Row{
			first,
			NewRow("write", "local write", 3, &three, Seconds).Against("1 peer", first.P50).Aims("ratio at most 1.5", true),
			NotMeasured("etcd", "etcd put", 3, "no time"),
		},
		Notes: map[string]string{"write": "as asked.", "etcd": "as they do."},
	}
}

func TestTableAsText(t *testing.T) {
	var out strings.Builder
	if err := sample().Write(&out, Text); err != nil {
		t.Fatal(err)
	}
	want := `bench quick on Z80, 1 cores, 64 GB, Linux 6, stores on ext4, docker 20, go1.26, load before 0.0

WHAT         PEERS  N    P50      P99      BESIDE          RATIO  AIM                MET
local write  1      100  0.50 ms  0.99 ms  -               -      -                  -
local write  3      100  0.55 ms  1.09 ms  1 peer 0.50 ms  1.10   ratio at most 1.5  yes
etcd put     3      -    not measured: no time

write: as asked.
etcd: as they do.
`
	if got := out.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestTableAsMarkdown(t *testing.T) {
	var out strings.Builder
	if err := sample().Write(&out, Markdown); err != nil {
		t.Fatal(err)
	}
	want := "| local write | 3 | 100 | 0.55 ms | 1.09 ms | 1 peer 0.50 ms | 1.10 | ratio at most 1.5 | yes |\n"
	if !strings.Contains(out.String(), want) {
		t.Errorf("got:\n%s\nwant in it:\n%s", out.String(), want)
	}
}

func TestTableAsJSON(t *testing.T) {
	var out strings.Builder
	if err := sample().Write(&out, JSON); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Rows []struct {
			P50   *float64 `json:"p50"`
			Unit  string   `json:"unit"`
			Ratio *float64 `json:"ratio"`
			Met   string   `json:"met"`
		} `json:"rows"`
	}
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err)
	}
	r := got.Rows
	if len(r) != 3 || r[1].P50 == nil || *r[1].P50 != 0.00055 || r[1].Unit != "s" || r[1].Met != "yes" || r[0].Ratio != nil || r[2].P50 != nil {
		t.Errorf("got %s", out.String())
	}
	if err := sample().Write(&out, "xml"); err == nil {
		t.Error("Write took a format that does not exist")
	}
}

func TestThisMachineHasAName(t *testing.T) {
	m := ThisMachine(t.TempDir(), "")
	if m.CPU == "" || m.Cores < 1 || m.Kernel == "" || m.Disk == "" || m.Go == "" || !strings.Contains(m.String(), "no engine asked") {
		t.Errorf("this machine is %+v", m)
	}
}
