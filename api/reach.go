// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"connectrpc.com/connect"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// reaching returns the ports of a member that carries connections.
func (s *Server) reaching() (*Cluster, error) {
	c, err := s.cluster()
	if err == nil && c.Reach == nil {
		return nil, &Error{Code: CodeRefused, What: "this daemon carries no connections"}
	}
	return c, err
}

// ListPorts implements the service.
func (s *Server) ListPorts(ctx context.Context, _ *connect.Request[shoalv1.ListPortsRequest]) (*connect.Response[shoalv1.ListPortsResponse], error) {
	c, err := s.reaching()
	if err != nil {
		return nil, err
	}
	out := &shoalv1.ListPortsResponse{Freshness: s.freshness(s.moment(ctx, c))}
	for _, p := range c.Reach.Ports() {
		out.Ports = append(out.Ports, &shoalv1.PortRow{
			Port: uint32(p.Port), Protocol: p.Protocol, Service: p.Service, Target: uint32(p.Target), Losers: p.Losers,
			Address: p.Address, Trouble: p.Trouble, Usable: int32(p.Usable), Open: int32(p.Open), Total: p.Total,
			InBytes: p.In, OutBytes: p.Out, Refused: p.Refused,
		})
	}
	return connect.NewResponse(out), nil
}

// ListReach implements the service.
func (s *Server) ListReach(ctx context.Context, req *connect.Request[shoalv1.ListReachRequest]) (*connect.Response[shoalv1.ListReachResponse], error) {
	c, err := s.reaching()
	if err != nil {
		return nil, err
	}
	name := req.Msg.GetService()
	if err := shoal.CheckName("service", name); err != nil {
		return nil, err
	}
	m := s.moment(ctx, c)
	rows, err := c.Reach.Replicas(name)
	if errors.Is(err, shoal.ErrNotFound) {
		return nil, newPane(c.Views.View(), s.deps.Clock.Mono()).noService(name)
	}
	if err != nil {
		return nil, err
	}
	out := &shoalv1.ListReachResponse{Freshness: s.freshness(m)}
	for _, r := range rows {
		out.Replicas = append(out.Replicas, &shoalv1.ReachRow{
			Replica: r.Replica.String(), Slot: int32(r.Slot), Holder: m.place(r.Holder), IsUsable: r.IsUsable, Why: r.Why,
			Path: r.Path, Weight: int32(r.Weight), Open: int32(r.Open),
			ConnectSeconds: r.Connect.Seconds(), FirstByteSeconds: r.FirstByte.Seconds(),
		})
	}
	return connect.NewResponse(out), nil
}

// Forward implements the service.
func (s *Server) Forward(ctx context.Context, stream *connect.BidiStream[shoalv1.ForwardRequest, shoalv1.ForwardResponse]) error {
	c, err := s.reaching()
	if err != nil {
		return err
	}
	first, err := stream.Receive()
	if err != nil {
		return &Error{Code: CodeInvalid, What: "forward has no first message", Why: oneLine(err.Error())}
	}
	start := first.GetStart()
	switch {
	case start == nil:
		return &shoal.InvalidError{Field: "start", Why: "must be the first message"}
	case start.GetPort() == 0 || start.GetPort() > math.MaxUint16:
		return &shoal.InvalidError{Field: "port", Why: fmt.Sprintf("must be 1-65535, got %d", start.GetPort())}
	case start.GetSlot() < -1:
		return &shoal.InvalidError{Field: "slot", Why: fmt.Sprintf("must be -1 or more, got %d", start.GetSlot())}
	}
	name := start.GetService()
	if err := shoal.CheckName("service", name); err != nil {
		return err
	}
	if _, ok := c.Views.View().Service(name); !ok {
		return newPane(c.Views.View(), s.deps.Clock.Mono()).noService(name)
	}
	requests := controlOf(ctx)
	if err := requests.goOn(); err != nil {
		return fmt.Errorf("read what is sent: %w", err)
	}
	in, sent := io.Pipe()
	var input sync.WaitGroup
	input.Go(func() { receive(stream, sent) })
	conn := &forwarded{in: in, say: func(m *shoalv1.ForwardResponse) error { return stream.Send(m) }}
	err = c.Reach.Forward(ctx, shoal.Target{Service: name, Slot: int(start.GetSlot())}, uint16(start.GetPort()), conn)
	_ = in.Close() // it never fails
	requests.end()
	input.Wait()
	return err
}

// receive passes on what a client sends until it ends.
func receive(stream *connect.BidiStream[shoalv1.ForwardRequest, shoalv1.ForwardResponse], to *io.PipeWriter) {
	for {
		m, err := stream.Receive()
		if err != nil {
			_ = to.CloseWithError(io.ErrUnexpectedEOF) // who goes without a word has not sent all
			return
		}
		if m.GetEnd() {
			_ = to.Close()
			continue // it may only go once it has heard all
		}
		if _, err := to.Write(m.GetData()); err != nil {
			continue // nobody reads it any more
		}
	}
}

// forwarded is a client's connection as the daemon carries it.
type forwarded struct {
	in *io.PipeReader

	mu  sync.Mutex // guards say: one message at a time
	say func(*shoalv1.ForwardResponse) error
}

// Read implements [io.Reader].
func (f *forwarded) Read(p []byte) (int, error) { return f.in.Read(p) }

// Write implements [io.Writer].
func (f *forwarded) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return pieces(func(p []byte) error {
		return f.say(&shoalv1.ForwardResponse{What: &shoalv1.ForwardResponse_Data{Data: p}})
	}).Write(p)
}

// CloseWrite says that nothing more comes.
func (f *forwarded) CloseWrite() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.say(&shoalv1.ForwardResponse{What: &shoalv1.ForwardResponse_End{End: true}})
}

// Close implements [io.Closer].
func (f *forwarded) Close() error { return f.in.Close() }
