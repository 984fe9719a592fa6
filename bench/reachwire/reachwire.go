// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package reachwire is what bench and bench-reach have to agree on: where the parts
// answer, what the replicas are asked, and the libp2p hosts of both.
package reachwire

import (
	"fmt"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

// What replicas answer, and with how many bytes. Sizes are of bodies.
const (
	Small      = "/small"
	SmallBytes = 1000
	Bulk       = "/bulk"
	BulkBytes  = 256 << 20

	// Piece is what replicas and raw streams send at once, in bytes.
	Piece = 128 << 10
)

// Raw is the protocol of a stream on which a peer sends until it is reset.
const Raw protocol.ID = "/shoal-bench/raw"

// Addresses are where a part answers; each has what it has.
type Addresses struct {
	Replicas []string `json:"replicas,omitempty"`
	Local    string   `json:"local,omitempty"`  // door to replicas of the same peer
	Remote   string   `json:"remote,omitempty"` // door to those of the other
	Host     string   `json:"host,omitempty"`   // a libp2p multiaddress with the peer's identity
}

// NewHost makes a host on loopback with what links has for members on TCP: TLS, no relays.
// It has none of links' limits, which the load of one machine would meet.
func NewHost() (host.Host, error) {
	h, err := libp2p.New(
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery(),
	)
	if err != nil {
		return nil, fmt.Errorf("make host: %w", err)
	}
	return h, nil
}
