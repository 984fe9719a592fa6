// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package beats

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// pull asks a connected peer for all it knows more than we do, of itself and of
// anybody, and tells it that we live. nil: the answer came to its end and is in.
func (t *Tracker) pull(ctx context.Context, id shoal.PeerID) error {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.PullTimeout)
	defer cancel()
	hello, err := t.hello()
	if err != nil {
		return err
	}
	question := &shoalv1.BeatPull{Have: t.marks(), News: []*shoalv1.BeatNews{{Packet: hello.raw}}}
	s, err := t.ask(ctx, id, question)
	if err != nil {
		return fmt.Errorf("ask %s for beats: %w", id.Short(), err)
	}
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })() // a stream that is gone is gone
	if err := t.readNews(s); err != nil {
		_ = s.Reset() // likewise
		return fmt.Errorf("read beats from %s: %w", id.Short(), err)
	}
	return s.Close()
}

// tell hands a beat to a connected peer and waits until it has taken it.
func (t *Tracker) tell(ctx context.Context, id shoal.PeerID, b *beat) error {
	s, err := t.ask(ctx, id, &shoalv1.BeatPull{News: []*shoalv1.BeatNews{{Packet: b.raw}}, TellOnly: true})
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })() // likewise
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		_ = s.Reset() // likewise
		return fmt.Errorf("no end after a beat told: %w", err)
	}
	return s.Close()
}

// ask opens a stream over a link that is there and puts a question on it.
func (t *Tracker) ask(ctx context.Context, id shoal.PeerID, question *shoalv1.BeatPull) (network.Stream, error) {
	pid, err := peer.Decode(string(id))
	if err != nil {
		return nil, err
	}
	ctx = network.WithAllowLimitedConn(network.WithNoDial(ctx, "beats"), "beats")
	s, err := t.deps.Host.NewStream(ctx, pid, Protocol)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = s.SetDeadline(deadline)
	}
	if err == nil {
		err = frame.Write(s, question, maxPull)
	}
	if err == nil {
		err = s.CloseWrite()
	}
	if err != nil {
		_ = s.Reset() // the first error is the one to tell
		return nil, err
	}
	return s, nil
}

// readNews takes in an answer to its end.
func (t *Tracker) readNews(s io.Reader) error {
	r := bufio.NewReader(io.LimitReader(s, maxAnswer))
	for {
		var news shoalv1.BeatNews
		err := frame.Read(r, &news, maxPacket+64)
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.receive(news.Packet, duration(news.AgeMillis)); err != nil {
			return err
		}
	}
}

// marks says what we have of everybody, ourselves included.
func (t *Tracker) marks() []*shoalv1.BeatMark {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := []*shoalv1.BeatMark{{
		Peer: string(t.self), BootCounter: t.deps.Boot.Counter, BootNonce: t.deps.Boot.Nonce,
		Seq: t.speech.seq, Version: t.speech.version,
	}}
	for id, c := range t.contacts {
		if !c.vital.known {
			continue
		}
		out = append(out, &shoalv1.BeatMark{
			Peer: string(id), BootCounter: c.vital.boot.Counter, BootNonce: c.vital.boot.Nonce,
			Seq: c.vital.seq, Version: c.ledger.version,
		})
	}
	return out
}

// handle serves one stream. At most 16 are served at a time and 4 a second for each
// peer; what is more is reset, and the asker asks somebody else.
func (t *Tracker) handle(s network.Stream) {
	id := shoal.PeerID(s.Conn().RemotePeer().String())
	if !t.enter(id) {
		_ = s.Reset() // refused: nothing to tell
		return
	}
	defer t.leave()
	if err := t.serveStream(s, id); err != nil {
		_ = s.Reset() // a peer that does not speak our language; it will see the reset
		return
	}
	_ = s.Close() // all is written; the other side may be gone
}

// enter takes a place for a stream of this peer, if it may ask now.
func (t *Tracker) enter(id shoal.PeerID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.contacts[id]
	may := c != nil
	if t.deps.IsMember != nil {
		may = t.deps.IsMember(id)
	}
	if id == t.self {
		may = true // a copy of us: let both find out
	}
	if !t.running || !may || c != nil && !c.asks.Allow() {
		return false
	}
	select {
	case t.places <- struct{}{}:
		t.serving.Add(1)
		return true
	default:
		return false
	}
}

// leave gives the place back.
func (t *Tracker) leave() {
	<-t.places
	t.serving.Done()
}

// serveStream reads a question and writes the answer.
func (t *Tracker) serveStream(s network.Stream, id shoal.PeerID) error {
	if err := s.SetDeadline(time.Now().Add(t.cfg.PullTimeout)); err != nil {
		return err
	}
	var q shoalv1.BeatPull
	if err := frame.Read(s, &q, maxPull); err != nil {
		return err
	}
	if len(q.Have) > maxMarks || len(q.News) > maxNews {
		return malformed("pull", "%d marks, %d news", len(q.Have), len(q.News))
	}
	for _, n := range q.News {
		if err := t.receive(n.Packet, duration(n.AgeMillis)); err != nil {
			return err
		}
	}
	if q.TellOnly {
		return nil
	}
	have := make(map[shoal.PeerID]*shoalv1.BeatMark, len(q.Have))
	for _, m := range q.Have {
		have[shoal.PeerID(m.Peer)] = m
	}
	w := bufio.NewWriter(s)
	own, err := t.answer(bootOf(have[t.self]), have[t.self].GetVersion())
	if err != nil {
		return err
	}
	left := maxAnswer
	for _, b := range append([]heardBeat{{beat: own, heard: t.deps.Clock.Mono()}}, t.newsFor(id, have)...) {
		if left -= len(b.raw) + 64; left < 0 {
			break // the asker will ask again, for less
		}
		age := t.deps.Clock.Mono() - b.heard
		if err := frame.Write(w, &shoalv1.BeatNews{Packet: b.raw, AgeMillis: millis(age)}, maxPacket+64); err != nil {
			return err
		}
	}
	return w.Flush()
}

// newsFor returns all we know more of than the asker does, sorted by peer.
func (t *Tracker) newsFor(asker shoal.PeerID, have map[shoal.PeerID]*shoalv1.BeatMark) []heardBeat {
	t.mu.Lock()
	defer t.mu.Unlock()
	ids := make([]shoal.PeerID, 0, len(t.contacts))
	for id := range t.contacts {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var out []heardBeat
	for _, id := range ids {
		c := t.contacts[id]
		mark := have[id]
		boot := bootOf(mark)
		switch {
		case !c.vital.known || boot.Counter > c.vital.boot.Counter:
		case boot.Counter < c.vital.boot.Counter:
			out = append(out, c.ledger.since(noVersion)...)
		case boot.Nonce != c.vital.boot.Nonce:
			out = append(out, c.ledger.last) // a copied identity: show the asker the other one
		case id == asker:
			if r := c.ledger.rival; r != nil {
				out = append(out, heardBeat{beat: r, heard: c.vital.heard})
			}
		case mark.GetSeq() < c.vital.seq || mark.GetVersion() < c.ledger.version:
			out = append(out, c.ledger.since(mark.GetVersion())...)
		}
	}
	return slices.DeleteFunc(out, func(b heardBeat) bool { return b.beat == nil })
}

// bootOf returns the boot a mark names; the zero one for none.
func bootOf(m *shoalv1.BeatMark) shoal.Boot {
	return shoal.Boot{Counter: m.GetBootCounter(), Nonce: m.GetBootNonce()}
}
