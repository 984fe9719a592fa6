// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// CopyFrom implements the service.
func (s *Server) CopyFrom(ctx context.Context, req *connect.Request[shoalv1.CopyFromRequest], stream *connect.ServerStream[shoalv1.CopyFromResponse]) error {
	c, err := s.cluster()
	if err != nil {
		return err
	}
	at, path, _ := proto.CopyFrom(&shoalv1.CopyStart{Target: req.Msg.GetTarget(), Path: req.Msg.GetPath()})
	holder, err := s.copying(c, at, path)
	if err != nil {
		return err
	}
	say := func(m *shoalv1.CopyChunk) error { return stream.Send(&shoalv1.CopyFromResponse{Chunk: m}) }
	err = c.Remote.CopyFrom(ctx, holder, at, path, func(st shoal.PathStat) error {
		return say(&shoalv1.CopyChunk{What: &shoalv1.CopyChunk_Stat{Stat: proto.StatMessage(st)}})
	}, pieces(func(p []byte) error {
		return say(&shoalv1.CopyChunk{What: &shoalv1.CopyChunk_Data{Data: p}})
	}))
	if err != nil {
		return err
	}
	return say(&shoalv1.CopyChunk{What: &shoalv1.CopyChunk_End{End: &shoalv1.CopyEnd{}}})
}

// copying checks what is asked and returns who holds the replica.
func (s *Server) copying(c *Cluster, at shoal.Target, path string) (shoal.PeerID, error) {
	if err := shoal.CheckPath(path); err != nil {
		return "", err
	}
	return s.holderOf(c, at)
}

// CopyTo implements the service.
func (s *Server) CopyTo(ctx context.Context, stream *connect.ClientStream[shoalv1.CopyToRequest]) (*connect.Response[shoalv1.CopyToResponse], error) {
	c, err := s.cluster()
	if err != nil {
		return nil, err
	}
	if !stream.Receive() || stream.Msg().GetStart() == nil {
		return nil, &shoal.InvalidError{Field: "start", Why: "must be the first message"}
	}
	at, dir, _ := proto.CopyFrom(stream.Msg().GetStart())
	holder, err := s.copying(c, at, dir)
	if err != nil {
		return nil, err
	}
	requests := controlOf(ctx)
	if err := requests.goOn(); err != nil {
		return nil, fmt.Errorf("read an archive: %w", err)
	}
	archive, come := io.Pipe()
	var input sync.WaitGroup
	input.Go(func() {
		for stream.Receive() {
			if len(stream.Msg().GetData()) == 0 {
				continue // it only asks whether this goes on
			}
			if _, err := come.Write(stream.Msg().GetData()); err != nil {
				return // nobody reads it any more
			}
		}
		// An archive whose end did not come is broken: nil is the end.
		_ = come.CloseWithError(stream.Err()) // it never fails
	})
	err = c.Remote.CopyTo(ctx, holder, at, dir, archive)
	_ = archive.Close() // as above
	requests.end()
	input.Wait()
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&shoalv1.CopyToResponse{}), nil
}

// CopyFrom copies out of a replica, by the rules of shoal.Remote.
func (c *Client) CopyFrom(ctx context.Context, at shoal.Target, path string, stat func(shoal.PathStat) error, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := proto.CopyMessage(at, path, false)
	stream, err := c.rpc.CopyFrom(ctx, connect.NewRequest(&shoalv1.CopyFromRequest{Target: start.GetTarget(), Path: path}))
	if err != nil {
		return c.understand(err)
	}
	defer func() {
		cancel()
		_ = stream.Close() // what it could say was said by Receive
	}()
	for stream.Receive() {
		switch m := stream.Msg().GetChunk().GetWhat().(type) {
		case *shoalv1.CopyChunk_Stat:
			err = stat(proto.StatFrom(m.Stat))
		case *shoalv1.CopyChunk_Data:
			_, err = w.Write(m.Data)
		case *shoalv1.CopyChunk_End:
			return nil
		}
		if err != nil {
			return err
		}
	}
	if err := stream.Err(); err != nil {
		return c.understand(err)
	}
	return &Error{Code: CodeUnreachable, What: fmt.Sprintf("shoald at %s closed the connection", c.name), Todo: "see shoald's log"}
}

// errStat ends a copy of which only the stat is wanted.
var errStat = errors.New("that was all")

// Stat says what is at a path in a replica.
func (c *Client) Stat(ctx context.Context, at shoal.Target, path string) (shoal.PathStat, error) {
	var st shoal.PathStat
	err := c.CopyFrom(ctx, at, path, func(s shoal.PathStat) error {
		st = s
		return errStat
	}, io.Discard)
	if errors.Is(err, errStat) {
		err = nil
	}
	return st, err
}

// copyPulse is how often an upload of which nothing comes asks whether it goes on.
const copyPulse = time.Second

// CopyTo unpacks an archive in a directory of a replica, by the rules of shoal.Remote.
func (c *Client) CopyTo(ctx context.Context, at shoal.Target, dir string, archive io.ReadCloser) error {
	shut := sync.OnceFunc(func() { _ = archive.Close() }) // it was only read from
	defer shut()
	defer context.AfterFunc(ctx, shut)() // a Read may wait for what never comes
	within, cancel := context.WithCancel(ctx)
	defer cancel() // of a stream without its end: the archive is broken for all
	up := &uploading{stream: c.rpc.CopyTo(within)}
	err := up.send(&shoalv1.CopyToRequest{What: &shoalv1.CopyToRequest_Start{Start: proto.CopyMessage(at, dir, true)}})
	if err == nil {
		pulse, end := context.WithCancel(within)
		var side sync.WaitGroup
		side.Go(func() {
			if up.watch(pulse) {
				shut()
			}
		})
		var broken error
		broken, err = up.sendAll(archive)
		end()
		if broken != nil && !up.isOver.Load() {
			cancel() // the watch may be sending
		}
		side.Wait()
		switch {
		case ctx.Err() != nil: // it is not the archive's end
			return ctx.Err()
		case broken != nil && !up.isOver.Load():
			return broken
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return c.understand(err)
	}
	_, err = up.stream.CloseAndReceive() // at the end of a stream this says why
	if err != nil {
		return c.understand(err)
	}
	return nil
}

// uploading is an archive on its way.
type uploading struct {
	mu     sync.Mutex // one message at a time
	stream *connect.ClientStreamForClient[shoalv1.CopyToRequest, shoalv1.CopyToResponse]
	isOver atomic.Bool // the daemon takes no more, and says why at the end
}

func (u *uploading) send(m *shoalv1.CopyToRequest) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stream.Send(m)
}

// watch sends empty pieces and says whether the daemon has ended it meanwhile: only who
// sends hears of that.
func (u *uploading) watch(ctx context.Context) bool {
	tick := time.NewTicker(copyPulse)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
			if u.send(&shoalv1.CopyToRequest{What: &shoalv1.CopyToRequest_Data{}}) != nil {
				u.isOver.Store(true)
				return true
			}
		}
	}
}

// sendAll returns what broke the archive, or the stream.
func (u *uploading) sendAll(archive io.Reader) (broken, err error) {
	buf := make([]byte, execPiece)
	for {
		n, readErr := archive.Read(buf)
		if n > 0 {
			if err := u.send(&shoalv1.CopyToRequest{What: &shoalv1.CopyToRequest_Data{Data: buf[:n]}}); err != nil {
				return nil, err
			}
		}
		if errors.Is(readErr, io.EOF) {
			return nil, nil
		}
		if readErr != nil {
			return readErr, nil
		}
	}
}
