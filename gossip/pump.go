// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"fmt"
	"log/slog"

	crdt "github.com/ipfs/go-ds-crdt"

	"github.com/shoalnet/shoal/proto/blocks"
)

// pump is go-ds-crdt's broadcaster, used as a way in: it asks for the next heads
// only when it has merged the last, so hand knows when that is.
type pump struct {
	asked chan struct{}
	heads chan []byte
	ready bool // asked was received and heads not sent; writer goroutine only
}

var _ crdt.Broadcaster = (*pump)(nil)

func newPump() *pump { return &pump{asked: make(chan struct{}), heads: make(chan []byte)} }

// hand gives heads to go-ds-crdt and returns when it is done with them.
func (p *pump) hand(ctx context.Context, cids [][]byte) error {
	if err := p.await(ctx); err != nil {
		return err
	}
	select {
	case p.heads <- blocks.Marshal(&blocks.Heads{CIDs: cids}):
		p.ready = false
	case <-ctx.Done():
		return ctx.Err()
	}
	return p.await(ctx)
}

func (p *pump) await(ctx context.Context) error {
	if p.ready {
		return nil
	}
	select {
	case <-p.asked:
		p.ready = true
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Next implements [crdt.Broadcaster].
func (p *pump) Next(ctx context.Context) ([]byte, error) {
	select {
	case p.asked <- struct{}{}:
	case <-ctx.Done():
		return nil, crdt.ErrNoMoreBroadcast
	}
	select {
	case raw := <-p.heads:
		return raw, nil
	case <-ctx.Done():
		return nil, crdt.ErrNoMoreBroadcast
	}
}

// Broadcast implements [crdt.Broadcaster]. The writer pushes blocks itself, after
// they are on disk.
func (p *pump) Broadcast(context.Context, []byte) error { return nil }

// crdtLog passes go-ds-crdt's words on, its news as debug.
type crdtLog struct{ log *slog.Logger }

func (l crdtLog) say(level slog.Level, args ...any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "go-ds-crdt: "+fmt.Sprint(args...))
	}
}

func (l crdtLog) sayf(level slog.Level, format string, args ...any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "go-ds-crdt: "+fmt.Sprintf(format, args...))
	}
}

func (l crdtLog) Debug(args ...any)            { l.say(slog.LevelDebug, args...) }
func (l crdtLog) Debugf(f string, args ...any) { l.sayf(slog.LevelDebug, f, args...) }
func (l crdtLog) Info(args ...any)             { l.say(slog.LevelDebug, args...) }
func (l crdtLog) Infof(f string, args ...any)  { l.sayf(slog.LevelDebug, f, args...) }
func (l crdtLog) Warn(args ...any)             { l.say(slog.LevelWarn, args...) }
func (l crdtLog) Warnf(f string, args ...any)  { l.sayf(slog.LevelWarn, f, args...) }
func (l crdtLog) Error(args ...any)            { l.say(slog.LevelWarn, args...) }
func (l crdtLog) Errorf(f string, args ...any) { l.sayf(slog.LevelWarn, f, args...) }
func (l crdtLog) Fatal(args ...any)            { panic("go-ds-crdt: " + fmt.Sprint(args...)) }
func (l crdtLog) Fatalf(f string, args ...any) { panic("go-ds-crdt: " + fmt.Sprintf(f, args...)) }
func (l crdtLog) Panic(args ...any)            { panic("go-ds-crdt: " + fmt.Sprint(args...)) }
func (l crdtLog) Panicf(f string, args ...any) { panic("go-ds-crdt: " + fmt.Sprintf(f, args...)) }
