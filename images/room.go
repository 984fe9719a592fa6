// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/exchange"
	"github.com/shoalnet/shoal/images/registry"
	"github.com/shoalnet/shoal/images/upstream"
	"github.com/shoalnet/shoal/internal/logkey"
)

// Deps is what the room needs of others. All are required.
type Deps struct {
	Self    shoal.PeerID
	Host    host.Host
	Records shoal.Store
	Views   shoal.Views
	Engine  shoal.ImageStore
	Clock   shoal.Clock
	Log     *slog.Logger
	// Handle registers a stream handler for members only.
	Handle func(protocol.ID, network.StreamHandler)
	// Tell takes what goes out with this peer's beats: the blobs it holds whole, sorted,
	// and the registries outside that it may ask. It must not block.
	Tell func([]shoal.BlobKey, []shoal.Upstream)
}

// Room is this peer's images. It implements shoal.Puller, shoal.Images, shoal.ImageMover
// and shoal.Resolver, and is safe for concurrent use.
type Room struct {
	cfg       Config
	deps      Deps
	store     *blobs.Store
	exchange  *exchange.Exchange
	outside   *upstream.Client
	registry  *registry.Registry // nil: none
	listener  net.Listener
	login     shoal.RegistryLogin
	feeding   flights[string, string] // by reference
	bringing  flights[blobs.Digest, struct{}]
	downloads downloads
	fetched   atomic.Int64 // bytes of blobs from registries outside
	tidying   sync.Mutex   // one collection at a time
	reach     reach        // whether the engine reaches the registry
}

var (
	_ shoal.Puller     = (*Room)(nil)
	_ shoal.Images     = (*Room)(nil)
	_ shoal.ImageMover = (*Room)(nil)
	_ shoal.Resolver   = (*Room)(nil)
	_ registry.Backend = (*Room)(nil)
)

// New opens the store and the registry's port. Nothing runs before Run, which has to be
// called to let go of them; Close does where it is not. ctx bounds the opening.
// *shoal.InvalidError: the configuration makes no sense.
func New(ctx context.Context, cfg Config, deps Deps) (_ *Room, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Room{cfg: cfg, deps: deps}
	if r.store, err = blobs.Open(filepath.Join(cfg.Dir, "blobs"), cfg.Blobs, deps.Clock); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.outside, err = upstream.New(cfg.Upstream, deps.Clock, deps.Log); err != nil {
		return nil, err
	}
	if r.exchange, err = exchange.New(cfg.Exchange, exchange.Deps{
		Host: deps.Host, Self: deps.Self, Store: r.store, Finder: finder{r}, IsMember: r.isMember, Members: r.members,
		Clock: deps.Clock, Log: deps.Log, Handle: deps.Handle,
	}); err != nil {
		return nil, err
	}
	return r, r.openRegistry(ctx)
}

// openRegistry takes the registry's port.
func (r *Room) openRegistry(ctx context.Context) error {
	if r.cfg.Registry == "" {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", r.cfg.Registry)
	if err != nil && r.cfg.AnyPort {
		host, _, _ := net.SplitHostPort(r.cfg.Registry)
		r.deps.Log.Warn("the registry's port is taken, another one serves", "address", r.cfg.Registry, logkey.Err, err)
		l, err = lc.Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return fmt.Errorf("open the registry at %s: %w", r.cfg.Registry, err)
	}
	r.listener = l
	r.login = shoal.RegistryLogin{Address: l.Addr().String()}
	if !r.cfg.Open {
		r.login.User = "shoal"
		if r.login.Password, err = password(filepath.Join(r.cfg.Dir, "registry-password")); err != nil {
			return err
		}
	}
	r.registry, err = registry.New(ctx, registry.Config{Login: r.login, MakeRoom: func(_ context.Context, size int64) {
		if err := r.makeRoom(size); err != nil {
			r.deps.Log.Warn("no room for what is pushed", "bytes", size, logkey.Err, err)
		}
	}}, r.store, r, r.deps.Log)
	return err
}

// Close lets go of what New opened.
func (r *Room) Close() error {
	var err error
	if r.listener != nil {
		if err = r.listener.Close(); errors.Is(err, net.ErrClosed) {
			err = nil
		}
	}
	if r.outside != nil {
		r.outside.Close()
	}
	return errors.Join(err, r.store.Close())
}

// Run serves, fetches and keeps order until ctx ends, and returns after all it started
// has ended and the store is closed.
func (r *Room) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.exchange.Run(ctx) })
	g.Go(func() error { r.tellHoldings(ctx); return nil })
	g.Go(func() error { r.tidy(ctx); return nil })
	if r.registry != nil {
		g.Go(func() error { return r.registry.Run(ctx, r.listener) })
	}
	return g.Wait()
}

// Login implements shoal.Images.
func (r *Room) Login(context.Context) (shoal.RegistryLogin, error) { return r.login, nil }

// machine returns the platform of this peer's engine.
func (r *Room) machine() string {
	if p, ok := r.deps.Views.View().Peer(r.deps.Self); ok && len(p.Facts.Platforms) > 0 {
		return p.Facts.Platforms[0]
	}
	return shoal.Platform("linux", goruntime.GOARCH, "")
}

func (r *Room) isMember(id shoal.PeerID) bool {
	p, ok := r.deps.Records.Desired().Peer(id)
	return ok && !p.Removed
}

// members returns the other members that this peer is connected to.
func (r *Room) members() []shoal.PeerID {
	var out []shoal.PeerID
	d := r.deps.Records.Desired()
	for i := range d.Peers {
		p := &d.Peers[i]
		if p.Removed || p.ID == r.deps.Self {
			continue
		}
		id, err := peer.Decode(string(p.ID))
		if err == nil && r.deps.Host.Network().Connectedness(id) == network.Connected {
			out = append(out, p.ID)
		}
	}
	return out
}

// password returns the secret of a file, which it makes if it is absent.
func password(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err == nil && len(raw) >= passwordLen {
		return string(raw), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the registry's password: %w", err)
	}
	text := newPassword()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("keep the registry's password: %w", err)
	}
	return text, nil
}
