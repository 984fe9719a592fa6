// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	p2p "github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/links"
	"github.com/shoalnet/shoal/node"
	"github.com/shoalnet/shoal/proto/blocks"
)

// wire is a member by its links and its store only: it has no engine and no beats.
type wire struct {
	id     *links.Identity
	links  *links.Links
	pubsub *pubsub.PubSub
	store  *gossip.Store
	stop   context.CancelFunc
	group  errgroup.Group
}

// openWire joins the wire with the identity and the store in dir.
func openWire(ctx context.Context, dir, ip string) (_ *wire, err error) {
	id, err := links.OpenIdentity(dir, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &wire{id: id, stop: cancel}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	clock, log := shoal.NewSystemClock(), slog.New(slog.DiscardHandler)
	cfg := links.LAN()
	cfg.Listen = []string{fmt.Sprintf("%s:%d", ip, node.DefaultPort)}
	if w.links, err = links.New(cfg, id, clock, log); err != nil {
		return nil, err
	}
	w.group.Go(func() error { return w.links.Run(ctx) })
	w.links.SetMembers(nil) // those that are remembered beside the key
	if w.pubsub, err = gossip.NewPubSub(ctx, w.links.Host()); err != nil {
		return nil, err
	}
	store := gossip.LAN()
	store.Dir, store.Cluster = filepath.Join(dir, "store"), id.Cluster()
	w.store, err = gossip.New(store, gossip.Deps{
		Host: w.links.Host(), PubSub: w.pubsub, Signer: signer{id}, Sequence: id.Sequence(), Clock: clock, Log: log,
		Chain: id.Chain, VerifyChain: links.VerifyChain,
	})
	if err != nil {
		return nil, err
	}
	w.group.Go(func() error { return w.store.Run(ctx) })
	select {
	case <-w.store.Ready():
		return w, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *wire) close() error {
	w.stop()
	err := w.group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, w.id.Close())
}

// fetchBlock asks a peer for everything and returns the last block it sends.
func (w *wire) fetchBlock(ctx context.Context, from string) (blocks.Block, error) {
	var none blocks.Block
	id, err := p2p.Decode(from)
	if err != nil {
		return none, fmt.Errorf("read peer ID: %w", err)
	}
	s, err := w.links.Host().NewStream(ctx, id, gossip.SyncProtocol)
	if err != nil {
		return none, fmt.Errorf("open a sync stream: %w", err)
	}
	defer func() { _ = s.Reset() }() // what else it would send is not wanted
	if err := blocks.Write(s, &blocks.Request{Cluster: w.id.Cluster()}, 1<<20); err != nil {
		return none, err
	}
	var reply blocks.Reply
	if err := blocks.Read(s, &reply, 1<<20); err != nil {
		return none, err
	}
	if reply.State != blocks.StateFollows {
		return none, fmt.Errorf("the peer answered state %d, want blocks", reply.State)
	}
	for {
		var batch blocks.Batch
		if err := blocks.Read(s, &batch, 4<<20); err != nil {
			return none, err
		}
		if batch.End && len(batch.Blocks) > 0 {
			return batch.Blocks[len(batch.Blocks)-1], nil
		}
		if batch.End {
			return none, errors.New("the peer sent no block")
		}
	}
}

// push publishes blocks as if they were new.
func (w *wire) push(list ...blocks.Block) error {
	return w.pubsub.Publish(gossip.TopicName(w.id.Cluster()), //nolint:staticcheck // the store holds the topic's handle
		blocks.Marshal(&blocks.Push{Blocks: list, Chains: []blocks.Chain{{Peer: w.id.Self(), Envelopes: w.id.Chain()}}}))
}

// signer signs with the identity; the store asks for one, though nothing is written.
type signer struct{ id *links.Identity }

func (s signer) PeerID() shoal.PeerID { return s.id.Self() }

func (s signer) Sign(message []byte) ([]byte, error) { return s.id.Sign(message), nil }

// readStore opens a database without any network and says what it holds.
func readStore(ctx context.Context, dir string, cluster shoal.PeerID) (digest shoal.Digest, records int, err error) {
	id, err := links.OpenIdentity("", nil) // a reader of its own: nothing is written
	if err != nil {
		return digest, 0, err
	}
	cfg := gossip.LAN()
	cfg.Dir, cfg.Cluster = dir, cluster
	store, err := gossip.New(cfg, gossip.Deps{
		Signer: signer{id}, Sequence: id.Sequence(), Clock: shoal.NewSystemClock(), Log: slog.New(slog.DiscardHandler),
		Chain: id.Chain, VerifyChain: links.VerifyChain,
	})
	if err != nil {
		return digest, 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	select {
	case <-store.Ready():
		digest, records = store.Digest(), store.Stats().Records
		cancel()
		err = <-done
	case err = <-done:
		cancel()
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return digest, records, errors.Join(err, id.Close())
}
