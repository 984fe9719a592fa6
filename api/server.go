// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto/shoal/v1/shoalv1connect"
)

// Bounds of what one socket takes.
const (
	maxBody    = 4 << 20   // bytes of a request
	maxMessage = 128 << 10 // bytes of one of a stream of requests
	maxDrain   = 128 << 20 // bytes of a refused request that are thrown away
	maxDepth   = 32        // of JSON
	maxClients = 256       // connections at once
	maxEvents  = 2000      // remembered
	maxMoves   = 16        // of images at once
	bodyTime   = 10 * time.Second
	stopTime   = 2 * time.Second
)

// Config configures a Server.
type Config struct {
	Socket string // absolute path of the unix socket
	Group  string // group that may connect, if it exists; "": "shoal"
}

// Validate reports the first wrong field as an *shoal.InvalidError.
func (c Config) Validate() error {
	if !filepath.IsAbs(c.Socket) {
		return &shoal.InvalidError{Field: "socket", Why: fmt.Sprintf("must be an absolute path, got %q", c.Socket)}
	}
	if n := len(c.Socket); n > maxSocketPath {
		return &shoal.InvalidError{Field: "socket", Why: fmt.Sprintf("path has %d bytes, the system allows %d", n, maxSocketPath)}
	}
	return nil
}

// Cluster is what a member can do and a stranger cannot.
type Cluster struct {
	Wishes shoal.Wishes
	Views  shoal.Views
	Remote shoal.Remote
	Images shoal.Images     // nil: this daemon serves no images
	Mover  shoal.ImageMover // the same
	Reach  shoal.Reach      // nil: this daemon carries no connections
	// Rollouts tells how far services have come; nil: this daemon does not follow that.
	Rollouts interface {
		Rollout(service string) (shoal.RolloutReport, error)
	}
	// Faults says what this peer holds to be at fault for replicas that fail; nil: it does
	// not judge that.
	Faults func() []shoal.Fault
	// Scaling says how many replicas this peer would have an autoscaled service have, what
	// it measures and what holds it. nil: it does not watch.
	Scaling func(service string) (shoal.Scaling, bool)
}

// Deps are the ports a Server works through. Cluster is asked on every request, so
// that init, join and leave take effect at once; it answers false before a peer is a
// member, and the same Views (comparable with ==) as long as nothing changed.
type Deps struct {
	Membership shoal.Membership
	Cluster    func() (*Cluster, bool)
	Doctor     shoal.Doctor
	Clock      shoal.Clock // the clock of View's Life
	Log        *slog.Logger
	// Report calls fn for each file that the daemon itself adds to a report of a fault;
	// nil: it adds none.
	Report func(ctx context.Context, fn func(name string, data []byte) error) error
	// Metrics returns what this peer counts, in Prometheus' text format; it must not
	// block. nil: nothing is counted.
	Metrics func() ([]byte, error)
	// Path says how this peer reaches a member, with the relay by name, and how many of
	// the last pings there were lost; nil: nobody knows.
	Path func(id shoal.PeerID, name func(shoal.PeerID) string) (way string, pings, lost int)
	Open func() // called once the socket is open; may be nil
}

func (d Deps) validate() error {
	if d.Membership == nil || d.Cluster == nil || d.Doctor == nil || d.Clock == nil || d.Log == nil {
		return errors.New("api: Membership, Cluster, Doctor, Clock and Log are all needed")
	}
	return nil
}

// Server answers on the control socket of one daemon.
type Server struct {
	shoalv1connect.UnimplementedControlServiceHandler

	cfg     Config
	deps    Deps
	story   *story
	poke    chan struct{} // membership may have changed
	moves   chan struct{} // one for each move of an image under way
	patient time.Duration // how long such a move waits for its client
	serving atomic.Bool
}

// NewServer allocates; nothing listens before Run.
func NewServer(cfg Config, deps Deps) (*Server, error) {
	if cfg.Group == "" {
		cfg.Group = "shoal"
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := deps.validate(); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, deps: deps, story: newStory(maxEvents), poke: make(chan struct{}, 1), moves: make(chan struct{}, maxMoves), patient: movePatience}, nil
}

// Run listens and serves until ctx ends, then removes the socket. It refuses a
// socket that another daemon answers on, and replaces one that nobody answers on.
func (s *Server) Run(ctx context.Context) error {
	l, err := listenSocket(ctx, s.cfg.Socket, s.cfg.Group)
	if err != nil {
		return err
	}
	defer l.remove()
	s.deps.Log.Info("control socket open", "path", s.cfg.Socket)
	if s.deps.Open != nil {
		s.deps.Open()
	}
	g, ctx := errgroup.WithContext(ctx)
	srv := s.httpServer(ctx)
	g.Go(func() error {
		s.serving.Store(true)
		defer s.serving.Store(false)
		if err := srv.Serve(netutil.LimitListener(l, maxClients)); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", s.cfg.Socket, err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if srv.Shutdown(stop) != nil {
			_ = srv.Close() // the streams had their time
		}
		return nil
	})
	g.Go(func() error { return s.record(ctx) })
	return g.Wait()
}

// Serving reports whether the socket is open.
func (s *Server) Serving() bool { return s.serving.Load() }

// httpServer returns a server whose requests all end with ctx.
func (s *Server) httpServer(ctx context.Context) *http.Server {
	path, handler := shoalv1connect.NewControlServiceHandler(s,
		connect.WithInterceptors(mapErrors{ctx.Done()}),
		connect.WithCompression("gzip", nil, nil), // nothing may grow after its size was judged
		connect.WithConditionalHandlerOptions(func(spec connect.Spec) []connect.HandlerOption {
			if spec.StreamType&connect.StreamTypeClient != 0 {
				return []connect.HandlerOption{connect.WithReadMaxBytes(maxMessage)}
			}
			return []connect.HandlerOption{connect.WithReadMaxBytes(maxBody)}
		}),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
			s.deps.Log.Error("panic in a request", "method", spec.Procedure, logkey.Reason, fmt.Sprint(p))
			return &Error{Code: CodeInternal, What: "this request met a bug in shoald", Todo: "see shoald's log"}
		}),
	)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC clients
	return &http.Server{
		Handler:           newGuard(path, handler),
		Protocols:         &protocols,
		ReadHeaderTimeout: bodyTime,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.deps.Log.Handler(), slog.LevelDebug),
	}
}

// cluster returns the ports of a member, or the error every stranger gets.
func (s *Server) cluster() (*Cluster, error) {
	if c, ok := s.deps.Cluster(); ok && c != nil {
		return c, nil
	}
	st := s.deps.Membership.Status()
	if st.Cluster != "" {
		return nil, &Error{Code: CodeStarting, What: "this daemon is starting and has not read its records yet", Todo: "try again in a moment"}
	}
	if st.Trouble != "" { // it was one
		return nil, &Error{Code: CodeNotMember, What: "this daemon is not a member of a cluster any more", Why: st.Trouble, Todo: `make a token on a member and run "shoal join TOKEN"`}
	}
	return nil, notMember()
}
