// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

var (
	// errSlow is the cause of our own deadlines, as against those of callers.
	errSlow    = errors.New("no answer in time")
	errStalled = errors.New("sends nothing any more")
)

// stream is the body of an answer, from a byte of the blob on.
type stream struct {
	ctx    context.Context // of the request; its cause says why a read failed
	cancel context.CancelCauseFunc
	body   io.ReadCloser
	size   int64 // of the whole blob; -1: it does not say
	left   int64 // that are to come; -1: it does not say
	skip   int64 // that come before those asked for
	got    int64
	stall  time.Duration
	timer  *time.Timer
	note   func(err error) error // told the first byte (nil), or what broke before it
	err    error
}

// Read implements [io.Reader].
func (s *stream) Read(p []byte) (int, error) {
	if s.skip > 0 && s.err == nil {
		s.pass(make([]byte, min(s.skip, 64<<10)))
	}
	if s.err != nil {
		return 0, s.err
	}
	return s.read(p)
}

// pass reads past what was not asked for: at most what the caller has already.
func (s *stream) pass(buf []byte) {
	for s.skip > 0 && s.err == nil {
		n, _ := s.read(buf[:min(s.skip, int64(len(buf)))])
		s.skip -= int64(n)
	}
}

func (s *stream) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.timer.Reset(s.stall)
	n, err := s.body.Read(p)
	s.timer.Stop()
	if s.left >= 0 {
		n = int(min(int64(n), s.left)) // what is more than it said is nobody's
		s.left -= int64(n)
		switch {
		case s.left == 0 && err == nil && n == 0:
			err = io.EOF
		case s.left > 0 && errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
	}
	if s.got == 0 && (n > 0 || errors.Is(err, io.EOF)) {
		_ = s.note(nil) // never fails
	}
	s.got += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(s.ctx); cause != nil {
			err = cause
		}
		if s.got == 0 {
			err = s.note(err)
		}
	}
	s.err = err
	return n, err
}

// Close implements [io.Closer].
func (s *stream) Close() error {
	s.timer.Stop()
	s.cancel(nil)
	return s.body.Close()
}

// all reads the whole of a small answer.
func (s *stream) all(limit int64) ([]byte, error) {
	if s.size > limit {
		return nil, tooLarge(limit)
	}
	raw, err := io.ReadAll(io.LimitReader(s, limit+1))
	if err == nil && int64(len(raw)) > limit {
		return nil, tooLarge(limit)
	}
	return raw, err
}

func tooLarge(limit int64) error {
	return &wrongAnswer{fmt.Sprintf("answers more than %d bytes", limit)}
}

// wrongAnswer is an answer that came and is none to what was asked.
type wrongAnswer struct{ why string }

func (e *wrongAnswer) Error() string { return e.why }
