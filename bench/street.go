// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"strings"
)

// street is what stands between the load and the replicas.
type street struct {
	replicas, here, holder, proxy *part // proxy: nil where there is no HAProxy
	parts                         []*part
}

func (s *street) stop() {
	for _, p := range s.parts {
		p.stop()
	}
}

// add takes a part that was started, to end it.
func (s *street) add(p *part, err error) (*part, error) {
	if err == nil {
		s.parts = append(s.parts, p)
	}
	return p, err
}

func (b *bench) newStreet(ctx context.Context) (s *street, err error) {
	s = &street{}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.replicas, err = s.add(startReach(ctx, "replicas")); err != nil {
		return nil, err
	}
	if s.holder, err = s.add(s.peer(ctx, "")); err != nil {
		return nil, err
	}
	if s.here, err = s.add(s.peer(ctx, s.holder.Host)); err != nil {
		return nil, err
	}
	s.proxy, err = s.add(startHAProxy(ctx, b.dir, s.replicas.Replicas))
	if err != nil && !errors.Is(err, errNoHAProxy) {
		return nil, err
	}
	return s, nil
}

// peer starts one that holds the replicas, and knows that holder holds them, too.
func (s *street) peer(ctx context.Context, holder string) (*part, error) {
	return startReach(ctx, "peer", "-replicas", strings.Join(s.replicas.Replicas, ","), "-holder", holder)
}

func (s *street) ways() []way {
	out := []way{{viaDirect, s.replicas.Replicas[0]}, {viaLocal, s.here.Local}, {viaRemote, s.here.Remote}}
	if s.proxy != nil {
		out = append(out, way{viaHAProxy, s.proxy.Local})
	}
	return out
}
