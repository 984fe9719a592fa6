// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
)

// newHost makes the libp2p host: TCP with TLS or Noise, QUIC, and circuits through
// members. It does not listen yet.
//
// Of libp2p's own ways to find out whether a peer can be reached it has none: AutoNAT,
// v1 and v2, dials back from a second host with a throw-away key, whom a gate for
// members refuses; and addresses that others observe it believes only from four of
// them, more than many clusters have. See relay.go and punch.go for what is done instead.
func newHost(cfg Config, id *Identity, gate *gate) (host.Host, error) {
	limits, err := resources()
	if err != nil {
		return nil, fmt.Errorf("make resource limits: %w", err)
	}
	// Members are protected from trimming; the marks bound what strangers can pile up.
	conns, err := connmgr.NewConnManager(512, 1024, connmgr.WithGracePeriod(20*time.Second))
	if err != nil {
		return nil, fmt.Errorf("make connection manager: %w", err)
	}
	advertise, err := expandAddrs("advertise", cfg.Advertise)
	if err != nil {
		return nil, err
	}
	listen, err := cfg.listenAddrs()
	if err != nil {
		return nil, err
	}
	mapping := func(*libp2p.Config) error { return nil }
	if cfg.mapsPort(listen) {
		mapping = libp2p.NATManager(basichost.NewNATManager)
		if cfg.nat != nil {
			mapping = libp2p.NATManager(cfg.nat)
		}
	}
	h, err := libp2p.New(
		mapping,
		libp2p.Identity(id.Key()),
		libp2p.NoListenAddrs,
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Security(noise.ID, noise.New),
		libp2p.ConnectionGater(gate),
		libp2p.ResourceManager(limits),
		libp2p.ConnectionManager(conns),
		libp2p.SwarmOpts(swarm.WithDialRanker(preferTCP)),
		libp2p.UserAgent("shoald/"+cfg.Version),
		libp2p.AddrsFactory(func(own []ma.Multiaddr) []ma.Multiaddr {
			if len(advertise) > 0 {
				return advertise
			}
			return pick(gate.loopback, maxAddrs, withoutCircuits(own))
		}),
		// A dead peer must not convince us that UDP or IPv6 does not work at all.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
		libp2p.EnableRelay(), // only the means to use one
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.Ping(false), // ours is for members only
		libp2p.DisableMetrics(),
	)
	if err != nil {
		return nil, fmt.Errorf("make host: %w", err)
	}
	return h, nil
}

// resources sets every limit by hand: libp2p's defaults (8 connections and one new
// one in 5 s per address) look like network faults on one host or behind one NAT
// (FACTS section 3).
func resources() (network.ResourceManager, error) {
	const mib = 1 << 20
	limits := rcmgr.PartialLimitConfig{
		System:    rcmgr.ResourceLimits{Conns: 4096, ConnsInbound: 4096, ConnsOutbound: 4096, FD: 4096, Streams: 65536, StreamsInbound: 65536, StreamsOutbound: 65536, Memory: 1024 * mib},
		Transient: rcmgr.ResourceLimits{Conns: 512, ConnsInbound: 256, ConnsOutbound: 512, FD: 512, Streams: 4096, StreamsInbound: 4096, StreamsOutbound: 4096, Memory: 128 * mib},
		// One peer must not take the whole. Each connection that it carries to a replica here is
		// a stream; ingress/carry lets one peer have 8,192 of those.
		PeerDefault: rcmgr.ResourceLimits{Conns: 32, ConnsInbound: 32, ConnsOutbound: 32, FD: 32, Streams: 20480, StreamsInbound: 10240, StreamsOutbound: 10240, Memory: 256 * mib},
		// A circuit is two streams. What the copying buffers hold is counted here, too.
		Service: map[string]rcmgr.ResourceLimits{
			relay.ServiceName: {Streams: 4 * maxCircuits, StreamsInbound: 2 * maxCircuits, StreamsOutbound: 2 * maxCircuits, Memory: 2 * maxCircuits * (2*relayBuffer + 8<<10)},
		},
		ServicePeer: map[string]rcmgr.ResourceLimits{
			relay.ServiceName: {Streams: 4 * peerCircuits, StreamsInbound: 2 * peerCircuits, StreamsOutbound: 2 * peerCircuits, Memory: 2 * peerCircuits * (2*relayBuffer + 8<<10)},
		},
		Protocol: map[protocol.ID]rcmgr.ResourceLimits{
			ProtocolJoin: {Streams: 32, StreamsInbound: 16, StreamsOutbound: 16, Memory: 32 * mib},
		},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{
			ProtocolJoin:    {Streams: 8, StreamsInbound: 4, StreamsOutbound: 4, Memory: 8 * mib},
			ProtocolDoctor:  {Streams: 8, StreamsInbound: 4, StreamsOutbound: 4, Memory: 8 * mib},
			ProtocolRemoved: {Streams: 4, StreamsInbound: 2, StreamsOutbound: 2, Memory: mib},
			ProtocolPing:    {Streams: 64, StreamsInbound: 32, StreamsOutbound: 32, Memory: 16 * mib},
			ProtocolLogs:    {Streams: 512, StreamsInbound: 256, StreamsOutbound: 256, Memory: 64 * mib},
			ProtocolUsage:   {Streams: 32, StreamsInbound: 16, StreamsOutbound: 16, Memory: 32 * mib},
			ProtocolWords:   {Streams: 32, StreamsInbound: 16, StreamsOutbound: 16, Memory: 16 * mib},
			ProtocolCopy:    {Streams: 64, StreamsInbound: 32, StreamsOutbound: 32, Memory: 64 * mib},
			ProtocolExec:    {Streams: 128, StreamsInbound: 64, StreamsOutbound: 64, Memory: 64 * mib},
		},
	}.Build(rcmgr.InfiniteLimits)
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: 1024}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 64, ConnCount: 1024}, {PrefixLength: 48, ConnCount: 4096}},
		),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: rate.Limit{RPS: 100, Burst: 1024}}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 64, Limit: rate.Limit{RPS: 100, Burst: 1024}}},
				GracePeriod:      time.Minute,
			},
		}),
	)
}
