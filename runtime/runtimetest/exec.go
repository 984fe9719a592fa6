// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// said is what a command wrote.
type said struct{ out, err bytes.Buffer }

// exec runs a command with input, "" for none.
func (f *Fixture) exec(ctx context.Context, id, input string, opts shoal.ExecOptions) (*said, int, error) {
	s := &said{}
	t := shoal.Terminal{Out: &s.out, Err: &s.err}
	if opts.Stdin {
		t.In = io.NopCloser(strings.NewReader(input))
	}
	code, err := f.Engine.Exec(ctx, id, opts, t)
	return s, code, err
}

func execs(t *testing.T, f *Fixture) {
	id := f.create(t, f.Container(&f.Steady))
	if _, _, err := f.exec(t.Context(), id, "", shoal.ExecOptions{Command: f.Print}); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Exec in a container that never ran = %v, want ErrConflict", err)
	}
	if err := f.Engine.Start(t.Context(), id); err != nil {
		t.Fatalf("Start = %v", err)
	}
	if s, code, err := f.exec(t.Context(), id, "", shoal.ExecOptions{Command: f.Print}); err != nil || code != 0 || s.out.String() != "aaa\n" || s.err.Len() != 0 {
		t.Errorf("Exec(print) = %q, %q, %d, %v; want aaa on standard output", &s.out, &s.err, code, err)
	}
	if s, code, err := f.exec(t.Context(), id, "", shoal.ExecOptions{Command: f.Print, TTY: true, Size: shoal.WindowSize{Width: 80, Height: 24}}); err != nil || code != 0 || s.out.String() != "aaa\r\n" {
		t.Errorf("Exec(print) on a terminal = %q, %d, %v; want aaa and both ends of a line", &s.out, code, err)
	}
	if s, code, err := f.exec(t.Context(), id, "", shoal.ExecOptions{Command: f.Quit}); err != nil || code != 5 {
		t.Errorf("Exec(quit) = %q, %d, %v; want exit code 5", &s.err, code, err)
	}
	if s, code, err := f.exec(t.Context(), id, "", shoal.ExecOptions{Command: []string{"/nosuch"}}); err != nil || code != 126 && code != 127 {
		t.Errorf("Exec of what is not there = %q, %d, %v; want 126 or 127", &s.out, code, err)
	}
	large := strings.Repeat("0123456789abcdef", 64<<10)
	if s, code, err := f.exec(t.Context(), id, large, shoal.ExecOptions{Command: f.Cat, Stdin: true}); err != nil || code != 0 || s.out.String() != large {
		t.Errorf("Exec(cat) of %d bytes = %d bytes, %d, %v", len(large), s.out.Len(), code, err)
	}
	var invalid *shoal.InvalidError
	if _, _, err := f.exec(t.Context(), id, "", shoal.ExecOptions{}); !errors.As(err, &invalid) || invalid.Field != "command" {
		t.Errorf("Exec of nothing = %v, want *InvalidError about the command", err)
	}
}

func execPolicy(t *testing.T, f *Fixture) {
	id := f.start(t, f.Container(&f.Steady))
	opts := shoal.ExecOptions{Command: f.Print, Privileged: true}
	var refused *shoal.PolicyError
	if _, _, err := f.exec(t.Context(), id, "", opts); !errors.As(err, &refused) || refused.Demand != "privileged" {
		t.Errorf("privileged Exec = %v, want *PolicyError", err)
	}
	f.SetRules("privileged")
	// 126: the machine itself, a container perhaps, may not give what its owner allows.
	if s, code, err := f.exec(t.Context(), id, "", opts); err != nil || code != 0 && code != 126 {
		t.Errorf("privileged Exec where it is allowed = %q, %d, %v", &s.out, code, err)
	}
}

// execEnds wants a command that waits for input to be left when the context ends, and
// to end with its container.
func execEnds(t *testing.T, f *Fixture) {
	id := f.start(t, f.Container(&f.Steady))
	ctx, cancel := context.WithCancel(t.Context())
	idle, _ := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := f.Engine.Exec(ctx, id, shoal.ExecOptions{Command: f.Cat, Stdin: true}, shoal.Terminal{In: idle, Out: io.Discard, Err: io.Discard})
		ended <- err
	}()
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Exec whose context ended = %v, want context.Canceled", err)
		}
	case <-time.After(f.Patience):
		t.Fatal("Exec did not return when its context ended")
	}
	ctx, cancel = context.WithTimeout(t.Context(), f.Patience)
	defer cancel()
	in, feed := io.Pipe()
	out := &echo{from: make(chan struct{}, 1)}
	code := make(chan int, 1)
	go func() {
		n, err := f.Engine.Exec(ctx, id, shoal.ExecOptions{Command: f.Cat, Stdin: true}, shoal.Terminal{In: in, Out: out, Err: out})
		if err != nil {
			t.Errorf("Exec whose container stopped = %v", err)
		}
		code <- n
	}()
	if _, err := feed.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	<-out.from // it runs
	if err := f.Engine.Stop(t.Context(), id, "", 5*time.Second); err != nil {
		t.Fatalf("Stop = %v", err)
	}
	if n := <-code; n == 0 {
		t.Error("Exec whose container stopped = 0, want the code of a killed command")
	}
}

// echo tells when something is written.
type echo struct{ from chan struct{} }

// Write implements io.Writer.
func (e *echo) Write(p []byte) (int, error) {
	select {
	case e.from <- struct{}{}:
	default:
	}
	return len(p), nil
}
