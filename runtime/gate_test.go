// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shoalnet/shoal"
)

// yard is a directory tree with a gate around it.
//
//	allowed/            by mount:ROOT/allowed
//	allowed/out -> ../other, allowed/nothing -> ../nothing, allowed/loop -> loop
//	other/
//	run/engine.sock, lib/key   guarded
//	again -> run
type yard struct {
	root  string
	gate  gate
	rules []string
}

func newYard(t *testing.T) *yard {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"allowed/deep", "other", "run", "lib"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"allowed/out": "../other", "allowed/nothing": "../nothing", "allowed/loop": "loop", "again": "run"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"run/engine.sock", "lib/key", "other/file"} {
		if err := os.WriteFile(filepath.Join(root, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(root, "run/engine.sock"), filepath.Join(root, "allowed/hard")); err != nil {
		t.Fatal(err)
	}
	y := &yard{root: root}
	cfg := Config{
		Host: "unix://" + root + "/again/engine.sock", Rules: func() []string { return y.rules },
		Guarded: []string{root + "/lib"},
	}
	y.gate = newGate(&cfg)
	return y
}

// admit asks for one bind mount, and returns what would be mounted.
func (y *yard) admit(source string, readOnly bool) (string, error) {
	s := &shoal.Spec{Setup: shoal.Setup{Mounts: []shoal.Mount{{Kind: shoal.MountBind, Source: source, Target: "/x", ReadOnly: readOnly}}}}
	out, err := y.gate.admit(s)
	if s.Setup.Mounts[0].Source != source {
		return "", errors.New("the spec itself was changed")
	}
	if err != nil {
		return "", err
	}
	return out.Setup.Mounts[0].Source, nil
}

func TestGate(t *testing.T) {
	y := newYard(t)
	at := func(p string) string { return y.root + p }
	for _, tt := range []struct {
		name     string
		rules    []string
		source   string
		readOnly bool
		want     string // what is mounted
		demand   string // or what is missing
	}{
		{"nothing is allowed", nil, "/allowed", true, "", "mount-ro:/allowed"},
		{"the directory itself", []string{"mount:/allowed"}, "/allowed", false, "/allowed", ""},
		{"what lies in it", []string{"mount:/allowed"}, "/allowed/deep/", false, "/allowed/deep", ""},
		{"what does not exist yet", []string{"mount:/allowed"}, "/allowed/a/b", false, "/allowed/a/b", ""},
		{"beside it", []string{"mount:/allowed"}, "/allowed2", false, "", "mount:/allowed2"},
		{"upwards", []string{"mount:/allowed"}, "/allowed/../other", false, "", "mount:/other"},
		{"a link out of it", []string{"mount:/allowed"}, "/allowed/out", false, "", "mount:/other"},
		{"through a link out of it", []string{"mount:/allowed"}, "/allowed/out/file", true, "", "mount-ro:/other/file"},
		{"what is not there yet, through a link", []string{"mount:/allowed"}, "/allowed/out/a/b", false, "", "mount:/other/a/b"},
		{"a link to what is allowed", []string{"mount:/other"}, "/allowed/out/file", false, "/other/file", ""},
		{"writing what may be read", []string{"mount-ro:/other"}, "/other", false, "", "mount:/other"},
		{"reading it", []string{"mount-ro:/other"}, "/other", true, "/other", ""},
		{"the engine's socket by a broad rule", []string{"mount:"}, "/run/engine.sock", false, "", "mount:/run/engine.sock"},
		{"to be read only, too", []string{"mount:"}, "/run/engine.sock", true, "", "mount-ro:/run/engine.sock"},
		{"its directory", []string{"mount:", "mount:/run"}, "/run", false, "", "mount:/run/engine.sock"},
		{"its directory by a link", []string{"mount:", "mount:/again"}, "/again", false, "", "mount:/run/engine.sock"},
		{"a second name of it", []string{"mount:/allowed"}, "/allowed/hard", false, "", "mount:/run/engine.sock"},
		{"by name", []string{"mount:/run/engine.sock"}, "/again/engine.sock", false, "/run/engine.sock", ""},
		{"its directory, and it by name", []string{"mount:/run", "mount:/run/engine.sock"}, "/run", false, "/run", ""},
		{"our key", []string{"mount:"}, "/lib/key", true, "", "mount-ro:/lib/key"},
		{"our directory", []string{"mount:"}, "/lib", true, "", "mount-ro:/lib"},
		{"our directory by name", []string{"mount-ro:/lib"}, "/lib", true, "/lib", ""},
		{"our key by its directory's name", []string{"mount-ro:/lib"}, "/lib/key", true, "/lib/key", ""},
		{"our directory by the name of a part", []string{"mount:", "mount-ro:/lib/key"}, "/lib", true, "", "mount-ro:/lib"},
	} {
		y.rules = nil
		for _, r := range tt.rules {
			kind, p, _ := strings.Cut(r, ":")
			y.rules = append(y.rules, kind+":"+at(p))
		}
		got, err := y.admit(at(tt.source), tt.readOnly)
		if tt.demand != "" {
			kind, p, _ := strings.Cut(tt.demand, ":")
			want := kind + ":" + at(p)
			var forbidden *shoal.PolicyError
			if !errors.As(err, &forbidden) || forbidden.Demand != want {
				t.Errorf("%s: %q, %v; want %s refused", tt.name, got, err, want)
			}
			continue
		}
		if err != nil || got != at(tt.want) {
			t.Errorf("%s: %q, %v; want %s", tt.name, got, err, at(tt.want))
		}
	}
}

func TestGateRefusesWhatCannotBeFollowed(t *testing.T) {
	y := newYard(t)
	y.rules = []string{"mount:/"}
	for _, source := range []string{"/allowed/nothing", "/allowed/nothing/a", "/allowed/loop", "/other/file/a"} {
		_, err := y.admit(y.root+source, false)
		if !errors.Is(err, shoal.ErrRefused) {
			t.Errorf("a mount of %s = %v, want ErrRefused", source, err)
		}
	}
	cfg := Config{Host: "tcp://192.0.2.1:2375", Rules: func() []string { return []string{"mount:/"} }}
	y.gate = newGate(&cfg)
	if _, err := y.admit(y.root+"/allowed", false); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("a mount on an engine elsewhere = %v, want ErrRefused", err)
	}
}

// TestGateDevices: a link in /dev that a rule names is what the owner meant, whatever
// it leads to today; other links are judged by where they lead.
func TestGateDevices(t *testing.T) {
	y := newYard(t)
	link, err := filepath.EvalSymlinks("/dev/fd") // a link on every Linux
	if err != nil {
		t.Fatal(err)
	}
	ask := func(host string, rules ...string) (shoal.Device, error) {
		y.rules = rules
		out, err := y.gate.admit(&shoal.Spec{Setup: shoal.Setup{Devices: []shoal.Device{{Host: host}}}})
		if err != nil {
			return shoal.Device{}, err
		}
		return out.Setup.Devices[0], nil
	}
	if got, err := ask("/dev/fd", "device:/dev/fd"); err != nil || got.Host == "/dev/fd" || got.Container != "/dev/fd" {
		t.Errorf("a link that a rule names = %+v, %v; want it followed, its name kept", got, err)
	}
	if _, err := ask("/dev/fd", "device:/dev"); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("a link out of /dev to %s = %v, want ErrRefused", link, err)
	}
	if got, err := ask("/dev/null", "device:/dev"); err != nil || got.Host != "/dev/null" {
		t.Errorf("a device that a rule covers = %+v, %v", got, err)
	}
}

func TestPrepare(t *testing.T) {
	y := newYard(t)
	mount := func(source string, create bool) *shoal.Setup {
		return &shoal.Setup{Mounts: []shoal.Mount{{Kind: shoal.MountBind, Source: y.root + source, Create: create}}}
	}
	if err := prepare(mount("/absent", false)); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("a path that is not there = %v, want ErrRefused", err)
	}
	defer syscall.Umask(syscall.Umask(0o077))
	if err := prepare(mount("/absent/deep", true)); err != nil {
		t.Error(err)
	}
	for _, made := range []string{"/absent", "/absent/deep"} {
		if info, err := os.Stat(y.root + made); err != nil || info.Mode() != fs.ModeDir|0o755 {
			t.Errorf("%s, to be made = %v, %v; want a directory that others may enter", made, info, err)
		}
	}
	if err := prepare(mount("/other/file", true)); err != nil { // as it is
		t.Error(err)
	}
	if err := prepare(mount("/other/file/a", true)); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("a path below a file = %v, want ErrRefused", err)
	}
	l, err := net.Listen("unix", y.root+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := prepare(mount("/s", false)); err != nil {
		t.Errorf("a socket = %v", err)
	}
	if err := prepare(&shoal.Setup{Devices: []shoal.Device{{Host: "/dev/nobody-has-this"}}}); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("a device that is not there = %v, want ErrRefused", err)
	}
}
