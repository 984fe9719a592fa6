// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"connectrpc.com/connect"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// execPiece is how much of an output or input goes into one message.
const execPiece = 32 << 10

// Exec implements the service.
func (s *Server) Exec(ctx context.Context, stream *connect.BidiStream[shoalv1.ExecRequest, shoalv1.ExecResponse]) error {
	c, err := s.cluster()
	if err != nil {
		return err
	}
	first, err := stream.Receive()
	if err != nil {
		return &Error{Code: CodeInvalid, What: "exec has no first message", Why: oneLine(err.Error())}
	}
	if first.GetStart() == nil {
		return &shoal.InvalidError{Field: "start", Why: "must be the first message"}
	}
	at, opts := proto.ExecFrom(first.GetStart())
	holder, err := s.holderOf(c, at)
	if err != nil {
		return err
	}
	requests := controlOf(ctx)
	if err := requests.goOn(); err != nil {
		return fmt.Errorf("read what is typed: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, typed := io.Pipe()
	sizes := make(chan shoal.WindowSize)
	var input sync.WaitGroup
	input.Go(func() { hear(ctx, stream, typed, sizes) })
	var one sync.Mutex // one message at a time
	say := func(m *shoalv1.ExecResponse) error {
		one.Lock()
		defer one.Unlock()
		return stream.Send(m)
	}
	t := shoal.Terminal{
		Resize: sizes,
		Out:    pieces(func(p []byte) error { return say(&shoalv1.ExecResponse{What: &shoalv1.ExecResponse_Stdout{Stdout: p}}) }),
		Err:    pieces(func(p []byte) error { return say(&shoalv1.ExecResponse{What: &shoalv1.ExecResponse_Stderr{Stderr: p}}) }),
	}
	if opts.Stdin {
		t.In = in
	} else {
		_ = in.Close()
	}
	code, err := c.Remote.Exec(ctx, holder, at, opts, t)
	cancel()
	_ = in.Close()
	requests.end()
	input.Wait()
	if err != nil {
		return err
	}
	return say(&shoalv1.ExecResponse{What: &shoalv1.ExecResponse_End{End: &shoalv1.ExecEnd{ExitCode: int32(code)}}})
}

// hear passes on what is typed until the client goes or ctx ends.
func hear(ctx context.Context, stream *connect.BidiStream[shoalv1.ExecRequest, shoalv1.ExecResponse], typed *io.PipeWriter, sizes chan<- shoal.WindowSize) {
	defer func() { _ = typed.Close() }() // never fails
	for {
		m, err := stream.Receive()
		if err != nil {
			return
		}
		switch m := m.GetWhat().(type) {
		case *shoalv1.ExecRequest_Stdin:
			_, _ = typed.Write(m.Stdin) // a command need not read
		case *shoalv1.ExecRequest_StdinEnd:
			_ = typed.Close() // as above
		case *shoalv1.ExecRequest_Resize:
			select {
			case sizes <- proto.SizeFrom(m.Resize):
			case <-ctx.Done():
				return
			}
		}
	}
}

// holderOf returns who can be asked for a slot's replica: of several the one that is
// ready, then this peer itself.
func (s *Server) holderOf(c *Cluster, at shoal.Target) (shoal.PeerID, error) {
	p := newPane(c.Views.View(), s.deps.Clock.Mono())
	claims := p.view.ClaimsOf(at.Service)
	if _, ok := p.view.Service(at.Service); !ok && len(claims) == 0 {
		return "", p.noService(at.Service)
	}
	var best *shoal.Claim
	for i := range claims {
		if claims[i].Slot == at.Slot && (best == nil || p.worth(&claims[i]) > p.worth(best)) {
			best = &claims[i]
		}
	}
	if best == nil {
		return "", &Error{Code: CodeNotFound, What: fmt.Sprintf("no replica of %s is known here", at), Why: p.synced(), Todo: "see shoal ps"}
	}
	if !p.view.Alive(best.Holder) {
		return "", &Error{Code: CodeUnreachable, What: fmt.Sprintf("peer %s, which holds %s, is %s", p.name(best.Holder), at, p.silence(best.Holder))}
	}
	if st, ok := p.view.Replica(best.Replica); ok && st.Container == "" {
		return "", &Error{Code: CodeNotFound, What: fmt.Sprintf("%s has no container: it is %s", at, st.Phase), Why: oneLine(st.Reason), Todo: "see shoal ps"}
	}
	return best.Holder, nil
}

// worth orders the claims of a slot by what can be done inside.
func (p *pane) worth(c *shoal.Claim) int {
	n := 0
	if st, ok := p.view.Replica(c.Replica); ok && st.Phase == shoal.PhaseReady {
		n += 2
	}
	if c.Holder == p.view.Self() {
		n++
	}
	if p.view.Alive(c.Holder) {
		n += 4
	}
	return n
}

// pieces cuts what is written to fit into messages.
type pieces func(p []byte) error

// Write implements [io.Writer].
func (w pieces) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		end := min(len(p), n+execPiece)
		if err := w(p[n:end]); err != nil {
			return n, err
		}
		n = end
	}
	return n, nil
}

// Pick returns the replica of a service to reach into if the user named none: the
// lowest ready slot, one of the asked peer's own first; and of how many that is one.
func (c *Client) Pick(ctx context.Context, service string) (Replica, int, error) {
	status, err := c.Status(ctx)
	if err != nil {
		return Replica{}, 0, err
	}
	all, err := c.Replicas(ctx, service)
	if err != nil {
		return Replica{}, 0, err
	}
	var best *Replica
	ready := 0
	for i := range all.Items {
		r := &all.Items[i]
		if r.State != shoal.PhaseReady.String() {
			continue
		}
		ready++
		own, bestOwn := r.Peer == status.Self, best != nil && best.Peer == status.Self
		if best == nil || own && !bestOwn || own == bestOwn && r.Slot < best.Slot {
			best = r
		}
	}
	if best == nil {
		return Replica{}, 0, &Error{Code: CodeNotFound, What: fmt.Sprintf("no replica of %s is ready", service), Todo: fmt.Sprintf("see shoal ps %s, or name one as %s/SLOT", service, service)}
	}
	return *best, ready, nil
}

// Exec runs a command in a replica, by the rules of shoal.Remote, and returns its
// exit code.
func (c *Client) Exec(ctx context.Context, at shoal.Target, opts shoal.ExecOptions, t shoal.Terminal) (int, error) {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.rpc.Exec(within)
	var side sync.WaitGroup
	defer side.Wait()
	defer func() {
		cancel()
		if t.In != nil {
			_ = t.In.Close() // nobody reads it any more
		}
		_ = stream.CloseResponse() // what it could say was said by Receive
	}()
	var one sync.Mutex // one message at a time
	say := func(m *shoalv1.ExecRequest) error {
		one.Lock()
		defer one.Unlock()
		return stream.Send(m)
	}
	opts.Stdin = opts.Stdin && t.In != nil
	if err := say(&shoalv1.ExecRequest{What: &shoalv1.ExecRequest_Start{Start: proto.ExecMessage(at, &opts)}}); err != nil && !errors.Is(err, io.EOF) {
		return 0, c.understand(err) // at the end of a stream Receive says why
	}
	if opts.Stdin {
		side.Go(func() { sendInput(say, t.In) })
	}
	if t.Resize != nil {
		side.Go(func() { sendSizes(within, say, t.Resize) })
	}
	for {
		m, err := stream.Receive()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return 0, &Error{Code: CodeUnreachable, What: fmt.Sprintf("shoald at %s closed the connection", c.name), Todo: "see shoald's log"}
			}
			return 0, c.understand(err)
		}
		switch m := m.GetWhat().(type) {
		case *shoalv1.ExecResponse_Stdout:
			_, err = t.Out.Write(m.Stdout)
		case *shoalv1.ExecResponse_Stderr:
			_, err = t.Err.Write(m.Stderr)
		case *shoalv1.ExecResponse_End:
			return int(m.End.GetExitCode()), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func sendInput(say func(*shoalv1.ExecRequest) error, in io.Reader) {
	buf := make([]byte, execPiece)
	for {
		n, err := in.Read(buf)
		if n > 0 && say(&shoalv1.ExecRequest{What: &shoalv1.ExecRequest_Stdin{Stdin: buf[:n]}}) != nil {
			return
		}
		if err != nil {
			_ = say(&shoalv1.ExecRequest{What: &shoalv1.ExecRequest_StdinEnd{StdinEnd: true}}) // the command may be gone
			return
		}
	}
}

func sendSizes(ctx context.Context, say func(*shoalv1.ExecRequest) error, sizes <-chan shoal.WindowSize) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok || say(&shoalv1.ExecRequest{What: &shoalv1.ExecRequest_Resize{Resize: proto.SizeMessage(size)}}) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
