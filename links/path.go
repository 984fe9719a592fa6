// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"fmt"
	"math/bits"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shoalnet/shoal"
)

// Path is how a member is reached: by the connection that new streams take.
type Path struct {
	Kind      string        // direct; punched: through routers that let nobody in; relayed; "": there is no link
	Via       shoal.PeerID  // the relay
	Transport string        // tcp or quic, to the relay if there is one
	RTT       time.Duration // of the last ping that was answered; 0: none was
	Pings     int           // of the last 20 over this or former links
	Lost      int           // of those: not answered in time
}

// Kinds of Path.
const (
	pathDirect  = "direct"
	pathPunched = "punched"
	pathRelayed = "relayed"
)

// Text says it in words; name names the relay.
func (p Path) Text(name func(shoal.PeerID) string) string {
	switch p.Kind {
	case "":
		return ""
	case pathRelayed:
		return fmt.Sprintf("relayed by %s, %s", name(p.Via), p.Transport)
	}
	return p.Kind + ", " + p.Transport
}

// Path returns how a member is reached now.
func (l *Links) Path(id shoal.PeerID) Path {
	p, err := peer.Decode(string(id))
	if err != nil || !l.gate.isMember(p) {
		return Path{}
	}
	l.mu.Lock()
	out := l.pings[p].path()
	punched := l.punched[p]
	l.mu.Unlock()
	straight, relayed := l.open(p)
	switch {
	case len(straight) > 0:
		out.Kind, out.Transport = pathDirect, transportOf(straight[0].RemoteMultiaddr())
		if punched {
			out.Kind = pathPunched
		}
	case len(relayed) > 0:
		at := relayed[0].RemoteMultiaddr()
		relay, _ := relayOf(at)
		out.Kind, out.Via, out.Transport = pathRelayed, shoal.PeerID(relay.String()), transportOf(at)
	}
	return out
}

func transportOf(a ma.Multiaddr) string {
	if _, err := a.ValueForProtocol(ma.P_TCP); err == nil {
		return "tcp"
	}
	return "quic"
}

// rememberedPings is how many pings loss is counted over.
const rememberedPings = 20

// pingLog is how the last pings of a peer went.
type pingLog struct {
	lost uint32 // a bit each, the last one lowest
	n    int
	rtt  time.Duration
}

func (g pingLog) add(answered bool, rtt time.Duration) pingLog {
	g.lost = g.lost << 1 & (1<<rememberedPings - 1)
	if answered {
		g.rtt = rtt
	} else {
		g.lost |= 1
	}
	g.n = min(g.n+1, rememberedPings)
	return g
}

func (g pingLog) path() Path {
	return Path{RTT: g.rtt, Pings: g.n, Lost: bits.OnesCount32(g.lost)}
}

// pinged keeps how a ping of a linked member went.
func (l *Links) pinged(p peer.ID, answered bool, rtt time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pings[p] = l.pings[p].add(answered, rtt)
}

// forgetPings drops what is known of peers that are no members.
func (l *Links) forgetPings() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.pings {
		if !l.gate.isMember(p) {
			delete(l.pings, p)
		}
	}
}

// pathCheck says for the doctor by what way a member is reached.
func (l *Links) pathCheck(id shoal.PeerID) shoal.Check {
	p := l.Path(id)
	c := shoal.Check{Area: reachArea, Name: "path", State: shoal.CheckOK, Detail: p.Text(shoal.PeerID.Short)}
	if p.Pings > 0 {
		c.Detail += fmt.Sprintf("; %d of the last %d pings lost", p.Lost, p.Pings)
	}
	if p.Kind == pathRelayed {
		c.Remedy = "nothing has to be done; forward the port on one side (and --advertise it) for a straight way"
	}
	return c
}
