// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Probe prints what its container is like, one KEY=VALUE a line, and ends. Arguments
// are done first: "write=PATH" appends to a file, "read=PATH" prints one, as PATH=VALUE.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

func main() {
	for _, arg := range os.Args[1:] {
		verb, path, _ := strings.Cut(arg, "=")
		switch verb {
		case "write":
			say(path, write(path))
		case "read":
			say(path, read(path))
		}
	}
	say("user", fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid()))
	groups, _ := os.Getgroups()
	say("groups", fmt.Sprint(groups))
	say("pid", fmt.Sprint(os.Getpid()))
	dir, _ := os.Getwd()
	say("dir", dir)
	host, _ := os.Hostname()
	say("host", host)
	addrs, err := net.LookupHost("elsewhere")
	say("elsewhere", fmt.Sprint(addrs, err))
	var limit syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	say("nofile", fmt.Sprint(limit.Max))
	for _, path := range []string{"/dev/shm", "/scratch"} {
		var fs syscall.Statfs_t
		if syscall.Statfs(path, &fs) == nil {
			say("size "+path, fmt.Sprintf("%d of type %x", fs.Bsize*int64(fs.Blocks), fs.Type))
		}
	}
	stdin, err := os.Stdin.Stat()
	say("terminal", fmt.Sprint(err == nil && stdin.Mode()&os.ModeCharDevice != 0 && stdin.Sys().(*syscall.Stat_t).Rdev>>8 == 136))
	status, _ := os.Open("/proc/self/status")
	for s := bufio.NewScanner(status); s.Scan(); {
		if key, value, _ := strings.Cut(s.Text(), ":"); key == "CapEff" || key == "CapBnd" || key == "NoNewPrivs" || key == "Seccomp" {
			say(key, strings.TrimSpace(value))
		}
	}
	faces, _ := net.Interfaces()
	say("interfaces", fmt.Sprint(len(faces)))
	for _, ns := range []string{"net", "pid", "ipc", "uts", "user"} {
		link, _ := os.Readlink("/proc/self/ns/" + ns)
		say("ns "+ns, link)
	}
	say("done", "true")
}

func say(key, value string) { fmt.Printf("%s=%s\n", key, value) }

func write(path string) string {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if _, err := f.WriteString("line,"); err != nil {
		return err.Error()
	}
	return "ok"
}

func read(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(raw))
}
