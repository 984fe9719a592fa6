// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

const (
	logsFrame = 64 << 10
	// logsText is how much of one line goes into one message; longer lines arrive in
	// pieces with the same time, as the engine cuts its own at 16 KiB.
	logsText = 48 << 10
	// logsStall is how long a reader may leave us unable to write.
	logsStall = 30 * time.Second
	logsOpen  = 10 * time.Second
)

// LogSource yields the lines of this peer's own replicas; ports' rules as for
// shoal.Remote.Logs. It must return soon after ctx ends or fn returned an error, and
// calls fn from one goroutine at a time.
type LogSource func(ctx context.Context, q shoal.LogQuery, fn func(shoal.LogLine) error) error

// ServeLogs sets where the lines of this peer's replicas come from.
func (l *Links) ServeLogs(source LogSource) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.logs = source
}

func (l *Links) logSource() LogSource {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.logs
}

// Logs implements shoal.Remote: it calls fn for each line that the replicas held by
// peer wrote, until the end, ctx's end or fn's error, which it returns. Lines of this
// peer itself take no detour. ErrNotFound: no such member, or it holds no such
// replica. ErrUnreachable: the peer does not answer, or the link broke on the way.
func (l *Links) Logs(ctx context.Context, id shoal.PeerID, q shoal.LogQuery, fn func(shoal.LogLine) error) error {
	if id == l.id.Self() {
		source := l.logSource()
		if source == nil {
			return fmt.Errorf("logs of %s: %w", id.Short(), shoal.ErrEngineDown)
		}
		return source(ctx, q, fn)
	}
	p, err := peer.Decode(string(id))
	if err != nil || !l.gate.isMember(p) {
		return fmt.Errorf("logs of peer %s: %w", id.Short(), shoal.ErrNotFound)
	}
	s, err := l.openLogs(ctx, p, q)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("logs of peer %s: %w: %s", id.Short(), shoal.ErrUnreachable, oneLine(err))
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	defer func() { _ = s.Reset() }() // at the end there is nothing to flush; before it the sender must stop
	for {
		var reply shoalv1.LogsReply
		if err := frame.Read(s, &reply, logsFrame); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("logs of peer %s: link broke: %w: %w", id.Short(), shoal.ErrUnreachable, err)
		}
		if end := reply.GetEnd(); end != nil {
			return endError(id, end)
		}
		if err := fn(lineFrom(id, reply.GetLine())); err != nil {
			return err
		}
	}
}

func (l *Links) openLogs(ctx context.Context, p peer.ID, q shoal.LogQuery) (network.Stream, error) {
	open, cancel := context.WithTimeout(ctx, l.cfg.DialTimeout)
	defer cancel()
	s, err := l.host.NewStream(open, p, ProtocolLogs)
	if err != nil {
		return nil, err
	}
	ask := &shoalv1.LogsRequest{
		Service: q.Service, Slot: int32(q.Slot), Follow: q.Follow, Tail: int32(q.Tail),
		SinceUnixNano: nano(q.Since), UntilUnixNano: nano(q.Until),
	}
	err = s.SetWriteDeadline(time.Now().Add(logsOpen))
	if err == nil {
		err = frame.Write(s, ask, logsFrame)
	}
	if err != nil {
		_ = s.Reset() // err says it all
		return nil, err
	}
	return s, nil
}

// serveLogs answers one request. It ends when the source ends, the reader goes or
// does not read for logsStall.
func (l *Links) serveLogs(ctx context.Context, s network.Stream) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ask shoalv1.LogsRequest
	err := s.SetReadDeadline(time.Now().Add(logsOpen))
	if err == nil {
		err = frame.Read(s, &ask, logsFrame)
	}
	if err == nil {
		err = s.SetReadDeadline(time.Time{})
	}
	source := l.logSource()
	if err != nil || source == nil {
		_ = s.Reset()
		return
	}
	gone := make(chan struct{})
	go func() { // a reader that goes resets the stream: that is all it ever sends
		defer close(gone)
		defer cancel()
		_, _ = io.Copy(io.Discard, io.LimitReader(s, logsFrame))
	}()
	send := func(r *shoalv1.LogsReply) error {
		if err := s.SetWriteDeadline(time.Now().Add(logsStall)); err != nil {
			return err
		}
		return frame.Write(s, r, logsFrame)
	}
	err = source(ctx, queryFrom(&ask), func(line shoal.LogLine) error {
		for _, m := range linesTo(line) {
			if err := send(m); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if ctx.Err() == nil {
		if err = send(&shoalv1.LogsReply{What: &shoalv1.LogsReply_End{End: endOf(err)}}); err == nil {
			err = s.CloseWrite()
		}
	}
	if err != nil {
		l.log.Debug("logs not finished", logkey.Service, clip(ask.GetService()), logkey.Err, err)
		_ = s.Reset()
	} else {
		_ = s.SetReadDeadline(time.Now().Add(logsOpen)) // for the reader to see the end and go
	}
	<-gone
	_ = s.Close()
}

func queryFrom(ask *shoalv1.LogsRequest) shoal.LogQuery {
	return shoal.LogQuery{
		Service: ask.GetService(), Slot: int(ask.GetSlot()),
		LogOptions: shoal.LogOptions{
			Follow: ask.GetFollow(), Tail: int(ask.GetTail()), Since: fromNano(ask.GetSinceUnixNano()), Until: fromNano(ask.GetUntilUnixNano()),
		},
	}
}

// linesTo cuts a line into messages that fit.
func linesTo(line shoal.LogLine) []*shoalv1.LogsReply {
	text := []byte(line.Text)
	var out []*shoalv1.LogsReply
	for first := true; first || len(text) > 0; first = false {
		n := min(len(text), logsText)
		out = append(out, &shoalv1.LogsReply{What: &shoalv1.LogsReply_Line{Line: &shoalv1.LogLine{
			Service: line.Service, Slot: int32(line.Slot), Replica: line.Replica[:], UnixNano: nano(line.Time), Stderr: line.Stderr, Text: text[:n],
		}}})
		text = text[n:]
	}
	return out
}

// lineFrom reads a line; whose it is, is not for the sender to say.
func lineFrom(from shoal.PeerID, m *shoalv1.LogLine) shoal.LogLine {
	line := shoal.LogLine{
		Peer: from, Service: m.GetService(), Slot: int(m.GetSlot()), Time: fromNano(m.GetUnixNano()), Stderr: m.GetStderr(), Text: string(m.GetText()),
	}
	copy(line.Replica[:], m.GetReplica())
	return line
}

func endOf(err error) *shoalv1.LogsEnd {
	end := &shoalv1.LogsEnd{}
	if err == nil {
		return end
	}
	end.Error = clip(err.Error())
	switch {
	case errors.Is(err, shoal.ErrNotFound):
		end.Failure = shoalv1.LogsFailure_LOGS_FAILURE_NOT_FOUND
	case errors.Is(err, shoal.ErrEngineDown):
		end.Failure = shoalv1.LogsFailure_LOGS_FAILURE_ENGINE_DOWN
	case errors.Is(err, shoal.ErrRefused):
		end.Failure = shoalv1.LogsFailure_LOGS_FAILURE_REFUSED
	}
	return end
}

func endError(id shoal.PeerID, end *shoalv1.LogsEnd) error {
	if end.GetError() == "" {
		return nil
	}
	var cause error
	switch end.GetFailure() {
	case shoalv1.LogsFailure_LOGS_FAILURE_NOT_FOUND:
		cause = shoal.ErrNotFound
	case shoalv1.LogsFailure_LOGS_FAILURE_ENGINE_DOWN:
		cause = shoal.ErrEngineDown
	case shoalv1.LogsFailure_LOGS_FAILURE_REFUSED:
		cause = shoal.ErrRefused
	default:
		return fmt.Errorf("logs of peer %s: %s", id.Short(), clip(end.GetError()))
	}
	return &remoteError{text: fmt.Sprintf("logs of peer %s: %s", id.Short(), clip(end.GetError())), cause: cause}
}

// remoteError keeps the other side's words and our sentinel.
type remoteError struct {
	text  string
	cause error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.cause }

func nano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
