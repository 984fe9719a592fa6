// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/shoalnet/shoal/lab/wire"
)

// setup makes the namespaces a host and returns its TAP devices, one for each card.
func (in *inside) setup(s *Spec) (taps []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range taps {
				_ = f.Close() // the host does not boot
			}
			taps = nil
		}
	}()
	if err := syscall.Sethostname([]byte(s.Name)); err != nil {
		return nil, fmt.Errorf("set the host's name: %w", err)
	}
	if err := mounts(); err != nil {
		return nil, err
	}
	for _, nic := range s.NICs {
		tap, err := wire.OpenTAP(nic.Name)
		if err != nil {
			return taps, fmt.Errorf("open card %s: %w", nic.Name, err)
		}
		taps = append(taps, tap)
	}
	if err := network(s); err != nil {
		return taps, err
	}
	if err := names(s); err != nil {
		return taps, err
	}
	for _, d := range s.Disks {
		m, err := attach(d)
		if err != nil {
			return taps, fmt.Errorf("disk %s: %w", d.Name, err)
		}
		in.disks = append(in.disks, m)
	}
	return taps, nil
}

// mounts gives the host its own view of processes and a /run of its own, where sockets
// and pid files go; nothing mounted here is seen outside.
func mounts() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// With devices: attach makes its loop devices there.
	if err := syscall.Mount("run", "/run", "tmpfs", syscall.MS_NOSUID, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return nil
}

// network sets the cards up.
func network(s *Spec) error {
	var batch strings.Builder
	batch.WriteString("link set lo up\n")
	for _, nic := range s.NICs {
		fmt.Fprintf(&batch, "link set %s address %s\naddress add %s dev %s\nlink set %s up\n", nic.Name, nic.MAC, nic.Addr, nic.Name, nic.Name)
	}
	for _, n := range s.Neighbours {
		fmt.Fprintf(&batch, "neighbour replace %s lladdr %s dev %s nud permanent\n", n.Addr.Addr(), n.MAC, n.Name)
	}
	if s.Gateway.IsValid() {
		fmt.Fprintf(&batch, "route add default via %s\n", s.Gateway)
	}
	if err := run(batch.String(), "ip", "-batch", "-"); err != nil {
		return fmt.Errorf("set up the network: %w", err)
	}
	if !s.IsRouter {
		return nil
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("forward packets: %w", err)
	}
	out, in := s.NICs[0].Name, s.NICs[1].Name
	for _, rule := range [][]string{
		{"-t", "nat", "-A", "POSTROUTING", "-o", out, "-j", "MASQUERADE"},
		// As home routers do: what nobody behind it asked for is dropped before it becomes
		// a connection of the router's own, which would take the port from those behind.
		{"-A", "INPUT", "-i", out, "-m", "conntrack", "--ctstate", "NEW,INVALID", "-j", "DROP"},
		{"-P", "FORWARD", "DROP"},
		{"-A", "FORWARD", "-i", in, "-o", out, "-j", "ACCEPT"},
		{"-A", "FORWARD", "-i", out, "-o", in, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"},
	} {
		if err := run("", "iptables", append([]string{"-w"}, rule...)...); err != nil {
			return fmt.Errorf("translate addresses: %w", err)
		}
	}
	return nil
}

// names binds a hosts file and a resolver's configuration of the host's own over the
// machine's. The resolver is the host's own address, where nothing answers and which
// says so at once: a black-holed one makes each engine's look-up wait for 10 s.
func names(s *Spec) error {
	resolver := fmt.Sprintf("nameserver %s\noptions attempts:1 timeout:1\n", s.NICs[0].Addr.Addr())
	for path, text := range map[string]string{"/etc/hosts": s.Names, "/etc/resolv.conf": resolver} {
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			// It is a link into the /run that is not seen here any more.
			link, err := os.Readlink(path)
			if err != nil {
				return fmt.Errorf("names: %w", err)
			}
			if !filepath.IsAbs(link) {
				link = filepath.Join(filepath.Dir(path), link)
			}
			if !strings.HasPrefix(link, "/run/") {
				return fmt.Errorf("names: %s leads to %s, which is not there", path, link)
			}
			if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
				return fmt.Errorf("names: %w", err)
			}
			if err := os.WriteFile(link, []byte(text), 0o644); err != nil { //nolint:gosec // everybody reads it
				return fmt.Errorf("names: %w", err)
			}
			continue
		}
		own := filepath.Join("/run", filepath.Base(path))
		if err := os.WriteFile(own, []byte(text), 0o644); err != nil { //nolint:gosec // everybody reads it
			return fmt.Errorf("names: %w", err)
		}
		if err := syscall.Mount(own, target, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("names: bind %s: %w", path, err)
		}
	}
	return nil
}

// run runs a command to its end; its words are in the error. It is used before the
// reaper runs, which would wait for the command in its place.
func run(stdin, name string, args ...string) error {
	cmd := exec.Command(name, args...) //nolint:noctx // the host's end ends it
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
