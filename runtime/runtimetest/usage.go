// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtimetest

import (
	"errors"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
)

func usage(t *testing.T, f *Fixture) {
	id := f.create(t, f.Container(&f.Steady))
	if _, err := f.Engine.Measure(t.Context(), id); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Measure of a container that never ran = %v, want ErrConflict", err)
	}
	if err := f.Engine.Start(t.Context(), id); err != nil {
		t.Fatalf("Start = %v", err)
	}
	u, err := f.Engine.Measure(t.Context(), id)
	if err != nil || u.MemBytes <= 0 || u.MemBytes > 1<<30 || u.CPUMilli < 0 {
		t.Errorf("Measure = %+v, %v; want some memory and no less than no processor", u, err)
	}
	if _, err := f.Engine.Measure(t.Context(), strings.Repeat("0", 64)); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Measure of an absent container = %v, want ErrNotFound", err)
	}
	foreign, runs := f.Foreign(t)
	if _, err := f.Engine.Measure(t.Context(), foreign); !errors.Is(err, shoal.ErrRefused) || !runs() {
		t.Errorf("Measure of a foreign container = %v, want ErrRefused", err)
	}
}
