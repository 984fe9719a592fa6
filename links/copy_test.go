// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// shelf is an Inside that has files.
type shelf struct {
	insideFunc
	from func(ctx context.Context, at shoal.Target, path string, stat func(shoal.PathStat) error, w io.Writer) error
	to   func(ctx context.Context, at shoal.Target, dir string, archive io.ReadCloser) error
}

func (s shelf) CopyFrom(ctx context.Context, at shoal.Target, path string, stat func(shoal.PathStat) error, w io.Writer) error {
	return s.from(ctx, at, path, stat, w)
}

func (s shelf) CopyTo(ctx context.Context, at shoal.Target, dir string, archive io.ReadCloser) error {
	return s.to(ctx, at, dir, archive)
}

var copyTarget = shoal.Target{Service: "web", Slot: 3}

func fine(shoal.PathStat) error { return nil }

func TestCopyAcross(t *testing.T) {
	a, b := pair(t)
	want := shoal.PathStat{Name: "srv", Bytes: 7, Mode: fs.ModeDir | fs.ModeSticky | 0o750, Link: "../srv"}
	large := strings.Repeat("0123456789abcdef", 32<<10)
	var asked, unpacked string
	a.ServeInside(shelf{
		from: func(_ context.Context, at shoal.Target, path string, stat func(shoal.PathStat) error, w io.Writer) error {
			asked = fmt.Sprint(at, " ", path)
			if err := stat(want); err != nil {
				return err
			}
			_, err := io.WriteString(w, large)
			return err
		},
		to: func(_ context.Context, at shoal.Target, dir string, archive io.ReadCloser) error {
			all, err := io.ReadAll(archive)
			asked, unpacked = fmt.Sprint(at, " ", dir), string(all)
			return errors.Join(err, archive.Close())
		},
	})
	for name, from := range map[string]*Links{"another peer": b.Links, "the peer itself": a.Links} {
		var out bytes.Buffer
		var stat shoal.PathStat
		keep := func(s shoal.PathStat) error { stat = s; return nil }
		if err := from.CopyFrom(t.Context(), a.id.Self(), copyTarget, "/srv", keep, &out); err != nil || out.String() != large || stat != want || asked != "web/3 /srv" {
			t.Errorf("CopyFrom by %s = %v, %d bytes of %d, stat %+v, asked %s", name, err, out.Len(), len(large), stat, asked)
		}
		unpacked = ""
		if err := from.CopyTo(t.Context(), a.id.Self(), copyTarget, "/in", io.NopCloser(strings.NewReader(large))); err != nil || unpacked != large || asked != "web/3 /in" {
			t.Errorf("CopyTo by %s = %v, %d bytes of %d, asked %s", name, err, len(unpacked), len(large), asked)
		}
	}
	if n := a.commands.Load(); n != 0 {
		t.Errorf("%d copies are counted after all have ended", n)
	}
}

// TestCopyEnds: whoever ends it first, the other side ends too, with the reason.
func TestCopyEnds(t *testing.T) {
	a, b := pair(t)
	enough := errors.New("enough")
	ended, begun := make(chan error, 1), make(chan struct{}, 2)
	a.ServeInside(shelf{
		from: func(ctx context.Context, _ shoal.Target, _ string, stat func(shoal.PathStat) error, w io.Writer) error {
			err := stat(shoal.PathStat{})
			for err == nil && ctx.Err() == nil {
				_, err = w.Write(make([]byte, 100<<10))
			}
			ended <- cmp.Or(ctx.Err(), err)
			return err
		},
		to: func(_ context.Context, _ shoal.Target, dir string, archive io.ReadCloser) error {
			defer archive.Close()
			if dir == "/full" {
				return fmt.Errorf("%s: %w", dir, shoal.ErrRefused)
			}
			_, err := io.ReadFull(archive, make([]byte, 4))
			begun <- struct{}{}
			if err == nil {
				_, err = io.Copy(io.Discard, archive)
			}
			ended <- err
			return err
		},
	})
	if err := b.CopyFrom(t.Context(), a.id.Self(), copyTarget, "/srv", func(shoal.PathStat) error { return enough }, io.Discard); !errors.Is(err, enough) {
		t.Errorf("CopyFrom that has enough = %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the holder does not notice that the asker has enough")
	}
	idle, _ := io.Pipe() // nothing comes, and it need not end
	if err := b.CopyTo(t.Context(), a.id.Self(), copyTarget, "/full", idle); !errors.Is(err, shoal.ErrRefused) || !strings.Contains(err.Error(), "/full") {
		t.Errorf("CopyTo that is refused = %v", err)
	}
	broken := io.MultiReader(strings.NewReader("half"), once(begun, enough))
	if err := b.CopyTo(t.Context(), a.id.Self(), copyTarget, "/in", io.NopCloser(broken)); !errors.Is(err, enough) {
		t.Errorf("CopyTo of an archive that breaks = %v", err)
	}
	if err := <-ended; !errors.Is(err, shoal.ErrUnreachable) {
		t.Errorf("the holder took half an archive for a whole one: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	idle, start := io.Pipe()
	go func() {
		_, _ = io.WriteString(start, "half") // the pipe of a test never fails
		<-begun
		cancel()
	}()
	if err := b.CopyTo(ctx, a.id.Self(), copyTarget, "/in", idle); !errors.Is(err, context.Canceled) {
		t.Errorf("CopyTo that is left = %v", err)
	}
	if err := <-ended; !errors.Is(err, shoal.ErrUnreachable) {
		t.Errorf("the holder of a copy that was left = %v", err)
	}
}

// once fails with err when something has come.
func once(come <-chan struct{}, err error) io.Reader { return waiting{come, err} }

type waiting struct {
	come <-chan struct{}
	err  error
}

// Read implements io.Reader.
func (r waiting) Read([]byte) (int, error) {
	<-r.come
	return 0, r.err
}

func TestCopyRefused(t *testing.T) {
	a, b := pair(t)
	var invalid *shoal.InvalidError
	if err := b.CopyFrom(t.Context(), a.id.Self(), copyTarget, "srv", fine, io.Discard); !errors.As(err, &invalid) || invalid.Field != "path" {
		t.Errorf("CopyFrom of no path = %v", err)
	}
	if err := b.CopyTo(t.Context(), a.id.Self(), copyTarget, "", io.NopCloser(strings.NewReader(""))); !errors.As(err, &invalid) || invalid.Field != "path" {
		t.Errorf("CopyTo of no path = %v", err)
	}
	if err := b.CopyFrom(t.Context(), a.id.Self(), copyTarget, "/", fine, io.Discard); !errors.Is(err, shoal.ErrEngineDown) {
		t.Errorf("CopyFrom a peer whose engine room is not there = %v", err)
	}
	if err := b.CopyFrom(t.Context(), "nobody", copyTarget, "/", fine, io.Discard); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("CopyFrom nobody = %v", err)
	}
	for what, say := range map[string]func(stat func(shoal.PathStat) error, w io.Writer) error{
		"it does not say what is there":              func(func(shoal.PathStat) error, io.Writer) error { return nil },
		"it sends an archive before it says of what": func(_ func(shoal.PathStat) error, w io.Writer) error { _, err := w.Write([]byte("x")); return err },
		"it says twice what is there": func(stat func(shoal.PathStat) error, _ io.Writer) error {
			return errors.Join(stat(shoal.PathStat{}), stat(shoal.PathStat{}))
		},
	} {
		a.ServeInside(shelf{from: func(_ context.Context, _ shoal.Target, _ string, stat func(shoal.PathStat) error, w io.Writer) error {
			return say(stat, w)
		}})
		if err := b.CopyFrom(t.Context(), a.id.Self(), copyTarget, "/", fine, io.Discard); err == nil || !strings.HasSuffix(err.Error(), what) {
			t.Errorf("CopyFrom a holder that errs = %v, want %q", err, what)
		}
	}
	// What does not come through CopyFrom is checked as well.
	s, err := b.openInside(t.Context(), a.id.Self(), "copy", ProtocolCopy, proto.CopyMessage(copyTarget, "srv", false))
	mustBe(t, "open", err)
	defer s.Reset()
	var m shoalv1.CopyChunk
	if err := frame.Read(s, &m, insideFrame); err != nil || m.GetEnd().GetError().GetField() != "path" {
		t.Errorf("a request for no path = %v, %v", &m, err)
	}
}
