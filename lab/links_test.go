// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal/lab/topology"
	"github.com/shoalnet/shoal/lab/wire"
)

// linked is a lab of which there are only the links.
func linked(t *testing.T, hosts int) *Lab {
	t.Helper()
	l := &Lab{cfg: Config{Topology: topology.LAN(hosts)}, sw: wire.New(wire.Config{})}
	if err := l.Heal(); err != nil {
		t.Fatal(err)
	}
	return l
}

// Who changes different things of a link at the same time gets both.
func TestLinkAtOnce(t *testing.T) {
	l := linked(t, 2)
	for range 200 {
		var group sync.WaitGroup
		for _, change := range []func() error{
			func() error { return l.SetLink("h1", "h2", topology.Change{Loss: "2%"}, false) },
			func() error { return l.SetLink("h2", "h1", topology.Change{Delay: "75ms"}, false) },
			func() error { return l.Split("h1 | h2", false) },
		} {
			group.Go(func() {
				if err := change(); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		for pair, got := range l.Links() {
			if want := (wire.Link{Loss: 0.02, Delay: 75 * time.Millisecond, Cut: true}); got.Link != want {
				t.Fatalf("%s is %+v, want %+v", pair, got.Link, want)
			}
		}
		if err := l.Heal(); err != nil {
			t.Fatal(err)
		}
	}
}

// What makes no sense is told from what fails.
func TestAskError(t *testing.T) {
	l := linked(t, 2)
	for what, err := range map[string]error{
		"a link to nobody":       l.SetLink("h1", "h9", topology.Change{Loss: "2%"}, false),
		"a link to itself":       l.SetLink("h1", "h1", topology.Change{Loss: "2%"}, false),
		"a loss of more than is": l.SetLink("h1", "h2", topology.Change{Loss: "200%"}, false),
		"one side":               l.Split("h1 h2", false),
	} {
		if _, is := errors.AsType[*topology.AskError](err); !is {
			t.Errorf("%s: %v, want an AskError", what, err)
		}
	}
}

// The kernel tells of files without the symbolic links that led to them.
func TestRealPath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		link:                          filepath.Join(dir, "real"),
		filepath.Join(link, "a", "b"): filepath.Join(dir, "real", "a", "b"),
		"/no-such-directory/a/":       "/no-such-directory/a",
		"relative":                    "relative",
	} {
		if got := realPath(path); got != want {
			t.Errorf("realPath(%s) = %s, want %s", path, got, want)
		}
	}
	for path, isGood := range map[string]bool{
		root: false, filepath.Join(root, "other"): false, filepath.Join(root, "x", "y"): false, "/run/x": false, "x": false,
		filepath.Join(root, "x"): true, filepath.Join(dir, "x"): true,
	} {
		if err := checkDir("x", realPath(path)); (err == nil) != isGood {
			t.Errorf("lab x in %s: %v", path, err)
		}
	}
}
