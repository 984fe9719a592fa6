// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/actors"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/gossip/beats"
	"github.com/shoalnet/shoal/links"
	"github.com/shoalnet/shoal/node"
	"github.com/shoalnet/shoal/runtime"
)

const (
	image  = "hello:1"
	oneWay = 2 * time.Millisecond
	lost   = 1000 * time.Hour // a packet this late never comes
)

// world is one simulated cluster.
type world struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	net   *simnet.Simnet
	peers []*peer

	relays []int // peers that relay, by index

	mu   sync.Mutex // guards cuts
	cuts map[[2]string]bool
}

// peer is one machine: its disk and its engine outlive its daemon.
type peer struct {
	w     *world
	index int
	addr  string // of its endpoint on the network
	id    *links.Identity
	disk  *gossip.MemoryDisk
	log   *logbook

	mu   sync.Mutex // guards twin
	twin *runtime.Twin

	node *node.Peer
	host host.Host
	stop context.CancelFunc
	done chan error
	up   bool
}

// play runs a story in a bubble: with the given seed, with SHOAL_SEED if that is set,
// or with as many seeds as SHOAL_SEEDS says, one after the other. The peers of the given
// numbers relay.
func play(t *testing.T, seed uint64, n int, story func(w *world), relays ...int) {
	t.Helper()
	if only := number(t, "SHOAL_SEED"); only != 0 {
		seed = only
	}
	for i := range max(number(t, "SHOAL_SEEDS"), 1) {
		playOnce(t, seed+1_000_000*i, n, story, relays)
	}
}

func number(t *testing.T, name string) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q is no number", name, text)
	}
	return n
}

func playOnce(t *testing.T, seed uint64, n int, story func(w *world), relays []int) {
	t.Helper()
	t.Logf("%d peers, seed %d (replay: make sim SUITE=cluster SEED=%d)", n, seed, seed)
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), cuts: map[[2]string]bool{}, relays: relays}
		w.net = &simnet.Simnet{LatencyFunc: w.latency, Logger: slog.New(slog.DiscardHandler)}
		w.net.Start()
		defer func() {
			for _, p := range w.peers {
				p.end()
			}
			w.net.Close()
			time.Sleep(time.Minute) // what libp2p leaves behind ends by its own timers
		}()
		for i := range n {
			w.machine(i)
		}
		w.form()
		story(w)
	})
}

func (w *world) latency(p *simnet.Packet) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cuts[[2]string{p.From.String(), p.To.String()}] {
		return lost
	}
	return oneWay
}

// cut loses everything between two peers from now on, or no more.
func (w *world) cut(a, b *peer, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cuts[[2]string{a.addr, b.addr}], w.cuts[[2]string{b.addr, a.addr}] = on, on
}

// split cuts the peers into two sides; heal joins all again.
func (w *world) split(a, b []*peer) {
	for _, x := range a {
		for _, y := range b {
			w.cut(x, y, true)
		}
	}
}

func (w *world) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cuts)
}

// source is a reader of reproducible bytes.
type source struct {
	mu  sync.Mutex // guards rng
	rng *rand.Rand
}

func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var word [8]byte
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(word[:], s.rng.Uint64())
		copy(p[i:], word[:])
	}
	return len(p), nil
}

func (w *world) random(stream uint64) io.Reader {
	return &source{rng: rand.New(rand.NewPCG(w.seed, stream))}
}

// machine makes a machine and starts its daemon.
func (w *world) machine(i int) *peer {
	id, err := links.OpenIdentity("", w.random(uint64(i)+100))
	if err != nil {
		w.t.Fatal(err)
	}
	p := &peer{
		w: w, index: i, addr: fmt.Sprintf("%s:8000", simnet.IntToPublicIPv4(i)),
		id: id, disk: gossip.NewMemoryDisk(), log: &logbook{},
	}
	w.peers = append(w.peers, p)
	p.start()
	return p
}

// start starts the machine's daemon.
func (p *peer) start() {
	t := p.w.t
	t.Helper()
	link := simnet.LinkSettings{BitsPerSecond: 1000 * simlibp2p.OneMbps}
	ip := strings.TrimSuffix(p.addr, ":8000")
	h, err := libp2p.New(
		libp2p.Identity(p.id.Key()),
		libp2p.ListenAddrStrings("/ip4/"+ip+"/udp/8000/quic-v1"),
		simlibp2p.QUICSimnet(p.w.net, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.ResourceManager(&network.NullResourceManager{}),
	)
	if err != nil {
		t.Fatal(err)
	}
	p.host = h
	cfg := links.Sim()
	cfg.Host = h
	if slices.Contains(p.w.relays, p.index) {
		cfg.Relay = "on"
	}
	store := gossip.Sim()
	store.Memory = p.disk
	clock := shoal.NewSystemClock()
	p.node, err = node.NewPeer(node.Parts{
		Identity: p.id, Links: cfg, Store: store, Beats: beats.Sim(), Actors: actors.Sim(),
		Engine: p.engine, HostName: fmt.Sprintf("p%d", p.index), Clock: clock, Rand: p.w.random(uint64(p.index) + 10_000 + p.id.Boot().Counter),
		Log: slog.New(slog.NewTextHandler(p.log, nil)), BackBy: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop, p.done, p.up = stop, make(chan error, 1), true
	go func() { p.done <- p.node.Run(ctx) }()
}

// engine returns the machine's engine, which is the same for all its daemons.
func (p *peer) engine(cluster, self shoal.PeerID) (node.Engines, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.twin == nil {
		p.twin = runtime.NewTwin(runtime.TwinConfig{
			Cluster: cluster, Peer: self, Images: []string{image},
			Latency: runtime.Latency{Create: 200 * time.Millisecond, Start: 200 * time.Millisecond, Remove: 50 * time.Millisecond, Call: 5 * time.Millisecond},
		}, shoal.NewSystemClock())
	}
	return node.Engines{Engine: p.twin, Machine: p.twin, Console: p.twin, Puller: p.twin}, nil
}

// end stops the daemon in order; its containers run on.
func (p *peer) end() {
	if !p.up {
		return
	}
	p.up = false
	p.stop()
	if err := <-p.done; err != nil {
		p.w.t.Errorf("peer %d: Run = %v", p.index, err)
	}
	if err := p.host.Close(); err != nil {
		p.w.t.Errorf("peer %d: close host: %v", p.index, err)
	}
}

// power cuts a machine's power: daemon, containers and network at once.
func (p *peer) power() {
	for _, o := range p.w.peers {
		if o != p {
			p.w.cut(p, o, true)
		}
	}
	p.twin.KillAll()
	p.end()
}

// boot starts a machine that lost power or whose daemon was stopped.
func (p *peer) boot() {
	id, err := p.id.Reopen()
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.id = id
	for _, o := range p.w.peers {
		if o != p {
			p.w.cut(p, o, false)
		}
	}
	p.start()
	p.w.until(5*time.Second, "the daemon is a member again", func() error {
		if _, ok := p.node.Cluster(); !ok {
			return errors.New("it is not")
		}
		return nil
	})
}

// form makes one cluster of all peers.
func (w *world) form() {
	w.t.Helper()
	ctx := context.Background()
	if _, err := w.peers[0].node.Init(ctx, shoal.InitOptions{}); err != nil {
		w.t.Fatal(err)
	}
	for i, p := range w.peers[1:] {
		token, err := w.peers[w.rng.IntN(i+1)].node.CreateToken(ctx, shoal.TokenOptions{})
		if err != nil {
			w.t.Fatal(err)
		}
		if err := p.node.Join(ctx, token, shoal.JoinOptions{}); err != nil {
			w.t.Fatalf("peer %d joins: %v", p.index, err)
		}
	}
	w.until(30*time.Second, "everybody hears everybody", func() error {
		for _, p := range w.peers {
			v := p.view()
			if n := len(v.Peers()); n != len(w.peers) {
				return fmt.Errorf("peer %d knows %d members", p.index, n)
			}
			for i := range v.Peers() {
				if q := &v.Peers()[i]; v.Life(q.ID).State != shoal.LifeAlive || q.Facts.Capacity.CPUMilli == 0 {
					return fmt.Errorf("peer %d: %s is %s, %d mCPU", p.index, q.Name(), v.Life(q.ID).State, q.Facts.Capacity.CPUMilli)
				}
			}
		}
		return nil
	})
	time.Sleep(12 * time.Second) // past the boot grace
}

// view returns what a peer sees now.
func (p *peer) view() *shoal.View {
	c, ok := p.node.Cluster()
	if !ok {
		p.w.t.Fatalf("peer %d is no member", p.index)
	}
	return c.Views.View()
}

// ask submits a wish at a peer.
func (p *peer) ask(wish shoal.Wish) shoal.Outcome {
	p.w.t.Helper()
	c, ok := p.node.Cluster()
	if !ok {
		p.w.t.Fatalf("peer %d is no member", p.index)
	}
	out, err := c.Wishes.Submit(context.Background(), wish, shoal.UpdateOptions{})
	if err != nil {
		p.w.t.Fatalf("peer %d: %v", p.index, err)
	}
	return out
}

func (p *peer) deploy(name string, replicas int) {
	p.w.t.Helper()
	p.ask(shoal.Wish{Deploy: &shoal.DeployWish{Specs: []shoal.Spec{spec(name, replicas)}}})
}

func (p *peer) scale(name string, n int) {
	p.w.t.Helper()
	p.ask(shoal.Wish{Scale: &shoal.ScaleWish{Targets: []shoal.ScaleTarget{{Service: name, N: n}}}})
}

func (p *peer) add(name string, delta int) {
	p.w.t.Helper()
	p.ask(shoal.Wish{Scale: &shoal.ScaleWish{Targets: []shoal.ScaleTarget{{Service: name, N: delta, Relative: true}}}})
}

func spec(name string, replicas int) shoal.Spec {
	return shoal.Spec{
		Name: name, Image: image, Mode: shoal.ModeReplicated, Replicas: replicas,
		Strategy: shoal.StrategySpread, OnPartition: shoal.PartitionAvailable,
		Reservations: shoal.Resources{CPUMilli: 50, MemBytes: 64 << 20},
		Restart:      shoal.Restart{Condition: shoal.RestartAny},
	}
}

// until waits, in virtual time, until a check passes.
func (w *world) until(within time.Duration, what string, check func() error) time.Duration {
	w.t.Helper()
	from := time.Now()
	for {
		err := check()
		if err == nil {
			return time.Since(from)
		}
		if time.Since(from) > within {
			w.dump()
			w.t.Fatalf("not within %v: %s: %v", within, what, err)
		}
		time.Sleep(time.Duration(len(w.peers)) * 4 * time.Millisecond)
	}
}

// living returns the peers whose daemon runs.
func (w *world) living() []*peer {
	return slices.DeleteFunc(slices.Clone(w.peers), func(p *peer) bool { return !p.up })
}

// dump shows what each peer logged last.
func (w *world) dump() {
	for _, p := range w.peers {
		w.t.Logf("== peer %d (%s)\n%s", p.index, p.id.Self().Short(), p.log.tail(30))
	}
}

// logbook keeps log lines.
type logbook struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logbook) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-n):], "")
}
