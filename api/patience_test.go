// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// endless moves archives that have no end.
type endless struct {
	shoal.Images
	shoal.ImageMover
	ended chan error
}

// Export implements shoal.ImageMover.
func (e endless) Export(_ context.Context, _, _, _ string, w io.Writer, _ func(shoal.ImageProgress)) (err error) {
	for err == nil {
		_, err = w.Write(make([]byte, 64<<10))
	}
	e.ended <- err
	return err
}

// Import implements shoal.ImageMover.
func (e endless) Import(_ context.Context, archive io.Reader, _ string, _ func(shoal.ImageProgress)) ([]shoal.ImageInfo, error) {
	_, err := io.Copy(io.Discard, archive)
	e.ended <- err
	return nil, err
}

// TestPatience: a client that takes nothing, or sends nothing, is given up.
func TestPatience(t *testing.T) {
	mover := endless{ended: make(chan error, 1)}
	s := &Server{
		moves: make(chan struct{}, 1), patient: 200 * time.Millisecond,
		deps: Deps{Log: slog.New(slog.DiscardHandler), Cluster: func() (*Cluster, bool) { return &Cluster{Images: mover, Mover: mover}, true }},
	}
	ctx, cancel := context.WithCancel(t.Context())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, served := s.httpServer(ctx), make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	defer func() {
		cancel()
		_ = srv.Close()
		<-served
	}()
	c := NewClient("test", func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
	})
	defer c.Close()
	gaveUp := func() error {
		select {
		case err := <-mover.ended:
			return err
		case <-time.After(30 * time.Second):
			t.Fatal("the daemon waits for a client that is silent")
			return nil
		}
	}
	takes := &lazy{rest: make(chan struct{})}
	exported := make(chan error, 1)
	go func() { exported <- c.ExportImage(ctx, "app:v1", "", "", takes, nil) }()
	if err := gaveUp(); err == nil {
		t.Error("Export to a client that takes nothing ended without an error")
	}
	close(takes.rest)
	if err := <-exported; err == nil {
		t.Error("ExportImage that the daemon gave up = nil")
	}
	archive, _ := io.Pipe() // nothing comes
	_, err = c.ImportImage(ctx, archive, "", nil)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeTimeout || e.What != "nothing of the archive came for 200ms" {
		t.Errorf("ImportImage of what does not come = %v, want that it took too long", err)
	}
	_ = gaveUp()
}

// lazy takes nothing until it is told to.
type lazy struct{ rest chan struct{} }

// Write implements io.Writer.
func (l *lazy) Write(p []byte) (int, error) {
	<-l.rest
	return len(p), nil
}
