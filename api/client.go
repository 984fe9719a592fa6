// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
	"github.com/shoalnet/shoal/proto/shoal/v1/shoalv1connect"
)

// maxAnswer bounds what a client takes: 10,000 replicas are a tenth of it.
const maxAnswer = 64 << 20

// Client asks one daemon. All errors are *Error. It is safe for concurrent use.
type Client struct {
	name string
	dial func(context.Context) (net.Conn, error)
	http *http.Client
	rpc  shoalv1connect.ControlServiceClient

	mu    sync.Mutex // guards what follows
	conns []net.Conn // all that were made: one, unless the daemon closed it
	broke *Error     // what the last of them said when it broke
}

// Dial reads a host, "unix:///run/shoal.sock" or an absolute path, and returns its
// client. Nothing is connected before the first call.
func Dial(host string) (*Client, error) {
	path, err := socketPath(host)
	if err != nil {
		return nil, err
	}
	return NewClient(path, func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}), nil
}

// NewClient returns the client of the daemon that dial connects to; name is what its
// errors call that daemon's socket. An *Error of dial, or of a connection that it
// made, reaches who called as it is. All calls share one connection (HTTP/2), since a
// dial may be dear.
func NewClient(name string, dial func(context.Context) (net.Conn, error)) *Client {
	c := &Client{name: name, dial: dial}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.connect(ctx) },
		DisableCompression: true,
		Protocols:          &protocols,
		MaxConnsPerHost:    1,
	}}
	c.rpc = shoalv1connect.NewControlServiceClient(c.http, "http://shoal", connect.WithReadMaxBytes(maxAnswer), connect.WithAcceptCompression("gzip", nil, nil))
	return c
}

func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns, c.broke = append(c.conns, conn), nil
	return &telling{Conn: conn, client: c}, nil
}

// telling is a connection that leaves its own word of why it broke with the client:
// HTTP/2 has none for a call that comes just after.
type telling struct {
	net.Conn
	client *Client
}

// Read implements net.Conn.
func (t *telling) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if why, ok := errors.AsType[*Error](err); ok {
		t.client.mu.Lock()
		t.client.broke = why
		t.client.mu.Unlock()
	}
	return n, err
}

// understand puts the end of a call into our words.
func (c *Client) understand(err error) error {
	out := understand(c.name, err)
	e, ok := errors.AsType[*Error](out)
	if !ok || e.Code != CodeUnreachable && e.Code != CodeInternal {
		return out
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broke != nil {
		return c.broke
	}
	return out
}

// Connect opens one connection to the daemon's socket, for bytes that somebody else
// speaks. The caller closes it.
func (c *Client) Connect(ctx context.Context) (net.Conn, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		if e := unreachable(c.name, err); e != nil {
			return nil, e
		}
		return nil, err
	}
	return conn, nil
}

func socketPath(host string) (string, error) {
	path := strings.TrimPrefix(host, "unix://")
	scheme, _, has := strings.Cut(path, "://")
	switch {
	case has:
		return "", &Error{Code: CodeInvalid, What: fmt.Sprintf("host %q: unknown scheme %s", host, scheme), Why: "shoald listens on a unix socket only", Todo: "use unix:///PATH, or ssh://HOST for another machine's"}
	case !filepath.IsAbs(path):
		return "", &Error{Code: CodeInvalid, What: fmt.Sprintf("host %q is no absolute path", host), Todo: "use unix:///PATH"}
	}
	return path, nil
}

// unreachable puts a failed connection into words; nil if it is none.
func unreachable(path string, err error) *Error {
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, fs.ErrPermission):
		return &Error{Code: CodeDenied, What: fmt.Sprintf(`permission denied on %s: add user to group "shoal"`, path)}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENOTSOCK):
		return &Error{Code: CodeUnreachable, What: fmt.Sprintf(`cannot reach shoald at %s: not running? start with "shoald"`, path)}
	}
	return nil
}

// Close ends all connections, and the calls on them. A later call makes a new one.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.mu.Lock()
	conns := c.conns
	c.conns = nil
	c.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close() // closed already where it was idle
	}
}

// call makes one unary call.
func call[Req, Resp any](ctx context.Context, c *Client, do func(context.Context, *connect.Request[Req]) (*connect.Response[Resp], error), req *Req) (*Resp, error) {
	resp, err := do(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, c.understand(err)
	}
	return resp.Msg, nil
}

// each calls fn for every message of a stream until it ends or fn fails.
func each[Req, Resp any](ctx context.Context, c *Client, do func(context.Context, *connect.Request[Req]) (*connect.ServerStreamForClient[Resp], error), req *Req, fn func(*Resp) error) error {
	stream, err := do(ctx, connect.NewRequest(req))
	if err != nil {
		return c.understand(err)
	}
	defer func() { _ = stream.Close() }() // what it could say was said by Err
	for stream.Receive() {
		if err := fn(stream.Msg()); err != nil {
			return err
		}
	}
	if err := stream.Err(); err != nil {
		return c.understand(err)
	}
	return nil
}

// Status works at all times.
func (c *Client) Status(ctx context.Context) (Status, error) {
	r, err := call(ctx, c, c.rpc.GetStatus, &shoalv1.GetStatusRequest{})
	if err != nil {
		return Status{}, err
	}
	out := Status{Self: r.GetSelf(), Cluster: r.GetCluster(), Role: r.GetRole(), Listen: r.GetListen(), Version: r.GetVersion(), API: r.GetApi(), Trouble: r.GetTrouble()}
	if st := r.GetStore(); st != nil {
		out.Store = &Store{Digest: st.GetDigest(), Records: st.GetRecords(), Live: st.GetLive(), Blocks: st.GetBlocks(), Refused: st.GetRefused()}
	}
	if r.GetFreshness() != nil {
		f := freshnessOf(r.GetFreshness())
		out.Freshness = &f
	}
	return out, nil
}

// Services lists all services.
func (c *Client) Services(ctx context.Context) (Listing[Service], error) {
	r, err := call(ctx, c, c.rpc.ListServices, &shoalv1.ListServicesRequest{})
	return Listing[Service]{all(r.GetServices(), serviceOf), freshnessOf(r.GetFreshness())}, err
}

// Replicas lists the replicas of the named services, or of all.
func (c *Client) Replicas(ctx context.Context, services ...string) (Listing[Replica], error) {
	r, err := call(ctx, c, c.rpc.ListReplicas, &shoalv1.ListReplicasRequest{Services: services})
	return Listing[Replica]{all(r.GetReplicas(), replicaOf), freshnessOf(r.GetFreshness())}, err
}

// Service tells all about one; values of its environment are masked unless showEnv.
func (c *Client) Service(ctx context.Context, name string, showEnv bool) (ServiceDetail, error) {
	r, err := call(ctx, c, c.rpc.InspectService, &shoalv1.InspectServiceRequest{Service: name, ShowEnv: showEnv})
	if err != nil {
		return ServiceDetail{}, err
	}
	return detailOf(r)
}

// Peers lists the members.
func (c *Client) Peers(ctx context.Context, removed bool) (Listing[Peer], error) {
	r, err := call(ctx, c, c.rpc.ListPeers, &shoalv1.ListPeersRequest{IncludeRemoved: removed})
	return Listing[Peer]{all(r.GetPeers(), peerOf), freshnessOf(r.GetFreshness())}, err
}

// Peer tells all about one, named by name, ID or the end of its ID; "": the asked one.
func (c *Client) Peer(ctx context.Context, name string) (PeerDetail, error) {
	r, err := call(ctx, c, c.rpc.InspectPeer, &shoalv1.InspectPeerRequest{Peer: name})
	if err != nil {
		return PeerDetail{}, err
	}
	return PeerDetail{
		Peer: peerOf(r.GetPeer()), Rows: all(r.GetReplicas(), replicaOf), Images: r.GetImages(), Refusals: r.GetRefusals(),
		Marks: all(r.GetMarks(), markOf), Edits: all(r.GetEdits(), editOf),
		Freshness: freshnessOf(r.GetFreshness()),
	}, nil
}

// Deploy asks for services.
func (c *Client) Deploy(ctx context.Context, w shoal.DeployWish, opts WishOptions) (Outcome, error) {
	req := &shoalv1.DeployRequest{
		PlanOnly: opts.PlanOnly, ResetScale: w.ResetScale, Create: w.Create, Acks: int32(opts.Acks), AckTimeoutSeconds: opts.AckTimeout.Seconds(),
		IfRevision: make(map[string]string, len(w.IfRevision)), AllowUnplaced: w.AllowUnplaced,
		KeepScale: w.KeepScale, PruneProject: w.Prune, Keep: w.Keep, Remove: make(map[string]string, len(w.Remove)),
	}
	for name, rev := range w.Remove {
		req.Remove[name] = rev.String()
	}
	for i := range w.Specs {
		req.Specs = append(req.Specs, proto.SpecMessage(&w.Specs[i]))
	}
	for name, rev := range w.IfRevision {
		req.IfRevision[name] = rev.String()
	}
	r, err := call(ctx, c, c.rpc.Deploy, req)
	return outcomeOf(r.GetOutcome(), r.GetFreshness()), err
}

// Scale asks for numbers of replicas.
func (c *Client) Scale(ctx context.Context, targets []shoal.ScaleTarget, opts WishOptions) (Outcome, error) {
	req := &shoalv1.ScaleRequest{PlanOnly: opts.PlanOnly, Acks: int32(opts.Acks), AckTimeoutSeconds: opts.AckTimeout.Seconds()}
	for _, t := range targets {
		req.Targets = append(req.Targets, &shoalv1.ScaleTarget{Service: t.Service, IsRelative: t.Relative, N: int32(t.N)})
	}
	r, err := call(ctx, c, c.rpc.Scale, req)
	return outcomeOf(r.GetOutcome(), r.GetFreshness()), err
}

// Remove asks for services to go.
func (c *Client) Remove(ctx context.Context, w shoal.RemoveWish, opts WishOptions) (Outcome, error) {
	req := &shoalv1.RemoveRequest{
		Services: w.Services, IgnoreNotFound: w.IgnoreNotFound, PlanOnly: opts.PlanOnly,
		Acks: int32(opts.Acks), AckTimeoutSeconds: opts.AckTimeout.Seconds(),
	}
	r, err := call(ctx, c, c.rpc.Remove, req)
	return outcomeOf(r.GetOutcome(), r.GetFreshness()), err
}

// Operate asks for services to stop, start or restart.
func (c *Client) Operate(ctx context.Context, w shoal.OperateWish, opts WishOptions) (Outcome, error) {
	r, err := call(ctx, c, c.rpc.Operate, &shoalv1.OperateRequest{
		Services: w.Services, Operation: string(w.Op), PlanOnly: opts.PlanOnly,
		Acks: int32(opts.Acks), AckTimeoutSeconds: opts.AckTimeout.Seconds(),
	})
	return outcomeOf(r.GetOutcome(), r.GetFreshness()), err
}

// Watch calls fn with the progress of the named services, or of all, now and at
// every change, until ctx ends or fn fails.
func (c *Client) Watch(ctx context.Context, services []string, fn func([]Progress, Freshness) error) error {
	return each(ctx, c, c.rpc.Watch, &shoalv1.WatchRequest{Services: services}, func(r *shoalv1.WatchResponse) error {
		return fn(all(r.GetServices(), progressOf), freshnessOf(r.GetFreshness()))
	})
}

// Logs calls line for each line, and lost for each holder whose lines are missing,
// both until the end or, when following, until ctx ends.
func (c *Client) Logs(ctx context.Context, q LogRequest, line func(LogLine) error, lost func(peer, why string)) error {
	req := &shoalv1.StreamLogsRequest{Service: q.Service, Peer: q.Peer, Follow: q.Follow, Since: timeMessage(q.Since), Until: timeMessage(q.Until)}
	if q.Slot >= 0 {
		req.Slot = new(int32(q.Slot))
	}
	if q.Tail >= 0 {
		req.Tail = new(int32(q.Tail))
	}
	return each(ctx, c, c.rpc.StreamLogs, req, func(r *shoalv1.StreamLogsResponse) error {
		if l := r.GetLost(); l != nil {
			lost(l.GetPeerName(), l.GetWhy())
			return nil
		}
		return line(lineOf(r.GetLine()))
	})
}

// Events calls fn for the last tail events (negative: all that are remembered) since
// a time (zero: any), then, when following, for each new one until ctx ends.
func (c *Client) Events(ctx context.Context, tail int, since time.Time, follow bool, fn func(Event) error) error {
	req := &shoalv1.StreamEventsRequest{Follow: follow, Since: timeMessage(since)}
	if tail >= 0 {
		req.Tail = new(int32(tail))
	}
	return each(ctx, c, c.rpc.StreamEvents, req, func(r *shoalv1.StreamEventsResponse) error { return fn(eventOf(r.GetEvent())) })
}

func timeMessage(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
