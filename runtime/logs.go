// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/shoalnet/shoal"
)

// maxLine is the longest line that Logs gives on; longer ones are split.
const maxLine = 64 << 10

// Logs implements [shoal.Console]. The engine does not know the slot: LogLine.Slot
// is -1 and the caller fills it in. Lines longer than 64 KiB are split, bytes that
// are not UTF-8 replaced. A container that is not ours is ErrRefused.
func (d *Docker) Logs(ctx context.Context, id string, opts shoal.LogOptions, fn func(shoal.LogLine) error) error {
	what := "read logs of " + short(id)
	who, err := d.own(ctx, what, id)
	if err != nil {
		return err
	}
	info, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) (container.InspectResponse, error) {
		return c.ContainerInspect(ctx, id)
	})
	if err != nil {
		return err
	}
	c, err := d.connectWithin(ctx)
	if err != nil {
		return d.check(ctx, ctx, nil, d.cfg.Quick, what, err)
	}

	within, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(d.cfg.Quick, cancel)
	body, err := c.ContainerLogs(within, id, logsOptions(opts))
	if !late.Stop() && ctx.Err() == nil {
		d.forget(c, err)
		return fmt.Errorf("%s: no answer within %s: %w", what, d.cfg.Quick, shoal.ErrEngineDown)
	}
	if err != nil {
		return d.check(ctx, ctx, c, d.cfg.Quick, what, err)
	}
	stream := &patient{from: body}
	if !opts.Follow { // a follower may wait for the next line for ever, others may not
		stream.limit, stream.expire = d.cfg.Quick, cancel
	}
	out := &lines{give: func(l shoal.LogLine) error {
		l.Peer, l.Service, l.Slot, l.Replica = who.peer, who.service, -1, who.replica
		return fn(l)
	}}
	if info.Config != nil && info.Config.Tty {
		err = copyLines(out.stream(false), stream)
	} else {
		_, err = stdcopy.StdCopy(out.stream(false), out.stream(true), stream)
	}
	_ = body.Close() // it was only read from
	if err == nil {
		err = out.end()
	}
	switch {
	case out.failed != nil:
		return out.failed // fn's own error, as it is
	case stream.expired.Load() && ctx.Err() == nil:
		return fmt.Errorf("%s: no more within %s: %w", what, d.cfg.Quick, shoal.ErrEngineDown)
	default:
		return d.check(ctx, ctx, c, d.cfg.Quick, what, err)
	}
}

// copyLines writes the output of a terminal, which has no message borders, line by line.
func copyLines(to *stream, from io.Reader) error {
	r := bufio.NewReaderSize(from, maxLine)
	for {
		line, err := r.ReadSlice('\n')
		if _, failed := to.Write(line); failed != nil {
			return failed
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

func logsOptions(opts shoal.LogOptions) container.LogsOptions {
	out := container.LogsOptions{
		ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: opts.Follow,
		Since: stamp(opts.Since), Until: stamp(opts.Until), Tail: "all",
	}
	if opts.Tail >= 0 {
		out.Tail = strconv.Itoa(opts.Tail)
	}
	return out
}

// stamp writes a time as engines read it: seconds.nanoseconds; zero is "".
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond())
}

// lines makes lines of what an engine sends.
type lines struct {
	give    func(shoal.LogLine) error
	streams []*stream
	failed  error // of give
}

// stream is one of a container's two outputs. Every Write is one message of the
// engine: a timestamp, a space, and a line or (16 KiB and more) a part of one,
// which then has no newline at its end.
type stream struct {
	to      *lines
	stderr  bool
	time    time.Time
	pending []byte
	part    bool // pending is the begin of a line whose timestamp was read
}

func (l *lines) stream(stderr bool) *stream {
	s := &stream{to: l, stderr: stderr}
	l.streams = append(l.streams, s)
	return s
}

// end gives what has no newline yet.
func (l *lines) end() error {
	for _, s := range l.streams {
		if len(s.pending) > 0 {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Write implements io.Writer.
func (s *stream) Write(p []byte) (int, error) {
	n := len(p)
	for first := true; len(p) > 0; first = false {
		line, rest, whole := bytes.Cut(p, []byte{'\n'})
		p = rest
		if !s.part || first { // parts of one line carry a timestamp each
			line = s.stamped(line)
		}
		for len(s.pending)+len(line) > maxLine {
			cut := maxLine - len(s.pending)
			s.pending = append(s.pending, line[:cut]...)
			line = line[cut:]
			if err := s.flush(); err != nil {
				return 0, err
			}
		}
		s.pending = append(s.pending, line...)
		s.part = !whole
		if whole {
			if err := s.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// stamped cuts the timestamp off the begin of a message, if there is one.
func (s *stream) stamped(line []byte) []byte {
	head, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok || len(head) > len("2006-01-02T15:04:05.000000000+00:00") {
		return line
	}
	t, err := time.Parse(time.RFC3339Nano, string(head))
	if err != nil {
		return line
	}
	if !s.part {
		s.time = t
	}
	return rest
}

func (s *stream) flush() error {
	text := strings.ToValidUTF8(strings.TrimSuffix(string(s.pending), "\r"), "\uFFFD")
	s.pending = s.pending[:0]
	if err := s.to.give(shoal.LogLine{Time: s.time, Stderr: s.stderr, Text: text}); err != nil {
		s.to.failed = err
		return errors.New("reader of logs has ended")
	}
	return nil
}
