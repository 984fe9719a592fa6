// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/shoalnet/shoal"
)

// listenError says what is wrong with an address to listen on, and who has its port
// if the system tells.
func listenError(a ma.Multiaddr, err error) error {
	network, where, derr := manet.DialArgs(a)
	if derr != nil {
		return fmt.Errorf("listen on %s: %w", a, err)
	}
	what := fmt.Sprintf("listen on %s (%s)", where, network[:min(3, len(network))])
	text := err.Error() // the swarm does not wrap what it was told
	switch {
	case strings.Contains(text, syscall.EADDRINUSE.Error()):
		by := portHolder(network, where)
		if by == "" {
			by = "another process"
		}
		return &shoal.AdviceError{Err: fmt.Errorf("%s: already in use by %s", what, by), Advice: "stop it, or choose another with --listen IP:PORT"}
	case strings.Contains(text, syscall.EADDRNOTAVAIL.Error()):
		return &shoal.AdviceError{Err: fmt.Errorf("%s: this machine has no such address", what), Advice: "choose one of \"ip address\" with --listen"}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// portHolder returns "pid 123 (name)" of the process that has a local address, "" if
// the system does not tell (other systems than Linux, another user's process).
func portHolder(network, where string) string {
	host, port, err := net.SplitHostPort(where)
	if err != nil {
		return ""
	}
	var inodes []string
	for _, table := range []string{"", "6"} {
		inodes = append(inodes, socketInodes("/proc/net/"+network[:3]+table, net.ParseIP(host), port)...)
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well formed
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !slices.Contains(inodes, target) {
			continue
		}
		pid := strings.Split(link, "/")[2]
		name, _ := os.ReadFile("/proc/" + pid + "/comm") // without it the number serves
		return strings.TrimSpace(fmt.Sprintf("pid %s (%s)", pid, strings.TrimSpace(string(name))))
	}
	return ""
}

// socketInodes reads one of the kernel's tables of sockets and returns those that
// keep others from ip and port, as "socket:[INODE]".
func socketInodes(table string, ip net.IP, port string) []string {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // it was only read
	number, _ := strconv.Atoi(port)
	var out []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		cols := strings.Fields(lines.Text())
		if len(cols) < 10 {
			continue
		}
		addr, hexPort, _ := strings.Cut(cols[1], ":")
		raw, err := hex.DecodeString(addr)
		p, perr := strconv.ParseUint(hexPort, 16, 16)
		remote := strings.Trim(cols[2], "0:") // a connection from that port does not keep it
		if err != nil || perr != nil || int(p) != number || remote != "" {
			continue
		}
		for i := 0; i+4 <= len(raw); i += 4 {
			slices.Reverse(raw[i : i+4]) // words in the order of the host: little endian
		}
		if at := net.IP(raw); at.Equal(ip) || at.IsUnspecified() || ip.IsUnspecified() {
			out = append(out, "socket:["+cols[9]+"]")
		}
	}
	return out
}
