// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/ingress/carry"
	"github.com/shoalnet/shoal/ingress/plan"
	"github.com/shoalnet/shoal/internal/logkey"
)

type doorKey struct {
	port     uint16
	protocol string
}

// door is a published port as this peer answers on it. Room.mu guards it.
type door struct {
	shoal.PublishedPort
	listeners []*carry.Listener // none: it is not open
	trouble   string            // why not
}

func (d *door) isOpen() bool { return len(d.listeners) > 0 }

// leadsTo reports whether the door, as it is, is the one that is wanted.
func (d *door) leadsTo(l plan.Listener) bool {
	return d.Service == l.Service && d.Target == l.Target
}

// close lets nobody new in; open connections go on.
func (d *door) close() {
	for _, l := range d.listeners {
		_ = l.Close() // it was only listened on
	}
	d.listeners = nil
}

// addresses are those to listen on.
func (r *Room) addresses() []netip.Addr {
	if r.cfg.Publish.IsValid() {
		return []netip.Addr{r.cfg.Publish}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

// openDoor listens on all addresses, or on none. The caller holds mu.
func (r *Room) openDoor(ctx context.Context, d *door, serving *sync.WaitGroup) {
	var all []*carry.Listener
	var failed error
	for _, a := range r.addresses() {
		l, err := carry.Listen(ctx, netip.AddrPortFrom(a, d.Port), d.Protocol)
		switch {
		case err == nil:
			all = append(all, l)
		case a.Is6() && hasNoIPv6(err): // the other address will do
		default:
			failed = cmp.Or(failed, err)
		}
	}
	if failed != nil || len(all) == 0 {
		for _, l := range all {
			_ = l.Close() // nobody came in yet
		}
		r.blocked(d, failed)
		return
	}
	d.listeners, d.trouble = all, ""
	r.deps.Log.Info("port answers", "port", d.Port, "protocol", d.Protocol, logkey.Service, d.Service)
	to := carry.Dest{Service: r.service(doorService(d.Service, d.Target)).Service, Port: d.Target, Via: carry.ViaPublished}
	for _, l := range all {
		serving.Go(func() {
			if err := l.Serve(ctx, r.carrier, to); err != nil && ctx.Err() == nil {
				r.deps.Log.Warn("port answers no more", "port", d.Port, logkey.Service, to.Service.Name(), logkey.Err, err)
			}
		})
	}
}

// hasNoIPv6 reports whether a machine has none.
func hasNoIPv6(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// blocked notes why a port cannot be taken.
func (r *Room) blocked(d *door, err error) {
	why := "there is no address to listen on"
	switch {
	case errors.Is(err, shoal.ErrConflict):
		why = fmt.Sprintf("something else on this machine has it (ss -lpn 'sport = :%d')", d.Port)
	case errors.Is(err, shoal.ErrRefused):
		why = "shoald may not take it: ports below 1024 need root or CAP_NET_BIND_SERVICE"
	case err != nil:
		why = strings.ReplaceAll(err.Error(), "\n", " ")
	}
	if why != d.trouble {
		r.deps.Log.Warn("published port is not taken", "port", d.Port, "protocol", d.Protocol, logkey.Service, d.Service, logkey.Reason, why)
	}
	d.trouble = why
}
