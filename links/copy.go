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

// CopyFrom implements shoal.Remote.
func (l *Links) CopyFrom(ctx context.Context, id shoal.PeerID, at shoal.Target, path string, stat func(shoal.PathStat) error, w io.Writer) error {
	if err := shoal.CheckPath(path); err != nil {
		return err
	}
	what := fmt.Sprintf("copy from peer %s", id.Short())
	if id == l.id.Self() {
		inside := l.insider()
		if inside == nil {
			return fmt.Errorf("%s: %w", what, shoal.ErrEngineDown)
		}
		return inside.CopyFrom(ctx, at, path, stat, w)
	}
	s, err := l.openInside(ctx, id, what, ProtocolCopy, proto.CopyMessage(at, path, false))
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }() // at the end there is nothing to flush
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	err = hearArchive(s, what, stat, w)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// hearArchive passes an archive on until its end.
func hearArchive(s network.Stream, what string, stat func(shoal.PathStat) error, w io.Writer) error {
	isKnown := false
	for {
		var m shoalv1.CopyChunk
		err := heard(s, what, &m)
		if err != nil {
			return err
		}
		switch m := m.GetWhat().(type) {
		case *shoalv1.CopyChunk_Stat:
			if isKnown {
				return fmt.Errorf("%s: it says twice what is there", what)
			}
			isKnown = true
			err = stat(proto.StatFrom(m.Stat))
		case *shoalv1.CopyChunk_Data:
			if !isKnown {
				return fmt.Errorf("%s: it sends an archive before it says of what", what)
			}
			_, err = w.Write(m.Data)
		case *shoalv1.CopyChunk_End:
			if err = errorFrom(what, m.End.GetError()); err == nil && !isKnown {
				err = fmt.Errorf("%s: it does not say what is there", what)
			}
			return err
		}
		if err != nil {
			return err
		}
	}
}

// CopyTo implements shoal.Remote.
func (l *Links) CopyTo(ctx context.Context, id shoal.PeerID, at shoal.Target, dir string, archive io.ReadCloser) error {
	shut := sync.OnceFunc(func() { _ = archive.Close() }) // it was only read from
	defer shut()
	if err := shoal.CheckPath(dir); err != nil {
		return err
	}
	what := fmt.Sprintf("copy to peer %s", id.Short())
	if id == l.id.Self() {
		inside := l.insider()
		if inside == nil {
			return fmt.Errorf("%s: %w", what, shoal.ErrEngineDown)
		}
		return inside.CopyTo(ctx, at, dir, archive)
	}
	s, err := l.openInside(ctx, id, what, ProtocolCopy, proto.CopyMessage(at, dir, true))
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }() // at the end there is nothing to flush
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	sent := make(chan error, 1)
	go func() { sent <- sendArchive(s, archive) }()
	err = hearEnd(s, what)
	shut()
	_ = s.CloseRead()
	_ = s.SetWriteDeadline(time.Now()) // nobody reads any more
	broken := <-sent
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case broken != nil: // it is why the holder saw a broken archive
		return broken
	}
	return err
}

// sendArchive sends an archive and its end, and returns what broke the archive. An
// archive that ends early must not pass for whole, so the stream is reset then.
func sendArchive(s network.Stream, archive io.Reader) error {
	out := &asking{s: s}
	buf := make([]byte, insideData)
	for {
		n, err := archive.Read(buf)
		if n > 0 && out.send(&shoalv1.CopyChunk{What: &shoalv1.CopyChunk_Data{Data: buf[:n]}}) != nil {
			return nil // the holder has ended it and says why
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = out.send(&shoalv1.CopyChunk{What: &shoalv1.CopyChunk_End{End: &shoalv1.CopyEnd{}}}) // as above
			return nil
		case errors.Is(err, io.ErrClosedPipe): // closed by us, at the end
			return nil
		case err != nil:
			_ = s.Reset()
			return err
		}
	}
}

// hearEnd waits until the holder has unpacked everything, or says why it has not.
func hearEnd(s network.Stream, what string) error {
	for {
		var m shoalv1.CopyChunk
		if err := heard(s, what, &m); err != nil {
			return err
		}
		if end := m.GetEnd(); end != nil {
			return errorFrom(what, end.GetError())
		}
	}
}

// serveCopy copies for another member.
func (l *Links) serveCopy(ctx context.Context, s network.Stream) {
	var ask shoalv1.CopyStart
	if err := begun(s, &ask); err != nil {
		l.log.Debug("copy not begun", logkey.Err, err)
		_ = s.Reset()
		return
	}
	out := &answering{s: s}
	err := l.copyFor(ctx, s, out, &ask)
	if err := out.send(&shoalv1.CopyChunk{What: &shoalv1.CopyChunk_End{End: &shoalv1.CopyEnd{Error: streamError(err)}}}); err != nil {
		_ = s.Reset() // the asker is gone
		return
	}
	_ = s.CloseRead()
	_ = s.Close()
}

// copyFor copies for the member at the other end of s until that is done or the member goes.
func (l *Links) copyFor(ctx context.Context, s network.Stream, out *answering, ask *shoalv1.CopyStart) error {
	inside, err := l.admitFrom(s)
	if err != nil {
		return err
	}
	defer l.commands.Add(-1)
	at, path, isUpload := proto.CopyFrom(ask)
	if err := shoal.CheckPath(path); err != nil {
		return err
	}
	l.log.Info("copy for another peer", logkey.Peer, s.Conn().RemotePeer(), logkey.Service, clip(at.Service), logkey.Slot, at.Slot, "upload", isUpload)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var sides sync.WaitGroup
	defer sides.Wait()
	defer func() {
		cancel()
		_ = s.SetReadDeadline(time.Now()) // nothing more is heard
	}()
	sides.Go(func() { pulse(ctx, cancel, out, &shoalv1.CopyChunk{}) })
	if isUpload {
		return inside.CopyTo(ctx, at, path, &incoming{s: s})
	}
	sides.Go(func() { // who asked says nothing more, but may go
		_ = frame.Read(s, &shoalv1.CopyChunk{}, insideFrame)
		cancel()
	})
	return inside.CopyFrom(ctx, at, path, func(st shoal.PathStat) error {
		return out.send(&shoalv1.CopyChunk{What: &shoalv1.CopyChunk_Stat{Stat: proto.StatMessage(st)}})
	}, writer(func(p []byte) error {
		return out.send(&shoalv1.CopyChunk{What: &shoalv1.CopyChunk_Data{Data: p}})
	}))
}

// incoming is the archive that a member sends.
type incoming struct {
	s    network.Stream
	rest []byte
	end  error
}

// Read implements io.Reader. An archive whose end was not said is broken.
func (in *incoming) Read(p []byte) (int, error) {
	for len(in.rest) == 0 && in.end == nil {
		var m shoalv1.CopyChunk
		if err := frame.Read(in.s, &m, insideFrame); err != nil {
			in.end = fmt.Errorf("the archive ended early: %w: %s", shoal.ErrUnreachable, oneLine(err))
			break
		}
		switch m := m.GetWhat().(type) {
		case *shoalv1.CopyChunk_Data:
			in.rest = m.Data
		case *shoalv1.CopyChunk_End:
			in.end = io.EOF
		}
	}
	if len(in.rest) == 0 {
		return 0, in.end
	}
	n := copy(p, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (in *incoming) Close() error { return in.s.SetReadDeadline(time.Now()) }
