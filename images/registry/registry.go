// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
)

// Backend is what the registry cannot know from the store: names, which are records, and
// blobs that have to come from elsewhere. A repo is what stands between /v2/ and the
// rest, of the specification's grammar; what record that is, is the Backend's. Every
// method is called concurrently, and ends when ctx ends. What it returns is shown to users
// as it is; shoal.ErrRefused, ErrConflict, ErrNoSpace and ErrUnreachable choose the status.
type Backend interface {
	// Tag returns what a tag stands for. shoal.ErrNotFound; shoal.ErrConflict: for two
	// digests, which the error names.
	Tag(ctx context.Context, repo, tag string) (manifest.Descriptor, error)
	// Tags returns the tags of a repository, in any order. shoal.ErrNotFound: there is
	// no such repository.
	Tags(ctx context.Context, repo string) ([]string, error)
	// Repositories returns those that have a tag, in any order.
	Repositories(ctx context.Context) ([]string, error)
	// SetTag gives a tag its digest. d, and all that it refers to, is in the store.
	// shoal.ErrRefused: this peer may not write.
	SetTag(ctx context.Context, repo, tag string, d manifest.Descriptor) error
	// DeleteTag takes it away. shoal.ErrNotFound; shoal.ErrConflict: a service needs it.
	DeleteTag(ctx context.Context, repo, tag string) error
	// MayRemove is asked before a client's DELETE removes a blob or manifest, to which no
	// manifest in the store refers, from this peer. Tags of repo that name it go with it,
	// so they do not count. shoal.ErrConflict: something else needs it, which the error
	// names.
	MayRemove(ctx context.Context, repo string, d blobs.Digest) error
	// Need has a blob come to the store that is not there, or not whole. It returns when
	// the store can read it, perhaps while it arrives. size is 0 if it is not known.
	// shoal.ErrNotFound: nobody has it. Called again for one that arrives it is cheap.
	Need(ctx context.Context, repo string, d blobs.Digest, size int64) error
}

// Config are who may speak to a registry, and its limits. A limit of 0 stands for the
// default.
type Config struct {
	Login      shoal.RegistryLogin // User "": everybody on this machine. Address is not looked at
	MaxUploads int                 // written at a time; 64. Those that rest are on disk and do not count
	MaxBlob    int64               // bytes of one blob; 64 GiB
	Idle       time.Duration       // without a byte, after which a connection is cut; 1 min. 10 times that, an upload is closed
	MaxConns   int                 // connections at a time; others wait to be accepted; 256
	// MakeRoom is called when a push finds no room for so many bytes in the store, and makes
	// it if it can; then the push is tried once more. nil: none can be made.
	MakeRoom func(ctx context.Context, size int64)
}

// Validate returns a *shoal.InvalidError for a field out of range.
func (c Config) Validate() error {
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"max-uploads", int64(c.MaxUploads)},
		{"max-blob", c.MaxBlob},
		{"idle", int64(c.Idle)},
		{"max-conns", int64(c.MaxConns)},
	} {
		if f.value < 0 {
			return &shoal.InvalidError{Field: f.name, Why: "must not be negative"}
		}
	}
	if c.Login.User != "" && c.Login.Password == "" {
		return &shoal.InvalidError{Field: "password", Why: "is missing for user " + c.Login.User}
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.MaxUploads == 0 {
		c.MaxUploads = 64
	}
	if c.MaxBlob == 0 {
		c.MaxBlob = 64 << 30
	}
	if c.Idle == 0 {
		c.Idle = time.Minute
	}
	if c.MaxConns == 0 {
		c.MaxConns = 256
	}
	return c
}

// Bounds of a connection that speaks HTTP. What docker sends of headers has 1 KiB.
const (
	headerTime  = 10 * time.Second
	headerBytes = 32 << 10
	restTime    = 2 * time.Minute // between requests
)

// Registry is the registry. It is an http.Handler, and safe for concurrent use.
type Registry struct {
	cfg       Config
	store     *blobs.Store
	backend   Backend
	log       *slog.Logger
	oci       http.Handler
	uploads   *uploads
	referrers referrers
	calls     calls
}

// New returns a registry over the store, in which it looks for the referrers of subjects.
func New(ctx context.Context, cfg Config, s *blobs.Store, b Backend, log *slog.Logger) (*Registry, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	r := &Registry{
		cfg: cfg, store: s, backend: b, log: log,
		uploads:   newUploads(s, cfg),
		referrers: referrers{of: map[blobs.Digest]map[blobs.Digest]bool{}},
	}
	r.oci = ociserver.New(r.funcs(), &ociserver.Options{WriteError: r.writeError})
	for _, info := range s.List() {
		if !mayBeManifest(info) {
			continue
		}
		if err := r.Manifested(ctx, info.Digest); err != nil && !errors.Is(err, shoal.ErrNotFound) && !isInvalid(err) {
			return nil, fmt.Errorf("open registry: %w", err)
		}
	}
	return r, nil
}

// funcs are what ociserver calls. What is not here is answered in front of it.
func (r *Registry) funcs() *ociregistry.Funcs {
	return &ociregistry.Funcs{
		GetBlob_:               r.getBlob,
		GetBlobRange_:          r.getBlobRange,
		ResolveBlob_:           r.resolveBlob,
		DeleteBlob_:            r.deleteBlob,
		PushBlob_:              r.pushBlob,
		PushBlobChunked_:       r.beginUpload,
		PushBlobChunkedResume_: r.resumeUpload,
		MountBlob_:             r.mountBlob,
		GetManifest_:           r.getManifest,
		GetTag_:                r.getTag,
		ResolveManifest_:       r.resolveManifest,
		ResolveTag_:            r.resolveTag,
		PushManifest_:          r.pushManifest,
		DeleteManifest_:        r.deleteManifest,
		DeleteTag_:             r.deleteTag,
	}
}

// Run serves on l until ctx ends, which ends its connections; then it closes the uploads,
// which the next life of the registry resumes. It may be called once. *shoal.InvalidError:
// l is not on loopback.
func (r *Registry) Run(ctx context.Context, l net.Listener) error {
	if !isLoopback(l.Addr()) {
		return &shoal.InvalidError{Field: "registry", Why: fmt.Sprintf("must listen on loopback, as 127.0.0.1:5050, got %s", l.Addr())}
	}
	g, ctx := errgroup.WithContext(ctx)
	srv := &http.Server{
		Handler:           r,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       restTime,
		MaxHeaderBytes:    headerBytes,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}
	g.Go(func() error {
		if err := srv.Serve(netutil.LimitListener(l, r.cfg.MaxConns)); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve registry on %s: %w", l.Addr(), err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	g.Go(func() error { return r.uploads.sweep(ctx, r.log) })
	err := g.Wait()
	r.calls.end()
	return errors.Join(err, r.uploads.close())
}

// calls counts the requests that are being answered, for http.Server.Close leaves them
// behind.
type calls struct {
	mu     sync.Mutex // guards closed, and that wg does not grow after it
	closed bool
	wg     sync.WaitGroup
}

func (c *calls) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.wg.Add(1)
	}
	return !c.closed
}

func (c *calls) end() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wg.Wait()
}
