// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"fmt"
	"slices"

	"github.com/shoalnet/shoal"
)

// afterwards returns the services as they would be after the steps.
func afterwards(d *shoal.Desired, steps []*step) *shoal.Desired {
	after := &shoal.Desired{}
	for i := range d.Services {
		if !d.Services[i].IsPre && !slices.ContainsFunc(steps, func(s *step) bool { return s.change.Service == d.Services[i].Spec.Name }) {
			after.Services = append(after.Services, d.Services[i])
		}
	}
	for _, s := range steps {
		if s.spec != nil {
			after.Services = append(after.Services, shoal.Service{Spec: *s.spec})
		}
	}
	return after
}

// freePorts refuses steps by which a service comes to want a port of every peer that
// another one wants. Who wanted it before, because of a split, may go on.
func freePorts(d, after *shoal.Desired, steps []*step) error {
	for _, p := range shoal.PublishedPorts(after) {
		all := append([]string{p.Service}, p.Losers...)
		for _, s := range steps {
			at := slices.Index(all, s.change.Service)
			if len(all) == 1 || at < 0 || wanted(d, s.change.Service, p) {
				continue
			}
			other := slices.Delete(all, at, at+1)[0]
			return &shoal.AdviceError{
				Err:    fmt.Errorf("port %d/%s of service %q is published by service %q: %w", p.Port, p.Protocol, s.change.Service, other, shoal.ErrConflict),
				Advice: "publish another, or say mode: host, which is for the machine of the replica only",
			}
		}
	}
	return nil
}

// wanted reports whether a service wants the port already.
func wanted(d *shoal.Desired, service string, p shoal.PublishedPort) bool {
	old, ok := d.Service(service)
	return ok && slices.ContainsFunc(old.Spec.Ports, func(o shoal.Port) bool {
		return o.IsIngress() && o.Published == p.Port && o.Protocol == p.Protocol
	})
}
