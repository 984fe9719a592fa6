// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/swarm"
)

// world is some peers on loopback that know each other.
type world struct {
	t     testing.TB
	net   *simnet.Simnet // nil: loopback
	peers []*member
}

// member is one peer: its host, its store and its exchange.
type member struct {
	w     *world
	id    shoal.PeerID
	host  host.Host
	dir   string
	store *blobs.Store
	x     *Exchange
	cfg   Config
	limit int64 // of the store
	end   func()

	mu        sync.Mutex // guards what follows
	holders   []shoal.PeerID
	announced map[blobs.Digest]int
	strangers map[shoal.PeerID]bool
}

// Find implements Finder.
func (m *member) Find(context.Context, blobs.Digest) ([]shoal.PeerID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holders, nil
}

// Announce implements Finder.
func (m *member) Announce(d blobs.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.announced[d]++
}

func quick() Config {
	c := Defaults()
	c.ProbeTimeout = 10 * time.Second // this machine may be busy
	return c
}

func newWorld(t testing.TB, configs ...Config) *world {
	t.Helper()
	w := &world{t: t}
	for _, c := range configs {
		w.add(c)
	}
	return w
}

// many returns n times the same.
func many(n int, c Config) []Config {
	out := make([]Config, n)
	for i := range out {
		out[i] = c
	}
	return out
}

// add adds a peer, which may be dialled by all others and dial them.
func (w *world) add(c Config) *member {
	w.t.Helper()
	h := w.host()
	m := &member{
		w: w, host: h, id: shoal.PeerID(h.ID().String()), cfg: c, dir: w.t.TempDir(),
		announced: map[blobs.Digest]int{}, strangers: map[shoal.PeerID]bool{},
	}
	for _, o := range w.peers {
		o.host.Peerstore().AddAddrs(h.ID(), h.Addrs(), peerstore.PermanentAddrTTL)
		h.Peerstore().AddAddrs(o.host.ID(), o.host.Addrs(), peerstore.PermanentAddrTTL)
	}
	w.peers = append(w.peers, m)
	m.start()
	w.t.Cleanup(m.stop)
	return m
}

// simulate makes a world in a bubble, whose clock stands still while anybody computes: how
// busy this machine is does not count. Links have 1 Gbit/s, and rtt between any two. The
// returned call ends it.
func simulate(t testing.TB, rtt time.Duration) (*world, func()) {
	t.Helper()
	w := &world{t: t, net: &simnet.Simnet{
		LatencyFunc: func(*simnet.Packet) time.Duration { return rtt / 2 },
		Logger:      slog.New(slog.DiscardHandler),
	}}
	w.net.Start()
	return w, func() {
		for _, m := range w.peers {
			m.stop()
			_ = m.host.Close()
		}
		w.net.Close()
		time.Sleep(time.Minute) // what libp2p leaves behind ends by its own timers
	}
}

// host makes the next peer's host.
func (w *world) host() host.Host {
	w.t.Helper()
	if w.net == nil {
		return newHost(w.t)
	}
	link := simnet.LinkSettings{BitsPerSecond: 1000 * simlibp2p.OneMbps}
	h, err := libp2p.New(
		libp2p.ListenAddrStrings(fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", simnet.IntToPublicIPv4(len(w.peers)))),
		simlibp2p.QUICSimnet(w.net, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}),
		libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableIdentifyAddressDiscovery(),
	)
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableRelay(), libp2p.DisableMetrics(),
		libp2p.DisableIdentifyAddressDiscovery(),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// start opens the store and runs an exchange; stop ends both.
func (m *member) start() {
	t := m.w.t
	t.Helper()
	clock := shoal.NewSystemClock()
	store, err := blobs.Open(m.dir, blobs.Config{Expire: time.Hour, Limit: m.limit}, clock)
	if err != nil {
		t.Fatal(err)
	}
	x, err := New(m.cfg, Deps{
		Host: m.host, Self: m.id, Store: store, Finder: m, IsMember: m.isMember, Members: m.members,
		Clock: clock, Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	m.store, m.x = store, x
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	m.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		if err := store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
}

func (m *member) stop() { m.end() }

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(bytes.TrimSpace(b)))
	return len(b), nil
}

func (m *member) isMember(id shoal.PeerID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.strangers[id]
}

func (m *member) members() []shoal.PeerID {
	var out []shoal.PeerID
	for _, o := range m.w.peers {
		if o != m {
			out = append(out, o.id)
		}
	}
	return out
}

// holdersAre says what the Finder of every peer names.
func (w *world) holdersAre(of ...*member) {
	for _, m := range w.peers {
		m.mu.Lock()
		m.holders = nil
		for _, o := range of {
			m.holders = append(m.holders, o.id)
		}
		m.mu.Unlock()
	}
}

// content returns a blob that a seed determines.
func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = src.Read(b) // never fails
	return b
}

func hashesOf(b []byte) []blobs.Digest {
	var list []blobs.Digest
	for i := range chunksOf(int64(len(b))) {
		list = append(list, blobs.DigestOf(chunkOf(b, i)))
	}
	return list
}

func chunkOf(b []byte, i int) []byte {
	return b[i*swarm.ChunkBytes : min(len(b), (i+1)*swarm.ChunkBytes)]
}

// blobOf returns what a record would bind.
func blobOf(b []byte) Blob {
	return Blob{Digest: blobs.DigestOf(b), Size: int64(len(b)), List: listHash(hashesOf(b))}
}

func (m *member) put(b []byte) blobs.Digest {
	m.w.t.Helper()
	d, err := m.store.Put(b)
	if err != nil {
		m.w.t.Fatal(err)
	}
	return d
}

// putPart stores the first n chunks of a blob.
func (m *member) putPart(b []byte, n int) {
	m.w.t.Helper()
	d := blobs.DigestOf(b)
	if _, err := m.store.Begin(d, int64(len(b)), hashesOf(b)); err != nil {
		m.w.t.Fatal(err)
	}
	for i := range n {
		if _, err := m.store.WriteChunk(d, i, chunkOf(b, i)); err != nil {
			m.w.t.Fatal(err)
		}
	}
}

func (m *member) fetch(b Blob) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return m.x.Fetch(ctx, b)
}

// has fails unless the store has the blob, whole and as it was.
func (m *member) has(b []byte) {
	t := m.w.t
	t.Helper()
	r, err := m.store.Read(context.Background(), blobs.DigestOf(b))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r.Stream(0, -1))
	if err != nil || !bytes.Equal(got, b) {
		t.Fatalf("the blob in the store is not the one that was put, or not whole: %v", err)
	}
}

// counts returns what a peer counted of another.
func (m *member) counts(of *member) PeerStats {
	for _, p := range m.x.Stats().Peers {
		if p.Peer == of.id {
			return p
		}
	}
	return PeerStats{Peer: of.id}
}

func (m *member) sentBytes() (n int64) {
	for _, p := range m.x.Stats().Peers {
		n += p.Sent
	}
	return n
}

// race gives the first peer a blob and lets all others fetch it at once. It returns how long
// that took, beside the optimum too: what the first's uplink needs to send the blob once.
func (w *world) race(blob []byte) (took time.Duration, optimum float64) {
	w.t.Helper()
	seeder, what := w.peers[0], blobOf(blob)
	w.holdersAre(seeder)
	seeder.put(blob)
	began := time.Now()
	var g errgroup.Group
	for _, m := range w.peers[1:] {
		g.Go(func() error { return m.fetch(what) })
	}
	if err := g.Wait(); err != nil {
		w.t.Fatal(err)
	}
	took = time.Since(began)
	return took, took.Seconds() * float64(seeder.cfg.UpRate) / float64(len(blob))
}

// seedAndEight are the limits of a seeder with an uplink of so many bytes a second, and of 8
// others with the limits of c.
func seedAndEight(c Config, upRate int64) []Config {
	slow := c
	slow.UpRate = upRate
	return append([]Config{slow}, many(8, c)...)
}

// until waits for something that other goroutines bring about.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not in a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond) // the network is real
	}
}
