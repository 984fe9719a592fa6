// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// refusal is shoal.ErrRefused in words that stand for themselves.
type refusal struct{ why string }

// Error returns one line: what, why, what to do.
func (e *refusal) Error() string { return e.why }

// Unwrap makes errors.Is(err, shoal.ErrRefused) true.
func (e *refusal) Unwrap() error { return shoal.ErrRefused }

// enginePaths are what makes its user the engine, and so root, on most machines.
var enginePaths = []string{"/var/run/docker.sock", "/run/containerd", "/var/lib/docker", "/var/lib/containerd"}

// gate is the last place where the owner of this machine is asked, whatever way a
// spec came.
type gate struct {
	rules   func() []string
	local   bool     // the engine is on this machine, so that its paths can be looked at
	guarded []string // paths that only a rule about them alone allows
}

func newGate(cfg *Config) gate {
	socket, local := strings.CutPrefix(cfg.Host, "unix://")
	g := gate{rules: cfg.Rules, local: local, guarded: slices.Concat(cfg.Guarded, enginePaths)}
	if local {
		g.guarded = append(g.guarded, socket)
	}
	return g
}

// admit returns s with the paths of its bind mounts and devices as they are once every
// link is followed; these are judged, and these are mounted. A demand that no rule
// allows is a *shoal.PolicyError; what this machine does not have is refused, too.
//
// What remains is the time between this look and the engine's own: who can write to a
// directory above a source may put a link there meanwhile.
func (g *gate) admit(s *shoal.Spec) (*shoal.Spec, error) {
	rules := []string{}
	if g.rules != nil {
		rules = g.rules()
	}
	out := *s
	c := &out.Setup
	c.Mounts, c.Devices = slices.Clone(c.Mounts), slices.Clone(c.Devices)
	for i := range c.Mounts {
		if c.Mounts[i].Kind != shoal.MountBind {
			continue
		}
		if err := g.follow(&c.Mounts[i].Source); err != nil {
			return nil, err
		}
	}
	for i := range c.Devices {
		if err := g.followDevice(&c.Devices[i]); err != nil {
			return nil, err
		}
	}
	if d := shoal.Forbidden(rules, undecided(&out, s, rules)); d != "" {
		return nil, &shoal.PolicyError{Demand: d}
	}
	for i := range c.Mounts {
		if c.Mounts[i].Kind != shoal.MountBind {
			continue
		}
		if err := g.guard(&c.Mounts[i], rules); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// undecided returns the demands of a spec with its links followed, without those of
// devices whose link in /dev a rule names itself: /dev/serial/by-id/X stays what the
// owner meant when it comes back as another ttyUSB.
func undecided(followed, asked *shoal.Spec, rules []string) []string {
	demands := followed.Demands()
	for i, d := range asked.Setup.Devices {
		link, target := "device:"+shoal.CleanPath(d.Host), "device:"+shoal.CleanPath(followed.Setup.Devices[i].Host)
		if link != target && strings.HasPrefix(link, "device:/dev/") && slices.Contains(rules, link) {
			demands = slices.DeleteFunc(demands, func(demand string) bool { return demand == target })
		}
	}
	return demands
}

// follow replaces a path by what it is once every link is followed.
func (g *gate) follow(name *string) error {
	if !g.local {
		return &refusal{fmt.Sprintf("path %s cannot be judged: the engine is not on the daemon's machine; use a volume", *name)}
	}
	real, err := followed(*name)
	if err != nil {
		return err
	}
	*name = real
	return nil
}

// followDevice is follow for a device, which keeps its name in the container.
func (g *gate) followDevice(d *shoal.Device) error {
	asked := filepath.Clean(d.Host)
	if err := g.follow(&d.Host); err != nil {
		return err
	}
	if d.Container == "" {
		d.Container = asked
	}
	return nil
}

// guard wants a rule of their own for what gives the machine away: the engine's
// sockets and data, this daemon's key and socket. That is a mount of one, of what
// holds one, or of a part of one.
func (g *gate) guard(m *shoal.Mount, rules []string) error {
	for _, name := range g.guarded {
		name, err := followed(name)
		if err != nil {
			continue // a link to nothing gives nothing away
		}
		target := m.Source
		switch {
		case inside(m.Source, name):
		case inside(name, m.Source), sameFile(name, m.Source):
			target = name
		default:
			continue
		}
		one := *m
		one.Source = target
		demand := (&shoal.Spec{Setup: shoal.Setup{Mounts: []shoal.Mount{one}}}).Demands()
		about := slices.DeleteFunc(slices.Clone(rules), func(rule string) bool {
			_, where, _ := strings.Cut(rule, ":")
			return !inside(where, shoal.CleanPath(name))
		})
		if d := shoal.Forbidden(about, demand); d != "" {
			return &shoal.PolicyError{Demand: d}
		}
	}
	return nil
}

// followed returns what a path is once every link is followed, as far as it exists.
func followed(name string) (string, error) {
	name = filepath.Clean(name)
	rest := ""
	for dir := name; ; dir = filepath.Dir(dir) {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if _, there := os.Lstat(dir); there == nil || !errors.Is(err, fs.ErrNotExist) || dir == "/" {
			return "", &refusal{fmt.Sprintf("path %s cannot be followed on its machine: %v", name, pathError(err))}
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}

// pathError is why without the path, which may be another one.
func pathError(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// inside reports whether a clean path is dir or lies in it.
func inside(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// sameFile sees through what is mounted twice.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// prepare makes the directories that bind mounts may make, and refuses paths and
// devices that are not there.
func prepare(s *shoal.Setup) error {
	for _, d := range s.Devices {
		if _, err := os.Stat(d.Host); err != nil {
			return &refusal{fmt.Sprintf("device %s: %v", d.Host, pathError(err))}
		}
	}
	for _, m := range s.Mounts {
		if m.Kind != shoal.MountBind {
			continue
		}
		_, err := os.Stat(m.Source)
		switch {
		case err == nil:
		case !errors.Is(err, fs.ErrNotExist):
			return &refusal{fmt.Sprintf("path %s: %v", m.Source, pathError(err))}
		case !m.Create:
			return &refusal{fmt.Sprintf("path %s is not there; make it on that machine, or ask for it with create_host_path: true", m.Source)}
		default:
			if err := makeDir(m.Source); err != nil {
				return &refusal{fmt.Sprintf("path %s cannot be made: %v", m.Source, pathError(err))}
			}
		}
	}
	return nil
}

// makeDir makes a directory and those above it as engines do: open to a container's
// user, whatever the daemon's umask.
func makeDir(name string) error {
	if err := os.Mkdir(name, 0o755); errors.Is(err, fs.ErrNotExist) { //nolint:gosec // see above
		if err := makeDir(filepath.Dir(name)); err != nil {
			return err
		}
		return makeDir(name)
	} else if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	} else if err != nil {
		return nil // somebody else was faster
	}
	return os.Chmod(name, 0o755) //nolint:gosec // see above
}
