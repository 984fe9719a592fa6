// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalnet/shoal"
)

// selectorText writes a selector as the command line reads it.
func selectorText(s shoal.Selector) string {
	switch s.Op {
	case shoal.OpIn, shoal.OpNotIn:
		return s.Key + " " + string(s.Op) + " (" + strings.Join(s.Values, ",") + ")"
	case shoal.OpExists:
		return s.Key
	case shoal.OpNotExists:
		return "!" + s.Key
	default:
		return s.Key + string(s.Op) + strings.Join(s.Values, ",")
	}
}

// unmatched returns the first selector the peer does not satisfy.
func unmatched(p *shoal.Peer, constraints []shoal.Selector) (shoal.Selector, bool) {
	for _, s := range constraints {
		if !p.Matches(s) {
			return s, true
		}
	}
	return shoal.Selector{}, false
}

// maxImages is the bound of PeerState.Images: a full list proves no absence.
const maxImages = 1024

// hasImage reports whether a peer's engine holds the image under one of its
// spellings, as far as is known.
func hasImage(st *shoal.PeerState, spellings []string) bool {
	if st == nil || len(st.Images) >= maxImages {
		return true
	}
	for _, ref := range spellings {
		if _, ok := slices.BinarySearch(st.Images, ref); ok {
			return true
		}
	}
	return false
}

// spellings returns the references that mean the same image: engines call
// "docker.io/library/hello:latest" simply "hello:latest", and so do people "hello".
func spellings(ref string) []string {
	short := strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/")
	if last := short[strings.LastIndexByte(short, '/')+1:]; !strings.ContainsAny(last, ":@") {
		short += ":latest"
	}
	out := []string{ref}
	add := func(s string) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, s := range []string{short, strings.TrimSuffix(short, ":latest")} {
		add(s)
		add("docker.io/" + s)
		if !strings.Contains(s, "/") {
			add("docker.io/library/" + s)
		}
	}
	return out
}

// refusal returns why a peer declines a revision for now, "" if it does not. A
// refusal without a revision is for all of them.
func refusal(st *shoal.PeerState, service string, rev shoal.RevisionID) string {
	if st == nil {
		return ""
	}
	for _, r := range st.Refusals {
		if r.Service == service && (r.Revision.IsZero() || r.Revision == rev) {
			if r.Reason == "" {
				return "refuses it for now"
			}
			return r.Reason
		}
	}
	return ""
}

// unable says why a peer could not run a service's current revision at all, slots,
// room and marks aside; "" if it could.
func (w *world) unable(p int, s *serviceRow) string {
	row := &w.peers[p]
	if row.removed {
		return "was removed from the cluster"
	}
	if sel, no := unmatched(row.peer, s.spec.Constraints); no {
		return "does not match " + selectorText(sel)
	}
	if rule := w.forbidden(p, s); rule != "" {
		return "its owner does not allow " + rule
	}
	if w.foreign(p, s) {
		return w.foreignText(p, s)
	}
	if row.state != nil && row.state.Engine.Down {
		return "its engine is down" + because(row.state.Engine.Reason)
	}
	if why := refusal(row.state, s.spec.Name, s.rev); why != "" {
		return why
	}
	if s.spec.Image != "" && s.spec.Digest == "" && !hasImage(row.state, s.images) { // what has a digest comes from any peer
		return "image " + s.spec.Image + " is not there (shoal image push it where docker has it)"
	}
	return ""
}

// forbidden returns the first of a service's demands that the owner of a peer does
// not allow, as far as its recorded rules tell; "" if all are allowed.
func (w *world) forbidden(p int, s *serviceRow) string {
	if len(s.demands) == 0 {
		return ""
	}
	return shoal.Forbidden(w.peers[p].peer.Facts.AllowedPolicy, s.demands)
}

// barred says why a peer takes no new slots of any service; "" if it does.
func (w *world) barred(p int) string {
	row := &w.peers[p]
	switch {
	case row.removed:
		return "was removed from the cluster"
	case !row.up:
		return notHeard
	case row.peer.Facts.Leaving:
		return "is leaving"
	case row.peer.Draining:
		return "is draining"
	case row.peer.Cordoned:
		return "is cordoned"
	case row.state != nil && row.state.Trouble != "":
		return "takes no new slots: " + row.state.Trouble
	}
	return ""
}

// cramped says why there is no place left on a peer for one more replica; "" if
// there is. held is how many of the service it has.
func (w *world) cramped(p int, s *serviceRow, held int) string {
	row := &w.peers[p]
	if limit := s.spec.MaxPerPeer; limit > 0 && held >= limit {
		return fmt.Sprintf("has %d of them already (max per peer %d)", held, limit)
	}
	for _, port := range s.spec.Ports {
		if port.IsHost() && w.ports[portKey{p, port.Published, protocol(port)}] > 0 {
			if held > 0 {
				return fmt.Sprintf("has one of them on port %d/%s already", port.Published, protocol(port))
			}
			return fmt.Sprintf("port %d/%s is taken", port.Published, protocol(port))
		}
	}
	if free := row.alloc.Sub(row.used); s.size != (shoal.Resources{}) && !fits(free, s.size) {
		return row.roomText(free, s.size)
	}
	return ""
}

// fits is Resources.Fits where a need of zero fits even into an overdrawn peer.
func fits(free, need shoal.Resources) bool {
	return (need.CPUMilli <= 0 || need.CPUMilli <= free.CPUMilli) &&
		(need.MemBytes <= 0 || need.MemBytes <= free.MemBytes)
}

// knowsRoom reports whether it is recorded how much a peer has: it is once its engine
// has answered, and its records have arrived here.
func (row *peerRow) knowsRoom() bool { return row.peer.Facts.Capacity != (shoal.Resources{}) }

// roomText says why need does not fit into what is free.
func (row *peerRow) roomText(free, need shoal.Resources) string {
	switch {
	case !row.knowsRoom():
		return "has not told yet how much room it has"
	case need.MemBytes > 0 && need.MemBytes > free.MemBytes:
		return fmt.Sprintf("has %s of %s free, needs %s",
			bytesText(max(0, free.MemBytes)), bytesText(max(0, row.alloc.MemBytes)), bytesText(need.MemBytes))
	}
	return fmt.Sprintf("has %s of %s CPUs free, needs %s",
		cpuText(max(0, free.CPUMilli)), cpuText(max(0, row.alloc.CPUMilli)), cpuText(need.CPUMilli))
}

func protocol(p shoal.Port) string {
	if p.Protocol == "" {
		return "tcp"
	}
	return p.Protocol
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// bytesText writes an amount with one decimal where it is not whole: "1.5 GiB".
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	u, div := 0, int64(1)
	for u+1 < len(units) && n >= div*1024 {
		u, div = u+1, div*1024
	}
	whole, tenth := n/div, n%div/(max(1, div/1024))*10/1024
	if tenth == 0 {
		return strconv.FormatInt(whole, 10) + " " + units[u]
	}
	return fmt.Sprintf("%d.%d %s", whole, tenth, units[u])
}

// cpuText writes thousandths of a core as cores: "1.5".
func cpuText(milli int64) string {
	return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64)
}
