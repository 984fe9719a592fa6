// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	throttle "golang.org/x/time/rate" // rate is our offered one
)

// pieceBytes is what a server sends at once.
const pieceBytes = 64 << 10

// served is what a plain server sent to its clients.
type served struct {
	took time.Duration
	size int64 // bytes for each client
	sent int64 // bytes for all
}

// oneServer lets so many clients get size bytes each, at once, from a server that sends
// perSecond bytes to all together. size is a multiple of pieceBytes.
func oneServer(ctx context.Context, clients int, size int64, perSecond float64) (served, error) {
	var sent atomic.Int64
	limit := throttle.NewLimiter(throttle.Limit(perSecond), pieceBytes)
	address, stop, err := serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		piece := make([]byte, pieceBytes)
		for left := size; left > 0; left -= pieceBytes {
			if limit.WaitN(req.Context(), pieceBytes) != nil {
				return
			}
			sent.Add(pieceBytes) // before a client can have the last of it
			if _, err := w.Write(piece); err != nil {
				return // the client misses the rest
			}
		}
	}))
	if err != nil {
		return served{}, err
	}
	defer stop()
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for range clients {
		g.Go(func() error { return get(ctx, address, size) })
	}
	err = g.Wait()
	return served{took: time.Since(began), size: size, sent: sent.Load()}, err
}

// serve answers plain HTTP on loopback until stop.
func serve(ctx context.Context, answer http.Handler) (address string, stop func(), err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: answer, ReadHeaderTimeout: time.Second}
	ended := make(chan struct{})
	go func() {
		_ = srv.Serve(l) // it ends with Close
		close(ended)
	}()
	return "http://" + l.Addr().String() + "/", func() {
		_ = srv.Close() // nothing is left to lose
		<-ended
	}, nil
}

// get gets size bytes and lets them go.
func get(ctx context.Context, url string, size int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && n != size {
		err = fmt.Errorf("got %d bytes of %d", n, size)
	}
	return err
}
