// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"go.uber.org/goleak"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/runtime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// signer signs records with the key of a peer's host.
type signer struct{ key crypto.PrivKey }

func (s signer) PeerID() shoal.PeerID {
	id, err := peer.IDFromPrivateKey(s.key)
	if err != nil {
		panic(err) // a key that was just made
	}
	return shoal.PeerID(id.String())
}

func (s signer) Sign(message []byte) ([]byte, error) { return s.key.Sign(message) }

func newSigner(t testing.TB) signer {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key}
}

// world is some peers of one cluster on loopback: real links, stores, registries and
// records, engines in memory.
type world struct {
	t       testing.TB
	cluster signer
	admit   *gossip.Memory
	members []*member

	mu    sync.Mutex // guards what follows
	split bool       // records are not carried
}

// member is one peer. It shows the others what it tells, as beats would.
type member struct {
	w       *world
	id      shoal.PeerID
	signer  signer
	host    host.Host
	records *gossip.Memory
	engine  *runtime.Twin
	cfg     Config
	clock   *leapClock
	room    *Room
	stop    func()

	mu    sync.Mutex // guards what follows
	state shoal.PeerState
	isUp  bool
}

// leapClock is the system's, but for the time that a test leaves out.
type leapClock struct {
	shoal.Clock
	left atomic.Int64
}

func (c *leapClock) Mono() time.Duration { return c.Clock.Mono() + time.Duration(c.left.Load()) }

func (c *leapClock) leap(d time.Duration) { c.left.Add(int64(d)) }

func newWorld(t testing.TB, n int, tweak func(i int, c *Config)) *world {
	t.Helper()
	w := &world{t: t, cluster: newSigner(t)}
	w.admit = gossip.NewMemory(w.cluster.PeerID(), shoal.NewSystemClock(), w.cluster)
	ctx, cancel := context.WithCancel(context.Background())
	var carriers sync.WaitGroup
	t.Cleanup(func() { cancel(); carriers.Wait() })
	for i := range n {
		w.add(i, tweak)
	}
	for _, m := range w.members {
		write(t, w.admit, &shoal.MemberBody{Peer: m.id, Role: shoal.RoleOperator})
	}
	admissions, _ := w.admit.Since(0)
	for _, m := range w.members {
		m.records.Deliver(admissions)
		write(t, m.records, &shoal.PeerBody{Peer: m.id, Facts: shoal.PeerFacts{Name: m.id.Short(), Platforms: []string{"linux/amd64"}}})
	}
	for _, m := range w.members {
		carriers.Go(func() { w.carry(ctx, m) })
	}
	eventually(t, "everybody knows everybody", func() bool {
		for _, m := range w.members {
			if len(m.records.Desired().Peers) != n {
				return false
			}
		}
		return true
	})
	for _, m := range w.members {
		m.start()
	}
	return w
}

func write(t testing.TB, m *gossip.Memory, b shoal.Body) {
	t.Helper()
	if _, err := m.Update(context.Background(), func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error) { return []shoal.Body{b}, nil }, shoal.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) add(i int, tweak func(int, *Config)) {
	t := w.t
	t.Helper()
	m := &member{w: w, signer: newSigner(t), cfg: Defaults(), clock: &leapClock{Clock: shoal.NewSystemClock()}}
	m.id = m.signer.PeerID()
	var err error
	m.host, err = libp2p.New(
		libp2p.Identity(m.signer.key), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery(),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.host.Close() })
	m.records = gossip.NewMemory(w.cluster.PeerID(), shoal.NewSystemClock(), m.signer)
	m.engine = runtime.NewTwin(runtime.TwinConfig{}, shoal.NewSystemClock())
	m.cfg.Dir, m.cfg.Registry, m.cfg.Upstream.Registries = t.TempDir(), "127.0.0.1:0", nil
	m.cfg.Blobs.Share, m.cfg.Blobs.Reserve = 0, 0
	m.cfg.Quiet = 50 * time.Millisecond
	m.cfg.Exchange.ProbeTimeout = time.Second
	if tweak != nil {
		tweak(i, &m.cfg)
	}
	for _, o := range w.members {
		o.host.Peerstore().AddAddrs(m.host.ID(), m.host.Addrs(), peerstore.PermanentAddrTTL)
		m.host.Peerstore().AddAddrs(o.host.ID(), o.host.Addrs(), peerstore.PermanentAddrTTL)
		if err := m.host.Connect(t.Context(), peer.AddrInfo{ID: o.host.ID(), Addrs: o.host.Addrs()}); err != nil {
			t.Fatal(err)
		}
	}
	w.members = append(w.members, m)
}

// start opens the room and runs it until stop or the end of the test.
func (m *member) start() {
	t := m.w.t
	t.Helper()
	room, err := New(t.Context(), m.cfg, Deps{
		Self: m.id, Host: m.host, Records: m.records, Views: m, Engine: m.engine, Clock: m.clock,
		Log:    slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo})).With("peer", m.id.Short()),
		Handle: m.host.SetStreamHandler, Tell: m.tell,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- room.Run(ctx) }()
	m.room = room
	m.setUp(true)
	m.stop = sync.OnceFunc(func() {
		m.setUp(false)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(m.stop)
}

// vanish ends a peer for good.
func (m *member) vanish() {
	m.stop()
	_ = m.host.Close()
}

func (m *member) setUp(isUp bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.isUp = isUp
}

func (m *member) tell(keys []shoal.BlobKey, ups []shoal.Upstream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.Blobs, m.state.Upstreams = keys, ups
}

func (m *member) told() (shoal.PeerState, bool) {
	images, _ := m.engine.Images(context.Background())
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.state
	st.Images = images
	return st, m.isUp
}

// View implements shoal.Views.
func (m *member) View() *shoal.View {
	lives, states := map[shoal.PeerID]shoal.Life{}, map[shoal.PeerID]*shoal.PeerState{}
	for _, o := range m.w.members {
		st, isUp := o.told()
		states[o.id] = &st
		lives[o.id] = shoal.Life{State: shoal.LifeDead}
		if isUp {
			lives[o.id] = shoal.Life{State: shoal.LifeAlive}
		}
	}
	return shoal.NewView(m.id, m.records.Desired(), lives, states)
}

// Changed implements shoal.Views.
func (m *member) Changed() <-chan struct{} { return m.records.Changed() }

// carry brings one member's records to the others.
func (w *world) carry(ctx context.Context, from *member) {
	for n := 0; ctx.Err() == nil; {
		changed := from.records.Changed()
		w.mu.Lock()
		isCut := w.split
		w.mu.Unlock()
		if !isCut {
			var records []*shoal.Record
			records, n = from.records.Since(n)
			for _, o := range w.members {
				if o != from {
					o.records.Deliver(records)
				}
			}
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (w *world) cut(isCut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.split = isCut
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}

// eventually waits for a condition by asking for it.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%s: did not happen within 20s", what)
		}
	}
}

// newImage returns an image of random layers for linux/amd64.
func newImage(t testing.TB, layers int, size int64) v1.Image {
	t.Helper()
	return newImageFor(t, "amd64", layers, size)
}

func newImageFor(t testing.TB, arch string, layers int, size int64) v1.Image {
	t.Helper()
	img, err := random.Image(size, int64(layers))
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// saved returns an image as docker save writes it.
func saved(t testing.TB, ref string, img v1.Image) io.Reader {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := tarball.Write(tag, img, &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

// load gives a member's engine an image.
func (m *member) load(ref string, img v1.Image) {
	m.w.t.Helper()
	if err := m.engine.Load(m.w.t.Context(), saved(m.w.t, ref, img)); err != nil {
		m.w.t.Fatal(err)
	}
}

// knows waits until a member's records give a name a digest.
func (m *member) knows(name, digest string) {
	m.w.t.Helper()
	eventually(m.w.t, "the name "+name+" is known", func() bool {
		img, ok := m.records.Desired().Image(name)
		return ok && img.Digest == digest
	})
}

// moved returns the bytes that a member got from peers.
func (m *member) moved() int64 {
	var sum int64
	for _, p := range m.room.exchange.Stats().Peers {
		sum += p.Got
	}
	return sum
}

// push gives a new image to the cluster at a member, under a name, and waits until all
// know it. It returns the digest that the cluster knows it by.
func (m *member) push(name string, img v1.Image) string {
	m.w.t.Helper()
	m.load(name, img)
	infos, err := m.room.Push(m.w.t.Context(), name, "", nil)
	if err != nil || len(infos) != 1 || infos[0].Name != shoal.NormalizeRef(name) {
		m.w.t.Fatalf("Push = %+v, %v, want one image of that name", infos, err)
	}
	for _, o := range m.w.members {
		if _, isUp := o.told(); isUp {
			o.knows(infos[0].Name, infos[0].Digest)
		}
	}
	return infos[0].Digest
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
