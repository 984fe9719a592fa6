// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Of a move of an image, progress is told every movePace at most, and a client that
// takes or sends nothing for movePatience is given up.
const (
	movePace     = 250 * time.Millisecond
	movePatience = 2 * time.Minute
)

// PushImage implements the service.
func (s *Server) PushImage(ctx context.Context, req *connect.Request[shoalv1.PushImageRequest], stream *connect.ServerStream[shoalv1.PushImageResponse]) error {
	c, err := s.imaging()
	if err != nil {
		return err
	}
	ref, as := req.Msg.GetRef(), req.Msg.GetAs()
	if err := shoal.CheckRef("image", ref); err != nil {
		return err
	}
	if err := checkAs(as); err != nil {
		return err
	}
	var got []shoal.ImageInfo
	say := func(m *shoalv1.MoveProgress) error {
		return stream.Send(&shoalv1.PushImageResponse{What: &shoalv1.PushImageResponse_Progress{Progress: m}})
	}
	err = s.move(ctx, say, func(ctx context.Context, _ *patience, tell func(shoal.ImageProgress)) (err error) {
		got, err = c.Mover.Push(ctx, ref, as, tell)
		return err
	})
	if err != nil {
		return err
	}
	return stream.Send(&shoalv1.PushImageResponse{What: &shoalv1.PushImageResponse_End{End: s.moved(ctx, c, got...)}})
}

// PullImage implements the service.
func (s *Server) PullImage(ctx context.Context, req *connect.Request[shoalv1.PullImageRequest], stream *connect.ServerStream[shoalv1.PullImageResponse]) error {
	c, err := s.imaging()
	if err != nil {
		return err
	}
	ref := req.Msg.GetRef()
	if err := shoal.CheckRef("image", ref); err != nil {
		return err
	}
	var got shoal.ImageInfo
	say := func(m *shoalv1.MoveProgress) error {
		return stream.Send(&shoalv1.PullImageResponse{What: &shoalv1.PullImageResponse_Progress{Progress: m}})
	}
	err = s.move(ctx, say, func(ctx context.Context, _ *patience, tell func(shoal.ImageProgress)) (err error) {
		got, err = c.Mover.Pull(ctx, ref, tell)
		return err
	})
	if err != nil {
		return s.aboutImage(ctx, c, ref, err)
	}
	return stream.Send(&shoalv1.PullImageResponse{What: &shoalv1.PullImageResponse_End{End: s.moved(ctx, c, got)}})
}

// ImportImage implements the service.
func (s *Server) ImportImage(ctx context.Context, stream *connect.BidiStream[shoalv1.ImportImageRequest, shoalv1.ImportImageResponse]) error {
	c, err := s.imaging()
	if err != nil {
		return err
	}
	first, err := stream.Receive()
	if err != nil {
		return &Error{Code: CodeInvalid, What: "import has no first message", Why: oneLine(err.Error())}
	}
	if first.GetStart() == nil {
		return &shoal.InvalidError{Field: "start", Why: "must be the first message"}
	}
	as := first.GetStart().GetAs()
	if err := checkAs(as); err != nil {
		return err
	}
	requests := controlOf(ctx)
	if err := requests.goOn(); err != nil {
		return fmt.Errorf("read an archive: %w", err)
	}
	var got []shoal.ImageInfo
	say := func(m *shoalv1.MoveProgress) error {
		return stream.Send(&shoalv1.ImportImageResponse{What: &shoalv1.ImportImageResponse_Progress{Progress: m}})
	}
	err = s.move(ctx, say, func(ctx context.Context, reads *patience, tell func(shoal.ImageProgress)) (err error) {
		archive, come := io.Pipe()
		var input sync.WaitGroup
		input.Go(func() { _ = come.CloseWithError(hearArchive(stream, reads, come)) }) // it never fails
		in := &noting{Reader: archive}
		got, err = c.Mover.Import(ctx, in, as, tell)
		_ = archive.Close() // as above
		requests.end()
		input.Wait()
		if err != nil && in.broke != nil {
			return in.broke // what it was taken for by who read it is no news
		}
		return err
	})
	if err != nil {
		return err
	}
	return stream.Send(&shoalv1.ImportImageResponse{What: &shoalv1.ImportImageResponse_End{End: s.moved(ctx, c, got...)}})
}

// hearArchive passes an archive on, and returns what broke it; nil once its end was said,
// or nobody reads on.
func hearArchive(stream *connect.BidiStream[shoalv1.ImportImageRequest, shoalv1.ImportImageResponse], reads *patience, w io.Writer) error {
	for {
		var m *shoalv1.ImportImageRequest
		err := reads.reading(func() (err error) {
			m, err = stream.Receive()
			return err
		})
		switch {
		case errors.Is(err, io.EOF):
			return &shoal.InvalidError{Field: "archive", Why: "is cut off: its end did not come"}
		case errors.Is(err, os.ErrDeadlineExceeded):
			return &Error{Code: CodeTimeout, What: fmt.Sprintf("nothing of the archive came for %s", reads.limit)}
		case err != nil:
			return fmt.Errorf("receive the archive: %w", err)
		}
		switch what := m.GetWhat().(type) {
		case *shoalv1.ImportImageRequest_Data:
			if _, err := w.Write(what.Data); err != nil {
				return nil
			}
		case *shoalv1.ImportImageRequest_End:
			return nil
		default:
			return &shoal.InvalidError{Field: "data", Why: "or end must follow start"}
		}
	}
}

// noting keeps what broke its reader.
type noting struct {
	io.Reader
	broke error
}

// Read implements [io.Reader].
func (n *noting) Read(p []byte) (int, error) {
	got, err := n.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		n.broke = err
	}
	return got, err
}

// ExportImage implements the service.
func (s *Server) ExportImage(ctx context.Context, req *connect.Request[shoalv1.ExportImageRequest], stream *connect.ServerStream[shoalv1.ExportImageResponse]) error {
	c, err := s.imaging()
	if err != nil {
		return err
	}
	ref, format, platform := req.Msg.GetRef(), req.Msg.GetFormat(), req.Msg.GetPlatform()
	if format == "" {
		format = shoal.FormatOCI
	}
	if err := checkExport(ref, format, platform); err != nil {
		return err
	}
	var one sync.Mutex // one message at a time
	send := func(m *shoalv1.ExportImageResponse) error {
		one.Lock()
		defer one.Unlock()
		return stream.Send(m)
	}
	say := func(m *shoalv1.MoveProgress) error {
		return send(&shoalv1.ExportImageResponse{What: &shoalv1.ExportImageResponse_Progress{Progress: m}})
	}
	err = s.move(ctx, say, func(ctx context.Context, writes *patience, tell func(shoal.ImageProgress)) error {
		return c.Mover.Export(ctx, ref, format, platform, pieces(func(p []byte) error {
			return writes.writing(func() error {
				return send(&shoalv1.ExportImageResponse{What: &shoalv1.ExportImageResponse_Data{Data: p}})
			})
		}), tell)
	})
	if err != nil {
		return s.aboutImage(ctx, c, ref, err)
	}
	return send(&shoalv1.ExportImageResponse{What: &shoalv1.ExportImageResponse_End{End: true}})
}

// checkAs takes a name that an image is to have; "" is none.
func checkAs(as string) error {
	if as == "" {
		return nil
	}
	if strings.Contains(as, "@") {
		return &shoal.InvalidError{Field: "as", Why: fmt.Sprintf("must be a name without a digest, got %q", as)}
	}
	return shoal.CheckRef("as", as)
}

func checkExport(ref, format, platform string) error {
	if err := shoal.CheckRef("image", ref); err != nil {
		return err
	}
	if format != shoal.FormatOCI && format != shoal.FormatDocker {
		return &shoal.InvalidError{Field: "format", Why: fmt.Sprintf("must be %s or %s, got %q", shoal.FormatOCI, shoal.FormatDocker, clip(format, 32))}
	}
	parts := strings.Split(platform, "/")
	isPart := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '/' || r == '.' || r == '-'
	}
	isNone := len(platform) > 64 || len(parts) < 2 || len(parts) > 3 || strings.ContainsFunc(platform, func(r rune) bool { return !isPart(r) })
	for _, p := range parts {
		isNone = isNone || p == ""
	}
	if platform != "" && isNone {
		return &shoal.InvalidError{Field: "platform", Why: fmt.Sprintf("must be OS/ARCH[/VARIANT], like linux/arm64, got %q", clip(platform, 64))}
	}
	return nil
}

func (s *Server) moved(ctx context.Context, c *Cluster, got ...shoal.ImageInfo) *shoalv1.MovedImages {
	return &shoalv1.MovedImages{Images: s.moment(ctx, c).images(got)}
}

// move runs one move of an image and tells the client how far it is. do gets the
// patience with what the client sends or takes.
func (s *Server) move(ctx context.Context, say func(*shoalv1.MoveProgress) error, do func(context.Context, *patience, func(shoal.ImageProgress)) error) error {
	select {
	case s.moves <- struct{}{}:
	default:
		return &Error{Code: CodeRefused, What: fmt.Sprintf("this daemon moves %d images already", maxMoves), Todo: "try again in a moment"}
	}
	defer func() { <-s.moves }()
	p := newPatience(controlOf(ctx), s.patient)
	defer p.end()
	t := &teller{wake: make(chan struct{}, 1), say: func(m *shoalv1.MoveProgress) error {
		return p.writing(func() error { return say(m) })
	}}
	within, stop := context.WithCancel(ctx)
	var side sync.WaitGroup
	side.Go(func() { t.run(within) })
	err := do(ctx, p, t.tell)
	stop()
	side.Wait()
	if err == nil {
		t.flush()
	}
	return err
}

// teller sends the newest of what a move tells, from a goroutine of its own: a client
// that reads slowly slows no move down.
type teller struct {
	say  func(*shoalv1.MoveProgress) error
	wake chan struct{}

	mu   sync.Mutex
	news *shoal.ImageProgress // that was not sent yet; guarded by mu
}

func (t *teller) tell(p shoal.ImageProgress) {
	t.mu.Lock()
	t.news = &p
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *teller) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		}
		t.flush()
		if pause(ctx, movePace) != nil {
			return
		}
	}
}

// flush sends what is new. That a client is gone is heard of otherwise.
func (t *teller) flush() {
	t.mu.Lock()
	p := t.news
	t.news = nil
	t.mu.Unlock()
	if p == nil {
		return
	}
	_ = t.say(&shoalv1.MoveProgress{
		What: p.What, DoneBytes: p.Done, TotalBytes: p.Total, RateBytes: p.Rate, Peers: int32(p.Peers), From: p.From,
	})
}
