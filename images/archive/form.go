// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// form is what some content is, told from its first bytes.
type form int

const (
	formOther form = iota
	formEmpty
	formTar
	formGzip
	formZstd
	formJSON
	formZip
	formXz
	formBzip2
)

// headBytes are what sniff wants to see: one block of a tar.
const headBytes = 512

// sniff tells the form of what begins with head.
func sniff(head []byte) form {
	switch {
	case len(head) == 0:
		return formEmpty
	case bytes.HasPrefix(head, []byte("\x1f\x8b")): // RFC 1952, 2.3.1
		return formGzip
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")): // RFC 8878, 3.1.1
		return formZstd
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return formZip
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return formXz
	case bytes.HasPrefix(head, []byte("BZh")):
		return formBzip2
	case isTar(head):
		return formTar
	case bytes.HasPrefix(bytes.TrimLeft(head, " \t\r\n"), []byte("{")):
		return formJSON
	}
	return formOther
}

// isTar reports whether head begins with a header of a tar, or with the zeros that end one:
// the checksum tells (POSIX.1-1988 ustar; the older v7 form has it, too).
func isTar(head []byte) bool {
	if len(head) < headBytes {
		return false
	}
	sum := int64(0)
	for i, c := range head[:headBytes] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int64(c)
	}
	if sum == 8*' ' { // the checksum's own bytes, all others are zero
		return bytes.Count(head[148:156], []byte{0}) == 8
	}
	said, err := strconv.ParseInt(strings.Trim(string(head[148:156]), " \x00"), 8, 64)
	return err == nil && said == sum
}

// decompress returns a reader of what r, which has a compressed form, unpacks to. close
// frees memory, and has no error.
func decompress(f form, r io.Reader) (plain io.Reader, closeIt func(), err error) {
	if f == formGzip {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { _ = z.Close() }, nil // it only repeats errors of Read
	}
	// The window is what a stranger makes us allocate; zstd -19 uses 8 MiB, --ultra -22 128.
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(128<<20))
	if err != nil {
		return nil, nil, err
	}
	return z, z.Close, nil
}
