// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ociauth"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/manifest"
	"github.com/shoalnet/shoal/internal/logkey"
)

// session is what is known of how to speak to one registry: tokens, and the login that
// they come from.
type session struct {
	client  *http.Client
	version string // of the login
	note    string // why there is no login although one is configured
}

const maxSessions = 64

// session returns the session for a registry; old: it was used before.
func (c *Client) session(ctx context.Context, t target, version string) (s *session, old bool) {
	c.mu.Lock()
	s = c.sessions[t.registry]
	c.mu.Unlock()
	if s != nil && s.version == version {
		return s, true
	}
	s = &session{version: version}
	entry, err := c.keys.login(ctx, t.registry)
	if err != nil {
		s.note = err.Error()
		c.log.Warn("no login for a registry", logkey.Image, t.place(), logkey.Reason, s.note)
	}
	s.client = &http.Client{Transport: ociauth.NewStdTransport(ociauth.StdTransportParams{
		Config:    only{host: t.host(), entry: entry},
		Transport: &guard{next: c.transport, insecure: c.insecure(t)},
	})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sessions) >= maxSessions {
		clear(c.sessions) // they cost a token each to make again
	}
	c.sessions[t.registry] = s
	return s, false
}

func (c *Client) drop(t target, s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions[t.registry] == s {
		delete(c.sessions, t.registry)
	}
}

// question is one GET.
type question struct {
	target
	kind string // "manifests", "blobs"
	id   string // tag or digest
	from int64
}

func (q question) url(insecure bool) string {
	u := url.URL{Scheme: "https", Host: q.host(), Path: "/v2/" + q.repo + "/" + q.kind + "/" + q.id}
	if insecure {
		u.Scheme = "http"
	}
	return u.String()
}

// get puts a question unless its registry has to wait, and remembers what became of it.
func (c *Client) get(ctx context.Context, q question) (*stream, http.Header, error) {
	version := c.keys.version()
	if err := c.waits.check(q.target, version); err != nil {
		return nil, nil, err
	}
	began := c.clock.Mono()
	s, old := c.session(ctx, q.target, version)
	a, st, err := c.once(ctx, s, q, began)
	if old && isLogin(a.status) {
		// Tokens expire, and logins that a helper gives do: once more with new ones.
		c.drop(q.target, s)
		if st != nil {
			_ = st.Close() // nothing of it is wanted
		}
		s, _ = c.session(ctx, q.target, version)
		a, st, err = c.once(ctx, s, q, began)
	}
	if err == nil && isFine(a.status, q.from) {
		if err = st.place(q.from, a); err == nil {
			return st, a.header, nil
		}
	}
	if st != nil {
		_ = st.Close() // what failed is in err or a
	}
	return nil, nil, c.judge(ctx, q, s, a, began, err)
}

// once sends the request of a question, and those for a token if it takes one. There is a
// stream if there is no error, whatever the status.
func (c *Client) once(ctx context.Context, s *session, q question, began time.Duration) (*ask, *stream, error) {
	a := &ask{url: q.url(c.insecure(q.target))}
	run, cancel := context.WithCancelCause(ctx)
	scoped := ociauth.ContextWithRequestInfo(withAsk(run, a), ociauth.RequestInfo{
		RequiredScope: ociauth.NewScope(ociauth.ResourceScope{
			ResourceType: ociauth.TypeRepository, Resource: q.repo, Action: ociauth.ActionPull,
		}),
	})
	req, err := http.NewRequestWithContext(scoped, http.MethodGet, a.url, nil)
	if err != nil {
		cancel(nil)
		return a, nil, err
	}
	a.url = req.URL.String()
	if q.kind == "manifests" {
		req.Header.Set("Accept", accept)
	}
	if q.from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", q.from))
	}
	timer := time.AfterFunc(headTimeouts*c.cfg.Timeout, func() { cancel(errSlow) })
	resp, err := s.client.Do(req)
	timer.Stop()
	if err != nil {
		if cause := context.Cause(run); cause != nil {
			err = cause
		}
		cancel(nil)
		return a, nil, err
	}
	st := &stream{
		ctx: run, cancel: cancel, body: resp.Body, size: resp.ContentLength, left: resp.ContentLength, stall: c.cfg.Stall,
		timer: time.AfterFunc(c.cfg.Stall, func() { cancel(errStalled) }),
	}
	st.timer.Stop()
	st.note = func(err error) error {
		if err == nil {
			c.waits.worked(q.target, began)
			return nil
		}
		return c.judge(ctx, q, s, &ask{}, began, err)
	}
	return a, st, nil
}

const (
	headTimeouts  = 3
	wholeTimeouts = 6
)

// accept names what is understood, and not Docker's schema 1, so that a registry that has
// a choice sends something else.
var accept = strings.Join([]string{manifest.TypeIndex, manifest.TypeManifest, manifest.TypeDockerList, manifest.TypeDockerManifest}, ", ")

func isLogin(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

func isFine(status int, from int64) bool {
	return status == http.StatusOK || status == http.StatusPartialContent && from > 0
}

// place finds out which bytes of the blob the answer has.
func (s *stream) place(from int64, a *ask) error {
	if a.status == http.StatusOK {
		s.skip = from // it sends all, and nobody asked it to
		if s.size >= 0 && from > s.size {
			return pastEnd(from, s.size)
		}
		return nil
	}
	// "bytes 5-9/10" (RFC 9110 section 14.4)
	said := a.header.Get("Content-Range")
	span, total, _ := strings.Cut(strings.TrimPrefix(said, "bytes "), "/")
	first, last, _ := strings.Cut(span, "-")
	f, err1 := strconv.ParseInt(first, 10, 64)
	l, err2 := strconv.ParseInt(last, 10, 64)
	n, err3 := strconv.ParseInt(total, 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || f != from || l < f-1 || n <= l || s.left >= 0 && s.left != l-f+1 {
		return &wrongAnswer{fmt.Sprintf("answers the range %q when asked from %d", clip(said), from)}
	}
	s.size, s.left = n, n-f
	return nil
}

func pastEnd(from, size int64) error {
	return &shoal.InvalidError{Field: "from", Why: fmt.Sprintf("is %d, the blob has %d bytes", from, size)}
}
