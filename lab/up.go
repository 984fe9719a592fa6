// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalnet/shoal/lab/drive"
	"github.com/shoalnet/shoal/lab/topology"
)

// TB is what [Up] needs of a test; a *testing.T is one.
type TB interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Name() string
}

// Option says what a test wants other than three hosts side by side.
type Option func(*Config)

// Hosts wants so many hosts on one network without distance, h1 and up.
func Hosts(n int) Option {
	return func(c *Config) { c.Topology = topology.LAN(n) }
}

// On wants the hosts and the links of a topology.
func On(t *topology.Topology) Option { return func(c *Config) { c.Topology = t } }

// Bare wants hosts with engines, but no shoald.
func Bare() Option { return func(c *Config) { c.Bare = true } }

// Images wants images in every engine before its shoald looks.
func Images(files ...string) Option {
	return func(c *Config) { c.Images = append(c.Images, files...) }
}

// Flags wants more flags for every shoald.
func Flags(flags ...string) Option {
	return func(c *Config) { c.Flags = append(c.Flags, flags...) }
}

// Up makes a lab of this module's own programs that ends with the test, which fails if
// there can be none or if anything of it is left behind. The programs are built into
// bin/lab, which takes no time when nothing has changed. If the test has failed, the end
// of every log is told before it is gone.
func Up(t TB, options ...Option) *Lab {
	t.Helper()
	cfg := Config{Name: testName(t.Name()), Log: slog.New(slog.NewTextHandler(testLog{t}, nil))}
	Hosts(3)(&cfg)
	for _, o := range options {
		o(&cfg)
	}
	built, err := build(t.Context())
	if err != nil {
		t.Fatalf("%v", err)
	}
	cfg.Binaries = built
	if err := sweepTests(); err != nil {
		t.Fatalf("sweep what tests left that were killed: %v", err)
	}
	l, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			l.tell(t)
		}
		if err := l.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	return l
}

// sweepTests removes what labs of tests left whose processes were killed, as those that
// took too long are.
func sweepTests() error {
	all, err := List()
	if err != nil {
		return err
	}
	for _, i := range all {
		var busy *CheckError // another test was faster
		if !i.IsRunning && strings.HasPrefix(i.Name, testPrefix) {
			if err := Sweep(i.Name); err != nil && !errors.As(err, &busy) {
				return err
			}
		}
	}
	return nil
}

// testPrefix begins the names of tests' labs.
const testPrefix = "t-"

// testName makes a lab's name of a test's, other for each process: packages are tested
// side by side.
func testName(test string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, test)
	const most = 20 // bytes, which leaves room for the number
	return fmt.Sprintf(testPrefix+"%s-%d", strings.Trim(clean[:min(len(clean), most)], "-"), os.Getpid())
}

// testLog writes to a test's log.
type testLog struct{ t TB }

func (l testLog) Write(line []byte) (int, error) {
	l.t.Logf("%s", strings.TrimSuffix(string(line), "\n"))
	return len(line), nil
}

// build builds the programs, one process at a time.
func build(ctx context.Context) (Binaries, error) {
	mod, err := drive.Capture(exec.CommandContext(ctx, "go", "env", "GOMOD"))
	if err != nil {
		return Binaries{}, fmt.Errorf("find the module: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(mod))
	dir := filepath.Join(root, "bin", "lab")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as programs are
		return Binaries{}, fmt.Errorf("build the lab's programs: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return Binaries{}, fmt.Errorf("build the lab's programs: %w", err)
	}
	defer lock.Close() //nolint:errcheck // closing it lets the next one build
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return Binaries{}, fmt.Errorf("build the lab's programs: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", dir+"/", "./cmd/shoald", "./cmd/shoal", "./lab/init")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := drive.Capture(cmd); err != nil {
		return Binaries{}, fmt.Errorf("build the lab's programs: %w", err)
	}
	return Binaries{
		Shoald: filepath.Join(dir, "shoald"), Shoal: filepath.Join(dir, "shoal"), Init: []string{filepath.Join(dir, "init")},
	}, nil
}

// tell logs the end of every log of the lab.
func (l *Lab) tell(t TB) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(l.cfg.Dir, "*", "*.log"))
	if err != nil {
		t.Errorf("find the logs: %v", err)
	}
	const most = 15 // lines
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("read a log: %v", err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		t.Logf("end of %s:\n%s", path, strings.Join(lines[max(0, len(lines)-most):], "\n"))
	}
}
