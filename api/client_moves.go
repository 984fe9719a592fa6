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
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// moveAnswer is how long ImportImage waits to learn what became of it once its context
// has ended.
const moveAnswer = 5 * time.Second

// PushImage takes an image of the asked peer's engine, by the rules of
// shoal.ImageMover. progress may be nil.
func (c *Client) PushImage(ctx context.Context, ref, as string, progress func(shoal.ImageProgress)) ([]Image, error) {
	var end *shoalv1.MovedImages
	err := each(ctx, c, c.rpc.PushImage, &shoalv1.PushImageRequest{Ref: ref, As: as}, func(r *shoalv1.PushImageResponse) error {
		tellMove(r.GetProgress(), progress)
		end = r.GetEnd()
		return nil
	})
	return c.movedBy(end, err)
}

// PullImage brings an image to the asked peer. progress may be nil.
func (c *Client) PullImage(ctx context.Context, ref string, progress func(shoal.ImageProgress)) (Image, error) {
	var end *shoalv1.MovedImages
	err := each(ctx, c, c.rpc.PullImage, &shoalv1.PullImageRequest{Ref: ref}, func(r *shoalv1.PullImageResponse) error {
		tellMove(r.GetProgress(), progress)
		end = r.GetEnd()
		return nil
	})
	images, err := c.movedBy(end, err)
	if err != nil || len(images) == 0 {
		return Image{}, err
	}
	return images[0], nil
}

// ImportImage takes an archive, by the rules of shoal.ImageMover, and closes it.
// progress may be nil. When ctx ends the archive is cut off there, and what became of it
// is still waited for a moment: no error means that the images are there.
func (c *Client) ImportImage(ctx context.Context, archive io.ReadCloser, as string, progress func(shoal.ImageProgress)) ([]Image, error) {
	shut := sync.OnceFunc(func() { _ = archive.Close() }) // it was only read from
	within, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stream := c.rpc.ImportImage(within)
	up := &importing{stream: stream, ctx: ctx, fail: cancel}
	var side sync.WaitGroup
	defer side.Wait()
	defer func() {
		cancel()
		shut()
		_ = stream.CloseResponse() // what it could say was said by Receive
	}()
	defer context.AfterFunc(ctx, func() { // a Read may wait for what never comes
		shut()
		time.AfterFunc(moveAnswer, cancel)
	})()
	err := stream.Send(&shoalv1.ImportImageRequest{What: &shoalv1.ImportImageRequest_Start{Start: &shoalv1.ImportStart{As: as}}})
	if err != nil && !errors.Is(err, io.EOF) { // at the end of a stream Receive says why
		return nil, c.understand(err)
	}
	side.Go(func() { up.sendAll(archive) })
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return c.movedBy(nil, nil)
		}
		if err != nil {
			up.isOver.Store(true)
			cancel()
			shut()
			side.Wait()
			if up.broken != nil {
				return nil, up.broken // what the daemon made of it is no news
			}
			return nil, c.understand(err)
		}
		tellMove(m.GetProgress(), progress)
		if m.GetEnd() != nil {
			return c.movedBy(m.GetEnd(), nil)
		}
	}
}

// importing is an archive on its way.
type importing struct {
	stream *connect.BidiStreamForClient[shoalv1.ImportImageRequest, shoalv1.ImportImageResponse]
	ctx    context.Context //nolint:containedctx // of the one call that this is a part of
	fail   func()          // ends the stream, so that nobody takes what came for all
	isOver atomic.Bool     // the daemon takes no more, and said why
	broken error           // what broke the archive; read once sendAll returned
}

func (u *importing) sendAll(archive io.Reader) {
	defer func() { _ = u.stream.CloseRequest() }() // the daemon knows the end from what was said
	buf := make([]byte, execPiece)
	for {
		n, err := archive.Read(buf)
		if n > 0 && u.stream.Send(&shoalv1.ImportImageRequest{What: &shoalv1.ImportImageRequest_Data{Data: buf[:n]}}) != nil {
			return // Receive says why
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = u.stream.Send(&shoalv1.ImportImageRequest{What: &shoalv1.ImportImageRequest_End{End: true}}) // as above
			return
		case err != nil && u.ctx.Err() == nil && !u.isOver.Load():
			u.broken = err
			u.fail()
			return
		case err != nil:
			return // the daemon says what became of it
		}
	}
}

// ExportImage writes an image to w, by the rules of shoal.ImageMover. progress may be
// nil. After an error what was written is no archive.
func (c *Client) ExportImage(ctx context.Context, ref, format, platform string, w io.Writer, progress func(shoal.ImageProgress)) error {
	isWhole := false
	req := &shoalv1.ExportImageRequest{Ref: ref, Format: format, Platform: platform}
	err := each(ctx, c, c.rpc.ExportImage, req, func(r *shoalv1.ExportImageResponse) error {
		switch m := r.GetWhat().(type) {
		case *shoalv1.ExportImageResponse_Progress:
			tellMove(m.Progress, progress)
		case *shoalv1.ExportImageResponse_Data:
			_, err := w.Write(m.Data)
			return err
		case *shoalv1.ExportImageResponse_End:
			isWhole = true
		}
		return nil
	})
	if err == nil && !isWhole {
		return c.closed()
	}
	return err
}

// closed is the error about a stream without its end.
func (c *Client) closed() *Error {
	return &Error{Code: CodeUnreachable, What: fmt.Sprintf("shoald at %s closed the connection", c.name), Todo: "see shoald's log"}
}

func (c *Client) movedBy(end *shoalv1.MovedImages, err error) ([]Image, error) {
	if err == nil && end == nil {
		err = c.closed()
	}
	return all(end.GetImages(), imageOf), err
}

func tellMove(m *shoalv1.MoveProgress, progress func(shoal.ImageProgress)) {
	if m == nil || progress == nil {
		return
	}
	progress(shoal.ImageProgress{
		What: m.GetWhat(), Done: m.GetDoneBytes(), Total: m.GetTotalBytes(), Rate: m.GetRateBytes(), Peers: int(m.GetPeers()), From: m.GetFrom(),
	})
}
