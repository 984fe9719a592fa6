// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
)

// Pull implements [shoal.ImageStore]. from must be at the login's address: the engine is
// never sent anywhere else. After a pull by digest the image has that name
// ("127.0.0.1:5050/app@sha256:...").
func (d *Docker) Pull(ctx context.Context, from string, login shoal.RegistryLogin, progress func(shoal.ImageProgress)) error {
	if err := checkPull(from, login); err != nil {
		return err
	}
	auth, err := authOf(login)
	if err != nil {
		return err
	}
	return d.transfer(ctx, "pull image "+from, func(ctx context.Context, c *client.Client, p *pace) error {
		body, err := c.ImagePull(ctx, from, image.PullOptions{RegistryAuth: auth})
		if err != nil {
			return pullError(err)
		}
		defer func() { _ = body.Close() }() // it was only read from
		state := newUnpacking(d.clock.Mono)
		return pullError(readStream(body, func(line *streamLine) {
			if !state.take(line) {
				return
			}
			p.moved()
			if progress != nil {
				progress(state.progress())
			}
		}))
	})
}

// checkPull refuses to send the engine to anything but the registry of the login.
func checkPull(from string, login shoal.RegistryLogin) error {
	if login.Address == "" || !strings.HasPrefix(from, login.Address+"/") {
		return &shoal.InvalidError{Field: "image", Why: fmt.Sprintf("must be at the registry %q of this machine, got %s", login.Address, from)}
	}
	return nil
}

// authOf returns the header that tells the engine how to log in.
func authOf(login shoal.RegistryLogin) (string, error) {
	if login.User == "" {
		return "", nil
	}
	return registry.EncodeAuthConfig(registry.AuthConfig{
		Username: login.User, Password: login.Password, ServerAddress: login.Address,
	})
}

// kindError has a text of its own and is an error of a kind.
type kindError struct {
	text string
	kind error
}

func (e *kindError) Error() string { return e.text }
func (e *kindError) Unwrap() error { return e.kind }

// What engines say of registries. They have no codes for it, and the texts are those of
// Go's net/http and of the distribution specification's error codes, through all versions.
var (
	cannotReach = []string{
		"connection refused", "dial tcp", "server gave HTTP response to HTTPS client", "no route to host",
		"network is unreachable", "i/o timeout", "connection reset by peer",
	}
	mayNot  = []string{"unauthorized", "no basic auth credentials", "401 Unauthorized", "403 Forbidden"}
	hasNone = []string{"manifest unknown", "name unknown", "blob unknown", "not found"}
)

// pullError sorts what an engine says about a registry. Other errors are left as they
// are: those are about the engine.
func pullError(err error) error {
	var said *engineSays
	if err == nil || client.IsErrConnectionFailed(err) || !errors.As(err, &said) && !fromEngine(err) {
		return err
	}
	text := err.Error()
	has := func(words []string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has(cannotReach):
		return &kindError{text: text, kind: shoal.ErrUnreachable}
	case has(mayNot):
		return &kindError{text: text, kind: shoal.ErrRefused}
	case has(hasNone), cerrdefs.IsNotFound(err):
		return &kindError{text: text, kind: shoal.ErrNotFound}
	}
	return err
}

// fromEngine reports whether an error is an answer of the engine: it has a status.
func fromEngine(err error) bool {
	return cerrdefs.IsNotFound(err) || cerrdefs.IsInternal(err) || cerrdefs.IsUnauthorized(err) ||
		cerrdefs.IsPermissionDenied(err) || cerrdefs.IsInvalidArgument(err) || cerrdefs.IsUnknown(err)
}

// maxLayers bounds the layers that a pull's progress counts; registries and engines
// stop at 127 and at some hundreds.
const (
	maxLayers     = 1000
	maxLayerBytes = 1 << 50 // so that sums do not overflow
)

// unpacking is how far an engine has unpacked an image, from what it tells.
type unpacking struct {
	now    func() time.Duration
	layers map[string]*layer
	rate   meter
}

// layer is one layer of an image that is pulled.
type layer struct {
	last        streamLine
	total, done int64
	isOver      bool
}

func newUnpacking(now func() time.Duration) *unpacking {
	return &unpacking{now: now, layers: make(map[string]*layer), rate: meter{at: now()}}
}

// take notes one line and reports whether it tells that something moved: an engine
// counts down loudly to its next try.
func (u *unpacking) take(line *streamLine) bool {
	l := u.layers[line.ID]
	if l == nil {
		if len(u.layers) >= maxLayers {
			return true
		}
		l = &layer{}
		u.layers[line.ID] = l
	}
	if *line == l.last || strings.HasPrefix(line.Status, "Retrying") {
		return false
	}
	l.last = *line
	l.total = min(max(l.total, line.Progress.Total), maxLayerBytes)
	switch line.Status {
	case "Extracting":
		l.done = min(max(l.done, line.Progress.Current), l.total)
	case "Pull complete", "Already exists":
		l.isOver, l.done = true, l.total
	case "Pulling fs layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete":
	default: // not about a layer: "Pulling from app", "Digest: ...", "Status: ..."
		l.isOver = true
	}
	return true
}

// progress sums up. Total is 0 until every layer's size is known.
func (u *unpacking) progress() shoal.ImageProgress {
	p := shoal.ImageProgress{What: "load"}
	known := true
	for _, l := range u.layers {
		p.Done += l.done
		p.Total += l.total
		known = known && (l.total > 0 || l.isOver)
	}
	if !known {
		p.Total = 0
	}
	p.Rate = u.rate.rate(u.now(), p.Done)
	return p
}

// meter measures bytes a second, over a second at least.
type meter struct {
	at   time.Duration
	done int64
	last int64
}

func (m *meter) rate(now time.Duration, done int64) int64 {
	if past := now - m.at; past >= time.Second {
		m.last = int64(float64(done-m.done) / past.Seconds())
		m.at, m.done = now, done
	}
	return m.last
}
