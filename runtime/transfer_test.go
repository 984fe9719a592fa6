// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/shoalnet/shoal"
)

// pulled is what Engine 20.10.24 told of a pull of two layers, shortened.
const pulled = `{"status":"Pulling from app","id":"sha256:f2"}
{"status":"Pulling fs layer","progressDetail":{},"id":"a1"}
{"status":"Pulling fs layer","progressDetail":{},"id":"b2"}
{"status":"Downloading","progressDetail":{"current":100,"total":1000},"progress":"[=> ]","id":"a1"}
{"status":"Verifying Checksum","progressDetail":{},"id":"a1"}
{"status":"Download complete","progressDetail":{},"id":"a1"}
{"status":"Retrying in 5 seconds","progressDetail":{},"id":"b2"}
{"status":"Retrying in 4 seconds","progressDetail":{},"id":"b2"}
{"status":"Downloading","progressDetail":{"current":50,"total":500},"id":"b2"}
{"status":"Extracting","progressDetail":{"current":400,"total":1000},"id":"a1"}
{"status":"Extracting","progressDetail":{"current":400,"total":1000},"id":"a1"}
{"status":"Pull complete","progressDetail":{},"id":"a1"}
{"status":"Pull complete","progressDetail":{},"id":"b2"}
{"status":"Digest: sha256:f2"}
{"status":"Status: Downloaded newer image for 127.0.0.1:5050/app@sha256:f2"}
`

func TestPullProgress(t *testing.T) {
	now := time.Duration(0)
	u := newUnpacking(func() time.Duration { now += 500 * time.Millisecond; return now })
	var got []string
	err := readStream(strings.NewReader(pulled), func(line *streamLine) {
		if u.take(line) {
			p := u.progress()
			got = append(got, fmt.Sprintf("%d/%d", p.Done, p.Total))
		}
	})
	want := []string{
		"0/0", "0/0", "0/0", "0/0", "0/0", "0/0", // until every size is known
		"0/1500", "400/1500", "1000/1500", "1500/1500", "1500/1500", "1500/1500",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("progress = %q, %v; want %q", got, err, want)
	}
}

func TestMeter(t *testing.T) {
	m := meter{at: time.Second}
	for _, c := range []struct {
		now  time.Duration
		done int64
		want int64
	}{
		{1500 * time.Millisecond, 400, 0}, {2 * time.Second, 1000, 1000}, {2500 * time.Millisecond, 9000, 1000}, {4 * time.Second, 9000, 4000},
	} {
		if got := m.rate(c.now, c.done); got != c.want {
			t.Errorf("rate at %s = %d, want %d", c.now, got, c.want)
		}
	}
}

func TestStreamErrors(t *testing.T) {
	for text, want := range map[string]string{
		`{"status":"a"}` + "\r\n" + `{"errorDetail":{"message":"manifest unknown"},"error":"x"}`: "manifest unknown",
		`{"error":"only this"}`:          "only this",
		`{"status":"a"} nonsense`:        "read what the engine tells: invalid character 'n' after top-level value",
		strings.Repeat(" ", 70_000):      "read what the engine tells: bufio.Scanner: token too long",
		"\r\n\n" + `{"status":"a"}`:      "",
		`[{"error":"no line of these"}]`: "read what the engine tells: json: cannot unmarshal array into Go value of type runtime.streamLine",
	} {
		got := ""
		if err := readStream(strings.NewReader(text), func(*streamLine) {}); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("readStream(%.40q) = %q, want %q", text, got, want)
		}
	}
}

// TestPullErrors: what engines say of registries, each with the version that said it.
func TestPullErrors(t *testing.T) {
	for text, want := range map[string]error{
		`Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused`:                           shoal.ErrUnreachable, // 20.10.24
		`Get "https://10.0.0.1:5050/v2/": http: server gave HTTP response to HTTPS client`:                          shoal.ErrUnreachable, // 20.10.24
		`failed to do request: Head "http://127.0.0.1:1/v2/app": dial tcp 127.0.0.1:1: connect: connection refused`: shoal.ErrUnreachable, // containerd's store
		`manifest for 127.0.0.1:5050/app@sha256:00 not found: manifest unknown: manifest unknown`:                   shoal.ErrNotFound,    // 20.10.24
		`Get "http://127.0.0.1:5050/v2/app/manifests/1": unauthorized: unauthorized`:                                shoal.ErrRefused,     // 20.10.24
		`unexpected status from HEAD request to http://127.0.0.1:5050/v2/app: 401 Unauthorized`:                     shoal.ErrRefused,     // containerd's store
		`filesystem layer verification failed for digest sha256:00`:                                                 nil,                  // 20.10.24
	} {
		err := pullError(&engineSays{text: text})
		for _, kind := range []error{shoal.ErrUnreachable, shoal.ErrNotFound, shoal.ErrRefused, shoal.ErrEngineDown} {
			if got := errors.Is(err, kind); got != errors.Is(kind, want) {
				t.Errorf("%s: is %q %t", text, kind, got)
			}
		}
		if err.Error() != text {
			t.Errorf("pullError changed %q to %q", text, err)
		}
	}
	own := errors.New("dial tcp: not the engine's word")
	if got := pullError(own); !errors.Is(got, own) || errors.Is(got, shoal.ErrUnreachable) {
		t.Errorf("pullError(%v) = %v", own, got)
	}
}

// TestArchiveEnd: an engine that fails half-way can only end the archive wrongly.
func TestArchiveEnd(t *testing.T) {
	good := append(bytes.Repeat([]byte{7}, 512), tarEnd...)
	for what, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"whole":   {good, ""},
		"empty":   {nil, `the archive breaks off after 0 bytes: ""`},
		"short":   {good[:512+1023], "the archive breaks off after 1535 bytes: "},
		"ruined":  {append(bytes.Clone(good[:512]), `{"message":"no space left"}`...), `the archive breaks off after 539 bytes: `},
		"no ends": {bytes.Repeat([]byte{7}, 4096), "the archive breaks off after 4096 bytes: "},
	} {
		var out bytes.Buffer
		a := &archiveEnd{w: &out, moved: func() {}}
		if _, err := io.Copy(struct{ io.Writer }{a}, iotest.OneByteReader(bytes.NewReader(c.raw))); err != nil {
			t.Fatal(err)
		}
		err := a.whole()
		if got := fmt.Sprint(err); (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(got, c.want) || !bytes.Equal(out.Bytes(), c.raw) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
		piece := &archiveEnd{w: io.Discard, moved: func() {}}
		if _, err := piece.Write(c.raw); err != nil || fmt.Sprint(piece.whole()) != fmt.Sprint(a.whole()) {
			t.Errorf("%s in one piece: %v, in many %v", what, piece.whole(), a.whole())
		}
	}
}

// FuzzStream: whatever an engine tells, progress never goes back, nor over its total.
func FuzzStream(f *testing.F) {
	f.Add([]byte(pulled))
	f.Add([]byte(`{"status":"Extracting","progressDetail":{"current":-5,"total":-9},"id":"a"}`))
	f.Add([]byte(`{"errorDetail":{"message":"x"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		u := newUnpacking(func() time.Duration { return time.Second })
		last := int64(0)
		_ = readStream(bytes.NewReader(raw), func(line *streamLine) {
			u.take(line)
			p := u.progress()
			if p.Done < last || p.Total > 0 && p.Done > p.Total || p.Total < 0 || p.Rate < 0 {
				t.Fatalf("progress = %+v after %d done", p, last)
			}
			last = p.Done
		})
		if len(u.layers) > maxLayers {
			t.Fatalf("%d layers are counted", len(u.layers))
		}
	})
}
