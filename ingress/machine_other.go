// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package ingress

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/bridge"
)

// other is a machine whose engine has its bridges elsewhere.
type other struct{}

func thisMachine() machine { return other{} }

var errNotLinux = errors.New("the engine's bridges are not on this machine: names need Linux")

func (other) able() error { return errNotLinux }

func (other) taken() ([]netip.Prefix, error) { return nil, nil }

func (other) index(string) int { return 0 }

func (other) sockets(context.Context, *shoal.Network) (net.PacketConn, net.Listener, error) {
	return nil, nil, errNotLinux
}

func (other) span(bridge.Deps) (span, error) { return nil, errNotLinux }
