// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
)

// What a twin asks a registry for (OCI and Docker schema 2).
const (
	twinIndexes   = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
	twinManifests = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
	maxManifest   = 4 << 20 // OCI distribution specification, "Pushing Manifests"
	twinStall     = 2 * time.Minute
)

// twinManifest is a manifest or an index, as far as a twin reads it.
type twinManifest struct {
	Config    twinBlob
	Layers    []twinBlob
	Manifests []twinBlob
}

type twinBlob struct {
	Digest   string
	Size     int64
	Platform struct{ OS, Architecture string }
}

// twinPull is one pull under way.
type twinPull struct {
	client *http.Client
	login  shoal.RegistryLogin
	base   string // "http://127.0.0.1:5050/v2/app/"
	pace   *pace
	told   shoal.ImageProgress
	tell   func(shoal.ImageProgress)
}

// Pull implements [shoal.ImageStore]: it speaks plain HTTP to the registry, checks
// every digest, and keeps the content in memory. It is the one call that needs a
// network, so it has no place in a bubble.
func (t *Twin) Pull(ctx context.Context, from string, login shoal.RegistryLogin, progress func(shoal.ImageProgress)) error {
	what := "pull image " + from
	if err := checkPull(from, login); err != nil {
		return err
	}
	if err := t.enter(ctx, what, func(l Latency) time.Duration { return l.Call }); err != nil {
		return err
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	name := strings.TrimPrefix(shoal.NormalizeRef(from), login.Address+"/")
	sep := strings.LastIndexAny(name, "@:")
	if repository, _, pinned := strings.Cut(name, "@"); pinned {
		sep = len(repository)
	}
	p := &twinPull{
		client: &http.Client{Transport: transport}, login: login, tell: progress,
		base: "http://" + login.Address + "/v2/" + name[:sep] + "/", pace: newPace(twinStall, cancel),
		told: shoal.ImageProgress{What: "load"},
	}
	defer p.pace.timer.Stop()
	image, err := p.image(within, name[sep+1:])
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, ctx.Err())
	case err != nil && p.pace.isLate.Load():
		return fmt.Errorf("%s: nothing moved for %s", what, twinStall)
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keep(image, "pull", shoal.NormalizeRef(from))
	return nil
}

// image fetches all of an image by a tag or digest.
func (p *twinPull) image(ctx context.Context, ref string) (*twinImage, error) {
	m, err := p.manifest(ctx, ref)
	if err != nil {
		return nil, err
	}
	for _, one := range m.Manifests {
		if one.Platform.OS+"/"+one.Platform.Architecture == twinPlatform {
			if m, err = p.manifest(ctx, one.Digest); err != nil {
				return nil, err
			}
			break
		}
	}
	if m.Config.Digest == "" {
		return nil, fmt.Errorf("no image for %s in it: %w", twinPlatform, shoal.ErrNotFound)
	}
	config, err := p.blob(ctx, m.Config)
	if err != nil {
		return nil, err
	}
	for _, l := range m.Layers {
		p.told.Total += l.Size
	}
	layers := make([][]byte, len(m.Layers))
	for i, l := range m.Layers {
		raw, err := p.blob(ctx, l)
		if err != nil {
			return nil, err
		}
		if layers[i], err = unzip(raw); err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.Digest, err)
		}
		p.told.Done += l.Size
		if p.tell != nil {
			p.tell(p.told)
		}
	}
	return newTwinImage(config, layers)
}

func (p *twinPull) manifest(ctx context.Context, ref string) (*twinManifest, error) {
	raw, err := p.get(ctx, "manifests/"+ref, maxManifest)
	if err != nil {
		return nil, err
	}
	if isDigest(ref) && sha256Of(raw) != ref {
		return nil, fmt.Errorf("manifest %s has another digest", ref)
	}
	m := &twinManifest{}
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", ref, err)
	}
	return m, nil
}

func (p *twinPull) blob(ctx context.Context, b twinBlob) ([]byte, error) {
	raw, err := p.get(ctx, "blobs/"+b.Digest, min(b.Size, maxTwinArchive))
	if err == nil && sha256Of(raw) != b.Digest {
		err = fmt.Errorf("blob %s has another digest", b.Digest)
	}
	return raw, err
}

// get reads at most limit bytes from the registry.
func (p *twinPull) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", twinIndexes+", "+twinManifests)
	if p.login.User != "" {
		req.SetBasicAuth(p.login.User, p.login.Password)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, &kindError{text: err.Error(), kind: shoal.ErrUnreachable}
	}
	defer func() { _ = resp.Body.Close() }() // it was only read from
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, &kindError{text: path + " is not there", kind: shoal.ErrNotFound}
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, &kindError{text: "registry answers " + resp.Status, kind: shoal.ErrRefused}
	default:
		return nil, fmt.Errorf("registry answers %s", resp.Status)
	}
	var out bytes.Buffer
	body := io.LimitReader(resp.Body, limit+1)
	for {
		n, err := io.CopyN(&out, body, 64<<10)
		if n > 0 {
			p.pace.moved()
		}
		switch {
		case int64(out.Len()) > limit:
			return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
		case errors.Is(err, io.EOF):
			return out.Bytes(), nil
		case err != nil:
			return nil, err
		}
	}
}

// unzip returns a layer as its tar; zstd is beyond a twin, as it is beyond Engine 20.10.
func unzip(raw []byte) ([]byte, error) {
	if !bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
		return raw, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, maxTwinArchive+1))
	if err == nil && len(out) > maxTwinArchive {
		err = fmt.Errorf("larger than %d bytes", maxTwinArchive)
	}
	return out, err
}
