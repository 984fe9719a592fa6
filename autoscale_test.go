// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestCheckAutoscale: bounds that cross, loads that nobody can measure or that cannot be
// passed, and services that have no number of replicas to change.
func TestCheckAutoscale(t *testing.T) {
	base := func() *Spec {
		a := DefaultAutoscale()
		a.Min, a.Max, a.CPU = 2, 10, 60
		return &Spec{
			Name: "web", Image: "hello:1", Mode: ModeReplicated, Strategy: StrategySpread, OnPartition: PartitionAvailable,
			Restart: Restart{Condition: RestartAny}, Limits: Resources{CPUMilli: 500, MemBytes: 64 << 20}, Autoscale: &a,
		}
	}
	tests := map[string]struct {
		change func(*Spec)
		field  string // "": it is fine
		why    string
	}{
		"fine":                     {func(*Spec) {}, "", ""},
		"no autoscaling":           {func(s *Spec) { s.Autoscale, s.Limits = nil, Resources{} }, "", ""},
		"of the reservation":       {func(s *Spec) { s.Limits.CPUMilli, s.Reservations.CPUMilli = 1000, 100; s.Autoscale.CPU = 300 }, "", ""},
		"to zero":                  {func(s *Spec) { s.Autoscale.Min, s.Autoscale.Connections = 0, 50 }, "", ""},
		"global":                   {func(s *Spec) { s.Mode = ModeGlobal }, "autoscale", "mode global"},
		"max before min":           {func(s *Spec) { s.Autoscale.Min = 11 }, "autoscale.min", "11 is more than max, which is 10"},
		"no max":                   {func(s *Spec) { s.Autoscale.Max = 0 }, "autoscale.max", "1-10000"},
		"too many":                 {func(s *Spec) { s.Autoscale.Max = MaxReplicas + 1 }, "autoscale.max", "got 10001"},
		"below nothing":            {func(s *Spec) { s.Autoscale.Min = -1 }, "autoscale.min", "got -1"},
		"no target":                {func(s *Spec) { s.Autoscale.CPU = 0 }, "autoscale", "names no target"},
		"to zero by cpu":           {func(s *Spec) { s.Autoscale.Min = 0 }, "autoscale.min", "connections or requests"},
		"cpu of nothing":           {func(s *Spec) { s.Limits = Resources{} }, "autoscale.cpu", "reservations.cpus or limits.cpus"},
		"memory of nothing":        {func(s *Spec) { s.Limits.MemBytes, s.Autoscale.Memory = 0, 80 }, "autoscale.memory", "reservations.memory or limits.memory"},
		"a share out of range":     {func(s *Spec) { s.Autoscale.CPU = 1001 }, "autoscale.cpu", "1%-1000%"},
		"a negative share":         {func(s *Spec) { s.Autoscale.CPU = -5 }, "autoscale.cpu", "got -5%"},
		"never passed":             {func(s *Spec) { s.Autoscale.CPU = 95 }, "autoscale.cpu", "never passed"},
		"on the machine's network": {func(s *Spec) { s.Setup.HostNetwork, s.Autoscale.Requests = true, 5 }, "autoscale.requests", "does not carry"},
		"too many connections":     {func(s *Spec) { s.Autoscale.Connections = 1_000_001 }, "autoscale.connections", "1-1000000"},
		"tolerance":                {func(s *Spec) { s.Autoscale.Tolerance = 51 }, "autoscale.tolerance", "0%-50%"},
		"window":                   {func(s *Spec) { s.Autoscale.DownWindow = 2 * time.Hour }, "autoscale.down.window", "0-1h0m0s"},
		"step":                     {func(s *Spec) { s.Autoscale.UpStep = Share{N: 2, Percent: 5} }, "autoscale.up.step", "2 and 5%"},
		"manual":                   {func(s *Spec) { s.Autoscale.Manual = -1 }, "autoscale.manual", "0-168h"},
		"idle for no time": {
			func(s *Spec) { s.Autoscale.Min, s.Autoscale.Connections, s.Autoscale.Idle = 0, 50, time.Second }, "autoscale.idle", "at least 10s",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := base()
			tt.change(s)
			err := s.Validate()
			if tt.field == "" {
				if err != nil {
					t.Errorf("Validate = %v", err)
				}
				return
			}
			no, ok := errors.AsType[*InvalidError](err)
			if !ok || no.Field != tt.field || !strings.Contains(no.Why, tt.why) {
				t.Errorf("Validate = %v, want %s: ...%s...", err, tt.field, tt.why)
			}
		})
	}
}

func TestAutoscaleWords(t *testing.T) {
	a := Autoscale{Min: 2, Max: 10, CPU: 60, Memory: 80, Connections: 100, Requests: 50}
	if got, want := a.String(), "2-10 at cpu 60%, memory 80%, connections 100, requests 50/s"; got != want {
		t.Errorf("String = %q, want %q", got, want)
	}
	for n, want := range map[int]int{0: 2, 2: 2, 7: 7, 11: 10} {
		if got := a.Clamp(n); got != want {
			t.Errorf("Clamp(%d) = %d, want %d", n, got, want)
		}
	}
}
