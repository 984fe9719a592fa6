// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Bounds of asking for what replicas use. A reading takes an engine about a second.
const (
	usageFrame   = 1 << 20
	usageTime    = 15 * time.Second
	maxMeasuring = 8 // askers at once
	maxMeasured  = 10_000
)

// Usage implements shoal.Remote.
func (l *Links) Usage(ctx context.Context, id shoal.PeerID) ([]shoal.Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, usageTime)
	defer cancel()
	what := fmt.Sprintf("usage of peer %s", id.Short())
	if id == l.id.Self() {
		inside := l.insider()
		if inside == nil {
			return nil, fmt.Errorf("%s: %w", what, shoal.ErrEngineDown)
		}
		return inside.Usage(ctx)
	}
	var reply shoalv1.UsageReply
	if err := l.question(ctx, id, what, ProtocolUsage, &shoalv1.UsageRequest{}, &reply, usageFrame); err != nil {
		return nil, err
	}
	if err := errorFrom(what, reply.GetError()); err != nil {
		return nil, err
	}
	return usageFrom(what, &reply)
}

// usageFrom reads a reply; it refuses what no peer says.
func usageFrom(what string, reply *shoalv1.UsageReply) ([]shoal.Usage, error) {
	if n := len(reply.GetReplicas()); n > maxMeasured {
		return nil, fmt.Errorf("%s: it tells of %d replicas, at most %d are read", what, n, maxMeasured)
	}
	var out []shoal.Usage
	for _, r := range reply.GetReplicas() {
		u := shoal.Usage{CPUMilli: r.GetCpuMilli(), MemBytes: r.GetMemBytes()}
		if len(r.GetReplica()) != len(u.Replica) || u.CPUMilli < 0 || u.MemBytes < 0 {
			return nil, fmt.Errorf("%s: %w", what, errors.New("it tells of no replica, or of less than nothing"))
		}
		copy(u.Replica[:], r.GetReplica())
		out = append(out, u)
	}
	return out, nil
}

// serveUsage measures this peer's replicas for another member.
func (l *Links) serveUsage(ctx context.Context, s network.Stream) {
	ctx, cancel := context.WithTimeout(ctx, usageTime)
	defer cancel()
	var ask shoalv1.UsageRequest
	err := s.SetDeadline(time.Now().Add(usageTime))
	if err == nil {
		err = frame.Read(s, &ask, usageFrame)
	}
	if err == nil {
		err = frame.Write(s, l.measure(ctx), usageFrame)
	}
	if err != nil {
		l.log.Debug("usage not told", logkey.Err, err)
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

func (l *Links) measure(ctx context.Context) *shoalv1.UsageReply {
	defer l.measuring.Add(-1)
	inside := l.insider()
	var all []shoal.Usage
	err := shoal.ErrEngineDown
	switch {
	case l.measuring.Add(1) > maxMeasuring:
		err = fmt.Errorf("it measures for %d others already; try again: %w", maxMeasuring, shoal.ErrRefused)
	case inside != nil:
		all, err = inside.Usage(ctx)
	}
	reply := &shoalv1.UsageReply{Error: streamError(err)}
	for _, u := range all[:min(len(all), maxMeasured)] {
		reply.Replicas = append(reply.Replicas, &shoalv1.ReplicaUsage{Replica: u.Replica[:], CpuMilli: u.CPUMilli, MemBytes: u.MemBytes})
	}
	return reply
}
