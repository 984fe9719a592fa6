// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/shoalnet/shoal"
)

// source is where an image comes from.
type source struct {
	name string
	open func(context.Context) (io.ReadCloser, error) // nil: it is an image of the engine
}

// archiveEnds are how the names of archives end, and of files that are taken for some.
var archiveEnds = []string{".tar", ".tar.gz", ".tgz", ".zip", ".tar.zst", ".tar.xz", ".tar.bz2"}

// imageSource tells files from names of images.
func (a *app) imageSource(arg string) (source, error) {
	if arg == "-" {
		return a.archiveSource(arg)
	}
	isPath := strings.HasPrefix(arg, ".") || strings.HasPrefix(arg, "/")
	isRef := !isPath && shoal.CheckRef("image", arg) == nil
	hasEnd := slices.ContainsFunc(archiveEnds, func(end string) bool { return strings.HasSuffix(arg, end) })
	st, err := os.Stat(arg)
	switch isThere := err == nil; {
	case isThere && st.IsDir():
		if isRef && !a.quiet {
			a.say("%s is a directory here, and taken for an OCI layout; the image of that name is %s", arg, shoal.NormalizeRef(arg))
		}
		return source{arg, func(context.Context) (io.ReadCloser, error) { return openLayout(arg) }}, nil
	case isThere && (hasEnd || strings.Contains(arg, "/")):
		if isRef && !hasEnd && !a.quiet {
			a.say("%s is a file here, and taken for an archive; the image of that name is %s", arg, shoal.NormalizeRef(arg))
		}
		return a.archiveSource(arg)
	case hasEnd && isRef:
		return source{}, usage("there is no file %s; an image of that name is written %s", arg, shoal.NormalizeRef(arg))
	case !isRef && (hasEnd || isPath):
		return source{}, fmt.Errorf("read %s: %w", arg, unpathed(err))
	}
	return source{name: arg}, nil
}

// archiveSource is an archive, whatever its name.
func (a *app) archiveSource(arg string) (source, error) {
	if arg == "-" {
		if a.isTerminal(a.in) {
			return source{}, usage("an archive cannot be typed; pipe one in: docker save IMAGE | shoal image push -")
		}
		return source{"standard input", func(ctx context.Context) (io.ReadCloser, error) {
			return sniff(ctx, "standard input", newInput(a.in))
		}}, nil
	}
	st, err := os.Stat(arg)
	switch {
	case err != nil:
		return source{}, fmt.Errorf("read %s: %w", arg, unpathed(err))
	case st.IsDir():
		return source{}, usage("%s is a directory; shoal image push takes one that is an OCI layout", arg)
	case !st.Mode().IsRegular() && st.Mode()&fs.ModeNamedPipe == 0:
		return source{}, usage("%s is a device or a socket, no archive", arg)
	}
	return source{arg, func(ctx context.Context) (io.ReadCloser, error) {
		f, err := os.Open(arg)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", arg, unpathed(err))
		}
		return sniff(ctx, arg, f)
	}}, nil
}

// block is the unit of a tar archive.
const block = 512

// magics are how files begin that are taken for archives of images and are none.
var magics = []struct{ magic, what string }{
	{"PK\x03\x04", "is a zip archive"},
	{"PK\x05\x06", "is a zip archive"},
	{"\xfd7zXZ\x00", "is compressed with xz, which is not taken; decompress it first: xz -dc FILE | shoal image push -"},
	{"BZh", "is compressed with bzip2, which is not taken; decompress it first: bzip2 -dc FILE | shoal image push -"},
}

const wantedArchive = `an image is a tar archive, as "docker save" writes it`

// sniff looks at how an archive begins: what is none need not travel first.
func sniff(ctx context.Context, name string, from io.ReadCloser) (io.ReadCloser, error) {
	shut := sync.OnceFunc(func() { _ = from.Close() }) // it is only read from
	defer context.AfterFunc(ctx, shut)()               // a Peek may wait for what never comes
	in := bufio.NewReaderSize(from, 64<<10)
	head, err := in.Peek(block)
	if err != nil && !errors.Is(err, io.EOF) {
		shut()
		if ctx.Err() != nil {
			return nil, whenCut(ctx, "nothing was taken")
		}
		return nil, fmt.Errorf("read %s: %w", name, unpathed(err))
	}
	if what := notAnArchive(head); what != "" {
		shut()
		return nil, usage("%s %s", name, what)
	}
	return &peeked{in, shut}, nil
}

// notAnArchive says why what begins so is no archive, "" if it may be one.
func notAnArchive(head []byte) string {
	if len(head) == 0 {
		return "is empty; " + wantedArchive
	}
	if bytes.HasPrefix(head, []byte("\x1f\x8b")) || bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")) {
		return "" // gzip (RFC 1952) and zstd (RFC 8878)
	}
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.what + wanted(m.what)
		}
	}
	if len(head) < block {
		return "is no tar archive; " + wantedArchive
	}
	if _, err := tar.NewReader(bytes.NewReader(head)).Next(); errors.Is(err, tar.ErrHeader) {
		return "is no tar archive; " + wantedArchive
	}
	return ""
}

func wanted(what string) string {
	if strings.Contains(what, ";") {
		return ""
	}
	return "; " + wantedArchive
}

// peeked is an archive of which the beginning was looked at.
type peeked struct {
	io.Reader
	shut func()
}

// Close implements io.Closer.
func (p *peeked) Close() error {
	p.shut()
	return nil
}

// maxLayoutFiles bounds a layout: an image has at most 1,000 blobs, and it may hold many.
const maxLayoutFiles = 100_000

// openLayout returns the archive of a directory that is an OCI layout (OCI image
// specification v1.1, image layout): its files and nothing else, in order. Close waits
// for what writes it.
func openLayout(dir string) (io.ReadCloser, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, unpathed(err))
	}
	files, err := layoutFiles(root, dir)
	if err != nil {
		_ = root.Close() // it is only a directory
		return nil, err
	}
	r, w := io.Pipe()
	p := &layoutArchive{PipeReader: r}
	p.side.Go(func() {
		defer func() { _ = root.Close() }()              // as above
		_ = w.CloseWithError(packLayout(root, files, w)) // it never fails
	})
	return p, nil
}

type layoutArchive struct {
	*io.PipeReader
	side sync.WaitGroup
}

// Close implements io.Closer.
func (l *layoutArchive) Close() error {
	err := l.PipeReader.Close()
	l.side.Wait()
	return err
}

// layoutFiles are the files of a layout, those first that say what it holds.
func layoutFiles(root *os.Root, dir string) ([]string, error) {
	out := []string{"oci-layout", "index.json"}
	for _, name := range out {
		if _, err := root.Lstat(name); err != nil {
			return nil, usage("%s is no OCI layout: it has no %s", dir, name)
		}
	}
	if st, err := root.Lstat("blobs"); err != nil || !st.IsDir() {
		return nil, usage("%s is no OCI layout: it has no directory blobs", dir)
	}
	err := fs.WalkDir(root.FS(), "blobs", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("read %s: %w", path.Join(dir, name), unpathed(err))
		case d.IsDir() && strings.Count(name, "/") > 1:
			return usage("%s is no OCI layout: %s is a directory", dir, name)
		case d.IsDir():
			return nil
		case len(out) >= maxLayoutFiles:
			return usage("%s has more than %d files", dir, maxLayoutFiles)
		}
		out = append(out, name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, name := range out {
		if st, err := root.Lstat(name); err != nil || !st.Mode().IsRegular() {
			return nil, usage("%s is no OCI layout: %s is no file, but a link, a device or the like", dir, name)
		}
	}
	return out, nil
}

func packLayout(root *os.Root, files []string, w io.Writer) error {
	out := tar.NewWriter(w)
	for _, name := range files {
		if err := packFile(root, name, out); err != nil {
			return err
		}
	}
	return out.Close()
}

func packFile(root *os.Root, name string, out *tar.Writer) error {
	f, err := root.Open(name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, unpathed(err))
	}
	defer func() { _ = f.Close() }() // it was only read from
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read %s: %w", name, unpathed(err))
	}
	if !st.Mode().IsRegular() { // it was one a moment ago
		return fmt.Errorf("read %s: it is no file any more", name)
	}
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: st.Size()}); err != nil {
		return err
	}
	if _, err = io.CopyN(out, f, st.Size()); errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: it became shorter meanwhile", name)
	}
	return err
}
