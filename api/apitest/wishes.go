// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/placement"
)

// Submit implements [shoal.Wishes].
func (c *Cluster) Submit(ctx context.Context, w shoal.Wish, opts shoal.UpdateOptions) (shoal.Outcome, error) {
	c.mu.Lock()
	gate := c.gate
	c.gate = nil
	c.mu.Unlock()
	if gate != nil {
		if err := gate.wait(ctx); err != nil {
			return shoal.Outcome{}, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out, services, err := c.apply(w)
	if err != nil {
		return out, err
	}
	c.services = services
	if w.Peer != nil {
		_, c.peers, c.services = c.changePeer(w.Peer)
	}
	c.rebuild()
	if c.onWish != nil {
		c.onWish()
		c.onWish = nil
	}
	out.Acks = opts.Acks
	if c.few >= 0 && c.few < opts.Acks {
		out.Acks = c.few
		return out, fmt.Errorf("%d of %d: %w", c.few, opts.Acks, shoal.ErrTooFewAcks)
	}
	return out, nil
}

// Plan implements [shoal.Wishes].
func (c *Cluster) Plan(_ context.Context, w shoal.Wish) (shoal.Outcome, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seq := c.seq
	out, _, err := c.apply(w)
	c.seq = seq
	return out, err
}

// Explain implements [shoal.Wishes].
func (c *Cluster) Explain(_ context.Context, service string) (shoal.Explanation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.find(c.services, service)
	if i < 0 {
		return shoal.Explanation{}, fmt.Errorf("service %q: %w", service, shoal.ErrNotFound)
	}
	spec, view := &c.services[i].Spec, c.seen()
	out := shoal.Explanation{Service: service, Slots: placement.Slots(view, service), Never: placement.Hopeless(view, spec)}
	for _, x := range placement.Explain(view, spec) {
		line := shoal.ExplainLine{Slot: -1, Peer: x.Peer, Feasible: x.Feasible, Score: x.Score, Reason: x.Reason}
		if absent(spec.Image) {
			line.Feasible, line.Reason = false, "image "+spec.Image+" is not there (shoal image push it where docker has it)"
		}
		out.Lines = append(out.Lines, line)
	}
	return out, nil
}

func absent(image string) bool { return len(image) >= 7 && image[:7] == "absent:" }

// apply works on a copy of the services; c.mu is held.
func (c *Cluster) apply(w shoal.Wish) (shoal.Outcome, []shoal.Service, error) {
	out, services := shoal.Outcome{}, slices.Clone(c.services)
	switch {
	case w.Deploy != nil:
		for i := range w.Deploy.Specs {
			ch, err := c.deploy(&services, w.Deploy.Specs[i], w.Deploy)
			if err != nil {
				return out, nil, fmt.Errorf("accept wish: %w", err)
			}
			out.Changes = append(out.Changes, ch)
		}
		gone, err := removeSeen(&services, w.Deploy)
		if err != nil {
			return out, nil, fmt.Errorf("accept wish: %w", err)
		}
		out.Changes = append(append(out.Changes, gone...), prune(&services, w.Deploy)...)
	case w.Operate != nil:
		for _, name := range w.Operate.Services {
			out.Changes = append(out.Changes, c.operate(&services[c.find(services, name)], w.Operate.Op))
		}
	case w.Scale != nil:
		for _, t := range w.Scale.Targets {
			s := &services[c.find(services, t.Service)]
			n := t.N
			if t.Relative {
				n += s.Replicas
			}
			if err := shoal.CheckReplicas(n); err != nil {
				return out, nil, fmt.Errorf("accept wish: %w", err)
			}
			kind := shoal.ChangeUpdate
			if n == s.Replicas {
				kind = shoal.ChangeNone
			}
			ch := shoal.Change{Kind: kind, Service: t.Service, Revision: s.Revision, Details: []string{fmt.Sprintf("replicas %d -> %d", s.Replicas, n)}, Replicas: n}
			ch.Stopped = s.Stopped
			if s.Replicas = n; !s.Stopped {
				s.Proposed = c.place(s.Spec, n)
			}
			ch.Slots = s.Proposed
			out.Changes = append(out.Changes, ch)
		}
	case w.Rollout != nil:
		ch, err := c.steer(&services[c.find(services, w.Rollout.Service)], w.Rollout)
		if err != nil {
			return out, nil, fmt.Errorf("accept wish: %w", err)
		}
		out.Changes = append(out.Changes, ch)
	case w.Peer != nil:
		ch, _, _ := c.changePeer(w.Peer)
		out.Changes = append(out.Changes, ch)
	case w.Remove != nil:
		for _, name := range w.Remove.Services {
			i := c.find(services, name)
			if i < 0 {
				continue
			}
			out.Changes = append(out.Changes, shoal.Change{Kind: shoal.ChangeRemove, Service: name, Revision: services[i].Revision, Details: []string{fmt.Sprintf("%d replicas", services[i].Replicas)}})
			services = slices.Delete(services, i, i+1)
		}
	}
	return out, services, nil
}

func (c *Cluster) deploy(services *[]shoal.Service, spec shoal.Spec, w *shoal.DeployWish) (shoal.Change, error) {
	i, running := c.find(*services, spec.Name), 0
	if i >= 0 {
		running = (*services)[i].Replicas
	}
	if err := cmp.Or(spec.Validate(), spec.CheckRollouts(running)); err != nil {
		return shoal.Change{}, fmt.Errorf("service %s: %w", spec.Name, err)
	}
	ch := shoal.Change{Kind: shoal.ChangeCreate, Service: spec.Name, Details: []string{"image " + spec.Image}}
	if i < 0 {
		*services = append(*services, shoal.Service{Replicas: spec.Replicas})
		i = len(*services) - 1
	} else {
		old := (*services)[i]
		seen, asked := w.IfRevision[spec.Name]
		ch.Kind, ch.Details = shoal.ChangeNone, nil
		switch {
		case asked && seen != old.Revision:
			return ch, &shoal.AdviceError{
				Err:    fmt.Errorf("service %q is at revision %s, not at the one you saw: %w", spec.Name, old.Revision, shoal.ErrConflict),
				Advice: "look at it again",
			}
		case w.Create:
			return ch, &shoal.AdviceError{
				Err:    fmt.Errorf("service %q already exists: %w", spec.Name, shoal.ErrConflict),
				Advice: fmt.Sprintf("change it with \"shoal update %[1]s\", or remove it with \"shoal rm %[1]s\"", spec.Name),
			}
		case old.Spec.Project != spec.Project:
			return ch, &shoal.AdviceError{
				Err:    fmt.Errorf("service %q belongs to %s, not to project %q: %w", spec.Name, projectName(old.Spec.Project), spec.Project, shoal.ErrConflict),
				Advice: fmt.Sprintf("give one of them another name, or remove the old one with \"shoal rm %s\"", spec.Name),
			}
		case old.Spec.Image != spec.Image:
			ch.Details = append(ch.Details, "image "+old.Spec.Image+" -> "+spec.Image)
		}
		if spec.Restarts = old.Spec.Restarts; w.ResetScale {
			(*services)[i].Replicas = spec.Replicas
		} else if old.Replicas != spec.Replicas && !w.KeepScale {
			ch.Notes = append(ch.Notes, fmt.Sprintf("scale stays %d (the file says %d; --reset-scale)", old.Replicas, spec.Replicas))
		}
		if !reflect.DeepEqual(old.Spec, spec) {
			ch.Kind = shoal.ChangeUpdate
		}
	}
	if strings.HasPrefix(spec.Image, "data:") {
		spec.Setup.Mounts = []shoal.Mount{{Kind: shoal.MountVolume, Source: "data", Target: "/data"}}
	}
	s := &(*services)[i]
	if ch.Kind != shoal.ChangeNone {
		c.supersede(s)
	}
	s.Stopped = false
	if spec.PreDeploy != nil { // whatever changed, it runs again here
		pre := *spec.PreDeploy
		pre.For, spec.PreDeploy = s.Revision, &pre
	}
	s.Spec, s.Proposed = spec, c.place(spec, s.Replicas)
	if s.IsAsleep() { // no time comes here
		s.Proposed = nil
	}
	ch.Revision, ch.Replicas, ch.Slots = s.Revision, s.Replicas, s.Proposed
	for range s.Proposed {
		if absent(spec.Image) {
			ch.Unplaced = append(ch.Unplaced, "no peer has the image")
		}
	}
	return ch, nil
}

func projectName(p string) string {
	if p == "" {
		return "no project"
	}
	return fmt.Sprintf("project %q", p)
}

func (c *Cluster) operate(s *shoal.Service, op shoal.Operation) shoal.Change {
	ch := shoal.Change{Kind: shoal.ChangeUpdate, Service: s.Spec.Name, Details: []string{string(op)}, Replicas: s.Replicas}
	switch {
	case op == shoal.OpRestart:
		c.supersede(s)
		s.Spec.Restarts++
		if s.Spec.Schedule != nil {
			s.Spec.Run = c.clock.Wall().Unix()
		}
		s.Stopped = false
	case s.Stopped == (op == shoal.OpStop):
		ch.Kind = shoal.ChangeNone
	default:
		s.Stopped = op == shoal.OpStop
	}
	s.Proposed = nil
	if !s.Stopped {
		s.Proposed = c.place(s.Spec, s.Replicas)
	}
	ch.Revision, ch.Stopped, ch.Slots = s.Revision, s.Stopped, s.Proposed
	return ch
}

func prune(services *[]shoal.Service, w *shoal.DeployWish) []shoal.Change {
	return removeIf(services, func(s *shoal.Service) bool {
		named := slices.Contains(w.Keep, s.Spec.Name) || slices.ContainsFunc(w.Specs, func(x shoal.Spec) bool { return x.Name == s.Spec.Name })
		return w.Prune != "" && s.Spec.Project == w.Prune && !named
	})
}

// removeSeen removes what was shown, as it was shown.
func removeSeen(services *[]shoal.Service, w *shoal.DeployWish) ([]shoal.Change, error) {
	for i := range *services {
		s := &(*services)[i]
		if seen, named := w.Remove[s.Spec.Name]; named && seen != s.Revision {
			return nil, &shoal.AdviceError{
				Err: fmt.Errorf("service %q changed while you were asked: %w", s.Spec.Name, shoal.ErrConflict), Advice: "look at it again",
			}
		}
	}
	return removeIf(services, func(s *shoal.Service) bool { _, named := w.Remove[s.Spec.Name]; return named }), nil
}

func removeIf(services *[]shoal.Service, goes func(*shoal.Service) bool) []shoal.Change {
	var out []shoal.Change
	*services = slices.DeleteFunc(*services, func(s shoal.Service) bool {
		if !goes(&s) {
			return false
		}
		out = append(out, shoal.Change{Kind: shoal.ChangeRemove, Service: s.Spec.Name, Revision: s.Revision, Details: []string{fmt.Sprintf("%d replicas", s.Replicas)}})
		return true
	})
	return out
}

// place goes round the peers that are heard.
func (c *Cluster) place(spec shoal.Spec, n int) []shoal.PeerID {
	alive := c.open()
	if spec.Mode.IsGlobal() {
		return alive
	}
	out := make([]shoal.PeerID, n)
	for i := range out {
		if !absent(spec.Image) {
			out[i] = alive[i%len(alive)]
		}
	}
	return out
}

func (c *Cluster) find(services []shoal.Service, name string) int {
	return slices.IndexFunc(services, func(s shoal.Service) bool { return s.Spec.Name == name })
}
