// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal/bench/figures"
	"github.com/shoalnet/shoal/bench/reachwire"
)

// askTime is how long one request may take. The load would be of no use long before.
const askTime = 30 * time.Second

// asker asks over one connection, one request after the other. It reads no more of HTTP
// than our replicas write, so that little of what is measured is its own.
type asker struct {
	conn net.Conn
	in   *bufio.Reader
}

func connect(ctx context.Context, address string) (*asker, error) {
	conn, err := (&net.Dialer{Timeout: askTime}).DialContext(ctx, "tcp4", address)
	if err != nil {
		return nil, err
	}
	return &asker{conn, bufio.NewReader(conn)}, nil
}

// ask gets path, and passes over size bytes of its body.
func (c *asker) ask(path string, size int) error {
	if err := c.conn.SetDeadline(time.Now().Add(askTime)); err != nil {
		return err
	}
	if _, err := io.WriteString(c.conn, "GET "+path+" HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
		return err
	}
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("a replica answers %q", bytes.TrimSpace(status))
	}
	for line := status; len(line) > len("\r\n"); {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return err
		}
	}
	_, err = c.in.Discard(size)
	return err
}

func (c *asker) close() { _ = c.conn.Close() } // all that was asked for has come

// load asks one address for a while. It adds what each request took, and
// returns how many requests there were in a second.
type load func(ctx context.Context, address string, during time.Duration, took *figures.Series) (float64, error)

// keptLoad has so many clients ask without a pause, each over its one connection.
func keptLoad(clients int) load {
	return func(ctx context.Context, address string, during time.Duration, took *figures.Series) (float64, error) {
		open := make([]*asker, 0, clients)
		defer func() {
			for _, c := range open {
				c.close()
			}
		}()
		for range clients {
			c, err := connect(ctx, address)
			if err != nil {
				return 0, err
			}
			open = append(open, c)
			if err := c.ask(reachwire.Small, reachwire.SmallBytes); err != nil { // a first one is slower
				return 0, err
			}
		}
		return closedLoop(ctx, clients, during, took, func(i int) error {
			return open[i].ask(reachwire.Small, reachwire.SmallBytes)
		})
	}
}

// eachLoad has so many clients ask without a pause, each time over a new connection.
func eachLoad(clients int) load {
	return func(ctx context.Context, address string, during time.Duration, took *figures.Series) (float64, error) {
		return closedLoop(ctx, clients, during, took, func(int) error {
			c, err := connect(ctx, address)
			if err != nil {
				return err
			}
			defer c.close()
			return c.ask(reachwire.Small, reachwire.SmallBytes)
		})
	}
}

// closedLoop has each client do a thing again and again until the time is over.
func closedLoop(ctx context.Context, clients int, during time.Duration, took *figures.Series, do func(i int) error) (float64, error) {
	begun := time.Now()
	all := make([][]time.Duration, clients)
	g, ctx := errgroup.WithContext(ctx)
	for i := range clients {
		g.Go(func() error {
			for at := begun; at.Sub(begun) < during; {
				if err := do(i); err != nil {
					return err
				}
				now := time.Now()
				all[i] = append(all[i], now.Sub(at))
				at = now
			}
			return ctx.Err()
		})
	}
	err := g.Wait()
	elapsed, n := time.Since(begun), 0
	for _, one := range all {
		n += len(one)
		for _, d := range one {
			took.AddTime(d)
		}
	}
	return float64(n) / elapsed.Seconds(), err
}

// pacedLoad offers so many requests a second to kept connections, each on time whatever
// the earlier ones take; one that finds no connection free opens one more.
func pacedLoad(perSecond float64) load {
	return func(ctx context.Context, address string, during time.Duration, took *figures.Series) (float64, error) {
		idle := make(chan *asker, int(perSecond)) // more than can be under way in a second
		defer func() {
			close(idle)
			for c := range idle {
				c.close()
			}
		}()
		err := figures.Pace(ctx, perSecond, int(during.Seconds()*perSecond), func(ctx context.Context, _ int) (err error) {
			begun := time.Now()
			var c *asker
			select {
			case c = <-idle:
			default:
				if c, err = connect(ctx, address); err != nil {
					return err
				}
			}
			if err := c.ask(reachwire.Small, reachwire.SmallBytes); err != nil {
				c.close()
				return err
			}
			took.AddTime(time.Since(begun))
			select {
			case idle <- c:
			default:
				c.close()
			}
			return nil
		})
		return perSecond, err
	}
}

// bulk gets one large answer and returns bytes a second.
func bulk(ctx context.Context, address string) (float64, error) {
	c, err := connect(ctx, address)
	if err != nil {
		return 0, err
	}
	defer c.close()
	if err := c.ask(reachwire.Bulk, 0); err != nil {
		return 0, err
	}
	return drain(c.in, reachwire.BulkBytes)
}

// drain reads size bytes and returns bytes a second.
func drain(r io.Reader, size int64) (float64, error) {
	begun := time.Now()
	if _, err := io.CopyBuffer(discard{}, io.LimitReader(r, size), make([]byte, reachwire.Piece)); err != nil {
		return 0, err
	}
	return float64(size) / time.Since(begun).Seconds(), nil
}

// holdOpen opens n connections, asks once over each, does something, and closes them.
func holdOpen(ctx context.Context, address string, n int, do func() error) (err error) {
	open := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range open {
			err = errors.Join(err, c.Close())
		}
	}()
	for range n {
		c, err := connect(ctx, address)
		if err != nil {
			return fmt.Errorf("%d connections are open: %w", len(open), err)
		}
		open = append(open, c.conn)
		if err := c.ask(reachwire.Small, reachwire.SmallBytes); err != nil {
			return fmt.Errorf("%d connections are open: %w", len(open), err)
		}
	}
	return do()
}
