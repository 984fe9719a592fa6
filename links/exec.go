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
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Bounds of a stream into a container. A command may be silent for days: its holder
// says so every execPulse, and who hears nothing for execSilence has lost it.
const (
	execFrame   = 64 << 10
	execData    = 32 << 10 // of one message
	execPulse   = 10 * time.Second
	execSilence = 40 * time.Second
	execOpen    = 10 * time.Second
	maxCommands = 32 // that other members may run here at once
)

// Inside reaches into this peer's own replicas, by the rules of shoal.Remote.
type Inside interface {
	Exec(ctx context.Context, at shoal.Target, opts shoal.ExecOptions, t shoal.Terminal) (int, error)
	Usage(ctx context.Context) ([]shoal.Usage, error)
}

// ServeInside sets who reaches into this peer's replicas.
func (l *Links) ServeInside(inside Inside) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inside = inside
}

func (l *Links) insider() Inside {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inside
}

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
	s, err := l.openExec(ctx, id, what, &shoalv1.ExecRequest{What: &shoalv1.ExecRequest_Start{Start: proto.ExecMessage(at, &opts)}})
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

// openExec opens a stream to a member and says what to run.
func (l *Links) openExec(ctx context.Context, id shoal.PeerID, what string, start *shoalv1.ExecRequest) (network.Stream, error) {
	p, err := peer.Decode(string(id))
	if err != nil || !l.gate.isMember(p) {
		return nil, fmt.Errorf("%s: no such member: %w", what, shoal.ErrNotFound)
	}
	open, cancel := context.WithTimeout(ctx, l.cfg.DialTimeout)
	defer cancel()
	s, err := l.host.NewStream(open, p, ProtocolExec)
	if err == nil {
		if err = s.SetWriteDeadline(time.Now().Add(execOpen)); err == nil {
			err = frame.Write(s, start, execFrame)
		}
		if err == nil {
			err = s.SetWriteDeadline(time.Time{})
		}
		if err != nil {
			_ = s.Reset() // err says it all
		}
	}
	switch {
	case err == nil:
		return s, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("%s: %w: %s", what, shoal.ErrUnreachable, oneLine(err))
}

// hearExec writes what a command says until it ends.
func hearExec(s network.Stream, what string, t shoal.Terminal) (int, error) {
	for {
		var m shoalv1.ExecResponse
		err := s.SetReadDeadline(time.Now().Add(execSilence))
		if err == nil {
			err = frame.Read(s, &m, execFrame)
		}
		if err != nil {
			return 0, fmt.Errorf("%s: link broke: %w: %s", what, shoal.ErrUnreachable, oneLine(err))
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

// asking sends from several goroutines. It waits as long as it takes, for a command may
// read its input when it likes; the end of the stream ends it.
type asking struct {
	mu sync.Mutex // one message at a time
	s  network.Stream
}

func (w *asking) send(m *shoalv1.ExecRequest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return frame.Write(w.s, m, execFrame)
}

// answering sends from several goroutines, and gives up on who does not read.
type answering struct {
	mu sync.Mutex // one message at a time
	s  network.Stream
}

func (w *answering) send(m *shoalv1.ExecResponse) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.s.SetWriteDeadline(time.Now().Add(execSilence)); err != nil {
		return err
	}
	return frame.Write(w.s, m, execFrame)
}

// sendInput sends what is typed, and its end. A command that reads nothing stops it.
func sendInput(out *asking, in io.Reader) {
	buf := make([]byte, execData)
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
	err := s.SetReadDeadline(time.Now().Add(execOpen))
	if err == nil {
		err = frame.Read(s, &ask, execFrame)
	}
	if err == nil {
		err = s.SetReadDeadline(time.Time{})
	}
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
	sides.Go(func() { pulse(ctx, cancel, out) })
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

// admitFrom says whether the member at the other end may run something here, and
// counts it if so.
func (l *Links) admitFrom(s network.Stream) (Inside, error) {
	asker := shoal.PeerID(s.Conn().RemotePeer().String())
	l.mu.Lock()
	inside, desired := l.inside, l.desired
	l.mu.Unlock()
	if inside == nil {
		return nil, shoal.ErrEngineDown
	}
	var role shoal.Role
	if desired != nil { // who was linked before the records were read is not known yet
		if p, ok := desired.Peer(asker); ok {
			role = p.Role
		}
	}
	switch role {
	case shoal.RoleOperator:
	case "":
		return nil, fmt.Errorf("it does not know peer %s yet; try again in a moment: %w", asker.Short(), shoal.ErrRefused)
	default:
		return nil, fmt.Errorf("peer %s has role %q, and only operators reach into containers of others; ask on one: %w", asker.Short(), role, shoal.ErrRefused)
	}
	if l.commands.Add(1) > maxCommands {
		l.commands.Add(-1)
		return nil, fmt.Errorf("it runs %d commands for others already; try again later: %w", maxCommands, shoal.ErrRefused)
	}
	return inside, nil
}

// hearInput passes on what is typed until the asker goes or ctx ends.
func hearInput(ctx context.Context, s network.Stream, typed *io.PipeWriter, sizes chan<- shoal.WindowSize) {
	defer func() { _ = typed.CloseWithError(io.EOF) }()
	for {
		var m shoalv1.ExecRequest
		if err := frame.Read(s, &m, execFrame); err != nil {
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

// pulse tells the asker that the command goes on, and notices when nobody listens.
func pulse(ctx context.Context, cancel func(), out *answering) {
	tick := time.NewTicker(execPulse)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if out.send(&shoalv1.ExecResponse{}) != nil {
				cancel()
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// writer cuts what is written into pieces that fit a message.
type writer func(p []byte) error

// Write implements io.Writer.
func (w writer) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		piece := p[n:min(len(p), n+execData)]
		if err := w(piece); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}
