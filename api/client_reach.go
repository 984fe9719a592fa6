// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// PublishedPort is a port that answers on every peer, as the asked one serves it.
type PublishedPort struct {
	Port     uint16            `json:"port"`
	Protocol string            `json:"protocol"`
	Service  string            `json:"service"`
	Target   uint16            `json:"target"`
	Losers   []string          `json:"losers,omitempty"` // services that want it, too
	Address  string            `json:"address"`          // where it listens; "": it does not
	Trouble  string            `json:"trouble,omitempty"`
	Usable   int               `json:"usable"` // replicas that may be given a connection now
	Open     int               `json:"open"`
	Total    uint64            `json:"connections"`
	In       uint64            `json:"in_bytes"`
	Out      uint64            `json:"out_bytes"`
	Refused  map[string]uint64 `json:"refused,omitempty"` // what went wrong, by reason
}

// ReachedReplica is a replica as the asked peer sees it when it chooses.
type ReachedReplica struct {
	Service   string  `json:"service"`
	Slot      int     `json:"slot"`
	ID        string  `json:"id"`
	Holder    Place   `json:"holder"`
	Usable    bool    `json:"usable"`
	Why       string  `json:"why,omitempty"`
	Path      string  `json:"path"` // local, direct, relayed by NAME
	Weight    int     `json:"weight"`
	Open      int     `json:"open"`
	Connect   float64 `json:"connect_seconds,omitempty"`
	FirstByte float64 `json:"first_byte_seconds,omitempty"`
}

// Ports lists the ports that answer on every peer.
func (c *Client) Ports(ctx context.Context) (Listing[PublishedPort], error) {
	r, err := call(ctx, c, c.rpc.ListPorts, &shoalv1.ListPortsRequest{})
	return Listing[PublishedPort]{all(r.GetPorts(), func(p *shoalv1.PortRow) PublishedPort {
		return PublishedPort{
			Port: uint16(p.GetPort()), Protocol: p.GetProtocol(), Service: p.GetService(), Target: uint16(p.GetTarget()), Losers: p.GetLosers(),
			Address: p.GetAddress(), Trouble: p.GetTrouble(), Usable: int(p.GetUsable()), Open: int(p.GetOpen()), Total: p.GetTotal(),
			In: p.GetInBytes(), Out: p.GetOutBytes(), Refused: p.GetRefused(),
		}
	}), freshnessOf(r.GetFreshness())}, err
}

// Reach says how the asked peer reaches each replica of a service.
func (c *Client) Reach(ctx context.Context, service string) (Listing[ReachedReplica], error) {
	r, err := call(ctx, c, c.rpc.ListReach, &shoalv1.ListReachRequest{Service: service})
	return Listing[ReachedReplica]{all(r.GetReplicas(), func(x *shoalv1.ReachRow) ReachedReplica {
		return ReachedReplica{
			Service: service, Slot: int(x.GetSlot()), ID: x.GetReplica(), Holder: placeOf(x.GetHolder()), Usable: x.GetIsUsable(), Why: x.GetWhy(),
			Path: x.GetPath(), Weight: int(x.GetWeight()), Open: int(x.GetOpen()), Connect: x.GetConnectSeconds(), FirstByte: x.GetFirstByteSeconds(),
		}
	}), freshnessOf(r.GetFreshness())}, err
}

// Forward carries conn to a TCP port of a replica, by the rules of shoal.Reach: Slot -1
// is any ready one. It returns once both ends are done, and closes conn; one that broke
// off is reset where conn can be, so that what came does not look whole.
func (c *Client) Forward(ctx context.Context, at shoal.Target, port uint16, conn io.ReadWriteCloser) (err error) {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.rpc.Forward(within)
	var side sync.WaitGroup
	defer side.Wait()
	defer func() {
		cancel()
		if tcp, ok := conn.(*net.TCPConn); ok && err != nil {
			_ = tcp.SetLinger(0) // then it is closed as if all was well
		}
		_ = conn.Close()           // its user knows from its own reads
		_ = stream.CloseResponse() // what it could say was said by Receive
	}()
	start := &shoalv1.ForwardStart{Service: at.Service, Slot: int32(at.Slot), Port: uint32(port)}
	if err := stream.Send(&shoalv1.ForwardRequest{What: &shoalv1.ForwardRequest_Start{Start: start}}); err != nil && !errors.Is(err, io.EOF) {
		return c.understand(err) // at the end of a stream Receive says why
	}
	side.Go(func() {
		say := pieces(func(p []byte) error {
			return stream.Send(&shoalv1.ForwardRequest{What: &shoalv1.ForwardRequest_Data{Data: p}})
		})
		from := &marked{Reader: conn}
		if _, err := io.Copy(say, from); err != nil {
			if from.failed {
				cancel() // what broke off must not look whole
			}
			return // else Receive says why nothing can be sent
		}
		_ = stream.Send(&shoalv1.ForwardRequest{What: &shoalv1.ForwardRequest_End{End: true}}) // the other end may be gone
	})
	for {
		var m *shoalv1.ForwardResponse
		m, err = stream.Receive()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return c.understand(err)
		case m.GetEnd():
			if half, ok := conn.(interface{ CloseWrite() error }); ok {
				err = half.CloseWrite()
			}
		default:
			_, err = conn.Write(m.GetData())
		}
		if err != nil {
			return err
		}
	}
}

// marked notes whether reading failed, or what was done with what was read.
type marked struct {
	io.Reader
	failed bool
}

// Read implements [io.Reader].
func (m *marked) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.failed = err != nil && !errors.Is(err, io.EOF)
	return n, err
}
