// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal/bench/figures"
	"github.com/shoalnet/shoal/bench/reachwire"
)

const noteReach = "3 HTTP servers that answer with 1,000 bytes, asked straight (one of them), through a published port at the peer that holds them (local) and at another (remote: " +
	"two libp2p hosts on loopback, TCP and TLS), and through HAProxy (mode tcp, roundrobin). Load, servers, each peer and HAProxy are processes of their own on this one machine, so a hop " +
	"more takes its processor time from everybody. All ways in turn, several rounds; a rate or a speed is the median of its rounds, times are of all requests. " +
	"32 clients ask without a pause, over a connection each that is kept, or over a new one for each request; or 500 requests a second are offered, which leaves the machine idle most of the time. " +
	"Memory: what a new process took more once so many connections were open and had asked once (resident, nothing collected for it); remote: at the peer that was asked, and at the holder."

// The ways to the replicas.
const (
	viaDirect  = "direct"
	viaLocal   = "local"
	viaRemote  = "remote"
	viaHAProxy = "HAProxy"
	viaRaw     = "raw stream" // a bare libp2p stream from the holder, read by the load itself
)

const (
	reachClients = 32
	reachRate    = 500 // requests a second that are offered
)

// reachTime is how long requests are sent for each figure.
type reachTime struct {
	rounds int
	each   time.Duration
}

// way is an address that leads to the replicas.
type way struct{ name, address string }

// found is what was taken of one way.
type found struct{ perSecond, took figures.Series }

// loads are the ways to ask, in the order of the table.
var loads = []struct {
	name  string
	asked bool // as fast as it goes: the rate says something
	load  load
}{
	{"32 kept", true, keptLoad(reachClients)},
	{"32 new each", true, eachLoad(reachClients)},
	{"500/s", false, pacedLoad(reachRate)},
}

// reaching measures what a published port costs.
func (b *bench) reaching(ctx context.Context) error {
	s, err := b.newStreet(ctx)
	if err != nil {
		return err
	}
	defer s.stop()
	for _, l := range loads {
		got, err := b.askAll(ctx, s, l.load)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		if l.asked {
			b.addRates(l.name+", requests a second", got)
		}
		b.addTimes(l.name, got)
	}
	if err := b.bulks(ctx, s); err != nil {
		return fmt.Errorf("bulk: %w", err)
	}
	if s.proxy == nil {
		b.add(figures.NotMeasured("reach", viaHAProxy, 0, errNoHAProxy.Error()))
	}
	return b.memories(ctx, s)
}

// askAll sends a load every way, again and again: what else the machine does meanwhile
// meets all of them alike.
func (b *bench) askAll(ctx context.Context, s *street, ask load) (map[string]*found, error) {
	got := map[string]*found{}
	ways := s.ways()
	for round := range b.reach.rounds {
		for i := range ways {
			w := ways[(round+i)%len(ways)]
			if got[w.name] == nil {
				got[w.name] = &found{}
			}
			f := got[w.name]
			perSecond, err := ask(ctx, w.address, b.reach.each, &f.took)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			f.perSecond.Add(perSecond)
		}
	}
	return got, nil
}

// rateRow makes a row of rates, whose percentiles are of rounds and say nothing.
func rateRow(what string, s *figures.Series, unit figures.Unit) figures.Row {
	row := figures.NewRow("reach", what, 0, s, unit)
	row.P99 = figures.Figure{}
	return row
}

// addRates adds requests a second; more is better.
func (b *bench) addRates(what string, got map[string]*found) {
	series := map[string]*figures.Series{}
	for name, f := range got {
		series[name] = &f.perSecond
	}
	b.addSpeeds(what, series, figures.Plain)
}

// addSpeeds adds what is better the more it is: all beside the direct way, but the local
// one beside HAProxy, if there is one.
func (b *bench) addSpeeds(what string, got map[string]*figures.Series, unit figures.Unit) {
	middle := func(name string) figures.Figure { return figures.Of(got[name].At(50), unit) }
	row := func(name, beside string) figures.Row {
		r := rateRow(what+": "+name, got[name], unit)
		if beside != "" {
			r = r.Against(beside, middle(beside))
		}
		return r
	}
	b.add(row(viaDirect, ""))
	if got[viaHAProxy] == nil {
		b.add(row(viaLocal, viaDirect))
	} else {
		near := row(viaLocal, viaHAProxy)
		b.add(row(viaHAProxy, viaDirect), near.Aims("at least 0.8 of it", near.Ratio.Value >= 0.8))
	}
	if got[viaRaw] == nil {
		b.add(row(viaRemote, viaDirect))
		return
	}
	far := row(viaRemote, viaRaw)
	b.add(row(viaRaw, viaDirect), far.Aims("at least 0.6 of it", far.Ratio.Value >= 0.6))
}

// addTimes adds what a request takes.
func (b *bench) addTimes(what string, got map[string]*found) {
	base := &got[viaDirect].took
	b.add(figures.NewRow("reach", what+", a request: "+viaDirect, 0, base, figures.Seconds))
	for _, name := range []string{viaHAProxy, viaLocal, viaRemote} {
		if got[name] == nil {
			continue
		}
		row := figures.NewRow("reach", what+", a request: "+name, 0, &got[name].took, figures.Seconds).
			Against(viaDirect, figures.Of(base.At(50), figures.Seconds))
		if name == viaLocal {
			row = row.Aims("at most 1.1", row.Ratio.Value <= 1.1)
		}
		b.add(row)
	}
}

// bulks measures one large answer every way, and a raw stream.
func (b *bench) bulks(ctx context.Context, s *street) error {
	h, err := reachwire.NewHost()
	if err != nil {
		return err
	}
	defer h.Close() //nolint:errcheck // nothing is left to lose
	info, err := peer.AddrInfoFromString(s.holder.Host)
	if err != nil {
		return err
	}
	if err := h.Connect(ctx, *info); err != nil {
		return err
	}
	stream := func() (float64, error) {
		in, err := h.NewStream(ctx, info.ID, reachwire.Raw)
		if err != nil {
			return 0, err
		}
		defer in.Reset() //nolint:errcheck // all that was wanted has come
		return drain(in, reachwire.BulkBytes)
	}
	got := map[string]*figures.Series{viaRaw: {}}
	for range b.reach.rounds {
		for _, w := range s.ways() {
			if got[w.name] == nil {
				got[w.name] = &figures.Series{}
			}
			speed, err := bulk(ctx, w.address)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			got[w.name].Add(speed)
		}
		speed, err := stream()
		if err != nil {
			return err
		}
		got[viaRaw].Add(speed)
	}
	b.addSpeeds("256 MiB, a second", got, figures.Bytes)
	return nil
}
