// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/shoalnet/shoal"
)

// images is what the twin knows of images; all of it is guarded by Cluster.mu.
type images struct {
	absent  bool // the daemon serves none
	names   map[string]*imageName
	bundles map[string]*bundle // by digest
	content map[string][]byte  // of blobs, by digest
	engine  map[string]*bundle // what the engine of the asked peer has, by name
	have    map[shoal.PeerID]map[string]int64
	policy  shoal.Policy
	login   shoal.RegistryLogin
	gate    *gate // for the next move
}

// imageName is what a name stands for.
type imageName struct {
	digest string
	rivals []string
	pinned bool
	copies int // wanted
}

// bundle is an image: a manifest or an index, and all that it refers to.
type bundle struct {
	digest, mediaType string
	platforms         []string
	blobs             []shoal.ImageBlob // without who holds them
}

func (b *bundle) size() int64 {
	var n int64
	for i := range b.blobs {
		n += b.blobs[i].Size
	}
	return n
}

func newImages() images {
	return images{
		names: map[string]*imageName{}, bundles: map[string]*bundle{}, content: map[string][]byte{}, engine: map[string]*bundle{},
		have:  map[shoal.PeerID]map[string]int64{},
		login: shoal.RegistryLogin{Address: "127.0.0.1:5050", User: "shoal", Password: "correct-horse"},
	}
}

// Imageless makes a daemon that serves no images.
func (c *Cluster) Imageless() { c.Change(func() { c.images.absent = true }) }

// Registry is how the registry of the asked peer is spoken to.
func (c *Cluster) Registry(login shoal.RegistryLogin) { c.Change(func() { c.images.login = login }) }

// Engine gives the engine of the asked peer an image with a layer of each size.
func (c *Cluster) Engine(ref string, layers ...int) {
	c.Change(func() { c.images.engine[shoal.NormalizeRef(ref)] = c.images.make(ref, layers...) })
}

// Rival makes a name stand for another image too, and returns its digest.
func (c *Cluster) Rival(name string) (digest string) {
	c.Change(func() {
		b := c.images.make(name+" of somebody else", 1000)
		n := c.images.names[name]
		n.rivals = append(n.rivals, b.digest)
		digest = b.digest
	})
	return digest
}

// Hold makes a peer hold so much of each blob of an image.
func (c *Cluster) Hold(peer, name string, percent int64) {
	c.Change(func() {
		b := c.images.bundles[c.images.names[name].digest]
		for i := range b.blobs {
			c.images.hold(PeerID(peer), b.blobs[i].Digest, b.blobs[i].Size*percent/100)
		}
	})
}

// BlockMove makes the next move of an image wait half-way, as Block does a wish.
func (c *Cluster) BlockMove() (arrived <-chan struct{}, release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.images.gate = &gate{make(chan struct{}), make(chan struct{})}
	return c.images.gate.arrived, sync.OnceFunc(c.images.gate.free)
}

func (m *images) hold(peer shoal.PeerID, digest string, n int64) {
	if m.have[peer] == nil {
		m.have[peer] = map[string]int64{}
	}
	m.have[peer][digest] = n
	if n == 0 {
		delete(m.have[peer], digest)
	}
}

// resolve finds what a ref stands for. name is "" for a digest.
func (m *images) resolve(ref string) (name string, b *bundle, err error) {
	name = shoal.NormalizeRef(ref)
	if _, digest, ok := strings.Cut(name, "@"); ok {
		if b := m.bundles[digest]; b != nil {
			return "", b, nil
		}
		return "", nil, fmt.Errorf("image %s: %w", ref, shoal.ErrNotFound)
	}
	n := m.names[name]
	switch {
	case n == nil:
		return name, nil, fmt.Errorf("image %s: %w", ref, shoal.ErrNotFound)
	case len(n.rivals) > 0:
		return name, nil, fmt.Errorf("image %s stands for several: %w", ref, shoal.ErrConflict)
	}
	return name, m.bundles[n.digest], nil
}

// set makes a name stand for an image, whatever it was before.
func (m *images) set(name string, b *bundle) {
	old := cmp.Or(m.names[name], &imageName{copies: 2})
	m.names[name] = &imageName{digest: b.digest, pinned: old.pinned, copies: old.copies}
}

// info tells of a name, or of a digest that is asked for itself; c.mu is held.
func (c *Cluster) info(name string, b *bundle) shoal.ImageInfo {
	out := shoal.ImageInfo{
		Name: name, Digest: b.digest, Platforms: b.platforms, Size: b.size(), MinCopies: 2, Author: c.self,
		Since: shoal.HLC{WallMilli: c.clock.Wall().Add(-started).UnixMilli()},
	}
	if n := c.images.names[name]; n != nil {
		out.MinCopies, out.Pinned, out.Rivals = n.copies, n.pinned, slices.Clone(n.rivals)
	}
	for i := range b.blobs {
		out.Here += c.images.have[c.self][b.blobs[i].Digest]
	}
	for _, p := range c.alive() {
		if !slices.ContainsFunc(b.blobs, func(x shoal.ImageBlob) bool { return c.images.have[p][x.Digest] < x.Size }) {
			out.Copies++
		}
	}
	for i := range c.services {
		if s := &c.services[i].Spec; name != "" && shoal.NormalizeRef(s.Image) == name || s.Digest == b.digest {
			out.Services = append(out.Services, s.Name)
		}
	}
	slices.Sort(out.Services)
	return out
}

// alive returns who is heard; c.mu is held.
func (c *Cluster) alive() []shoal.PeerID {
	var out []shoal.PeerID
	for i := range c.peers {
		if id := c.peers[i].ID; c.lives[id].State == shoal.LifeAlive {
			out = append(out, id)
		}
	}
	return out
}

// library is the part of the twin that is about images.
type library struct{ *Cluster }

// List implements [shoal.Images].
func (l library) List(context.Context) ([]shoal.ImageInfo, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []shoal.ImageInfo
	for _, name := range slices.Sorted(maps.Keys(l.images.names)) {
		out = append(out, l.info(name, l.images.bundles[l.images.names[name].digest]))
	}
	return out, nil
}

// Inspect implements [shoal.Images].
func (l library) Inspect(_ context.Context, ref string) (shoal.ImageDetail, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	name, b, err := l.images.resolve(ref)
	if err != nil {
		return shoal.ImageDetail{}, err
	}
	out := shoal.ImageDetail{ImageInfo: l.info(cmp.Or(name, ref), b), MediaType: b.mediaType, Blobs: slices.Clone(b.blobs)}
	for i := range out.Blobs {
		x := &out.Blobs[i]
		x.Here = l.images.have[l.self][x.Digest]
		for _, p := range l.alive() {
			switch n := l.images.have[p][x.Digest]; {
			case n == x.Size:
				x.Holders = append(x.Holders, p)
			case n > 0:
				x.Partial = append(x.Partial, p)
			}
		}
	}
	for i := range l.peers {
		if id := l.peers[i].ID; l.lives[id].State != shoal.LifeAlive {
			out.Silent = append(out.Silent, id)
		}
	}
	return out, nil
}

// Change implements [shoal.Images].
func (l library) Change(_ context.Context, change shoal.ImageChange) (shoal.ImageInfo, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	name, b, err := l.images.resolve(change.Name)
	if err != nil {
		return shoal.ImageInfo{}, err
	}
	if change.To != "" {
		name = shoal.NormalizeRef(change.To)
		l.images.set(name, b)
		return l.info(name, b), nil
	}
	if name == "" {
		return shoal.ImageInfo{}, &shoal.InvalidError{Field: "name", Why: fmt.Sprintf("must be a name without a digest, got %q", change.Name)}
	}
	was, n := l.info(name, b), l.images.names[name]
	switch {
	case change.Remove && len(was.Services) > 0:
		return was, fmt.Errorf("image %s is in use: %w", name, shoal.ErrConflict)
	case change.Remove:
		delete(l.images.names, name)
		return was, nil
	case change.Pin != nil:
		n.pinned = *change.Pin
	default:
		n.copies = change.MinCopies
	}
	return l.info(name, b), nil
}

// Collect implements [shoal.Images].
func (l library) Collect(_ context.Context, opts shoal.CollectOptions) (shoal.Collected, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	needed := map[string]bool{}
	for name, n := range l.images.names {
		b := l.images.bundles[n.digest]
		if x := l.info(name, b); len(x.Services) == 0 && !n.pinned {
			continue
		}
		for i := range b.blobs {
			needed[b.blobs[i].Digest] = true
		}
	}
	out := shoal.Collected{Limit: 10 << 30}
	own := l.images.have[l.self]
	for _, digest := range slices.Sorted(maps.Keys(own)) {
		if needed[digest] || !opts.All && out.Bytes >= opts.Room {
			out.Used += own[digest]
			continue
		}
		out.Blobs++
		out.Bytes += own[digest]
		if !opts.DryRun {
			delete(own, digest)
		}
	}
	return out, nil
}

// Policy implements [shoal.Images].
func (l library) Policy(context.Context) (shoal.Policy, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.images.policy
	p.Upstream = cmp.Or(p.Upstream, shoal.UpstreamPeersFirst)
	return p, nil
}

// SetUpstream implements [shoal.Images].
func (l library) SetUpstream(ctx context.Context, word string) (shoal.Policy, error) {
	if err := shoal.CheckUpstream(word); err != nil {
		return shoal.Policy{}, err
	}
	l.mu.Lock()
	id := shoal.RevisionID{Seq: l.images.policy.ID.Seq + 1, Author: l.self}
	l.images.policy = shoal.Policy{
		PolicyBody: shoal.PolicyBody{ID: id, Replaces: l.images.policy.Heads, Upstream: word},
		Heads:      []shoal.RevisionID{id}, Since: shoal.HLC{WallMilli: l.clock.Wall().UnixMilli()},
	}
	l.mu.Unlock()
	return l.Policy(ctx)
}

// Login implements [shoal.Images].
func (l library) Login(context.Context) (shoal.RegistryLogin, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.images.login, nil
}
