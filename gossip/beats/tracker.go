// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pubsubpb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/shoalnet/shoal"
)

// Protocol is the direct stream on which beats are pulled.
const Protocol protocol.ID = "/shoal/beat/1"

// TopicName returns the topic that a cluster's beats travel on.
func TopicName(cluster shoal.PeerID) string { return "/shoal/" + string(cluster) + "/beat/1" }

// Tracker hears and sends beats. It implements [shoal.Views] and [shoal.Beacon];
// all methods are safe for concurrent use.
type Tracker struct {
	cfg    Config
	deps   Deps
	self   shoal.PeerID
	key    ed25519.PublicKey // our own, to know our own voice
	limits limits
	topic  atomic.Pointer[pubsub.Topic] // nil unless running

	pokeSpeaker chan struct{} // there is something to tell at once
	pokeWatcher chan struct{} // there are probes or wants
	pokeViewer  chan struct{} // a view may differ
	places      chan struct{} // streams served at the same time

	mu       sync.Mutex // guards all below
	contacts map[shoal.PeerID]*contact
	strayed  *rate.Limiter // bad packets by peers we do not know yet
	rng      *rand.Rand
	probes   []shoal.PeerID                 // to start
	wants    map[shoal.PeerID]time.Duration // pulls to make, and when
	notes    []note                         // to log once unlocked
	trouble  string
	speech   speech
	digests  []shoal.Digest // our own last ones, newest at the end
	serving  sync.WaitGroup
	running  bool

	gen     atomic.Uint64 // grows with everything a view shows
	built   atomic.Pointer[built]
	viewMu  sync.Mutex    // guards changed
	changed chan struct{} // closed at the next change of the view
}

// contact is all we know of another member.
type contact struct {
	key       ed25519.PublicKey
	vital     vital
	ledger    ledger
	good      *rate.Limiter // its authentic beats
	bad       *rate.Limiter // malformed or forged packets it handed us
	asks      *rate.Limiter // its pulls
	misses    int           // pulls in a row that did not close the gap
	isDouble  bool          // another life with the same boot counter was heard
	differs   time.Duration // own time since when its records differ; 0: they do not
	syncAt    time.Duration // no sync with it before
	syncs     int           // in this difference
	isAlarmed bool
}

// note is a line for the log.
type note struct {
	level slog.Level
	text  string
	attrs []any
}

func (n note) log(l *slog.Logger) {
	switch {
	case n.level >= slog.LevelError:
		l.Error(n.text, n.attrs...)
	case n.level >= slog.LevelWarn:
		l.Warn(n.text, n.attrs...)
	case n.level >= slog.LevelInfo:
		l.Info(n.text, n.attrs...)
	default:
		l.Debug(n.text, n.attrs...)
	}
}

// New makes a Tracker; it does nothing until Run. It returns an
// [*shoal.InvalidError] for a bad cfg or deps.
func New(cfg Config, deps Deps) (*Tracker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := deps.Validate(); err != nil {
		return nil, err
	}
	self := deps.Signer.PeerID()
	key, err := publicKey(self)
	if err != nil {
		return nil, fmt.Errorf("own identity: %w", err)
	}
	now := deps.Clock.Mono()
	return &Tracker{
		cfg: cfg, deps: deps, self: self, key: key,
		limits: limits{
			start: now, suspect: cfg.Suspect, dead: cfg.Dead, ping: cfg.PingTimeout,
			minInterval: cfg.Interval, maxInterval: cfg.MaxInterval, maxBackBy: cfg.MaxBackBy,
		},
		pokeSpeaker: make(chan struct{}, 1),
		pokeWatcher: make(chan struct{}, 1),
		pokeViewer:  make(chan struct{}, 1),
		places:      make(chan struct{}, 16),
		contacts:    make(map[shoal.PeerID]*contact),
		strayed:     badLimiter(),
		rng:         rand.New(rand.NewPCG(deps.Boot.Nonce, deps.Boot.Counter)),
		wants:       make(map[shoal.PeerID]time.Duration),
		changed:     make(chan struct{}),
	}, nil
}

// Run hears and sends until ctx ends, and returns when all it started has ended.
// It may be called once.
func (t *Tracker) Run(ctx context.Context) error {
	name := TopicName(t.deps.Cluster)
	topic, err := t.deps.PubSub.Join(name, pubsub.WithTopicMessageIdFn(contentID))
	if err != nil {
		return fmt.Errorf("join topic %s: %w", name, err)
	}
	defer func() { _ = topic.Close() }() // it only fails if somebody still uses it
	if err := t.deps.PubSub.RegisterTopicValidator(name, t.validate, pubsub.WithValidatorInline(true)); err != nil {
		return fmt.Errorf("validate topic %s: %w", name, err)
	}
	defer func() { _ = t.deps.PubSub.UnregisterTopicValidator(name) }() // likewise
	t.follow()
	stop, err := topic.Relay() // all work is done by the validator: no queue to overflow
	if err != nil {
		return fmt.Errorf("relay topic %s: %w", name, err)
	}
	defer stop()
	connected, err := t.connections()
	if err != nil {
		return err
	}
	t.topic.Store(topic)
	t.serve(true)
	defer t.serve(false)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return t.speakLoop(ctx) })
	group.Go(func() error { return t.watchLoop(ctx, group) })
	group.Go(func() error { return t.viewLoop(ctx) })
	group.Go(func() error { return t.pulseLoop(ctx) })
	group.Go(func() error { return t.syncLoop(ctx) })
	group.Go(func() error { return t.connectLoop(ctx, connected) })
	err = group.Wait()
	t.topic.Store(nil)
	return err
}

// serve starts or ends answering streams; ending waits for those under way.
func (t *Tracker) serve(on bool) {
	t.mu.Lock()
	t.running = on
	t.mu.Unlock()
	switch {
	case !on && t.deps.Handle == nil:
		t.deps.Host.RemoveStreamHandler(Protocol)
	case on && t.deps.Handle == nil:
		t.deps.Host.SetStreamHandler(Protocol, t.handle)
	case on:
		t.deps.Handle(Protocol, t.handle)
	}
	if !on {
		t.serving.Wait()
	}
}

// follow makes the contacts equal to the members of the records, and remembers the
// digest. Whoever is no member any more is forgotten.
func (t *Tracker) follow() {
	d := t.deps.Records.Desired()
	t.mu.Lock()
	defer t.unlock()
	if n := len(t.digests); n == 0 || t.digests[n-1] != d.Digest {
		t.digests = append(t.digests[max(0, n-maxDigests+1):], d.Digest)
	}
	for id := range t.contacts {
		if !isMember(d, id) {
			delete(t.contacts, id)
			delete(t.wants, id)
			t.touch()
		}
	}
	for i := range d.Peers {
		id := d.Peers[i].ID
		if d.Peers[i].Removed || id == t.self || t.contacts[id] != nil || len(t.contacts) >= maxMarks {
			continue
		}
		key, err := publicKey(id)
		if err != nil {
			continue // a member record about no peer: nobody can ever speak for it
		}
		t.contacts[id] = &contact{
			key:  key,
			good: rate.NewLimiter(rate.Every(t.cfg.MinGap/2), 32),
			bad:  badLimiter(),
			asks: rate.NewLimiter(4, 16),
		}
		if t.isConnected(id) {
			t.want(id, 0)
		}
		t.touch()
	}
}

// isMember reports whether a peer is a member by the records.
func isMember(d *shoal.Desired, id shoal.PeerID) bool {
	p, ok := d.Peer(id)
	return ok && !p.Removed
}

// touch says that views may differ from now on. The caller holds mu.
func (t *Tracker) touch() {
	t.gen.Add(1)
	poke(t.pokeViewer)
}

// want asks for a pull of a peer's news after a while. The caller holds mu.
func (t *Tracker) want(id shoal.PeerID, after time.Duration) {
	due := t.deps.Clock.Mono() + after
	if at, ok := t.wants[id]; !ok || due < at {
		t.wants[id] = due
		poke(t.pokeWatcher)
	}
}

// note keeps a line for the log. The caller holds mu.
func (t *Tracker) note(level slog.Level, text string, attrs ...any) {
	t.notes = append(t.notes, note{level, text, attrs})
}

// unlock releases mu, then logs what was noted under it.
func (t *Tracker) unlock() {
	notes := t.notes
	t.notes = nil
	t.mu.Unlock()
	for _, n := range notes {
		n.log(t.deps.Log)
	}
}

// others returns the contacts that pass, in random order. The caller holds mu.
func (t *Tracker) others(pass func(shoal.PeerID, *contact) bool) []shoal.PeerID {
	var ids []shoal.PeerID
	for id, c := range t.contacts {
		if pass(id, c) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids) // not as the map has it
	t.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return ids
}

// jitter returns a random duration below d. The caller holds mu.
func (t *Tracker) jitter(d time.Duration) time.Duration {
	return time.Duration(t.rng.Int64N(max(int64(d), 1)))
}

// isConnected reports whether there is a link to a peer now.
func (t *Tracker) isConnected(id shoal.PeerID) bool {
	pid, err := peer.Decode(string(id))
	return err == nil && t.deps.Host.Network().Connectedness(pid) == network.Connected
}

// contentID names a message by what it says: equal beats are one.
func contentID(m *pubsubpb.Message) string {
	sum := sha256.Sum256(m.GetData())
	return string(sum[:])
}

// badLimiter is how many bad packets are looked at: 20 at once, then 1 a second.
func badLimiter() *rate.Limiter { return rate.NewLimiter(1, 20) }

// poke wakes a loop that may be awake already.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
