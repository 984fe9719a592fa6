// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// keptBits are the bits of a mode that are copied without -a: a file that came from a
// container must not become somebody else's right.
const keptBits = fs.ModePerm | fs.ModeSticky

func (cp *copying) mode(m fs.FileMode) fs.FileMode {
	if cp.flags.archive {
		return m & (fs.ModePerm | fs.ModeSticky | fs.ModeSetuid | fs.ModeSetgid)
	}
	return m & keptBits
}

// packer writes files as a tar archive.
type packer struct {
	*copying
	name string // of what is packed, "." for what is in it
	out  *tar.Writer
}

// pack writes what is at a path, of which st was found, and below. Links below are
// copied as links.
func (p *packer) pack(from string, st fs.FileInfo, w io.Writer) error {
	p.out = tar.NewWriter(w)
	err := p.add(from, p.name, st)
	if err == nil && st.IsDir() {
		err = filepath.WalkDir(from, func(at string, d fs.DirEntry, err error) error {
			if err != nil || at == from {
				return err
			}
			rel, err := filepath.Rel(from, at)
			if err != nil {
				return err
			}
			st, err := d.Info()
			if err != nil {
				return err
			}
			return p.add(at, path.Join(p.name, filepath.ToSlash(rel)), st)
		})
	}
	if err != nil {
		return err // an archive without its end is broken
	}
	return p.out.Close()
}

func (p *packer) add(at, name string, st fs.FileInfo) error {
	if name == "." {
		return nil // the directory that is there stays as it is
	}
	link := ""
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		var err error
		if link, err = os.Readlink(at); err != nil {
			return err
		}
	case !st.Mode().IsRegular() && !st.IsDir():
		p.left++
		return nil
	}
	h, err := tar.FileInfoHeader(st, link)
	if err != nil {
		return fmt.Errorf("copy %s: %w", at, err)
	}
	h.Name = name
	if st.IsDir() {
		h.Name += "/"
	}
	if !p.flags.archive {
		h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
		h.Mode &^= 0o6000 // setuid, setgid
	}
	if err := p.out.WriteHeader(h); err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return nil
	}
	p.meter.files++
	return p.content(at, h.Size)
}

func (p *packer) content(at string, size int64) error {
	f, err := os.Open(at)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read from
	if _, err = io.CopyN(p.out, f, size); errors.Is(err, io.EOF) {
		return fmt.Errorf("copy %s: it became shorter meanwhile", at)
	}
	return err
}

// unpacker makes files of a tar archive that somebody else may have made: nothing of it
// gets out of the directory, or beside the name that it goes under, whatever links there
// are or it makes; and nothing becomes a device.
type unpacker struct {
	*copying
	name    string // that the archive's first element gets
	isWhole bool   // the archive has no first element: it is of a whole file system
	root    *os.Root
	dirs    []*tar.Header   // whose modes are set at the end, with Name as it is here
	real    map[string]bool // directories that are no links, nor reached through any
}

func (u *unpacker) unpack(dir string, archive io.Reader) (err error) {
	if u.root, err = os.OpenRoot(dir); err != nil {
		return fmt.Errorf("write to %s: %w", dir, errors.Unwrap(err))
	}
	defer func() { _ = u.root.Close() }() // it is only a directory
	u.real = map[string]bool{}
	in := tar.NewReader(archive)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, archive) // padding
			return errors.Join(err, u.finish())
		}
		if err != nil {
			return err
		}
		if h.Name = u.here(h.Name); h.Name == "." && h.Typeflag == tar.TypeDir {
			continue // the directory that is there stays as it is
		}
		if err := u.put(h, in); err != nil {
			return fmt.Errorf("write %s: %w", filepath.Join(dir, h.Name), err)
		}
	}
}

// here is the name that an entry of the archive gets.
func (u *unpacker) here(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if !u.isWhole {
		_, name, _ = strings.Cut(name, "/")
	}
	return path.Join(u.name, name)
}

func (u *unpacker) put(h *tar.Header, content io.Reader) error {
	if err := u.unlinked(path.Dir(h.Name)); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeDir {
		if st, err := u.root.Lstat(h.Name); err == nil && !st.Mode().IsRegular() && st.Mode()&fs.ModeSymlink == 0 {
			return errors.New("something else than a file is there")
		}
		if err := u.root.MkdirAll(path.Dir(h.Name), 0o755); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := u.unlinked(h.Name); err != nil {
			return err
		}
		u.dirs = append(u.dirs, h)
		return u.root.MkdirAll(h.Name, 0o700) // until all is in it
	case tar.TypeXGlobalHeader:
		return nil // it is about the archive
	case tar.TypeReg, tar.TypeGNUSparse:
		u.meter.files++
		return u.anew(h, func(name string) error { return u.file(name, h, content) })
	case tar.TypeSymlink:
		return u.anew(h, func(name string) error { return u.root.Symlink(h.Linkname, name) })
	case tar.TypeLink:
		if err := u.unlinked(path.Dir(u.here(h.Linkname))); err != nil {
			return err
		}
		return u.anew(h, func(name string) error { return u.root.Link(u.here(h.Linkname), name) })
	}
	u.left++
	return nil
}

// unlinked refuses a directory that is reached through a link: what an archive says of
// it is not about where the link leads.
func (u *unpacker) unlinked(dir string) error {
	if dir == "." || u.real[dir] {
		return nil
	}
	if err := u.unlinked(path.Dir(dir)); err != nil {
		return err
	}
	st, err := u.root.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a link; remove it to have a directory there", dir)
	}
	u.real[dir] = st.IsDir() // a directory is never replaced, see put
	return nil
}

// anew makes something under another name first, so that what was there is replaced as
// a whole or not at all.
func (u *unpacker) anew(h *tar.Header, make func(name string) error) error {
	name := path.Join(path.Dir(h.Name), ".shoal-cp-"+rand.Text())
	err := make(name)
	if err == nil && u.flags.archive && h.Typeflag != tar.TypeLink { // that has the owner of what it is
		err = u.root.Lchown(name, h.Uid, h.Gid)
	}
	if err == nil && (h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeGNUSparse) {
		err = errors.Join(u.root.Chmod(name, u.mode(h.FileInfo().Mode())), u.root.Chtimes(name, h.AccessTime, h.ModTime))
	}
	if err == nil {
		err = u.root.Rename(name, h.Name)
	}
	// A Rename to another name of the same file does nothing, says rename(2).
	if err != nil || h.Typeflag == tar.TypeLink {
		_ = u.root.Remove(name) // it may not be there at all
	}
	return err
}

func (u *unpacker) file(name string, h *tar.Header, content io.Reader) error {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, content)
	if err == nil && n != h.Size {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, f.Close())
}

// finish sets what directories have, the deepest first.
func (u *unpacker) finish() error {
	for _, h := range slices.Backward(u.dirs) {
		err := u.root.Chmod(h.Name, u.mode(h.FileInfo().Mode()))
		if err == nil && u.flags.archive {
			err = u.root.Chown(h.Name, h.Uid, h.Gid)
		}
		if err == nil {
			err = u.root.Chtimes(h.Name, h.AccessTime, h.ModTime)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
