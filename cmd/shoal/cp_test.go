// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
)

// writerFunc is a writer that is one function.
type writerFunc func(p []byte) (int, error)

// Write implements [io.Writer].
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestDownloadEnds: a copy ends when standard output is full, and when nobody reads it
// and the user has enough.
func TestDownloadEnds(t *testing.T) {
	cluster := apitest.New("tokyo")
	socket := t.TempDir() + "/s"
	defer apitest.Start(t, cluster.Deps(), socket)()
	c, err := api.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	spec := shoal.Spec{
		Name: "web", Image: "hello:1", Mode: shoal.ModeReplicated, Replicas: 1, Strategy: shoal.StrategySpread,
		OnPartition: shoal.PartitionAvailable, Restart: shoal.Restart{Condition: shoal.RestartAny},
	}
	if _, err := c.Deploy(t.Context(), shoal.DeployWish{Specs: []shoal.Spec{spec}}, api.WishOptions{}); err != nil {
		t.Fatal(err)
	}
	var large bytes.Buffer
	w := tar.NewWriter(&large)
	content := make([]byte, 1<<20)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "large", Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(content))}), second(w.Write(content)), w.Close()); err != nil {
		t.Fatal(err)
	}
	if err := c.CopyTo(t.Context(), shoal.Target{Service: "web"}, "/", io.NopCloser(&large)); err != nil {
		t.Fatal(err)
	}
	download := func(ctx context.Context, out io.Writer) error {
		a, _, _ := newApp()
		a.out = out
		cp := &copying{app: a, client: c, meter: meter{app: a}}
		return cp.download(ctx, place{"web/0", "/large"}, place{path: "-"})
	}
	full := errors.New("no space left on device")
	for range 20 { // more may be on its way when it is full, or not
		if err := download(t.Context(), writerFunc(func([]byte) (int, error) { return 0, full })); !errors.Is(err, full) {
			t.Fatalf("download to what is full = %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	stuck := make(chan struct{})
	defer close(stuck)
	err = download(ctx, writerFunc(func([]byte) (int, error) {
		cancel()
		<-stuck
		return 0, full
	}))
	if err == nil { // by whom it was interrupted depends on who notices first
		t.Error("download to what nobody reads = nil")
	}
}

// second is the error of what also returns a number.
func second(_ int, err error) error { return err }
