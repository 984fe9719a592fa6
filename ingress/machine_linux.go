// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/bridge"
)

// linux is this machine.
type linux struct{ probed func() error }

func thisMachine() machine { return linux{probed: sync.OnceValue(probe)} }

// probe says what is missing for virtual addresses. What else bridge.Probe tries makes
// names work less well, and not stop.
func probe() error {
	for _, c := range bridge.Probe() {
		if c.Needed && !c.Works {
			return c.Err
		}
	}
	return nil
}

func (l linux) able() error { return l.probed() }

func (linux) taken() ([]netip.Prefix, error) { return bridge.Taken() }

func (linux) index(device string) int {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return 0
	}
	return i.Index
}

const dnsPort = 53

func (linux) sockets(ctx context.Context, n *shoal.Network) (net.PacketConn, net.Listener, error) {
	at := netip.AddrPortFrom(n.Gateway, dnsPort)
	packets, err := bridge.ListenPacket(ctx, n.Bridge, at)
	if err != nil {
		return nil, nil, taken(err)
	}
	l, err := bridge.Listen(ctx, n.Bridge, at)
	if err != nil {
		_ = packets.Close() // nobody was told of it
		return nil, nil, taken(err)
	}
	return packets, l, nil
}

func taken(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: %w", shoal.ErrConflict, err)
	}
	return err
}

func (linux) span(deps bridge.Deps) (span, error) { return bridge.New(bridge.Config{}, deps) }
