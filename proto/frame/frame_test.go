// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package frame_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

func TestRoundTrip(t *testing.T) {
	var buf bytes.Buffer
	for _, text := range []string{"one", "", "three"} {
		if err := frame.Write(&buf, &shoalv1.Ping{Nonce: []byte(text)}, 100); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"one", "", "three"} {
		var got shoalv1.Ping
		if err := frame.Read(&buf, &got, 100); err != nil || string(got.GetNonce()) != want {
			t.Fatalf("Read = %q, %v, want %q", got.GetNonce(), err, want)
		}
	}
	if err := frame.Read(&buf, &shoalv1.Ping{}, 100); !errors.Is(err, io.EOF) {
		t.Fatalf("Read at the end = %v, want EOF", err)
	}
}

func TestLimits(t *testing.T) {
	var buf bytes.Buffer
	if err := frame.Write(&buf, &shoalv1.Ping{Nonce: make([]byte, 100)}, 100); !errors.Is(err, frame.ErrTooLarge) || buf.Len() != 0 {
		t.Fatalf("Write = %v with %d bytes, want ErrTooLarge and none", err, buf.Len())
	}
	for name, c := range map[string]struct {
		raw  []byte
		want error
	}{
		"huge length":     {[]byte{0xff, 0xff, 0xff, 0xff}, frame.ErrTooLarge},
		"one above":       {[]byte{0, 0, 0, 101}, frame.ErrTooLarge},
		"cut header":      {[]byte{0, 0}, io.ErrUnexpectedEOF},
		"cut body":        {[]byte{0, 0, 0, 5, 1}, io.ErrUnexpectedEOF},
		"no body":         {[]byte{0, 0, 0, 5}, io.ErrUnexpectedEOF},
		"nothing":         {nil, io.EOF},
		"garbage message": {[]byte{0, 0, 0, 2, 0xff, 0xff}, nil},
	} {
		err := frame.Read(bytes.NewReader(c.raw), &shoalv1.Ping{}, 100)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: Read = %v, want %v", name, err, c.want)
		}
	}
}

// FuzzRead: what is read is within the limit and reads the same when written again.
func FuzzRead(f *testing.F) {
	var buf bytes.Buffer
	if err := frame.Write(&buf, &shoalv1.Ping{Nonce: []byte("x")}, 100); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 2, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m, again shoalv1.Ping
		err := frame.Read(bytes.NewReader(raw), &m, 100)
		if err != nil {
			if len(raw) >= 104 && !errors.Is(err, frame.ErrTooLarge) && !errors.Is(err, frame.ErrMalformed) {
				t.Fatalf("Read of all there is = %v", err)
			}
			return
		}
		var out bytes.Buffer
		if err := frame.Write(&out, &m, 200); err != nil {
			t.Fatalf("Write of what was read = %v", err)
		}
		if err := frame.Read(&out, &again, 200); err != nil || !bytes.Equal(again.GetNonce(), m.GetNonce()) {
			t.Fatalf("read again = %v, %v", &again, err)
		}
	})
}
