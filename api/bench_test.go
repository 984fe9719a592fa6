// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
)

// sink is an image store that throws archives away.
type sink struct{ shoal.ImageMover }

// Import implements shoal.ImageMover.
func (sink) Import(_ context.Context, archive io.Reader, _ string, _ func(shoal.ImageProgress)) ([]shoal.ImageInfo, error) {
	_, err := io.Copy(io.Discard, archive)
	return nil, err
}

// Export implements shoal.ImageMover.
func (sink) Export(_ context.Context, _, _, _ string, w io.Writer, _ func(shoal.ImageProgress)) error {
	_, err := io.Copy(w, io.LimitReader(zeros{}, benchBytes))
	return err
}

const benchBytes = 256 << 20

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// BenchmarkArchive is an archive through the socket, both ways.
func BenchmarkArchive(b *testing.B) {
	deps := apitest.New("tokyo").Deps()
	member := deps.Cluster
	deps.Cluster = func() (*api.Cluster, bool) {
		c, ok := member()
		c.Mover = sink{}
		return c, ok
	}
	dir, err := os.MkdirTemp("", "shoal") //nolint:usetesting // the path of b.TempDir is too long for a socket
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s.sock")
	b.Cleanup(apitest.Start(b, deps, socket))
	c, err := api.Dial(socket)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	b.Run("import", func(b *testing.B) {
		b.SetBytes(benchBytes)
		for b.Loop() {
			if _, err := c.ImportImage(b.Context(), io.NopCloser(io.LimitReader(zeros{}, benchBytes)), "", nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("export", func(b *testing.B) {
		b.SetBytes(benchBytes)
		for b.Loop() {
			if err := c.ExportImage(b.Context(), "app:v1", "", "", io.Discard, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
