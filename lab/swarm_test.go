// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/shoalnet/shoal/internal/pack"
	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/drive"
	"github.com/shoalnet/shoal/lab/topology"
)

const (
	big      = "big:1"
	bigBytes = 32 << 20
)

// bigImage packs our own web server with a layer of noise that nothing compresses.
func bigImage(t *testing.T) string {
	t.Helper()
	binary, err := pack.Build(t.Context(), "../examples/hello")
	ok(t, err)
	img, err := pack.Image(binary, pack.Options{Path: "/hello"})
	ok(t, err)
	noise, err := random.Layer(bigBytes, types.DockerLayer)
	ok(t, err)
	img, err = mutate.AppendLayers(img, noise)
	ok(t, err)
	file := filepath.Join(t.TempDir(), "big.tar")
	out, err := os.Create(file)
	ok(t, err)
	ok(t, pack.Tar(out, big, img))
	ok(t, out.Close())
	return file
}

// here returns how many bytes of the image a host has, and how many it has in all.
func here(ctx context.Context, t *testing.T, l *lab.Lab, host string) (have, size int64) {
	t.Helper()
	out, err := l.Shoal(ctx, host, "image", "ls", "-o", "json")
	ok(t, err)
	var rows []struct {
		Name string `json:"name"`
		Size int64  `json:"size_bytes"`
		Here int64  `json:"here_bytes"`
	}
	ok(t, json.Unmarshal([]byte(out), &rows))
	for _, r := range rows {
		if r.Name == big {
			return r.Here, r.Size
		}
	}
	return 0, 0
}

// An image that was given to one host alone runs on two others, with engines of their own
// and no registry anywhere, also when that host loses power before the slower one has it.
// The second time nothing of it moves.
func TestImageOutlivesItsSource(t *testing.T) {
	l := lab.Up(t, lab.Hosts(3))
	ctx := t.Context()
	slow := topology.Change{Rate: "40mbit"}
	ok(t, l.SetLink("h1", "h3", slow, false))
	ok(t, l.SetLink("h2", "h3", slow, false))
	must(t)(l.Shoal(ctx, "h1", "image", "import", bigImage(t)))

	ran := make(chan error, 1)
	go func() {
		_, err := l.Shoal(ctx, "h2", "run", "--name", "web", "--replicas", "2", "--constraint", "peer!=h1", big, "work")
		ran <- err
	}()
	ok(t, drive.Until(ctx, time.Minute, "the fast host has all of it", func() error {
		if fast, size := here(ctx, t, l, "h2"); size <= bigBytes || fast != size {
			return fmt.Errorf("h2 has %d of %d bytes", fast, size)
		}
		return nil
	}))
	if some, size := here(ctx, t, l, "h3"); some >= size {
		t.Fatal("the slow host has it already; nothing is shown")
	}
	ok(t, l.Kill(ctx, "h1"))
	ok(t, <-ran)
	_, err := client(t, l, "h2").Exact(ctx, "web", 2, time.Minute)
	ok(t, err)
	for _, h := range []string{"h2", "h3"} {
		if out := must(t)(l.Docker(ctx, h, "image", "inspect", "-f", "{{.Id}}", big)); out == "" {
			t.Errorf("the engine of %s does not call it %s", h, big)
		}
	}

	bytesIn := func() uint64 {
		stats, err := l.Stats(ctx)
		ok(t, err)
		var sum uint64
		for _, s := range stats {
			sum += s.BytesIn
		}
		return sum
	}
	before := bytesIn()
	must(t)(l.Shoal(ctx, "h3", "run", "--name", "again", "--replicas", "2", "--constraint", "peer!=h1", big, "work"))
	if moved := bytesIn() - before; moved > bigBytes/16 {
		t.Errorf("%d bytes moved for a second deploy; %d would be the image", moved, bigBytes)
	}
}
