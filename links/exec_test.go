// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// insideFunc is an Inside of one function.
type insideFunc func(ctx context.Context, at shoal.Target, opts shoal.ExecOptions, t shoal.Terminal) (int, error)

func (f insideFunc) Exec(ctx context.Context, at shoal.Target, opts shoal.ExecOptions, t shoal.Terminal) (int, error) {
	return f(ctx, at, opts, t)
}

// CopyFrom implements [Inside].
func (insideFunc) CopyFrom(context.Context, shoal.Target, string, func(shoal.PathStat) error, io.Writer) error {
	return shoal.ErrNotFound
}

// CopyTo implements [Inside].
func (insideFunc) CopyTo(context.Context, shoal.Target, string, io.ReadCloser) error {
	return shoal.ErrNotFound
}

// Usage implements [Inside].
func (insideFunc) Usage(context.Context) ([]shoal.Usage, error) { return nil, nil }

// LastWords implements [Inside].
func (insideFunc) LastWords(context.Context, string) ([]shoal.LastWords, error) { return nil, nil }

// cat copies what comes in to both outputs and ends with 7.
func cat(_ context.Context, _ shoal.Target, _ shoal.ExecOptions, t shoal.Terminal) (int, error) {
	if _, err := io.Copy(io.MultiWriter(t.Out, t.Err), t.In); err != nil {
		return 0, err
	}
	return 7, nil
}

// idle waits until it is left.
func idle(ctx context.Context, _ shoal.Target, _ shoal.ExecOptions, _ shoal.Terminal) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func TestExecAcross(t *testing.T) {
	a, b := pair(t)
	var target shoal.Target
	var options shoal.ExecOptions
	a.ServeInside(insideFunc(func(ctx context.Context, at shoal.Target, opts shoal.ExecOptions, term shoal.Terminal) (int, error) {
		target, options = at, opts
		return cat(ctx, at, opts, term)
	}))
	at := shoal.Target{Service: "web", Slot: 3}
	opts := shoal.ExecOptions{
		Command: []string{"cat", "-"}, Env: map[string]string{"A": "b=c"}, User: "nobody", WorkDir: "/srv", Stdin: true, Privileged: true,
		Size: shoal.WindowSize{Width: 80, Height: 24},
	}
	large := strings.Repeat("0123456789abcdef", 32<<10)
	var out, errs bytes.Buffer
	code, err := b.Exec(t.Context(), a.id.Self(), at, opts, shoal.Terminal{In: io.NopCloser(strings.NewReader(large)), Out: &out, Err: &errs})
	if err != nil || code != 7 || out.String() != large || errs.String() != large {
		t.Errorf("Exec = %d, %v; %d and %d bytes, want 7 and %d each", code, err, out.Len(), errs.Len(), len(large))
	}
	if target != at {
		t.Errorf("target = %v, want %v", target, at)
	}
	if diff := cmp.Diff(opts, options); diff != "" {
		t.Errorf("options differ (-asked +arrived):\n%s", diff)
	}
	// Its own replica it reaches without a stream.
	out.Reset()
	if code, err := a.Exec(t.Context(), a.id.Self(), at, opts, shoal.Terminal{In: io.NopCloser(strings.NewReader("x")), Out: &out, Err: &errs}); err != nil || code != 7 || out.String() != "x" {
		t.Errorf("Exec on this peer = %d, %v, %q", code, err, &out)
	}
}

func TestExecResize(t *testing.T) {
	a, b := pair(t)
	a.ServeInside(insideFunc(func(_ context.Context, _ shoal.Target, opts shoal.ExecOptions, term shoal.Terminal) (int, error) {
		next := <-term.Resize
		_, err := fmt.Fprint(term.Out, opts.Size, next)
		return 0, err
	}))
	sizes := make(chan shoal.WindowSize, 1)
	sizes <- shoal.WindowSize{Width: 100, Height: 50}
	var out bytes.Buffer
	opts := shoal.ExecOptions{Command: []string{"sh"}, TTY: true, Size: shoal.WindowSize{Width: 80, Height: 24}}
	if _, err := b.Exec(t.Context(), a.id.Self(), shoal.Target{}, opts, shoal.Terminal{Out: &out, Resize: sizes}); err != nil || out.String() != "{80 24} {100 50}" {
		t.Errorf("Exec = %v, sizes %q", err, &out)
	}
}

// TestExecLeft: who asks goes, and the command's input and context end.
func TestExecLeft(t *testing.T) {
	a, b := pair(t)
	begun, ended := make(chan struct{}), make(chan error, 1)
	a.ServeInside(insideFunc(func(ctx context.Context, at shoal.Target, opts shoal.ExecOptions, term shoal.Terminal) (int, error) {
		close(begun)
		code, err := idle(ctx, at, opts, term)
		ended <- err
		return code, err
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-begun
		cancel()
	}()
	in, _ := io.Pipe()
	_, err := b.Exec(ctx, a.id.Self(), shoal.Target{}, shoal.ExecOptions{Command: []string{"sh"}, Stdin: true}, shoal.Terminal{In: in, Out: io.Discard, Err: io.Discard})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Exec = %v, want context.Canceled", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the command ended with %v, want context.Canceled", err)
	}
}

func TestExecErrors(t *testing.T) {
	a, b := pair(t)
	invalid := &shoal.InvalidError{Field: "path", Why: "is no directory"}
	for name, sent := range map[string]error{
		"not found": shoal.ErrNotFound, "engine down": shoal.ErrEngineDown, "refused": &shoal.PolicyError{Demand: "privileged"}, "conflict": shoal.ErrConflict, "invalid": invalid, "other": io.ErrNoProgress,
	} {
		a.ServeInside(insideFunc(func(context.Context, shoal.Target, shoal.ExecOptions, shoal.Terminal) (int, error) {
			return 0, fmt.Errorf("web/1: %w", sent)
		}))
		_, err := b.Exec(t.Context(), a.id.Self(), shoal.Target{}, shoal.ExecOptions{Command: []string{"sh"}}, shoal.Terminal{})
		got, ok := errors.AsType[*shoal.InvalidError](err)
		switch {
		case err == nil || !strings.Contains(err.Error(), sent.Error()):
			t.Errorf("%s: Exec = %v, want the words of %v", name, err, sent)
		case name == "invalid" && (!ok || *got != *invalid):
			t.Errorf("%s: Exec = %v, want %v", name, err, invalid)
		}
		for _, kind := range []error{shoal.ErrNotFound, shoal.ErrEngineDown, shoal.ErrRefused, shoal.ErrConflict} {
			if errors.Is(err, kind) != errors.Is(sent, kind) {
				t.Errorf("%s: Exec = %v; is %v: %v", name, err, kind, errors.Is(err, kind))
			}
		}
	}
	if _, err := b.Exec(t.Context(), "12D3KooWNobody", shoal.Target{}, shoal.ExecOptions{Command: []string{"sh"}}, shoal.Terminal{}); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Exec on a stranger = %v, want ErrNotFound", err)
	}
	if _, err := b.Exec(t.Context(), a.id.Self(), shoal.Target{}, shoal.ExecOptions{}, shoal.Terminal{}); err == nil {
		t.Error("Exec of nothing = nil")
	}
}

// TestExecRoles: a peer of role peer is told why it may not.
func TestExecRoles(t *testing.T) {
	a, b := newCluster(t, 1), newcomer(t, 2)
	_, err := b.Join(t.Context(), a.invite(t, shoal.TokenOptions{Role: shoal.RolePeer}), shoal.JoinOptions{})
	mustBe(t, "join", err)
	eventually(t, "b links a", linked(b, a.id.Self()))
	a.ServeInside(insideFunc(cat))
	_, err = b.Exec(t.Context(), a.id.Self(), shoal.Target{}, shoal.ExecOptions{Command: []string{"sh"}}, shoal.Terminal{})
	if !errors.Is(err, shoal.ErrRefused) || !strings.Contains(err.Error(), `has role "peer", and only operators reach into containers of others`) {
		t.Errorf("Exec by a role-peer peer = %v, want ErrRefused and why", err)
	}
}

func TestExecBounds(t *testing.T) {
	a, b := pair(t)
	a.ServeInside(insideFunc(idle))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, maxCommands)
	for range maxCommands {
		go func() {
			_, err := b.Exec(ctx, a.id.Self(), shoal.Target{}, shoal.ExecOptions{Command: []string{"sh"}}, shoal.Terminal{})
			ended <- err
		}()
	}
	eventually(t, "all run", func() bool { return a.commands.Load() == maxCommands })
	if _, err := b.Exec(ctx, a.id.Self(), shoal.Target{}, shoal.ExecOptions{Command: []string{"sh"}}, shoal.Terminal{}); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("one command too many = %v, want ErrRefused", err)
	}
	cancel()
	for range maxCommands {
		<-ended
	}
	eventually(t, "none runs", func() bool { return a.commands.Load() == 0 })

	s, err := b.host.NewStream(t.Context(), a.host.ID(), ProtocolExec)
	mustBe(t, "open stream", err)
	mustBe(t, "send", frame.Write(s, &shoalv1.ExecRequest{What: &shoalv1.ExecRequest_StdinEnd{StdinEnd: true}}, insideFrame))
	if err := frame.Read(s, &shoalv1.ExecResponse{}, insideFrame); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("answer to a stream that begins with input = %v, want a reset", err)
	}
}

// TestSimExecSilence: a silent command goes on for ever; one whose holder cannot be
// heard is lost, on both sides.
func TestSimExecSilence(t *testing.T) {
	simulate(t, 2, func(t *testing.T, sim *simulation) {
		d := sim.members(t)
		for _, p := range sim.peers {
			p.SetMembers(d)
		}
		time.Sleep(2 * time.Second)
		a, b := sim.peers[0], sim.peers[1]
		left := make(chan error, 1)
		a.ServeInside(insideFunc(func(ctx context.Context, at shoal.Target, opts shoal.ExecOptions, term shoal.Terminal) (int, error) {
			code, err := idle(ctx, at, opts, term)
			left <- err
			return code, err
		}))
		done := make(chan error, 1)
		go func() {
			_, err := b.Exec(t.Context(), a.id.Self(), shoal.Target{}, shoal.ExecOptions{Command: []string{"sh"}}, shoal.Terminal{})
			done <- err
		}()
		time.Sleep(10 * insideSilence)
		select {
		case err := <-done:
			t.Fatalf("a silent command ended with %v", err)
		default:
		}
		sim.cut.Store(true)
		if err := <-done; !errors.Is(err, shoal.ErrUnreachable) {
			t.Errorf("Exec through a cut network = %v, want ErrUnreachable", err)
		}
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the command of an asker that is gone ended with %v, want context.Canceled", err)
		}
		sim.cut.Store(false)
	})
}
