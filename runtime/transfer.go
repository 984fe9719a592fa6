// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/docker/docker/client"
)

// pace ends a transfer that stands still; one that moves takes as long as it takes.
type pace struct {
	limit  time.Duration
	timer  *time.Timer
	isLate atomic.Bool
}

func newPace(limit time.Duration, expire func()) *pace {
	p := &pace{limit: limit}
	p.timer = time.AfterFunc(limit, func() {
		p.isLate.Store(true)
		expire()
	})
	return p
}

// moved notes that something moved.
func (p *pace) moved() { p.timer.Reset(p.limit) }

// transfer is do for what moves an image: it ends when nothing moved for Config.Stall.
// An engine that does not answer is known at once.
func (d *Docker) transfer(ctx context.Context, what string, fn func(context.Context, *client.Client, *pace) error) error {
	c, err := d.answering(ctx, what)
	if err != nil {
		return err
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	p := newPace(d.cfg.Stall, cancel)
	err = fn(within, c, p)
	p.timer.Stop()
	if err != nil && p.isLate.Load() && ctx.Err() == nil {
		if _, down := d.answering(ctx, what); down != nil {
			return down
		}
		return fmt.Errorf("%s: nothing moved for %s", what, d.cfg.Stall)
	}
	return d.check(ctx, ctx, c, d.cfg.Stall, what, err)
}

// answering returns a client of an engine that answers.
func (d *Docker) answering(ctx context.Context, what string) (*client.Client, error) {
	return call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) (*client.Client, error) {
		_, err := c.Ping(ctx)
		return c, err
	})
}

// maxStreamLine bounds a line of what an engine tells while it moves an image; they are
// some hundred bytes long.
const maxStreamLine = 64 << 10

// streamLine is one line of what an engine tells while it moves an image.
type streamLine struct {
	ID       string `json:"id"` // of a layer, in short
	Status   string `json:"status"`
	Progress struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
	Error  string `json:"error"`
	Detail struct {
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// engineSays is an error in the engine's own words.
type engineSays struct{ text string }

func (e *engineSays) Error() string { return e.text }

// readStream reads what an engine tells while it moves an image, to its end. The first
// error in it is *engineSays. fn gets every other line.
func readStream(r io.Reader, fn func(*streamLine)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxStreamLine)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var line streamLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			if !lines.Scan() && lines.Err() != nil { // it broke off in this line: that is why
				err = lines.Err()
			}
			return fmt.Errorf("read what the engine tells: %w", err)
		}
		switch {
		case line.Detail.Message != "":
			return &engineSays{text: line.Detail.Message}
		case line.Error != "":
			return &engineSays{text: line.Error}
		}
		fn(&line)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read what the engine tells: %w", err)
	}
	return nil
}
