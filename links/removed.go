// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// removalTime is how long it may take to tell a peer that it was removed.
const removalTime = 5 * time.Second

// RemovalSink takes word that this peer was removed: the admission chain of who did
// it, then the removal, as signed envelopes that nobody has verified yet.
type RemovalSink func(ctx context.Context, envelopes [][]byte) error

// ServeRemoval sets who takes such word. A removed peer's links are cut, so the
// records would never tell it.
func (l *Links) ServeRemoval(sink RemovalSink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removed = sink
}

// RemoverOf returns who removed a peer, "" if nobody did. Only its own admission takes
// the place of a removal.
func RemoverOf(d *shoal.Desired, id shoal.PeerID) shoal.PeerID {
	p, ok := d.Peer(id)
	if !ok || !p.Removed {
		return ""
	}
	rec, err := proto.DecodeRecord(p.Removal)
	if err != nil {
		return "" // the fold took it from a record: it can be read
	}
	return rec.Author
}

// tell calls start for each connection whose peer is to be told.
func (l *Links) tell(start func(network.Conn)) {
	for _, c := range l.host.Network().Conns() {
		if l.gate.mustTell(c) {
			start(c)
		}
	}
}

// tellRemoved tells a peer that it was removed, and then ends the link of a former
// member. On a newer connection it may be about to join: its time as a stranger bounds
// that one.
func (l *Links) tellRemoved(ctx context.Context, c network.Conn) {
	ctx, cancel := context.WithTimeout(ctx, removalTime)
	defer cancel()
	p := c.RemotePeer()
	id := shoal.PeerID(p.String())
	if err := l.sendRemoval(ctx, p, id); err != nil {
		l.log.Debug("removed peer not told", logkey.Peer, id.Short(), logkey.Err, err)
	}
	if l.gate.wasLink(c) {
		_ = c.Close() // it is gone either way
	}
}

func (l *Links) sendRemoval(ctx context.Context, p peer.ID, id shoal.PeerID) error {
	l.mu.Lock()
	desired, door := l.desired, l.door
	l.mu.Unlock()
	if desired == nil || door == nil {
		return shoal.ErrNotMember
	}
	m, ok := desired.Peer(id)
	if !ok || !m.Removed {
		return fmt.Errorf("peer %s: %w", id.Short(), shoal.ErrNotFound)
	}
	rec, err := proto.DecodeRecord(m.Removal)
	if err != nil {
		return err
	}
	s, err := l.host.NewStream(network.WithNoDial(ctx, "removed"), p, ProtocolRemoved)
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }() // all that was said was answered, or will not be
	if err := s.SetDeadline(time.Now().Add(removalTime)); err != nil {
		return err
	}
	if err := frame.Write(s, &shoalv1.Removal{Chain: door.chains.Chain(rec.Author), Record: m.Removal}, joinFrame); err != nil {
		return err
	}
	_, err = s.Read(make([]byte, 1)) // it closes when it has taken it
	if err == io.EOF {               //nolint:errorlint // streams return it unwrapped
		return nil
	}
	return err
}

// serveRemoval is the side of who was removed.
func (l *Links) serveRemoval(ctx context.Context, s network.Stream) {
	ctx, cancel := context.WithTimeout(ctx, removalTime)
	defer cancel()
	l.mu.Lock()
	sink := l.removed
	l.mu.Unlock()
	var word shoalv1.Removal
	err := s.SetDeadline(time.Now().Add(removalTime))
	if err == nil {
		err = frame.Read(s, &word, joinFrame)
	}
	if err == nil && (sink == nil || len(word.GetChain()) > maxChain) {
		err = shoal.ErrRefused
	}
	if err == nil {
		err = sink(ctx, append(word.GetChain(), word.GetRecord()))
	}
	if err != nil {
		l.log.Debug("word of a removal not taken", logkey.Peer, s.Conn().RemotePeer().String(), logkey.Err, err)
		_ = s.Reset() // the other side sees that it failed
		return
	}
	_ = s.Close() // that is the answer
}
