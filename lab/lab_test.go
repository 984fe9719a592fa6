// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package lab_test

import (
	"testing"
	"time"

	"github.com/shoalnet/shoal/lab"
)

func TestUp(t *testing.T) {
	from := time.Now()
	l := lab.Up(t, lab.Hosts(5))
	t.Logf("up in %s", time.Since(from))
	out, err := l.Shoal(t.Context(), "h5", "peer", "ls")
	t.Logf("%s %v", out, err)
	for _, h := range []string{"h1", "h2"} {
		out, err = l.Docker(t.Context(), h, "ps")
		t.Logf("%s %v", out, err)
	}
	st, err := l.Stats(t.Context())
	t.Logf("%+v %v", st, err)
}
