// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"time"
)

const (
	maxRedirects = 5
	// maxAside bounds what is read of answers that are not what was asked for: tokens, which
	// have some KiB, and refusals.
	maxAside = 1 << 20
)

// ask is one question on its way. It is in the context of its requests - the question,
// those for a token, and where redirects lead - which are made one after the other, and
// says what was last heard.
type ask struct {
	url    string // of the question
	status int    // 0: no answer, or none yet
	host   string // that answered
	header http.Header
}

type askKey struct{}

// guard looks at each request before it leaves, and at each answer.
type guard struct {
	next     http.RoundTripper
	insecure bool // the registry is spoken to by plain HTTP
}

// RoundTrip implements [http.RoundTripper]. Requests have an [ask] in their context.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	a, _ := req.Context().Value(askKey{}).(*ask)
	a.status, a.host, a.header = 0, req.URL.Host, nil
	first, hops := origin(req)
	if err := g.permits(req, hops); err != nil {
		return nil, err
	}
	resp, err := g.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	a.status, a.header = resp.StatusCode, resp.Header
	if aside := first.URL.String() != a.url; aside || resp.StatusCode >= 300 {
		resp.Body = bounded{io.LimitReader(resp.Body, maxAside), resp.Body}
	}
	return resp, nil
}

func (g *guard) permits(req *http.Request, hops int) error {
	host := req.URL.Host
	switch plain := req.URL.Scheme == "http"; {
	case hops > maxRedirects:
		return &refusal{what: host, why: "is one redirect more than the 5 that are followed"}
	case req.URL.Scheme != "https" && !plain:
		return &refusal{what: host, why: "is to be spoken to by other than HTTP"}
	case plain && !g.insecure:
		return &refusal{what: host, why: "is to be spoken to without TLS, and the registry is not listed as insecure"}
	case plain && req.Response != nil && req.Response.Request.URL.Scheme == "https":
		return &refusal{what: host, why: "is a redirect that leaves TLS"}
	}
	return nil
}

// origin returns the request that redirects led from, and how many there were.
func origin(req *http.Request) (first *http.Request, hops int) {
	for first = req; first.Response != nil && first.Response.Request != nil; hops++ {
		first = first.Response.Request
	}
	return first, hops
}

type bounded struct {
	io.Reader
	io.Closer
}

// newTransport returns what the requests to all registries go through.
func newTransport(cfg Config, d *dialer) *http.Transport {
	return &http.Transport{
		DialContext:            d.dial,
		TLSClientConfig:        tlsConfig(cfg),
		TLSHandshakeTimeout:    cfg.Timeout,
		ResponseHeaderTimeout:  cfg.Timeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // what comes has to be the very bytes of the digest
		MaxIdleConns:           16,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		// A connection that died without a word is found out before the next question.
		HTTP2: &http.HTTP2Config{SendPingTimeout: cfg.Timeout, PingTimeout: cfg.Timeout},
	}
}

// tlsConfig leaves all but the roots to the defaults of crypto/tls.
func tlsConfig(cfg Config) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots}
}

func withAsk(ctx context.Context, a *ask) context.Context {
	return context.WithValue(ctx, askKey{}, a)
}
