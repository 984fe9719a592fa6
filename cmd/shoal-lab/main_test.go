// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build lab

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/shoalnet/shoal/lab/driver"
)

// programs is where shoald, shoal and shoal-lab are built.
var programs string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == probeCommand {
		if err := probe(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	var err error
	if programs, err = os.MkdirTemp("", "shoal-lab-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs)
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", programs+"/", "../shoald", "../shoal", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// TestScript runs sessions of the built command, each on a lab of its own name, $NAME.
// Beside testscript's own commands there is
//
//	fails CODE TEXT shoal-lab ARG...   run, and expect exactly this code and this line on stderr
//	clean                              nothing of the lab is left on this machine
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			name := fmt.Sprintf("s-%d-%d", os.Getpid(), len(env.WorkDir))
			env.Setenv("PATH", programs+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("PROGRAMS", programs)
			env.Setenv("NAME", name)
			env.Setenv("SHOAL_LAB", name)
			env.Setenv("NO_COLOR", "1")
			env.Defer(func() { _ = driver.Remove(context.Background(), name) }) // of a script that has failed
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"fails": cmdFails, "clean": cmdClean},
	})
}

func cmdFails(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: fails CODE TEXT COMMAND...")
	}
	err := ts.Exec(args[2], args[3:]...)
	code := "0"
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // testscript returns it as it is
		code = fmt.Sprint(exit.ExitCode())
	}
	if said := strings.TrimSuffix(ts.ReadFile("stderr"), "\n"); code != args[0] || said != args[1] {
		ts.Fatalf("%s = %s, %q\nwant %s, %q", strings.Join(args[2:], " "), code, said, args[0], args[1])
	}
}

func cmdClean(ts *testscript.TestScript, _ bool, _ []string) {
	name := ts.Getenv("NAME")
	if left := slices.DeleteFunc(machine(), func(s string) bool { return !strings.Contains(s, name) }); len(left) > 0 {
		ts.Fatalf("left behind: %s", strings.Join(left, "\n"))
	}
}

// machine lists what a lab could leave behind: network namespaces, mounts, loop devices,
// control groups, directories, and processes of hosts and drivers.
func machine() []string {
	var all []string
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil { // it has just gone
			return ""
		}
		return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
	}
	for line := range strings.Lines(read("/proc/self/mounts")) {
		all = append(all, "mount "+strings.Fields(line)[1])
	}
	for kind, pattern := range map[string]string{
		"directory": "/var/lib/shoal-lab/*", "registration": "/run/shoal-lab/*", "control group": "/sys/fs/cgroup/*/shoal-lab/*", "group": "/sys/fs/cgroup/shoal-lab/*",
		"namespace": "/run/netns/*",
	} {
		paths, _ := filepath.Glob(pattern) // a good pattern never fails
		for _, p := range paths {
			all = append(all, kind+" "+p)
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // as above
	for _, p := range loops {
		all = append(all, p+" "+read(p))
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline") // as above
	for _, p := range commands {
		line := read(p)
		first, _, _ := strings.Cut(line, " ")
		isOurs := slices.Contains([]string{"dockerd", "containerd", "shoald", "shoal-lab"}, filepath.Base(first))
		if isOurs || strings.Contains(read(filepath.Join(filepath.Dir(p), "cgroup")), "/shoal-lab/") {
			all = append(all, "process "+filepath.Base(filepath.Dir(p))+" "+line)
		}
	}
	slices.Sort(all)
	return all
}
