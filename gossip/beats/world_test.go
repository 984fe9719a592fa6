// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"

	"github.com/shoalnet/shoal"
)

// This file is the only one that knows the simulated network.

// lost is the delay of a packet that never arrives.
const lost = 1e6 * time.Hour

// world is a cluster of Trackers on a simulated network, in a bubble.
type world struct {
	t       *testing.T
	net     *simnet.Simnet
	records *records
	cfg     Config
	pinger  func(host.Host) Pinger
	peers   []*member
	syncs   syncs

	mu     sync.Mutex // guards cuts and delay
	cuts   map[[2]string]bool
	delay  time.Duration
	filter func(from, to string) bool // true: lose this packet
}

// jumpy is a clock that can leap, as it does over a time in which the process stood still.
type jumpy struct {
	shoal.SystemClock
	leap *atomic.Int64
}

func (j jumpy) Mono() time.Duration { return j.SystemClock.Mono() + time.Duration(j.leap.Load()) }

// member is one peer of a world.
type member struct {
	*Tracker
	key  testKey
	ip   string
	host host.Host
	pub  *pubsub.PubSub
	log  *logbook
	leap *atomic.Int64 // added to its clock
	stop context.CancelFunc
	done chan struct{}
}

// records is a Store's reading side.
type records struct {
	mu      sync.Mutex // guards all
	desired *shoal.Desired
	changed chan struct{}
}

func (r *records) Desired() *shoal.Desired {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.desired
}

func (r *records) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// set replaces the folded state by one with these members.
func (r *records) set(digest byte, ids ...shoal.PeerID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := &shoal.Desired{Digest: shoal.Digest{digest}}
	if r.desired != nil {
		d.Version = r.desired.Version + 1
		close(r.changed)
	}
	r.changed = make(chan struct{})
	ids = slices.Sorted(slices.Values(ids))
	for _, id := range ids {
		d.Peers = append(d.Peers, shoal.Peer{ID: id, Role: shoal.RoleOperator})
	}
	r.desired = d
}

// syncs notes which peers' records were synced, by whom, and when.
type syncs struct {
	mu  sync.Mutex // guards all
	all []syncDone
}

type syncDone struct {
	by, with shoal.PeerID
	at       time.Time
}

func (s *syncs) note(by, with shoal.PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, syncDone{by, with, time.Now()})
}

// of returns what one peer synced since a time.
func (s *syncs) of(by shoal.PeerID, since time.Time) []syncDone {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []syncDone
	for _, d := range s.all {
		if d.by == by && !d.at.Before(since) {
			out = append(out, d)
		}
	}
	return out
}

// logbook keeps log lines.
type logbook struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logbook) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.buf.Bytes(), []byte(text))
}

// echo is the test's Pinger: links has the real one, with the same contract.
type echo struct {
	host    host.Host
	timeout time.Duration
}

const echoProtocol = "/test/echo/1"

func (e echo) Ping(ctx context.Context, id shoal.PeerID, isFresh bool) (time.Duration, error) {
	start := time.Now()
	err := e.once(ctx, id)
	if err != nil && isFresh && ctx.Err() == nil {
		pid, _ := peer.Decode(string(id))
		_ = e.host.Network().ClosePeer(pid) // force a new connection
		err = e.once(ctx, id)
	}
	return time.Since(start), err
}

func (e echo) once(ctx context.Context, id shoal.PeerID) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	pid, err := peer.Decode(string(id))
	if err != nil {
		return err
	}
	s, err := e.host.NewStream(network.WithForceDirectDial(ctx, "ping"), pid, echoProtocol)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	if _, err := s.Write([]byte("x")); err != nil {
		return err
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		return err
	}
	return s.Close()
}

// refusal is a Pinger to whom every peer refuses at once.
type refusal struct{}

func (refusal) Ping(context.Context, shoal.PeerID, bool) (time.Duration, error) {
	return 0, errors.New("connection refused")
}

func inWorld(t *testing.T, n int, play func(w *world)) {
	t.Helper()
	inWorldWith(t, n, LAN(), nil, play)
}

// quiet is LAN without the periodic exchange, so that a test sees one path alone.
func quiet() Config {
	c := LAN()
	c.ExchangeEvery = time.Hour
	return c
}

func inWorldWith(t *testing.T, n int, cfg Config, pinger func(host.Host) Pinger, play func(w *world)) {
	t.Helper()
	if pinger == nil {
		pinger = func(h host.Host) Pinger { return echo{h, time.Second} }
	}
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, cfg: cfg, pinger: pinger, records: &records{}, cuts: map[[2]string]bool{}, delay: 2 * time.Millisecond}
		w.net = &simnet.Simnet{LatencyFunc: w.latency, Logger: slog.New(slog.DiscardHandler)}
		w.net.Start()
		var ids []shoal.PeerID
		for i := range n {
			ids = append(ids, newKey(t, i).id)
		}
		w.records.set(1, ids...)
		for i := range n {
			w.start(newKey(t, i), i, shoal.Boot{Counter: 1, Nonce: uint64(i)}, w.records)
		}
		w.connectAll()
		time.Sleep(3 * time.Second)
		play(w)
		for _, m := range w.peers {
			m.kill()
		}
		w.net.Close()
		time.Sleep(time.Minute) // what libp2p leaves behind ends by its own timers
	})
}

func (w *world) latency(p *simnet.Packet) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	from, to := p.From.String(), p.To.String()
	if w.cuts[[2]string{from, to}] || w.filter != nil && w.filter(from, to) {
		return lost
	}
	return w.delay
}

// cut loses all packets between two peers from now on, or no more.
func (w *world) cut(a, b *member, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cuts[[2]string{a.ip, b.ip}] = on
	w.cuts[[2]string{b.ip, a.ip}] = on
}

// isolate cuts a peer from everybody.
func (w *world) isolate(m *member, on bool) {
	for _, o := range w.peers {
		if o.ip != m.ip {
			w.cut(m, o, on)
		}
	}
}

// start adds a peer with this identity at the place-th address.
func (w *world) start(k testKey, place int, boot shoal.Boot, r *records) *member {
	w.t.Helper()
	ip := simnet.IntToPublicIPv4(place)
	link := simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps}
	h, err := libp2p.New(
		libp2p.Identity(k.libp2p(w.t)),
		libp2p.ListenAddrStrings(fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", ip)),
		simlibp2p.QUICSimnet(w.net, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.ResourceManager(&network.NullResourceManager{}),
	)
	if err != nil {
		w.t.Fatal(err)
	}
	h.SetStreamHandler(echoProtocol, func(s network.Stream) {
		_, _ = io.Copy(s, s) // until the asker closes or goes
		_ = s.Close()
	})
	ctx, stop := context.WithCancel(context.Background())
	ps, err := pubsub.NewGossipSub(ctx, h, pubsub.WithFloodPublish(true), pubsub.WithNoAuthor(),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithPeerOutboundQueueSize(4096))
	if err != nil {
		w.t.Fatal(err)
	}
	m := &member{key: k, ip: fmt.Sprintf("%s:8000", ip), host: h, pub: ps, log: &logbook{}, leap: &atomic.Int64{}, stop: stop, done: make(chan struct{})}
	m.Tracker, err = New(w.cfg, Deps{
		Cluster: testCluster, Boot: boot, Signer: k, Host: h, PubSub: ps, Records: r,
		Pinger: w.pinger(h),
		Sync:   func(_ context.Context, with shoal.PeerID) error { w.syncs.note(k.id, with); return nil },
		Clock:  jumpy{shoal.NewSystemClock(), m.leap},
		Log:    slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(m.done)
		if err := m.Run(ctx); err != nil {
			w.t.Errorf("Run = %v", err)
		}
	}()
	w.peers = append(w.peers, m)
	return m
}

// kill ends a peer rudely: it says nothing more. (QUIC says that it closes.)
func (m *member) kill() {
	m.stop()
	<-m.done
	_ = m.host.Close()
}

// mute keeps all beats off the topic from now on.
func (w *world) mute() {
	for _, m := range w.peers {
		m.topic.Store(nil)
	}
}

func (w *world) connect(a, b *member) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return a.host.Connect(ctx, peer.AddrInfo{ID: b.host.ID(), Addrs: b.host.Addrs()})
}

func (w *world) connectAll() {
	w.t.Helper()
	for i, a := range w.peers {
		for _, b := range w.peers[:i] {
			if err := w.connect(a, b); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// until waits for a condition and returns how long it took.
func (w *world) until(limit time.Duration, what string, ok func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			w.t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(start)
}

func (m *member) life(o *member) shoal.LifeState { return m.View().Life(o.key.id).State }
