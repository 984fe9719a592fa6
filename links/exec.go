// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Exec implements shoal.Remote. A command in a replica of this peer takes no detour.
func (l *Links) Exec(ctx context.Context, id shoal.PeerID, at shoal.Target, opts shoal.ExecOptions, t shoal.Terminal) (int, error) {
	closeIn := sync.OnceFunc(func() {
		if t.In != nil {
			_ = t.In.Close() // nobody reads it any more
		}
	})
	defer closeIn()
	if err := opts.Check(); err != nil {
		return 0, err
	}
	what := fmt.Sprintf("exec on peer %s", id.Short())
	if id == l.id.Self() {
		inside := l.insider()
		if inside == nil {
			return 0, fmt.Errorf("%s: %w", what, shoal.ErrEngineDown)
		}
		return inside.Exec(ctx, at, opts, t)
	}
	opts.Stdin = opts.Stdin && t.In != nil
	s, err := l.openInside(ctx, id, what, ProtocolExec, &shoalv1.ExecRequest{What: &shoalv1.ExecRequest_Start{Start: proto.ExecMessage(at, &opts)}})
	if err != nil {
		return 0, err
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(within, func() { _ = s.Reset() }) // at the end there is nothing to flush
	defer stop()
	out := &asking{s: s}
	var sides sync.WaitGroup
	if opts.Stdin {
		sides.Go(func() { sendInput(out, t.In) })
	}
	if t.Resize != nil {
		sides.Go(func() { sendSizes(within, out, t.Resize) })
	}
	code, err := hearExec(s, what, t)
	cancel()
	closeIn()
	sides.Wait()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return code, err
}

// hearExec writes what a command says until it ends.
func hearExec(s network.Stream, what string, t shoal.Terminal) (int, error) {
	for {
		var m shoalv1.ExecResponse
		err := heard(s, what, &m)
		if err != nil {
			return 0, err
		}
		switch m := m.GetWhat().(type) {
		case *shoalv1.ExecResponse_Stdout:
			_, err = t.Out.Write(m.Stdout)
		case *shoalv1.ExecResponse_Stderr:
			_, err = t.Err.Write(m.Stderr)
		case *shoalv1.ExecResponse_End:
			return int(m.End.GetExitCode()), errorFrom(what, m.End.GetError())
		}
		if err != nil {
			return 0, err
		}
	}
}

// sendInput sends what is typed, and its end. A command that reads nothing stops it.
func sendInput(out *asking, in io.Reader) {
	buf := make([]byte, insideData)
	for {
		n, err := in.Read(buf)
		if n > 0 && out.send(&shoalv1.ExecRequest{What: &shoalv1.ExecRequest_Stdin{Stdin: buf[:n]}}) != nil {
			return
		}
		if err != nil {
			_ = out.send(&shoalv1.ExecRequest{What: &shoalv1.ExecRequest_StdinEnd{StdinEnd: true}}) // the command may be gone
			return
		}
	}
}

func sendSizes(ctx context.Context, out *asking, sizes <-chan shoal.WindowSize) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok || out.send(&shoalv1.ExecRequest{What: &shoalv1.ExecRequest_Resize{Resize: proto.SizeMessage(size)}}) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// serveExec runs one command for another member.
func (l *Links) serveExec(ctx context.Context, s network.Stream) {
	var ask shoalv1.ExecRequest
	err := begun(s, &ask)
	if err == nil && ask.GetStart() == nil {
		err = errors.New("does not begin with a start")
	}
	if err != nil {
		l.log.Debug("exec not begun", logkey.Err, err)
		_ = s.Reset()
		return
	}
	out := &answering{s: s}
	code, err := l.runFor(ctx, s, out, ask.GetStart())
	end := &shoalv1.ExecEnd{ExitCode: int32(code), Error: streamError(err)}
	if err := out.send(&shoalv1.ExecResponse{What: &shoalv1.ExecResponse_End{End: end}}); err != nil {
		_ = s.Reset() // the asker is gone
		return
	}
	_ = s.Close()
}

// runFor runs a command for the member at the other end of s until it or the stream ends.
func (l *Links) runFor(ctx context.Context, s network.Stream, out *answering, start *shoalv1.ExecStart) (int, error) {
	inside, err := l.admitFrom(s)
	if err != nil {
		return 0, err
	}
	defer l.commands.Add(-1)
	at, opts := proto.ExecFrom(start)
	l.log.Info("command from another peer", logkey.Peer, s.Conn().RemotePeer(), logkey.Service, clip(at.Service), logkey.Slot, at.Slot)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, typed := io.Pipe()
	sizes := make(chan shoal.WindowSize)
	var sides sync.WaitGroup
	sides.Go(func() {
		defer cancel() // who goes takes the command along
		hearInput(ctx, s, typed, sizes)
	})
	sides.Go(func() { pulse(ctx, cancel, out, &shoalv1.ExecResponse{}) })
	t := shoal.Terminal{
		Out: writer(func(p []byte) error {
			return out.send(&shoalv1.ExecResponse{What: &shoalv1.ExecResponse_Stdout{Stdout: p}})
		}),
		Err: writer(func(p []byte) error {
			return out.send(&shoalv1.ExecResponse{What: &shoalv1.ExecResponse_Stderr{Stderr: p}})
		}),
	}
	if opts.Stdin {
		t.In = in
	} else {
		_ = in.Close()
	}
	if opts.TTY {
		t.Resize = sizes
	}
	code, err := inside.Exec(ctx, at, opts, t)
	cancel()
	_ = in.Close()
	_ = s.SetReadDeadline(time.Now()) // nothing more is heard
	sides.Wait()
	return code, err
}

// hearInput passes on what is typed until the asker goes or ctx ends.
func hearInput(ctx context.Context, s network.Stream, typed *io.PipeWriter, sizes chan<- shoal.WindowSize) {
	defer func() { _ = typed.CloseWithError(io.EOF) }()
	for {
		var m shoalv1.ExecRequest
		if err := frame.Read(s, &m, insideFrame); err != nil {
			return
		}
		switch m := m.GetWhat().(type) {
		case *shoalv1.ExecRequest_Stdin:
			_, _ = typed.Write(m.Stdin) // a command need not read
		case *shoalv1.ExecRequest_StdinEnd:
			_ = typed.Close() // never fails
		case *shoalv1.ExecRequest_Resize:
			select {
			case sizes <- proto.SizeFrom(m.Resize):
			case <-ctx.Done():
				return
			}
		}
	}
}
