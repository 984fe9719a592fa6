// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/frame"
)

// Bounds of a stream into a container. A command may be silent for days: its holder
// says so every insidePulse, and who hears nothing for insideSilence has lost it.
const (
	insideFrame   = 64 << 10
	insideData    = 32 << 10 // of one message
	insidePulse   = 10 * time.Second
	insideSilence = 40 * time.Second
	insideOpen    = 10 * time.Second
	maxCommands   = 32 // that other members may run here at once, copies among them
)

// Inside reaches into this peer's own replicas, by the rules of shoal.Remote.
type Inside interface {
	Exec(ctx context.Context, at shoal.Target, opts shoal.ExecOptions, t shoal.Terminal) (int, error)
	CopyFrom(ctx context.Context, at shoal.Target, path string, stat func(shoal.PathStat) error, w io.Writer) error
	CopyTo(ctx context.Context, at shoal.Target, dir string, archive io.ReadCloser) error
	Usage(ctx context.Context) ([]shoal.Usage, error)
	LastWords(ctx context.Context, service string) ([]shoal.LastWords, error)
}

// ServeInside sets who reaches into this peer's replicas.
func (l *Links) ServeInside(inside Inside) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inside = inside
}

func (l *Links) insider() Inside {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inside
}

// openInside opens a stream into a container of a member and says what is asked.
func (l *Links) openInside(ctx context.Context, id shoal.PeerID, what string, by protocol.ID, start frame.Message) (network.Stream, error) {
	p, err := peer.Decode(string(id))
	if err != nil || !l.gate.isMember(p) {
		return nil, fmt.Errorf("%s: no such member: %w", what, shoal.ErrNotFound)
	}
	open, cancel := context.WithTimeout(ctx, l.cfg.DialTimeout)
	defer cancel()
	s, err := l.host.NewStream(open, p, by)
	if err == nil {
		if err = s.SetWriteDeadline(time.Now().Add(insideOpen)); err == nil {
			err = frame.Write(s, start, insideFrame)
		}
		if err == nil {
			err = s.SetWriteDeadline(time.Time{})
		}
		if err != nil {
			_ = s.Reset() // err says it all
		}
	}
	switch {
	case err == nil:
		return s, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("%s: %w: %s", what, shoal.ErrUnreachable, oneLine(err))
}

// question asks a member for one answer, of at most size bytes.
func (l *Links) question(ctx context.Context, id shoal.PeerID, what string, by protocol.ID, ask, reply frame.Message, size int) error {
	p, err := peer.Decode(string(id))
	if err != nil || !l.gate.isMember(p) {
		return fmt.Errorf("%s: no such member: %w", what, shoal.ErrNotFound)
	}
	if err = l.oneAnswer(ctx, p, by, ask, reply, size); err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("%s: %w: %s", what, shoal.ErrUnreachable, oneLine(err))
}

func (l *Links) oneAnswer(ctx context.Context, p peer.ID, by protocol.ID, ask, reply frame.Message, size int) error {
	open, cancel := context.WithTimeout(ctx, l.cfg.DialTimeout)
	defer cancel()
	s, err := l.host.NewStream(open, p, by)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	defer func() { _ = s.Reset() }() // at the end there is nothing to flush
	if err := frame.Write(s, ask, size); err != nil {
		return err
	}
	return frame.Read(s, reply, size)
}

// begun reads what is asked, which must come at once.
func begun(s network.Stream, ask frame.Message) error {
	if err := s.SetReadDeadline(time.Now().Add(insideOpen)); err != nil {
		return err
	}
	if err := frame.Read(s, ask, insideFrame); err != nil {
		return err
	}
	return s.SetReadDeadline(time.Time{})
}

// heard reads the next answer; a holder that has none says so in time.
func heard(s network.Stream, what string, answer frame.Message) error {
	err := s.SetReadDeadline(time.Now().Add(insideSilence))
	if err == nil {
		err = frame.Read(s, answer, insideFrame)
	}
	if err != nil {
		return fmt.Errorf("%s: link broke: %w: %s", what, shoal.ErrUnreachable, oneLine(err))
	}
	return nil
}

// admitFrom says whether the member at the other end may run something here, and
// counts it if so.
func (l *Links) admitFrom(s network.Stream) (Inside, error) {
	asker := shoal.PeerID(s.Conn().RemotePeer().String())
	l.mu.Lock()
	inside, desired := l.inside, l.desired
	l.mu.Unlock()
	if inside == nil {
		return nil, shoal.ErrEngineDown
	}
	var role shoal.Role
	if desired != nil { // who was linked before the records were read is not known yet
		if p, ok := desired.Peer(asker); ok {
			role = p.Role
		}
	}
	switch role {
	case shoal.RoleOperator:
	case "":
		return nil, fmt.Errorf("it does not know peer %s yet; try again in a moment: %w", asker.Short(), shoal.ErrRefused)
	default:
		return nil, fmt.Errorf("peer %s has role %q, and only operators reach into containers of others; ask on one: %w", asker.Short(), role, shoal.ErrRefused)
	}
	if l.commands.Add(1) > maxCommands {
		l.commands.Add(-1)
		return nil, fmt.Errorf("it runs %d commands for others already; try again later: %w", maxCommands, shoal.ErrRefused)
	}
	return inside, nil
}

// asking sends from several goroutines. It waits as long as it takes, for a command may
// read its input when it likes; the end of the stream ends it.
type asking struct {
	mu sync.Mutex // one message at a time
	s  network.Stream
}

func (w *asking) send(m frame.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return frame.Write(w.s, m, insideFrame)
}

// answering sends from several goroutines, and gives up on who does not read.
type answering struct {
	mu sync.Mutex // one message at a time
	s  network.Stream
}

func (w *answering) send(m frame.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.s.SetWriteDeadline(time.Now().Add(insideSilence)); err != nil {
		return err
	}
	return frame.Write(w.s, m, insideFrame)
}

// pulse tells the asker with an empty message that it goes on, and notices when nobody
// listens.
func pulse(ctx context.Context, cancel func(), out *answering, empty frame.Message) {
	tick := time.NewTicker(insidePulse)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if out.send(empty) != nil {
				cancel()
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// writer cuts what is written into pieces that fit a message.
type writer func(p []byte) error

// Write implements io.Writer.
func (w writer) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		piece := p[n:min(len(p), n+insideData)]
		if err := w(piece); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}
