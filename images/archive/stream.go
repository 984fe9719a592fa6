// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"

	"github.com/shoalnet/shoal"
)

// tellEvery is how many bytes pass between two calls of a progress function.
const tellEvery = 1 << 20

// tap is the archive as it comes from outside. It remembers its own error, so that a
// connection that broke is not taken for an archive that is damaged.
type tap struct {
	ctx      context.Context // of the one Read that it serves
	r        io.Reader
	n, told  int64
	err      error
	progress func(int64)
}

func (t *tap) Read(p []byte) (int, error) {
	if t.err == nil {
		t.err = t.ctx.Err()
	}
	if t.err != nil {
		return 0, t.err
	}
	n, err := t.r.Read(p)
	t.n, t.err = t.n+int64(n), err
	if t.progress != nil && t.n > t.told && (t.n-t.told >= tellEvery || err != nil) {
		t.told = t.n
		t.progress(t.n)
	}
	return n, err
}

// meter counts what comes out of a decompressor.
type meter struct {
	r     io.Reader
	what  string       // for the error: "is", "layer x is"
	in    func() int64 // compressed bytes read so far; nil: it is not compressed
	limit int64        // bytes
	ratio int64
	n     int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	switch {
	case m.n > m.limit:
		return 0, refuse("%s more than %d bytes once it is decompressed; that is the limit: split it, or have the limit raised", m.what, m.limit)
	case m.in != nil && m.n > slack && m.n/m.ratio > m.in():
		return 0, refuse("%s more than %d times its size once it is decompressed, as bombs are; if it is honest give it uncompressed", m.what, m.ratio)
	}
	return n, err
}

// stream is the tar in an archive, decompressed and counted.
type stream struct {
	tap     *tap
	r       *bufio.Reader
	release func()
}

// open finds out what r is and returns the tar in it.
func open(ctx context.Context, r io.Reader, l Limits, progress func(int64)) (*stream, error) {
	s := &stream{tap: &tap{ctx: ctx, r: r, progress: progress}, release: func() {}}
	outer := bufio.NewReaderSize(s.tap, 64<<10)
	head, err := s.peek(outer)
	if err != nil {
		return nil, err
	}
	m := &meter{r: outer, what: "is", limit: l.Bytes, ratio: l.Ratio}
	f := sniff(head)
	if f == formGzip || f == formZstd {
		m.in = func() int64 { return s.tap.n }
		if m.r, s.release, err = decompress(f, outer); err != nil {
			return nil, s.why(err)
		}
	}
	s.r = bufio.NewReaderSize(m, 256<<10)
	if m.in != nil {
		if head, err = s.peek(s.r); err != nil {
			s.release()
			return nil, err
		}
	}
	if err := mustBeTar(sniff(head), m.in != nil); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

func (s *stream) peek(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(headBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, s.why(err)
	}
	return head, nil
}

func mustBeTar(f form, isUnpacked bool) error {
	const want = "give the tar that docker save writes, or a tar of an OCI layout"
	prefix := ""
	if isUnpacked {
		prefix = "decompressed, "
	}
	switch f {
	case formTar:
		return nil
	case formEmpty:
		return refuse("%sis empty; %s", prefix, want)
	case formZip:
		return refuse("%sis a zip file; %s", prefix, want)
	case formXz:
		return refuse("%sis compressed with xz, which is not taken; decompress it first (xz -d)", prefix)
	case formBzip2:
		return refuse("%sis compressed with bzip2, which is not taken; decompress it first (bzip2 -d)", prefix)
	case formGzip, formZstd:
		return refuse("is compressed twice; decompress it once first")
	default:
		return refuse("%sis not a tar; %s", prefix, want)
	}
}

// why turns an error of reading the archive into the one for the user.
func (s *stream) why(err error) error {
	if own := s.tap.err; own != nil && !errors.Is(own, io.EOF) {
		return fmt.Errorf("read archive: %w", own)
	}
	return damaged("after "+fmt.Sprint(s.tap.n)+" bytes", err)
}

// damaged says what is wrong with content that could not be read.
func damaged(where string, err error) error {
	var invalid *shoal.InvalidError
	switch {
	case errors.As(err, &invalid):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return refuse("ends too early, %s; it was cut short: copy or save it again", where)
	case errors.Is(err, gzip.ErrChecksum):
		return refuse("does not have its checksum, %s; it was damaged on its way: copy or save it again", where)
	case errors.Is(err, tar.ErrHeader):
		return refuse("has no valid tar header, %s; it was damaged on its way: copy or save it again", where)
	}
	return refuse("cannot be read, %s: %s; it was damaged on its way: copy or save it again", where, err)
}

// drain reads what follows the tar, so that the checksum of what it was compressed with is
// seen. Tars are padded with zeros.
func (s *stream) drain() error {
	for {
		c, err := s.r.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return s.why(err)
		case c != 0:
			return refuse("goes on after the end of its tar; give one archive at a time")
		}
	}
}

// ender counts the zeros that what was read ends with, up to those of a tar's block.
type ender struct {
	r     io.Reader
	zeros int
}

func (e *ender) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	tail := p[max(0, n-headBytes):n]
	zeros := len(tail) - len(bytes.TrimRight(tail, "\x00"))
	if zeros < n {
		e.zeros = 0
	}
	e.zeros += zeros
	return n, err
}
