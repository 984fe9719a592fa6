// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// gauge is an Inside that measures.
type gauge struct {
	insideFunc
	measure func(ctx context.Context) ([]shoal.Usage, error)
}

// Usage implements [Inside].
func (g gauge) Usage(ctx context.Context) ([]shoal.Usage, error) { return g.measure(ctx) }

func TestUsageAcross(t *testing.T) {
	a, b := pair(t)
	want := []shoal.Usage{{Replica: shoal.ReplicaID{1}, CPUMilli: 250, MemBytes: 64 << 20}, {Replica: shoal.ReplicaID{2}}}
	b.ServeInside(gauge{measure: func(context.Context) ([]shoal.Usage, error) { return want, nil }})
	for name, asker := range map[string]*Links{"another": a.Links, "itself": b.Links} {
		got, err := asker.Usage(t.Context(), b.id.Self())
		mustBe(t, name, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: usage differs (-want +got):\n%s", name, diff)
		}
	}
}

func TestUsageRefused(t *testing.T) {
	a, b := pair(t)
	if _, err := a.Usage(t.Context(), b.id.Self()); !errors.Is(err, shoal.ErrEngineDown) {
		t.Errorf("usage before there is an engine = %v, want ErrEngineDown", err)
	}
	if _, err := a.Usage(t.Context(), "nobody"); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("usage of a stranger = %v, want ErrNotFound", err)
	}
	b.ServeInside(gauge{measure: func(context.Context) ([]shoal.Usage, error) {
		return nil, fmt.Errorf("the engine hangs: %w", shoal.ErrEngineDown)
	}})
	if _, err := a.Usage(t.Context(), b.id.Self()); !errors.Is(err, shoal.ErrEngineDown) {
		t.Errorf("usage where the engine hangs = %v, want ErrEngineDown", err)
	}
	b.measuring.Store(maxMeasuring)
	if _, err := a.Usage(t.Context(), b.id.Self()); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("usage where too many ask = %v, want ErrRefused", err)
	}
}

func TestUsageFromRefusesNonsense(t *testing.T) {
	id := make([]byte, 16)
	for name, r := range map[string]*shoalv1.ReplicaUsage{
		"short":    {Replica: id[:3]},
		"negative": {Replica: id, CpuMilli: -1},
		"less":     {Replica: id, MemBytes: -1},
	} {
		if got, err := usageFrom("usage", &shoalv1.UsageReply{Replicas: []*shoalv1.ReplicaUsage{r}}); err == nil {
			t.Errorf("%s: usageFrom = %v, want an error", name, got)
		}
	}
	many := &shoalv1.UsageReply{Replicas: make([]*shoalv1.ReplicaUsage, maxMeasured+1)}
	if _, err := usageFrom("usage", many); err == nil {
		t.Error("usageFrom of too many, want an error")
	}
}
