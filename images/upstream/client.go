// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/manifest"
	"github.com/shoalnet/shoal/internal/logkey"
)

// ErrMismatch says that what a registry sent does not have its digest.
var ErrMismatch = errors.New("content does not have its digest")

// Client asks registries. It is safe for concurrent use. Its methods return
// *shoal.InvalidError for a reference or digest that is none, shoal.ErrRefused for a
// registry that this peer may not ask, shoal.ErrNotFound for what the registry has not, and
// *[WaitError] for whatever else went wrong with it.
type Client struct {
	cfg       Config
	clock     shoal.Clock
	log       *slog.Logger
	keys      *keyring
	waits     *waits
	flights   flights
	transport *http.Transport

	mu       sync.Mutex // guards what follows
	sessions map[string]*session
}

// New returns a client. *shoal.InvalidError: a field of cfg is wrong.
func New(cfg Config, clock shoal.Clock, log *slog.Logger) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.filled()
	return &Client{
		cfg: cfg, clock: clock, log: log,
		keys:      newKeyring(cfg.DockerConfig, cfg.Timeout),
		waits:     newWaits(clock),
		flights:   flights{by: map[string]*flight{}},
		transport: newTransport(cfg, &dialer{cfg: cfg}),
		sessions:  map[string]*session{},
	}, nil
}

// Close closes connections that nobody uses. Questions that are on their way go on.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Allowed reports whether this peer may ask for a reference at all. It need not be the
// time to.
func (c *Client) Allowed(ref string) bool {
	t, err := parse(ref)
	return err == nil && c.cfg.allows(t.registry)
}

// Waits returns what this peer may ask, and what must wait and why, sorted, at most 32,
// for its beats: "docker.io", waits "429, again in 40s". What waits may be one repository
// only: "docker.io/library/hello". See [MayAsk].
func (c *Client) Waits() []shoal.Upstream {
	may := slices.Clone(c.cfg.Registries)
	for _, r := range c.cfg.Insecure {
		if c.cfg.allows(r) {
			may = append(may, r)
		}
	}
	return c.waits.told(may, c.keys.version())
}

// Found is an image as a registry has it. It is not to be changed.
type Found struct {
	Digest    string   // "sha256:..." of Raw
	MediaType string   // one of package manifest's
	Raw       []byte   // the manifest or index, which package manifest takes
	Platforms []string // sorted; none: not known
}

// Resolve asks what a reference stands for. It is one request, which registries that count
// pulls count as one, and one for the configuration of an image that is for one platform
// only, to know which. *shoal.InvalidError: what it stands for is no image, or none that is
// taken.
func (c *Client) Resolve(ctx context.Context, ref string) (Found, error) {
	t, err := c.target(ref)
	if err != nil {
		return Found{}, err
	}
	return c.flights.share(ctx, "image "+t.place()+" "+t.tag+t.digest, func(ctx context.Context) (Found, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, 2*wholeTimeouts*c.cfg.Timeout, errSlow)
		defer cancel()
		found, m, err := c.manifest(ctx, t)
		if err == nil && !m.IsIndex() {
			found.Platforms = c.platform(ctx, t, m)
		}
		return found, err
	})
}

// Manifest fetches a manifest or index of an image by its digest, and its media type.
// What it returns has the digest and is not to be changed.
func (c *Client) Manifest(ctx context.Context, ref, digest string) (raw []byte, mediaType string, err error) {
	t, err := c.target(ref)
	if err != nil {
		return nil, "", err
	}
	if t, err = t.at(digest); err != nil {
		return nil, "", err
	}
	found, err := c.flights.share(ctx, "manifest "+t.place()+" "+t.digest, func(ctx context.Context) (Found, error) {
		found, _, err := c.manifest(ctx, t)
		return found, err
	})
	return found.Raw, found.MediaType, err
}

// Blob fetches a blob of an image from byte from on; a registry that cannot begin there is
// read from its beginning and what comes before is dropped. size is that of the whole blob,
// -1 if the registry does not say. The caller checks it against the manifest and the whole
// against the digest, and says so with [Client.Blame] if it is another.
//
// The reader is for one goroutine, has to be closed, and ends with ctx. It fails if nothing
// comes for Config.Stall, and with io.ErrUnexpectedEOF if less comes than was said: go on
// from there with another call.
func (c *Client) Blob(ctx context.Context, ref, digest string, from int64) (r io.ReadCloser, size int64, err error) {
	t, err := c.target(ref)
	if err != nil {
		return nil, 0, err
	}
	if t, err = t.at(digest); err != nil {
		return nil, 0, err
	}
	if from < 0 {
		return nil, 0, &shoal.InvalidError{Field: "from", Why: "must not be negative"}
	}
	st, _, err := c.get(ctx, question{target: t, kind: "blobs", id: t.digest, from: from})
	if err != nil {
		return nil, 0, err
	}
	return st, st.size, nil
}

// Blame remembers that what came for a reference was false, so that it is not asked for
// again at once. It returns the error for whoever waits for it.
func (c *Client) Blame(ref string) error {
	t, err := c.target(ref)
	if err != nil {
		return err
	}
	return c.remember(t, c.clock.Mono(), failure{why: ErrMismatch.Error(), cause: ErrMismatch})
}

// target reads a reference to what this peer may ask for.
func (c *Client) target(ref string) (target, error) {
	t, err := parse(ref)
	if err != nil {
		return target{}, err
	}
	if !c.cfg.allows(t.registry) {
		return target{}, &shoal.AdviceError{
			Err:    fmt.Errorf("this peer may not ask %s for images: %w", t.registry, shoal.ErrRefused),
			Advice: "add it to the registries that the peer may ask, or push the image to any peer",
		}
	}
	return t, nil
}

func (c *Client) insecure(t target) bool { return slices.Contains(c.cfg.Insecure, t.registry) }

// at returns the target with the digest in the place of what it named.
func (t target) at(digest string) (target, error) {
	if !digestForm.MatchString(digest) {
		return target{}, &shoal.InvalidError{Field: "digest", Why: fmt.Sprintf("must be sha256 and 64 hex digits, got %q", clip(digest))}
	}
	t.tag, t.digest = "", digest
	return t, nil
}

// manifest fetches and verifies what t names.
func (c *Client) manifest(ctx context.Context, t target) (Found, *manifest.Manifest, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, wholeTimeouts*c.cfg.Timeout, errSlow)
	defer cancel()
	raw, header, err := c.small(ctx, question{target: t, kind: "manifests", id: t.tag + t.digest}, t.digest, manifest.MaxBytes)
	if err != nil {
		return Found{}, nil, err
	}
	said, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	if !strings.Contains(said, "manifest") && !strings.Contains(said, "index") {
		said = "" // application/json, text/plain: a proxy's word for it
	}
	m, err := manifest.Parse(said, raw)
	if err != nil {
		return Found{}, nil, fmt.Errorf("image %s from %s: %w", t.repo, t.registry, err)
	}
	return Found{Digest: digestOf(raw), MediaType: m.MediaType, Raw: raw, Platforms: m.Platforms()}, m, nil
}

// platform returns what an image for one platform says in its configuration; nothing if
// that cannot be had now: the image is found all the same.
func (c *Client) platform(ctx context.Context, t target, m *manifest.Manifest) []string {
	if !strings.HasPrefix(m.Config.MediaType, "application/vnd.oci.image.config.") &&
		!strings.HasPrefix(m.Config.MediaType, "application/vnd.docker.container.image.") {
		return nil
	}
	q := question{target: t, kind: "blobs", id: m.Config.Digest}
	raw, _, err := c.small(ctx, q, m.Config.Digest, m.Config.Size)
	if err == nil {
		var cfg manifest.Config
		if cfg, err = manifest.ParseConfig(raw); err == nil && cfg.Platform != "" {
			return []string{cfg.Platform}
		}
	}
	c.log.Debug("platform of an image is not known", logkey.Image, t.place(), logkey.Err, err)
	return nil
}

// small fetches the whole of something and verifies that it has a digest, if there is one
// to have, and the one that the registry says.
func (c *Client) small(ctx context.Context, q question, digest string, limit int64) ([]byte, http.Header, error) {
	began := c.clock.Mono()
	st, header, err := c.get(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	raw, err := st.all(limit)
	_ = st.Close() // it was read, or err says why not
	if err == nil {
		got := digestOf(raw)
		said := header.Get("Docker-Content-Digest")
		if digest != "" && got != digest || digestForm.MatchString(said) && got != said {
			err = ErrMismatch
		}
	}
	var wait *WaitError
	switch {
	case err == nil:
		return raw, header, nil
	case errors.As(err, &wait):
		return nil, nil, err
	}
	return nil, nil, c.judge(ctx, q, nil, &ask{}, began, err)
}

// judge makes of what went wrong the error for the caller, and remembers it if it may be
// the same again. s may be nil.
func (c *Client) judge(ctx context.Context, q question, s *session, a *ask, began time.Duration, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errSlow) {
		return fmt.Errorf("ask %s: %w", q.registry, cause)
	}
	var invalid *shoal.InvalidError
	var wrong *wrongAnswer
	var no *refusal
	f := failure{why: statusText(q.target, a.status, a.host), cause: shoal.ErrRefused}
	switch {
	case a.status == http.StatusNotFound && err == nil:
		return fmt.Errorf("%s of %s at %s: %w", q.id, q.repo, q.registry, shoal.ErrNotFound)
	case a.status == http.StatusRequestedRangeNotSatisfiable && err == nil:
		return &shoal.InvalidError{Field: "from", Why: fmt.Sprintf("is %d, the blob ends before", q.from)}
	case errors.As(err, &invalid):
		return err
	case errors.Is(err, ErrMismatch):
		f.why, f.cause = err.Error(), ErrMismatch
	case errors.As(err, &wrong):
		f.why = err.Error()
	case isLogin(a.status) && s != nil:
		f.login = s.version
		if s.note != "" {
			f.why += "; " + s.note
		}
	case a.status == http.StatusTooManyRequests, a.status >= 500:
		f.whole, f.cause, f.retry = true, shoal.ErrUnreachable, retryAfter(a.header, c.clock.Wall())
	case errors.As(err, &no):
		f.why = err.Error()
	case err != nil:
		f.whole, f.why, f.cause = true, whyDial(err, c.cfg.Timeout), shoal.ErrUnreachable
	}
	return c.remember(q.target, began, f)
}

func (c *Client) remember(t target, began time.Duration, f failure) *WaitError {
	e, news := c.waits.failed(t, began, f)
	if news {
		c.log.Info("registry waits", logkey.Image, t.place(), logkey.Reason, e.Error())
	}
	return e
}

func digestOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}
