// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shoalnet/shoal"
)

// conns returns the straight and the relayed connections between two peers.
func (p *peer) conns(o *peer) (straight, relayed []network.Conn) {
	for _, c := range p.host.Network().ConnsToPeer(o.host.ID()) {
		if _, err := c.RemoteMultiaddr().ValueForProtocol(ma.P_CIRCUIT); err == nil {
			relayed = append(relayed, c)
		} else {
			straight = append(straight, c)
		}
	}
	return straight, relayed
}

// TestRelayedCluster: when two of three can no longer reach each other, the third
// relays: nobody is taken for dead, broadcasts and records travel the circuit, too, and
// nothing that runs is touched. When they reach each other again the circuit goes.
func TestRelayedCluster(t *testing.T) {
	play(t, 77, 3, func(w *world) {
		a, b := w.peers[1], w.peers[2]
		a.deploy("web", 3)
		w.settled(10*time.Second, w.peers, map[string]int{"web": 3})
		w.cut(a, b, true)
		w.until(2*time.Minute, "a and b are linked through the relay", func() error {
			straight, relayed := a.conns(b)
			if len(straight) != 0 || len(relayed) == 0 {
				return fmt.Errorf("%d straight connections, %d relayed", len(straight), len(relayed))
			}
			for _, s := range relayed[0].GetStreams() {
				if strings.HasPrefix(string(s.Protocol()), "/meshsub/") {
					return nil
				}
			}
			return errors.New("pubsub does not use the circuit")
		})
		alive := func() error {
			for _, p := range w.peers {
				for _, o := range w.peers {
					if l := p.view().Life(o.id.Self()); o != p && l.State != shoal.LifeAlive {
						return fmt.Errorf("%d is %s to %d", o.index, l.State, p.index)
					}
				}
			}
			return nil
		}
		for range 30 {
			if err := alive(); err != nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Second)
		}
		b.deploy("more", 4)
		w.settled(10*time.Second, w.peers, map[string]int{"web": 3, "more": 4})
		w.unbroken(w.peers)
		w.agreed(w.peers)

		w.heal()
		w.until(10*time.Minute, "the straight link replaces the circuit", func() error {
			straight, relayed := a.conns(b)
			if len(straight) == 0 || len(relayed) != 0 {
				return fmt.Errorf("%d straight connections, %d relayed", len(straight), len(relayed))
			}
			return nil
		})
		time.Sleep(5 * time.Second)
		if err := alive(); err != nil {
			t.Error(err)
		}
		w.quiet(w.peers)
	}, 0)
}
