// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"crypto/ed25519"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/shoalnet/shoal"
)

// How many of each thing one body may hold, and how large its numbers may be.
const (
	maxPairs        = 1000 // env, labels
	maxArgs         = 1000 // entrypoint, command, health test
	maxPorts        = 256
	maxNetworks     = 16  // of a service
	maxAliases      = 32  // in each of them
	maxNetwork      = 128 // bytes of a network's name
	maxSelectors    = 256
	maxDependencies = 1000
	maxMounts       = 256   // mounts, devices, capabilities and the like, each
	maxRefs         = 1000  // revisions, marks, bases that one body names
	maxSlots        = 10000 // holdings, releases, proposed slots, replicas
	maxSlot         = 1 << 20
	maxImages       = 1024
	maxBlobs        = 4096 // of a peer
	maxUpstreams    = 32
	maxCopies       = 100
	maxFacts        = 64 // platforms, addresses, rules
	maxWord         = 256
	maxText         = 4096
	maxArg          = 32 << 10
)

// invalid makes the error of everything this package refuses.
func invalid(field, format string, args ...any) error {
	return &shoal.InvalidError{Field: field, Why: fmt.Sprintf(format, args...)}
}

// checker collects the first broken bound.
type checker struct{ err error }

func (c *checker) fail(field, format string, args ...any) {
	if c.err == nil {
		c.err = invalid(field, format, args...)
	}
}

func (c *checker) text(field, s string, limit int) {
	switch {
	case len(s) > limit:
		c.fail(field, "is %d bytes, at most %d are allowed", len(s), limit)
	case !utf8.ValidString(s):
		c.fail(field, "is not valid UTF-8")
	case strings.IndexByte(s, 0) >= 0:
		c.fail(field, "holds a NUL byte")
	}
}

func (c *checker) words(field string, limit int, s ...string) {
	for _, w := range s {
		c.text(field, w, limit)
	}
}

func (c *checker) count(field string, n, limit int) {
	if n > limit {
		c.fail(field, "has %d entries, at most %d are allowed", n, limit)
	}
}

func (c *checker) between(field string, v, lo, hi int64) {
	if v < lo || v > hi {
		c.fail(field, "must be %d-%d, got %d", lo, hi, v)
	}
}

func (c *checker) peer(field string, id shoal.PeerID) {
	if !isPeerID(id) {
		c.fail(field, "%q is not a peer ID", clip(string(id)))
	}
}

func (c *checker) service(field, name string) {
	if !isService(name) {
		c.fail(field, "%q is not a service name", clip(name))
	}
}

func (c *checker) pairs(field string, m map[string]string) {
	c.count(field, len(m), maxPairs)
	for k, v := range m { // any broken one refuses the whole; which is named does not matter
		c.text(field, k, maxText)
		c.text(field, v, maxArg)
	}
}

func (c *checker) list(field string, s []string, count, limit int) {
	c.count(field, len(s), count)
	c.words(field, limit, s...)
}

// revision checks a reference to a revision; the zero one passes if it may.
func (c *checker) revision(field string, r shoal.RevisionID, mayBeZero bool) {
	if r.IsZero() && mayBeZero {
		return
	}
	if r.Seq == 0 || r.Seq == math.MaxUint64 {
		c.fail(field, "sequence %d is out of range", r.Seq)
	}
	c.peer(field, r.Author)
}

func (c *checker) revisions(field string, s []shoal.RevisionID) {
	c.count(field, len(s), maxRefs)
	for _, r := range s {
		c.revision(field, r, false)
	}
}

func (c *checker) resources(field string, r shoal.Resources) {
	c.between(field, r.CPUMilli, 0, math.MaxInt64>>8)
	c.between(field, r.MemBytes, 0, math.MaxInt64>>8)
}

func (c *checker) proposal(p shoal.Proposal) {
	c.between("proposal", int64(p.From), 0, maxSlot)
	c.count("proposal", len(p.Peers), maxSlots)
	for _, id := range p.Peers {
		if id != "" {
			c.peer("proposal", id)
		}
	}
}

// checkBody checks every bound of a body.
func checkBody(b shoal.Body) error {
	c := &checker{}
	switch b := b.(type) {
	case *shoal.MemberBody:
		c.peer("peer", b.Peer)
		c.words("role", maxWord, string(b.Role), b.Invite)
	case *shoal.PeerBody:
		c.peer("peer", b.Peer)
		c.facts(&b.Facts)
	case *shoal.MarkBody:
		c.peer("peer", b.Peer)
		c.count("laid", len(b.Laid), maxRefs)
		for _, m := range b.Laid {
			c.text("laid", m.ID, maxWord)
		}
		c.list("lifts", b.Lifts, maxRefs, maxWord)
		c.count("edits", len(b.Edits), maxRefs)
		for _, e := range b.Edits {
			c.words("edits", maxWord, e.Label, e.Value)
		}
	case *shoal.RevisionBody:
		c.revision("revision", b.Revision, false)
		c.revisions("replaces", b.Replaces)
		c.spec(&b.Spec)
		c.proposal(b.Proposal)
		c.past(b.Past)
		c.revision("undoes", b.Undoes, true)
		c.text("why", b.Why, maxReason)
	case *shoal.ScaleBody:
		c.scale(b)
	case *shoal.GoneBody:
		c.service("service", b.Service)
		c.revisions("removes", b.Removes)
	case *shoal.ClaimBody:
		c.claim(b)
	case *shoal.InviteBody:
		c.invite(b)
	case *shoal.OpBody:
		c.service("service", b.Service)
		c.revision("of", b.Of, false)
	case *shoal.RolloutBody:
		c.service("service", b.Service)
		c.revision("of", b.Of, false)
		c.text("why", b.Why, maxReason)
	case *shoal.ImageBody:
		c.image(b)
	case *shoal.PolicyBody:
		c.revision("id", b.ID, false)
		c.revisions("replaces", b.Replaces)
		c.text("upstream", b.Upstream, maxWord) // which words there are may grow
	default:
		c.fail("kind", "%T is not a body this version writes", b)
	}
	return c.err
}

func (c *checker) scale(b *shoal.ScaleBody) {
	c.service("service", b.Service)
	c.count("adds", len(b.Adds), maxRefs)
	if b.Base != nil {
		c.revision("base", b.Base.ID, false)
		c.between("replicas", int64(b.Base.N), 0, maxSlots)
		c.between("file", int64(b.Base.File), -1, maxSlots)
		c.revisions("covers", b.Base.Covers)
		c.text("why", b.Base.Why, maxReason)
	}
	for _, a := range b.Adds {
		c.revision("adds", a.Base, true)
		c.between("adds", int64(a.Delta), -maxSlot, maxSlot)
	}
	c.proposal(b.Proposal)
}

func (c *checker) claim(b *shoal.ClaimBody) {
	c.peer("peer", b.Peer)
	c.service("service", b.Service)
	c.count("holds", len(b.Holds), maxSlots)
	c.count("released", len(b.Released), maxSlots)
	c.count("data", len(b.Data), maxSlots)
	for _, slot := range b.Data {
		c.between("data", int64(slot), 0, maxSlot)
	}
	for _, h := range b.Holds {
		c.between("slot", int64(h.Slot), 0, maxSlot)
		c.revision("holds", h.Revision, true)
		c.outcome(h.Outcome)
	}
	for _, r := range b.Released {
		c.between("slot", int64(r.Slot), 0, maxSlot)
		if r.YieldTo != "" {
			c.peer("released", r.YieldTo)
		}
	}
}

func (c *checker) invite(b *shoal.InviteBody) {
	if !isInvite(b.ID) {
		c.fail("invite", "%q is not an invite ID", clip(b.ID))
	}
	c.text("role", string(b.Role), maxWord)
	if n := len(b.PublicKey); n != 0 && n != ed25519.PublicKeySize {
		c.fail("public_key", "is %d bytes, not %d", n, ed25519.PublicKeySize)
	}
	c.between("uses", int64(b.Uses), 0, maxSlot)
	c.count("redeemed_by", len(b.RedeemedBy), maxRefs)
	for _, id := range b.RedeemedBy {
		c.peer("redeemed_by", id)
	}
}

func (c *checker) facts(f *shoal.PeerFacts) {
	c.words("facts", maxWord, f.Name, f.Engine, f.EngineAPI, f.Version, f.PublishAddr)
	c.pairs("labels", f.Labels)
	c.resources("capacity", f.Capacity)
	c.resources("reserved", f.Reserved)
	c.list("platforms", f.Platforms, maxFacts, maxWord)
	c.list("addrs", f.Addrs, maxFacts, maxText)
	c.list("allowed_policy", f.AllowedPolicy, maxFacts, maxWord)
}

func (c *checker) spec(s *shoal.Spec) {
	c.service("name", s.Name)
	c.words("spec", maxWord, s.Project, string(s.Mode), string(s.Strategy),
		string(s.OnPartition), string(s.Restart.Condition), s.StopSignal, string(s.LB), string(s.Prefer))
	c.text("image", s.Image, maxText)
	c.digest("digest", s.Digest, true)
	c.platforms(s.Platforms)
	c.list("entrypoint", s.Entrypoint, maxArgs, maxArg)
	c.list("command", s.Command, maxArgs, maxArg)
	c.pairs("env", s.Env)
	c.pairs("labels", s.Labels)
	c.count("ports", len(s.Ports), maxPorts)
	for _, p := range s.Ports {
		c.text("ports", p.Protocol, maxWord)
	}
	c.count("networks", len(s.Networks), maxNetworks)
	for _, a := range s.Networks {
		c.text("networks", a.Network, maxNetwork)
		c.list("networks", a.Aliases, maxAliases, maxWord)
	}
	c.resources("limits", s.Limits)
	c.resources("reservations", s.Reservations)
	c.between("pids_limit", s.PidsLimit, -1, math.MaxInt32)
	c.between("replicas", int64(s.Replicas), 0, maxSlots)
	c.between("max_per_peer", int64(s.MaxPerPeer), 0, maxSlots)
	c.between("priority", int64(s.Priority), math.MinInt32, math.MaxInt32)
	c.count("constraints", len(s.Constraints), maxSelectors)
	for _, x := range s.Constraints {
		c.words("constraints", maxText, x.Key, string(x.Op))
		c.list("constraints", x.Values, maxSelectors, maxText)
	}
	c.setup(&s.Setup)
	c.text("spread_by", s.SpreadBy, maxText)
	c.between("restarts", int64(s.Restarts), 0, math.MaxInt32)
	if h := s.Health; h != nil {
		c.list("health", h.Test, maxArgs, maxArg)
		c.between("health", int64(min(h.Interval, h.Timeout, h.StartPeriod)), 0, math.MaxInt64)
		c.between("health", int64(h.Retries), 0, math.MaxInt32)
	}
	c.between("restart", int64(min(s.Restart.Delay, s.Restart.Window)), 0, math.MaxInt64)
	c.between("restart", int64(s.Restart.MaxAttempts), 0, math.MaxInt32)
	c.between("stop_grace", int64(s.StopGrace), 0, math.MaxInt64)
	c.rollout("rollout", &s.Rollout)
	if s.Rollback != nil {
		c.rollout("rollback", s.Rollback)
	}
	c.autoscale(s.Autoscale)
	c.job(s.Job)
	c.pre(s.PreDeploy)
	c.schedule(s.Schedule, s.Run)
	c.count("depends_on", len(s.DependsOn), maxDependencies)
	for _, d := range s.DependsOn {
		c.service("depends_on", d.Service)
		c.words("depends_on", maxWord, string(d.Condition))
	}
}

// checkState checks every bound of a peer's state.
func checkState(s *shoal.PeerState) error {
	c := &checker{}
	c.count("replicas", len(s.Replicas), maxSlots)
	for i := range s.Replicas {
		r := &s.Replicas[i]
		c.service("service", r.Service)
		c.between("slot", int64(r.Slot), 0, maxSlot)
		c.revision("revision", r.Revision, true)
		c.words("replica", maxText, r.Health, r.Addr, r.Reason, r.Container, r.Image)
		c.count("ports", len(r.Ports), maxPorts)
		for _, p := range r.Ports {
			c.words("ports", maxWord, p.Protocol, p.HostIP)
		}
		c.between("restarts", int64(r.Restarts), 0, math.MaxInt32)
		c.between("exit_code", int64(r.ExitCode), math.MinInt32, math.MaxInt32)
		if r.Phase < shoal.PhaseUnknown || r.Phase > shoal.PhaseLost {
			c.fail("phase", "%d is not one", r.Phase)
		}
	}
	c.list("images", s.Images, maxImages, maxText)
	if !slices.IsSorted(s.Images) {
		c.fail("images", "are not sorted")
	}
	c.held(s)
	c.count("refusals", len(s.Refusals), maxSlots)
	for _, r := range s.Refusals {
		c.service("service", r.Service)
		c.revision("revision", r.Revision, true)
		c.text("refusals", r.Reason, maxText)
	}
	c.text("engine", s.Engine.Reason, maxText)
	c.text("trouble", s.Trouble, maxText)
	c.loads(s)
	return c.err
}
