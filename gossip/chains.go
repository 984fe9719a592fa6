// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/shoalnet/shoal"
	codec "github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/proto/blocks"
)

// chains knows the admission chain of every author we accepted a block of. A chain
// once verified holds for ever: what ends a member's pen is the fold's business, so
// that intake depends on nothing that changes. Safe for concurrent use.
type chains struct {
	cluster shoal.PeerID
	verify  func(cluster, peer shoal.PeerID, chain [][]byte) (shoal.Role, error)
	checks  *checks

	mu    sync.RWMutex
	known map[shoal.PeerID][][]byte // guarded by mu
	fresh []blocks.Chain            // guarded by mu; learned and not yet on disk
}

func newChains(cfg *Config, deps *Deps, checks *checks) *chains {
	return &chains{cluster: cfg.Cluster, verify: deps.VerifyChain, checks: checks, known: map[shoal.PeerID][][]byte{}}
}

// admits reports whether the peer's blocks may come in.
func (c *chains) admits(peer shoal.PeerID) bool { return peer == c.cluster || c.of(peer) != nil }

// of returns a peer's chain, nil if none is known.
func (c *chains) of(peer shoal.PeerID) [][]byte {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.known[peer]
}

// offers are chains that came beside blocks, not verified yet.
type offers map[shoal.PeerID]blocks.Chain

func offered(list []blocks.Chain) offers {
	out := make(offers, len(list))
	for _, c := range list {
		out[c.Peer] = c
	}
	return out
}

// errUnknownAuthor: no admission chain is known, and none came along.
var errUnknownAuthor = errors.New("no admission chain is known")

// admit returns nil if the peer's blocks may come in, by a chain known or offered.
func (c *chains) admit(peer shoal.PeerID, came offers) error {
	if c.admits(peer) {
		return nil
	}
	chain, ok := came[peer]
	if !ok {
		return errUnknownAuthor
	}
	return c.learn(chain)
}

// learn verifies a chain and keeps it, and with it those of the peers in it.
func (c *chains) learn(chain blocks.Chain) error {
	if c.admits(chain.Peer) {
		return nil
	}
	if _, err := c.verify(c.cluster, chain.Peer, chain.Envelopes); err != nil {
		return err
	}
	found := make([]blocks.Chain, 0, len(chain.Envelopes))
	for i, raw := range chain.Envelopes { // every beginning of a good chain is a good chain
		rec, err := codec.DecodeRecord(raw)
		if err != nil {
			return fmt.Errorf("link %d: %w", i, err)
		}
		found = append(found, blocks.Chain{Peer: shoal.PeerID(rec.Name), Envelopes: chain.Envelopes[:i+1]})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range found {
		if c.known[f.Peer] == nil {
			c.known[f.Peer] = f.Envelopes
			c.fresh = append(c.fresh, f)
		}
	}
	return nil
}

// unsaved returns the chains to put on disk; saved takes them off the list.
func (c *chains) unsaved() []blocks.Chain {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Clone(c.fresh)
}

func (c *chains) saved(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh = slices.Clone(c.fresh[n:])
}

// save writes the unsaved chains to rows and returns them.
func (c *chains) save(ctx context.Context, rows ds.Write) ([]blocks.Chain, error) {
	list := c.unsaved()
	for i := range list {
		if err := rows.Put(ctx, chainSpace.ChildString(string(list[i].Peer)), blocks.Marshal(&list[i])); err != nil {
			return nil, fmt.Errorf("save admission chain: %w", err)
		}
	}
	return list, nil
}

// load reads the chains on disk, verifying them again: they decide who may write.
func (c *chains) load(ctx context.Context, rows ds.Read) error {
	res, err := rows.Query(ctx, query.Query{Prefix: chainSpace.String()})
	if err != nil {
		return fmt.Errorf("read admission chains: %w", err)
	}
	list, err := res.Rest()
	if err != nil {
		return fmt.Errorf("read admission chains: %w", err)
	}
	for _, row := range list {
		var chain blocks.Chain
		if err := blocks.Unmarshal(row.Value, &chain); err != nil {
			return fmt.Errorf("%w: admission chain %s: %w", errTorn, row.Key, err)
		}
		if err := c.learn(chain); err != nil {
			return fmt.Errorf("%w: admission chain %s: %w", errTorn, row.Key, err)
		}
	}
	c.saved(len(c.unsaved()))
	return nil
}

// authors returns the chains of a block's authors that are not in sent yet, and
// notes them there.
func (c *chains) authors(b *block, sent map[shoal.PeerID]bool) []blocks.Chain {
	var out []blocks.Chain
	for _, el := range b.delta.Elements {
		_, _, author, _, err := codec.ParseKey(el.Key)
		if err != nil || sent[author] {
			continue
		}
		sent[author] = true
		if chain := c.of(author); chain != nil { // the cluster key has none
			out = append(out, blocks.Chain{Peer: author, Envelopes: chain})
		}
	}
	return out
}
