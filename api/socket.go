// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/shoalnet/shoal"
)

// maxSocketPath is sun_path of Linux without its end.
const maxSocketPath = 107

// socket is a listener that knows the file it made.
type socket struct {
	*net.UnixListener
	path string
	info fs.FileInfo
}

// listenSocket makes the socket in a private directory, gives it its mode and group,
// and only then moves it to its path: nobody can connect before the mode is right.
func listenSocket(ctx context.Context, path, group string) (*socket, error) {
	if err := clearStale(ctx, path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("make socket %s: %w", path, err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // only the empty directory is left
	tmp := filepath.Join(dir, "s")
	if len(tmp) > maxSocketPath {
		return nil, &shoal.InvalidError{Field: "socket", Why: fmt.Sprintf("path %q is too long", path)}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // it knows only the old name
	info, err := publish(tmp, path, group)
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("make socket %s: %w", path, err)
	}
	return &socket{UnixListener: l, path: path, info: info}, nil
}

func publish(tmp, path, group string) (fs.FileInfo, error) {
	if g, err := user.LookupGroup(group); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil {
			_ = os.Chown(tmp, -1, gid) // who is not in the group may not; then only the owner connects
		}
	}
	if err := os.Chmod(tmp, 0o660); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, path); err != nil {
		return nil, err
	}
	return os.Lstat(path)
}

// clearStale removes a socket that nobody answers on.
func clearStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at socket: %w", err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return &shoal.AdviceError{Err: fmt.Errorf("%s is there and is no socket", path), Advice: "remove it or choose another socket"}
	}
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close() // it was only to see who is there
		return &shoal.AdviceError{Err: fmt.Errorf("another shoald answers on %s", path), Advice: "stop it or choose another socket"}
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("look at socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}

// remove takes the socket away, unless another daemon has put its own there.
func (s *socket) remove() {
	_ = s.Close() // closed already where the server was shut down
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.info) {
		_ = os.Remove(s.path) // nothing more can be done at stop
	}
}
