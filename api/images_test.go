// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
	"github.com/shoalnet/shoal/proto/shoal/v1/shoalv1connect"
)

// pushed is a cluster with one image pushed to tokyo, and its client.
func pushed(t *testing.T, names ...string) (*apitest.Cluster, *api.Client, api.Image) {
	t.Helper()
	cluster := apitest.New(names...)
	cluster.Engine("app:v1", 3<<20, 5000)
	c := dial(t, apitest.Serve(t, cluster))
	got, err := c.PushImage(t.Context(), "app:v1", "", nil)
	if err != nil || len(got) != 1 {
		t.Fatalf("PushImage = %+v, %v, want one image", got, err)
	}
	return cluster, c, got[0]
}

func TestImages(t *testing.T) {
	cluster, c, app := pushed(t, "tokyo", "osaka", "kyoto")
	ctx := t.Context()
	if app.Name != "app:v1" || app.Size != app.Here || app.Size < 3<<20 || app.Copies != 1 || app.MinCopies != 2 || app.Author.Name != "tokyo" || app.Since.IsZero() {
		t.Errorf("PushImage = %+v, want all of app:v1 here and nowhere else, by tokyo", app)
	}
	cluster.Hold("osaka", "app:v1", 100)
	cluster.Hold("kyoto", "app:v1", 50)
	cluster.Silence("kyoto", time.Minute)
	d, err := c.Image(ctx, "app:v1")
	if err != nil || len(d.Blobs) != 4 || d.Copies != 2 || len(d.Silent) != 1 || d.Silent[0].Name != "kyoto" || d.Digest != app.Digest {
		t.Fatalf("Image = %+v, %v, want 4 blobs, 2 copies and kyoto silent", d, err)
	}
	if b := d.Blobs[2]; b.Kind != "layer" || b.Size != 3<<20 || len(b.Holders) != 2 || len(b.Partial) != 0 {
		t.Errorf("Image has the blob %+v, want a layer held by two", b)
	}
	if _, err := c.ChangeImage(ctx, shoal.ImageChange{Name: "app:v1", To: "app:stable"}); err != nil {
		t.Error(err)
	}
	if got, err := c.ChangeImage(ctx, shoal.ImageChange{Name: "app:stable", Pin: new(true)}); err != nil || !got.Pinned || got.Digest != app.Digest {
		t.Errorf("ChangeImage(pin) = %+v, %v", got, err)
	}
	if got, err := c.ChangeImage(ctx, shoal.ImageChange{Name: "app:stable", MinCopies: 3}); err != nil || got.MinCopies != 3 || !got.Pinned {
		t.Errorf("ChangeImage(min copies) = %+v, %v", got, err)
	}
	if got, err := c.ChangeImage(ctx, shoal.ImageChange{Name: "app:v1", Remove: true}); err != nil || got.Name != "app:v1" {
		t.Errorf("ChangeImage(remove) = %+v, %v", got, err)
	}
	list, err := c.Images(ctx)
	if err != nil || len(list.Items) != 1 || list.Items[0].Name != "app:stable" || list.Freshness.Members != 3 {
		t.Errorf("Images = %+v, %v, want app:stable alone", list, err)
	}
	if got, err := c.CollectImages(ctx, shoal.CollectOptions{All: true, DryRun: true}); err != nil || got.Blobs != 0 || got.Used != app.Size {
		t.Errorf("CollectImages of what is pinned = %+v, %v, want nothing", got, err)
	}
	if got, err := c.RegistryLogin(ctx); err != nil || got.Address != "127.0.0.1:5050" || got.Password == "" {
		t.Errorf("RegistryLogin = %+v, %v", got, err)
	}
}

func TestImageErrors(t *testing.T) {
	cluster, c, app := pushed(t, "tokyo", "osaka")
	ctx := t.Context()
	_, err := c.Image(ctx, "ap:v1")
	wantError(t, err, api.CodeNotFound, `no image "ap:v1" (known here: app:v1); this peer last synced 0 s ago`)
	_, err = c.Image(ctx, "App:UPPER/x")
	wantError(t, err, api.CodeInvalid, `image "App:UPPER/x" is not an image reference: "App:UPPER" is not a registry's host and port`)
	_, err = c.ChangeImage(ctx, shoal.ImageChange{Name: "app:v1", To: "app@" + app.Digest})
	wantError(t, err, api.CodeInvalid, `to must be a name without a digest, got "app@`+app.Digest+`"`)
	_, err = c.ChangeImage(ctx, shoal.ImageChange{Name: "app:v1", MinCopies: 101})
	wantError(t, err, api.CodeInvalid, "min_copies must be 1-100, got 101")
	_, err = c.ChangeImage(ctx, shoal.ImageChange{Name: "app:v1"})
	wantError(t, err, api.CodeInvalid, "min_copies must be 1-100, got 0")
	_, err = c.CollectImages(ctx, shoal.CollectOptions{Room: -1})
	wantError(t, err, api.CodeInvalid, "room_bytes must not be negative, got -1")
	_, err = c.PushImage(ctx, "nosuch:1", "", nil)
	wantError(t, err, api.CodeNotFound, "image nosuch:1 is not in the engine of this peer")
	_, err = c.PushImage(ctx, "app:v1", "x@"+app.Digest, nil)
	wantError(t, err, api.CodeInvalid, `as must be a name without a digest, got "x@`+app.Digest+`"`)
	wantError(t, c.ExportImage(ctx, "app:v1", "zip", "", io.Discard, nil), api.CodeInvalid, `format must be oci or docker, got "zip"`)
	wantError(t, c.ExportImage(ctx, "app:v1", "", "arm64", io.Discard, nil), api.CodeInvalid, `platform must be OS/ARCH[/VARIANT], like linux/arm64, got "arm64"`)
	wantError(t, c.ExportImage(ctx, "app:v1", "", "linux/arm64", io.Discard, nil), api.CodeNotFound, "image app:v1 is for linux/amd64, not for linux/arm64")
	deploy(t, c, spec("web", "app:v1", 1), spec("api", "app:v1", 1))
	_, err = c.ChangeImage(ctx, shoal.ImageChange{Name: "app:v1", Remove: true})
	wantError(t, err, api.CodeConflict, "image app:v1 is used by api, web; update them to another image, or remove them, first")
	rival := cluster.Rival("app:v1")
	two := []string{app.Digest, rival}
	if rival < app.Digest {
		two = []string{rival, app.Digest}
	}
	_, err = c.PullImage(ctx, "app:v1", nil)
	wantError(t, err, api.CodeConflict, "app:v1 stands for 2 digests, "+two[0]+" and "+two[1]+"; peers that did not hear each other named them so; "+
		"write app@DIGEST for one of them; shoal image tag app@DIGEST app:v1 settles it")
	if _, err := c.ChangeImage(ctx, shoal.ImageChange{Name: "app@" + rival, To: "app:v1"}); err != nil {
		t.Error(err)
	}
	if d, err := c.Image(ctx, "app:v1"); err != nil || d.Digest != rival || len(d.Rivals) != 0 {
		t.Errorf("Image of what was settled = %+v, %v, want %s", d.Image, err, rival)
	}
	cluster.Imageless()
	_, err = c.Images(ctx)
	wantError(t, err, api.CodeRefused, "this daemon serves no images")
	_, err = c.ImportImage(ctx, io.NopCloser(strings.NewReader("x")), "", nil)
	wantError(t, err, api.CodeRefused, "this daemon serves no images")
}

// exported is app:v1 as an archive.
func exported(t *testing.T, c *api.Client, format string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := c.ExportImage(t.Context(), "app:v1", format, "", &out, nil); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestImportExport(t *testing.T) {
	_, c, app := pushed(t, "tokyo")
	for _, format := range []string{shoal.FormatOCI, shoal.FormatDocker} {
		other := dial(t, apitest.Serve(t, apitest.New("osaka")))
		archive := exported(t, c, format)
		var told []shoal.ImageProgress
		got, err := other.ImportImage(t.Context(), io.NopCloser(bytes.NewReader(archive)), "", func(p shoal.ImageProgress) { told = append(told, p) })
		if err != nil || len(got) != 1 || got[0].Name != "app:v1" || got[0].Digest != app.Digest {
			t.Errorf("ImportImage of %s, %d bytes = %+v, %v, want %s", format, len(archive), got, err, app.Digest)
		}
		if len(told) == 0 || told[0].What != "receive" {
			t.Errorf("ImportImage told %+v, want how far it is", told)
		}
		got, err = other.ImportImage(t.Context(), io.NopCloser(bytes.NewReader(archive)), "mine:2", nil)
		if err != nil || len(got) != 1 || got[0].Name != "mine:2" {
			t.Errorf("ImportImage as mine:2 = %+v, %v", got, err)
		}
		for _, cut := range []int{0, 1, 700, len(archive) / 2} {
			_, err := other.ImportImage(t.Context(), io.NopCloser(bytes.NewReader(archive[:cut])), "cut:1", nil)
			if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeInvalid {
				t.Errorf("ImportImage of the first %d bytes = %v, want that it is refused", cut, err)
			}
		}
		if list, err := other.Images(t.Context()); err != nil || len(list.Items) != 2 {
			t.Errorf("Images = %+v, %v, want app:v1 and mine:2 and nothing cut off", list.Items, err)
		}
	}
}

// TestImportWithoutEnd: all of the archive came, but nobody said so.
func TestImportWithoutEnd(t *testing.T) {
	_, c, _ := pushed(t, "tokyo")
	archive := exported(t, c, shoal.FormatOCI)
	socket := apitest.Serve(t, apitest.New("osaka"))
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	rpc := shoalv1connect.NewControlServiceClient(&http.Client{Transport: transport}, "http://shoal")
	for name, c := range map[string]struct {
		first, last *shoalv1.ImportImageRequest
		want        string
	}{
		"no end":   {&shoalv1.ImportImageRequest{What: &shoalv1.ImportImageRequest_Start{Start: &shoalv1.ImportStart{}}}, nil, "archive is cut off: its end did not come"},
		"no start": {&shoalv1.ImportImageRequest{What: &shoalv1.ImportImageRequest_End{End: true}}, nil, "start must be the first message"},
		"nothing": {
			&shoalv1.ImportImageRequest{What: &shoalv1.ImportImageRequest_Start{Start: &shoalv1.ImportStart{}}},
			&shoalv1.ImportImageRequest{}, "data or end must follow start",
		},
		"a name": {
			&shoalv1.ImportImageRequest{What: &shoalv1.ImportImageRequest_Start{Start: &shoalv1.ImportStart{As: "UP"}}},
			nil, `as "UP" is not an image reference: the repository must be lower case; write up`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			stream := rpc.ImportImage(t.Context())
			_ = stream.Send(c.first) // Receive says why
			for rest := archive; len(rest) > 0; rest = rest[min(len(rest), 50_000):] {
				_ = stream.Send(&shoalv1.ImportImageRequest{What: &shoalv1.ImportImageRequest_Data{Data: rest[:min(len(rest), 50_000)]}}) // as above
			}
			if c.last != nil {
				_ = stream.Send(c.last) // as above
			}
			_ = stream.CloseRequest() // as above
			var err error
			for err == nil {
				_, err = stream.Receive()
			}
			_ = stream.CloseResponse()
			if e, ok := errors.AsType[*connect.Error](err); !ok || e.Message() != c.want || e.Code() != connect.CodeInvalidArgument {
				t.Errorf("Receive = %v, want %q", err, c.want)
			}
		})
	}
	list, err := rpc.ListImages(t.Context(), connect.NewRequest(&shoalv1.ListImagesRequest{}))
	if err != nil || len(list.Msg.GetImages()) != 0 {
		t.Errorf("ListImages = %v, %v, want none", list, err)
	}
}

// TestImportRefusedWhileIdle: who has nothing to send yet hears of a refusal.
func TestImportRefusedWhileIdle(t *testing.T) {
	_, c, _ := pushed(t, "tokyo")
	archive, _ := io.Pipe() // nothing comes
	_, err := c.ImportImage(t.Context(), archive, "UP", nil)
	wantError(t, err, api.CodeInvalid, `as "UP" is not an image reference: the repository must be lower case; write up`)
}

func TestImportBroken(t *testing.T) {
	_, c, _ := pushed(t, "tokyo")
	archive := exported(t, c, shoal.FormatOCI)
	broken := errors.New("the disk is gone")
	_, err := c.ImportImage(t.Context(), io.NopCloser(io.MultiReader(bytes.NewReader(archive[:1<<20]), failing{broken})), "half:1", nil)
	if !errors.Is(err, broken) {
		t.Errorf("ImportImage of an archive that breaks = %v, want %v", err, broken)
	}
	if list, err := c.Images(t.Context()); err != nil || len(list.Items) != 1 {
		t.Errorf("Images = %+v, %v, want app:v1 alone", list.Items, err)
	}
}

// TestImportInterrupted: whatever the moment, the answer says what became of it.
func TestImportInterrupted(t *testing.T) {
	cluster, c, _ := pushed(t, "tokyo")
	archive := exported(t, c, shoal.FormatOCI)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() {
		_, _ = w.Write(archive[:1<<20]) // nobody reads to its end
		cancel()
	}()
	_, err := c.ImportImage(ctx, r, "half:1", nil)
	wantError(t, err, api.CodeInvalid, "archive is cut off: its end did not come")

	ctx, cancel = context.WithCancel(t.Context())
	arrived, release := cluster.BlockMove()
	go func() {
		<-arrived // all of it is there
		cancel()
		release()
	}()
	got, err := c.ImportImage(ctx, io.NopCloser(bytes.NewReader(archive)), "whole:1", nil)
	if err != nil || len(got) != 1 || got[0].Name != "whole:1" {
		t.Errorf("ImportImage interrupted at its end = %+v, %v, want that it is there", got, err)
	}
}

// TestMovesAreBounded: who asks for one more move than there may be is told so, and moves
// that ended, or were left, are none.
func TestMovesAreBounded(t *testing.T) {
	cluster, c, _ := pushed(t, "tokyo")
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan error)
	for range 16 {
		arrived, _ := cluster.BlockMove()
		go func() {
			_, err := c.PullImage(ctx, "app:v1", nil)
			ended <- err
		}()
		<-arrived
	}
	_, err := c.PullImage(t.Context(), "app:v1", nil)
	wantError(t, err, api.CodeRefused, "this daemon moves 16 images already; try again in a moment")
	leave()
	for range 16 {
		<-ended
	}
	for late := time.After(10 * time.Second); ; {
		if _, err = c.PullImage(t.Context(), "app:v1", nil); err == nil {
			return
		}
		select {
		case <-late:
			t.Fatalf("PullImage after the others left = %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
