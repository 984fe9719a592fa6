// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux && lab

package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalnet/shoal"
)

// inLab is the name of the process that runs the tests: in a network namespace of its
// own, so that nothing of the machine's is ever touched.
const inLab = "bridge-lab"

func TestMain(m *testing.M) {
	if os.Args[0] == inLab {
		if err := exec.Command("ip", "link", "set", "lo", "up").Run(); err != nil {
			fmt.Fprintln(os.Stderr, "ip link set lo up:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = inLab
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "network namespaces need root; run make lab-test as root:", err)
		os.Exit(1)
	}
}

func shell(t testing.TB, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v: %s", script, err, out)
	}
	return string(out)
}

// container is a network namespace with one interface on a bridge. What is done in it
// runs on a thread of its own, which ends with the test.
type container struct{ work chan func() }

func newContainer(t testing.TB, n shoal.Network, addr string) *container {
	t.Helper()
	c := &container{work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		ready <- err
		if err != nil {
			return
		}
		for f := range c.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.do(func() { shell(t, "ip link del eth0") }) // the namespace itself ends when the kernel likes
		close(c.work)
	})
	tid := 0
	c.do(func() { tid = unix.Gettid() })
	// The name is unique: the last two bytes of the address.
	parts := strings.Split(addr, ".")
	name := "v" + parts[2] + "x" + parts[3]
	shell(t, fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d; ip link set %s master %s up", name, tid, name, n.Bridge))
	c.do(func() {
		shell(t, fmt.Sprintf("ip link set lo up; ip addr add %s/%d dev eth0; ip link set eth0 up; ip route add default via %s", addr, n.Subnet.Bits(), n.Gateway))
	})
	return c
}

// do runs f in the container's namespace. It must not start goroutines that matter.
func (c *container) do(f func()) {
	done := make(chan struct{})
	c.work <- func() { defer close(done); f() }
	<-done
}

func (c *container) ask(to string) (got string) {
	c.do(func() { got = ask("", to) })
	return got
}

func (c *container) send(to string) (got string) {
	c.do(func() { got = send("", to, 300*time.Millisecond) })
	return got
}

// newNetwork makes a bridge as an engine does.
func newNetwork(t testing.TB, third int) shoal.Network {
	t.Helper()
	n := shoal.Network{
		Name: fmt.Sprint("net", third), Bridge: fmt.Sprint("br-lab", third),
		Subnet:     netip.MustParsePrefix(fmt.Sprintf("10.213.%d.0/22", third)),
		Gateway:    netip.MustParseAddr(fmt.Sprintf("10.213.%d.1", third)),
		Containers: netip.MustParsePrefix(fmt.Sprintf("10.213.%d.0/23", third)),
		Virtual:    netip.MustParsePrefix(fmt.Sprintf("10.213.%d.0/23", third+2)),
	}
	shell(t, fmt.Sprintf("ip link set lo up; ip link add %s type bridge; ip addr add %s/22 dev %s; ip link set %s up; sysctl -qw net.ipv4.ip_forward=1", n.Bridge, n.Gateway, n.Bridge, n.Bridge))
	t.Cleanup(func() { shell(t, "ip link del "+n.Bridge) })
	return n
}

// bridgeFilterIs sets whether packets on bridges go through the rules for IP.
func bridgeFilterIs(t testing.TB, on string) {
	t.Helper()
	if err := os.WriteFile(bridgeFilter, []byte(on), 0o644); err != nil {
		t.Logf("this kernel has no bridge filter: %v", err)
	}
}

// TestAnyPort reaches ports that nobody declared, on addresses that nobody added, with
// the bridge filter on and off, and with an engine's rules for published ports beside ours.
func TestAnyPort(t *testing.T) {
	for _, filter := range []string{"0", "1"} {
		t.Run("filter "+filter, func(t *testing.T) {
			bridgeFilterIs(t, filter)
			n, other := newNetwork(t, 0), newNetwork(t, 4)
			inside, outside := newContainer(t, n, "10.213.0.9"), newContainer(t, other, "10.213.4.9")
			shell(t, `nft 'add table ip engine; add chain ip engine pre { type nat hook prerouting priority -100; }; add rule ip engine pre fib daddr type local tcp dport 80 dnat to 10.213.4.77; add rule ip engine pre fib daddr type local udp dport 53 dnat to 10.213.4.77'`)
			t.Cleanup(func() { shell(t, "nft delete table ip engine") })
			before := shell(t, "nft list ruleset; ip -4 route show table all")

			b := echo(t, Config{}, n)
			b.SetEndpoints([]Endpoint{endpoint("udp", "10.213.2.7:53"), endpoint("tcp", "10.213.2.7:80")})
			stop := run(t, b)
			await(t, "10.213.0.9 10.213.2.7:80", func() string { return inside.ask("10.213.2.7:80") })
			for _, to := range []string{"10.213.2.0:1", "10.213.2.7:65535", "10.213.3.254:80"} {
				if got := inside.ask(to); got != "10.213.0.9 "+to {
					t.Errorf("connection to %s = %q", to, got)
				}
			}
			await(t, "hi 10.213.0.9 10.213.2.7:53", func() string { return inside.send("10.213.2.7:53") })
			if got := inside.send("10.213.2.7:54"); got != "refused" {
				t.Errorf("datagram to a port that nobody declared = %q, want it refused", got)
			}
			// Another network, also when it knows the address; the machine itself; the listener.
			for _, to := range []string{"10.213.2.7:80", "10.213.2.7:8080"} {
				if got := outside.ask(to); strings.HasPrefix(got, "10.213.4.9") {
					t.Errorf("connection of another network to %s = %q, want no answer", to, got)
				}
				if got := ask("", to); got != "refused" {
					t.Errorf("connection of the machine to %s = %q, want it refused", to, got)
				}
			}
			if got := outside.send("10.213.2.7:53"); strings.Contains(got, "hi") {
				t.Errorf("datagram of another network = %q, want no answer", got)
			}
			if s := b.Stats(); !s.Redirects || s.TurnedAway == 0 || len(s.Failed) != 0 {
				t.Errorf("Stats = %+v, want a redirect, and packets turned away", s)
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if after := shell(t, "nft list ruleset; ip -4 route show table all"); after != before {
				t.Errorf("left behind:\n%s\nwant\n%s", after, before)
			}
		})
	}
}

// TestSpoofedDatagram sends from another bridge with a source of this network.
func TestSpoofedDatagram(t *testing.T) {
	n, other := newNetwork(t, 0), newNetwork(t, 4)
	shell(t, "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done")
	b := echo(t, Config{}, n)
	b.SetEndpoints([]Endpoint{endpoint("udp", "10.213.2.7:53")})
	run(t, b)
	inside, outside := newContainer(t, n, "10.213.0.9"), newContainer(t, other, "10.213.4.9")
	await(t, "hi 10.213.0.9 10.213.2.7:53", func() string { return inside.send("10.213.2.7:53") })
	outside.do(func() { shell(t, "ip addr add 10.213.0.66/32 dev eth0") })
	before := b.Stats().Datagrams
	outside.do(func() { send("10.213.0.66", "10.213.2.7:53", 100*time.Millisecond) })
	if after := b.Stats(); after.Datagrams != before || after.TurnedAway == 0 {
		t.Errorf("%d datagrams, then %+v; want the spoofed one turned away", before, after)
	}
}

// TestHoldPutsBack takes away what a firewall's reload and a bridge's fall take, and
// leaves a table of a bridge that is gone.
func TestHoldPutsBack(t *testing.T) {
	n := newNetwork(t, 0)
	shell(t, "nft 'add table ip shoal_br-gone; add table ip shoals'")
	t.Cleanup(func() { shell(t, "nft delete table ip shoals") })
	b := echo(t, Config{Refresh: 20 * time.Millisecond}, n)
	run(t, b)
	inside := newContainer(t, n, "10.213.0.9")
	const to = "10.213.2.7:80"
	await(t, "10.213.0.9 "+to, func() string { return inside.ask(to) })
	if tables := shell(t, "nft list tables"); strings.Contains(tables, "br-gone") || !strings.Contains(tables, "shoals") {
		t.Errorf("tables = %s, want ours of a bridge that is gone swept, others' not", tables)
	}
	for _, harm := range []string{
		"nft flush table ip shoal_br-lab0", "nft delete table ip shoal_br-lab0", "ip link set br-lab0 down; ip link set br-lab0 up",
	} {
		shell(t, harm)
		await(t, "10.213.0.9 "+to, func() string { return inside.ask(to) })
	}
	handle := func() string { return shell(t, "nft -a list table ip shoal_br-lab0 | grep -o 'redirect.*'") }
	was := handle()
	time.Sleep(100 * time.Millisecond) // five refreshes: nothing may happen
	if is := handle(); is != was {
		t.Errorf("rule is %s, was %s: nothing changed, and it was made anew", is, was)
	}
}

// TestRunAgain starts where a killed daemon left its table and route.
func TestRunAgain(t *testing.T) {
	n := newNetwork(t, 0)
	if err := (kernel{}).hold(&n, 9); err != nil {
		t.Fatal(err)
	}
	b := echo(t, Config{}, n)
	stop := run(t, b)
	inside := newContainer(t, n, "10.213.0.9")
	await(t, "10.213.0.9 10.213.2.7:80", func() string { return inside.ask("10.213.2.7:80") })
	shell(t, "ip link set br-lab0 down")
	if err := stop(); err != nil {
		t.Errorf("Run on a bridge that fell = %v", err)
	}
	gone := n
	gone.Bridge = "br-none"
	if err := echo(t, Config{}, gone).Run(t.Context()); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Run without its bridge = %v, want ErrNotFound", err)
	}
}

// TestForeignRoute finds the range routed to another interface, and leaves it so.
func TestForeignRoute(t *testing.T) {
	n := newNetwork(t, 0)
	shell(t, "ip link add br-theirs type bridge; ip link set br-theirs up; ip route add local 10.213.2.0/23 dev br-theirs")
	t.Cleanup(func() { shell(t, "ip link del br-theirs") })
	if err := echo(t, Config{}, n).Run(t.Context()); !errors.Is(err, shoal.ErrConflict) {
		t.Errorf("Run = %v, want ErrConflict", err)
	}
	if routes := shell(t, "ip -4 route show table local"); !strings.Contains(routes, "local 10.213.2.0/23 dev br-theirs") {
		t.Errorf("routes = %s, want theirs left alone", routes)
	}
	// Twice is once: what is there is not written again.
	shell(t, "ip route del local 10.213.2.0/23 dev br-theirs")
	for range 2 {
		if err := (kernel{}).hold(&n, 0); err != nil {
			t.Errorf("hold = %v", err)
		}
	}
	if err := (kernel{}).letGo(&n); err != nil {
		t.Error(err)
	}
}

// TestWithoutRedirect serves declared ports only, as on a kernel without nftables.
func TestWithoutRedirect(t *testing.T) {
	n, other := newNetwork(t, 0), newNetwork(t, 4)
	b := echo(t, Config{}, n)
	b.host = onlyRoutes{}
	b.SetEndpoints([]Endpoint{endpoint("udp", "10.213.2.7:53"), endpoint("tcp", "10.213.2.7:80")})
	run(t, b)
	inside, outside := newContainer(t, n, "10.213.0.9"), newContainer(t, other, "10.213.4.9")
	await(t, "10.213.0.9 10.213.2.7:80", func() string { return inside.ask("10.213.2.7:80") })
	await(t, "hi 10.213.0.9 10.213.2.7:53", func() string { return inside.send("10.213.2.7:53") })
	for _, got := range []string{inside.ask("10.213.2.7:81"), outside.ask("10.213.2.7:80"), outside.send("10.213.2.7:53")} {
		if got != "refused" {
			t.Errorf("answer = %q, want it refused", got)
		}
	}
	// The kernel takes the machine's own packets for some of the bridge; we do not.
	if got := ask("", "10.213.2.7:80"); got != "closed" {
		t.Errorf("answer to the machine = %q, want it closed", got)
	}
}

// onlyRoutes is this machine without nftables.
type onlyRoutes struct{ kernel }

func (o onlyRoutes) hold(n *shoal.Network, port uint16) error {
	if port != 0 {
		return errNoRedirect
	}
	return o.kernel.hold(n, 0)
}

// TestProbe wants what the lab's machine can do, and nothing left of it.
func TestProbe(t *testing.T) {
	newNetwork(t, 0)
	before := shell(t, "nft list ruleset; ip -4 route show table all")
	for i, c := range Probe() {
		if want := i < 2; c.Works != want || c.Why == "" || c.What == "" {
			t.Errorf("capability = %+v, want works %v", c, want)
		}
	}
	if after := shell(t, "nft list ruleset; ip -4 route show table all"); after != before {
		t.Errorf("left behind:\n%s\nwant\n%s", after, before)
	}
	taken, err := Taken()
	for _, want := range []string{"10.213.0.0/22", "10.213.0.1/32", "127.0.0.0/8"} {
		found := false
		for _, p := range taken {
			found = found || p.String() == want
		}
		if !found {
			t.Errorf("Taken = %v, %v; want %s in it", taken, err, want)
		}
	}
}

// TestWithoutPrivilege asks as a process that has no rights here.
func TestWithoutPrivilege(t *testing.T) {
	n := newNetwork(t, 0)
	done := make(chan struct{})
	var held, probed error
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread has given up its rights
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if held = unix.Capset(&header, &none[0]); held != nil {
			return
		}
		held, probed = kernel{}.hold(&n, 0), probeRules()
	}()
	<-done
	for _, err := range []error{held, probed} {
		if _, ok := errors.AsType[*shoal.AdviceError](err); !ok || !errors.Is(err, shoal.ErrRefused) {
			t.Errorf("without CAP_NET_ADMIN = %v, want advice", err)
		}
	}
}
