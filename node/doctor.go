// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/placement/brake"
)

// Limits of what the doctor calls well.
const (
	diskWarn  = 2 << 30   // bytes free where records are kept
	diskFail  = 256 << 20 // gossip refuses writes before the disk is full
	syncWarn  = 20 * time.Millisecond
	syncTries = 5
	filesWarn = 4096    // libp2p's own limit of descriptors (links)
	udpWarn   = 7 << 20 // receive buffer that quic-go asks for (its wiki, "UDP Buffer Sizes")
	leastAPI  = "1.41"
	engineAge = 2 * time.Second // an engine slower than this to answer is in trouble
)

var _ shoal.Doctor = (*Peer)(nil)

// Machine implements shoal.Doctor.
func (p *Peer) Machine(ctx context.Context, fn func(shoal.Check) error) error {
	self := p.parts.Identity.Self()
	for _, look := range []func(context.Context) []shoal.Check{
		p.engineChecks, p.diskChecks, clockChecks, limitChecks, p.memberChecks, p.relayChecks, p.recordChecks, p.imageChecks, p.portChecks, p.nameChecks,
	} {
		for _, c := range look(ctx) {
			c.Peer = self
			if err := fn(c); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (p *Peer) relayChecks(context.Context) []shoal.Check { return p.links.RelayChecks() }

// Peer implements shoal.Doctor.
func (p *Peer) Peer(ctx context.Context, peer shoal.PeerID, fn func(shoal.Check) error) error {
	if peer == p.parts.Identity.Self() {
		return p.Machine(ctx, fn)
	}
	if err := p.links.Ways(ctx, peer, fn); err != nil {
		return err
	}
	err := p.links.AskDoctor(ctx, peer, fn)
	if err != nil && ctx.Err() == nil { // that it cannot be asked is a finding, too
		return fn(shoal.Check{
			Peer: peer, Area: "machine", Name: "its own checks", State: shoal.CheckFail, Detail: err.Error(),
			Remedy: "run shoal doctor on that machine",
		})
	}
	return err
}

// Token implements shoal.Doctor.
func (p *Peer) Token(ctx context.Context, token string, fn func(shoal.Check) error) error {
	return p.links.TokenWays(ctx, token, fn)
}

// examine is what another member's doctor gets to hear.
func (p *Peer) examine(ctx context.Context, asker shoal.PeerID, fn func(shoal.Check) error) error {
	if err := p.Machine(ctx, fn); err != nil {
		return err
	}
	return p.links.Ways(ctx, asker, func(c shoal.Check) error {
		c.Name = "back: " + c.Name
		return fn(c)
	})
}

// engines returns those at work, or outside a cluster new ones, to be closed.
func (p *Peer) engines() (e Engines, release func(), err error) {
	if s, err := p.current(); err == nil {
		return s.engines, func() {}, nil
	}
	self := p.parts.Identity.Self()
	e, err = p.parts.Engine(self, self) // no container is of this cluster: nothing is seen or touched
	if err != nil {
		return e, nil, err
	}
	return e, func() {
		if e.Close != nil {
			_ = e.Close() // it was only asked
		}
	}, nil
}

func (p *Peer) engineChecks(ctx context.Context) []shoal.Check {
	c := shoal.Check{Area: "engine", Name: "answers", State: shoal.CheckFail, Remedy: "start it (systemctl start docker), and let shoald use its socket (--docker)"}
	e, release, err := p.engines()
	if err != nil {
		c.Detail = err.Error()
		return []shoal.Check{c}
	}
	defer release()
	began := p.parts.Clock.Mono()
	info, err := e.Machine.Info(ctx)
	if err != nil {
		c.Detail = err.Error()
		return []shoal.Check{c}
	}
	took := p.parts.Clock.Mono() - began
	c.State, c.Remedy, c.Detail = shoal.CheckOK, "", fmt.Sprintf("%s, %s, in %s", info.Engine, info.Platform, took.Round(time.Millisecond))
	if took > engineAge {
		c.State, c.Remedy = shoal.CheckWarn, "it is slow to answer: see its log and the machine's load"
	}
	api := shoal.Check{Area: "engine", Name: "API", State: shoal.CheckOK, Detail: info.API}
	if !atLeast(info.API, leastAPI) {
		api.State, api.Remedy = shoal.CheckFail, "Shoal needs "+leastAPI+" (Docker Engine 20.10) or newer"
	}
	return []shoal.Check{c, api}
}

// atLeast compares versions like 1.41.
func atLeast(got, want string) bool {
	major, minor := versionOf(got)
	wantMajor, wantMinor := versionOf(want)
	return major > wantMajor || major == wantMajor && minor >= wantMinor
}

func versionOf(s string) (major, minor int) {
	a, b, _ := strings.Cut(s, ".")
	major, _ = strconv.Atoi(a) // what is no number is older than every one
	minor, _ = strconv.Atoi(b)
	return major, minor
}

// diskChecks looks at the disk under the records: room, and how long a sync takes,
// which every acknowledged wish waits for.
func (p *Peer) diskChecks(context.Context) []shoal.Check {
	dir := filepath.Dir(p.parts.Store.Dir)
	if p.parts.Store.Dir == "" {
		return []shoal.Check{{Area: "disk", Name: "room", State: shoal.CheckSkip, Detail: "records are kept in memory only"}}
	}
	room := shoal.Check{Area: "disk", Name: "room", State: shoal.CheckOK}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		room.State, room.Detail, room.Remedy = shoal.CheckFail, fmt.Sprintf("%s: %v", dir, err), "see that the data directory (--data) exists"
		return []shoal.Check{room}
	}
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // the types differ between architectures
	room.Detail = fmt.Sprintf("%.1f GiB free in %s", float64(free)/(1<<30), dir)
	switch {
	case free < diskFail:
		room.State, room.Remedy = shoal.CheckFail, "free some: wishes are refused while there is no room"
	case free < diskWarn:
		room.State, room.Remedy = shoal.CheckWarn, "free some before wishes are refused"
	}
	return []shoal.Check{room, syncCheck(dir), p.recordCheck()}
}

// recordCheck says whether records were lost on this disk: what was set aside stays a
// finding until somebody has looked at it and removed it.
func (p *Peer) recordCheck() shoal.Check {
	c := shoal.Check{Area: "disk", Name: "records", State: shoal.CheckOK, Detail: "whole"}
	aside, err := gossip.SetAside(p.parts.Store.Dir)
	if err != nil {
		c.State, c.Detail, c.Remedy = shoal.CheckFail, err.Error(), "see that the data directory (--data) can be read"
		return c
	}
	if len(aside) == 0 {
		return c
	}
	c.State, c.Detail = shoal.CheckWarn, "were damaged, and set aside as "+strings.Join(aside, ", ")
	if st, err := p.Stats(); err == nil && st.Aside != "" {
		c.Detail += fmt.Sprintf("; %d of %d now here were read from there, the others came from peers", st.Saved, st.Records)
	}
	c.Remedy = "look at the disk (smartctl, dmesg); then remove what was set aside"
	return c
}

func syncCheck(dir string) shoal.Check {
	c := shoal.Check{Area: "disk", Name: "sync", State: shoal.CheckOK}
	worst, err := slowestSync(dir)
	c.Detail = fmt.Sprintf("slowest of %d in %s", syncTries, worst.Round(10*time.Microsecond))
	switch {
	case err != nil:
		c.State, c.Detail, c.Remedy = shoal.CheckFail, err.Error(), "see that the data directory (--data) can be written to"
	case worst > syncWarn:
		c.State, c.Remedy = shoal.CheckWarn, "every wish waits for one; put the data directory (--data) on a faster disk"
	}
	return c
}

// slowestSync writes and syncs a small file a few times.
func slowestSync(dir string) (worst time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, err
	}
	defer func() {
		_ = f.Close() // nothing in it matters
		_ = os.Remove(f.Name())
	}()
	for range syncTries {
		began := time.Now()
		if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
			return worst, err
		}
		if err := f.Sync(); err != nil {
			return worst, err
		}
		worst = max(worst, time.Since(began))
	}
	return worst, nil
}

// limitChecks looks at what the system lets this process have.
func limitChecks(context.Context) []shoal.Check {
	var out []shoal.Check
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil {
		c := shoal.Check{Area: "limits", Name: "open files", State: shoal.CheckOK, Detail: fmt.Sprint(uint64(files.Cur))} //nolint:unconvert // the types differ between systems
		if files.Cur < filesWarn {
			c.State, c.Remedy = shoal.CheckWarn, fmt.Sprintf("allow %d (LimitNOFILE= of the unit): every peer and container takes some", filesWarn)
		}
		out = append(out, c)
	}
	if n, ok := readNumber("/proc/sys/net/core/rmem_max"); ok {
		c := shoal.Check{Area: "limits", Name: "UDP buffer", State: shoal.CheckOK, Detail: fmt.Sprintf("%d bytes", n)}
		if n < udpWarn {
			c.State, c.Remedy = shoal.CheckWarn, fmt.Sprintf("sysctl -w net.core.rmem_max=%d: QUIC drops packets under load without; TCP is used first", udpWarn+1<<19)
		}
		out = append(out, c)
	}
	return out
}

func readNumber(path string) (int64, bool) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	return n, err == nil
}

// memberChecks says where this daemon stands.
func (p *Peer) memberChecks(context.Context) []shoal.Check {
	st := p.Status()
	ports := shoal.Check{Area: "network", Name: "listens", State: shoal.CheckOK, Detail: strings.Join(plainAddrs(st.Listen), ", ")}
	if len(st.Listen) == 0 {
		ports.State, ports.Detail, ports.Remedy = shoal.CheckFail, "on no address that others could dial", "see --listen and --advertise of shoald"
	}
	member := shoal.Check{Area: "cluster", Name: "member", State: shoal.CheckOK, Detail: "of cluster " + st.Cluster.Short()}
	switch {
	case st.Cluster == "":
		member.State, member.Detail = shoal.CheckSkip, "of none yet"
	case st.Trouble != "":
		member.State, member.Detail, member.Remedy = shoal.CheckFail, st.Trouble, "stop one of the two daemons that share an identity, remove its data directory and join it again"
	}
	out := []shoal.Check{ports, member}
	if s, err := p.current(); err == nil {
		v := s.tracker.View()
		heard, others := 0, 0
		for i := range v.Peers() {
			m := &v.Peers()[i]
			if m.ID == v.Self() || m.Removed || m.Left() {
				continue
			}
			if others++; v.Alive(m.ID) {
				heard++
			}
		}
		c := shoal.Check{Area: "cluster", Name: "hears others", State: shoal.CheckOK, Detail: fmt.Sprintf("%d of %d", heard, others)}
		if heard < others {
			c.State, c.Remedy = shoal.CheckWarn, "shoal peer ls names the silent ones; shoal doctor PEER looks at one"
		}
		out = append(out, c)
		out = append(out, faultChecks(v, s.system.Brakes())...)
	}
	return out
}

// faultChecks says what is at fault where replicas fail, as this peer sees it, and who
// takes no new slots for that.
func faultChecks(v *shoal.View, verdicts brake.Verdicts) []shoal.Check {
	var out []shoal.Check
	add := func(name, detail, remedy string) {
		out = append(out, shoal.Check{Area: "cluster", Name: name, State: shoal.CheckWarn, Detail: detail, Remedy: remedy})
	}
	for _, x := range verdicts {
		switch x.Cause {
		case brake.Application:
			add("service "+x.Service, x.String()+"; its replicas restart slowly everywhere", "shoal logs "+x.Service+" shows why; then deploy what works, or what worked before")
		case brake.Cluster:
			add("what all share", x.String()+"; nothing is undone meanwhile", "look at the network, DNS, storage, or what else the services use together")
		case brake.Machine, brake.Engine: // each says it itself
		}
	}
	for i := range v.Peers() {
		p := &v.Peers()[i]
		if st := v.State(p.ID); st != nil && st.Trouble != "" && v.Alive(p.ID) {
			add("peer "+p.Name(), "takes no new slots: "+st.Trouble, "look at that machine: its disk, its memory, its engine's log; it takes slots again when it has been well for some minutes")
		}
	}
	return out
}

// imageChecks looks at the images that this peer keeps and moves, if it does.
func (p *Peer) imageChecks(context.Context) []shoal.Check {
	s, err := p.current()
	if err != nil || s.images == nil {
		return nil
	}
	return s.images.Checks()
}

// portChecks looks at the published ports that this peer answers on.
func (p *Peer) portChecks(context.Context) []shoal.Check {
	s, err := p.current()
	if err != nil || s.reach == nil {
		return nil
	}
	all := shoal.Check{Area: "ports", Name: "published", State: shoal.CheckOK}
	var out []shoal.Check
	ports := s.reach.Ports()
	for _, port := range ports {
		if port.Trouble != "" {
			out = append(out, shoal.Check{
				Area: "ports", Name: fmt.Sprintf("%d/%s of %s", port.Port, port.Protocol, port.Service), State: shoal.CheckFail,
				Detail: port.Trouble, Remedy: "free the port here, or publish another",
			})
		}
	}
	all.Detail = fmt.Sprintf("%d of %d answer", len(ports)-len(out), len(ports))
	return append([]shoal.Check{all}, out...)
}

// nameChecks looks at the names that this peer's containers get.
func (p *Peer) nameChecks(ctx context.Context) []shoal.Check {
	s, err := p.current()
	if err != nil || s.reach == nil {
		return nil
	}
	return s.reach.NameChecks(ctx)
}

// plainAddrs writes multiaddresses as HOST:PORT, each once.
func plainAddrs(texts []string) []string {
	var out []string
	for _, text := range texts {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			continue
		}
		if _, at, err := manet.DialArgs(a); err == nil && !slices.Contains(out, at) {
			out = append(out, at)
		}
	}
	return out
}
