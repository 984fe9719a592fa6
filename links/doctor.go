// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Bounds of the doctor's stream: a member's checks of itself take seconds.
const (
	doctorTime  = 30 * time.Second
	doctorFrame = 16 << 10
	maxChecks   = 500
)

// DoctorSource makes this peer's checks of its own machine, and of the ways back to
// the member that asks. It must return soon after ctx ends or fn returned an error.
type DoctorSource func(ctx context.Context, asker shoal.PeerID, fn func(shoal.Check) error) error

// ServeDoctor sets who examines this machine for other members; nil: nobody.
func (l *Links) ServeDoctor(source DoctorSource) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doctor = source
}

// AskDoctor calls fn for each check that a member makes of itself and of its ways to
// this peer. ErrNotFound: no such member. ErrUnreachable: it does not answer, or the
// link broke on the way.
func (l *Links) AskDoctor(ctx context.Context, id shoal.PeerID, fn func(shoal.Check) error) error {
	p, err := peer.Decode(string(id))
	if err != nil || !l.gate.isMember(p) {
		return fmt.Errorf("doctor of peer %s: %w", id.Short(), shoal.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	s, err := l.host.NewStream(ctx, p, ProtocolDoctor)
	if err != nil {
		return fmt.Errorf("doctor of peer %s: %w: %s", id.Short(), shoal.ErrUnreachable, oneLine(err))
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	defer func() { _ = s.Reset() }() // at the end there is nothing to flush
	if err := frame.Write(s, &shoalv1.DoctorRequest{}, doctorFrame); err != nil {
		return fmt.Errorf("doctor of peer %s: %w: %s", id.Short(), shoal.ErrUnreachable, oneLine(err))
	}
	for range maxChecks {
		var reply shoalv1.DoctorReply
		if err := frame.Read(s, &reply, doctorFrame); err != nil {
			return fmt.Errorf("doctor of peer %s: link broke: %w: %s", id.Short(), shoal.ErrUnreachable, oneLine(err))
		}
		if end := reply.GetEnd(); end != nil {
			if end.GetError() == "" {
				return nil
			}
			return fmt.Errorf("doctor of peer %s: %s", id.Short(), clip(end.GetError()))
		}
		c := checkFrom(reply.GetCheck())
		c.Peer = id // nobody speaks for another
		if err := fn(c); err != nil {
			return err
		}
	}
	return fmt.Errorf("doctor of peer %s: says more than %d things", id.Short(), maxChecks)
}

func checkFrom(m *shoalv1.DoctorCheck) shoal.Check {
	c := shoal.Check{
		Area: clip(m.GetArea()), Name: clip(m.GetName()), State: shoal.CheckState(m.GetState()),
		Detail: clip(m.GetDetail()), Remedy: clip(m.GetRemedy()),
	}
	switch c.State {
	case shoal.CheckOK, shoal.CheckWarn, shoal.CheckFail, shoal.CheckSkip:
	default:
		c.State = shoal.CheckSkip // a word of a later version
	}
	return c
}

// serveDoctor answers one request.
func (l *Links) serveDoctor(ctx context.Context, s network.Stream) {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	l.mu.Lock()
	source := l.doctor
	l.mu.Unlock()
	var ask shoalv1.DoctorRequest
	err := s.SetDeadline(time.Now().Add(doctorTime))
	if err == nil {
		err = frame.Read(s, &ask, doctorFrame)
	}
	if err == nil && source == nil {
		err = errors.New("nobody examines this machine")
	}
	if err != nil {
		_ = s.Reset()
		return
	}
	end := &shoalv1.StreamError{}
	if err := source(ctx, shoal.PeerID(s.Conn().RemotePeer().String()), func(c shoal.Check) error {
		m := &shoalv1.DoctorCheck{Area: c.Area, Name: c.Name, State: string(c.State), Detail: c.Detail, Remedy: c.Remedy}
		return frame.Write(s, &shoalv1.DoctorReply{What: &shoalv1.DoctorReply_Check{Check: m}}, doctorFrame)
	}); err != nil {
		end.Error = err.Error()
	}
	if err := frame.Write(s, &shoalv1.DoctorReply{What: &shoalv1.DoctorReply_End{End: end}}, doctorFrame); err != nil {
		l.log.Debug("doctor not finished", logkey.Err, err)
		_ = s.Reset()
		return
	}
	_ = s.Close()
}
