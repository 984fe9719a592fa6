// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package lab_test

import (
	"testing"
	"time"

	"github.com/shoalnet/shoal/lab"
)

// What came into the engines a moment ago can be asked for: peers do not wait for their
// next list of images, which they make at the start and then every 30 s.
func TestNewImageRunsAtOnce(t *testing.T) {
	const late = "hello:late"
	l := lab.Up(t, lab.Hosts(2), lab.Images(hello(t)))
	run := func(name, image string) {
		t.Helper()
		must(t)(l.Shoal(t.Context(), "h1", "run", "--name", name, "--replicas", "2", image, "work"))
		_, err := client(t, l, "h1").Exact(t.Context(), name, 2, time.Minute)
		ok(t, err)
	}
	run("web", image)
	for _, h := range l.Hosts() {
		must(t)(l.Docker(t.Context(), h.Name, "tag", image, late))
	}
	run("other", late)
}
