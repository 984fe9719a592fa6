// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package figures

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Series are the figures of one thing done again and again, in one unit. The zero
// value is ready to use; its methods are safe for concurrent use.
type Series struct {
	mu     sync.Mutex // guards values
	values []float64
}

// Add takes one figure.
func (s *Series) Add(value float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = append(s.values, value)
}

// AddTime takes a time, in seconds.
func (s *Series) AddTime(d time.Duration) { s.Add(d.Seconds()) }

// Len returns how many figures there are.
func (s *Series) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.values)
}

// At returns a percentile by nearest rank: a figure that was really taken. 0 of none.
func (s *Series) At(percent int) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.values))
	return sorted[max((len(sorted)*percent+99)/100-1, 0)]
}

// Unit is what a figure counts.
type Unit string

// The units.
const (
	Seconds Unit = "s"
	Bytes   Unit = "B"
	Percent Unit = "%"
	Plain   Unit = ""
)

// Figure is one number of a table. The zero value stands for none.
type Figure struct {
	Value float64
	Unit  Unit
	Taken bool
}

// MarshalJSON writes a bare number, null for none; a row names its unit once.
func (f Figure) MarshalJSON() ([]byte, error) {
	if !f.Taken {
		return []byte("null"), nil
	}
	return json.Marshal(f.Value)
}

// Of makes a figure.
func Of(value float64, unit Unit) Figure { return Figure{value, unit, true} }

// String writes a figure with two significant digits or more, in a unit that people
// read: "0.72 ms", "11 ms", "1.53 s", "45 MB"; "-" for none.
func (f Figure) String() string {
	switch {
	case !f.Taken:
		return "-"
	case f.Unit == Seconds && f.Value < 1:
		return digits(f.Value*1e3) + " ms"
	case f.Unit == Bytes && f.Value >= 1e6:
		return digits(f.Value/1e6) + " MB"
	case f.Unit == Bytes && f.Value >= 1e4:
		return digits(f.Value/1e3) + " kB"
	case f.Unit == Bytes:
		return fmt.Sprintf("%.0f B", f.Value)
	case f.Unit == Plain:
		return digits(f.Value)
	}
	return digits(f.Value) + " " + string(f.Unit)
}

// digits writes a number with as many decimals as say something.
func digits(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
