// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"fmt"
	"slices"
	"strings"

	pb "google.golang.org/protobuf/proto"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// maxReason is where sentences for people are cut, in bytes.
const maxReason = 512

// EncodeState returns the bytes of a peer's state. So that a peer never falls
// silent over an engine's odd words, sentences are cut to 512 bytes of valid text,
// and images, blobs and registries are sorted and cut to 1,024, 4,096 and 32;
// anything else out of bounds is a *shoal.InvalidError.
func EncodeState(s shoal.PeerState) ([]byte, error) {
	m := &shoalv1.PeerState{
		Free: resourcesMessage(s.Free), Used: resourcesMessage(s.Used),
		EngineDown: s.Engine.Down, EngineReason: sentence(s.Engine.Reason), Trouble: sentence(s.Trouble),
	}
	s.Replicas = slices.Clone(s.Replicas)
	for i := range s.Replicas {
		r := &s.Replicas[i]
		r.Reason = sentence(r.Reason)
		m.Replicas = append(m.Replicas, replicaMessage(r))
	}
	s.Images = slices.Sorted(slices.Values(s.Images))
	s.Images = s.Images[:min(len(s.Images), maxImages)]
	m.Images = s.Images
	heldMessage(&s, m)
	loadsMessage(&s, m)
	s.Refusals = slices.Clone(s.Refusals)
	for i := range s.Refusals {
		r := &s.Refusals[i]
		r.Reason = sentence(r.Reason)
		m.Refusals = append(m.Refusals, &shoalv1.Refusal{
			Service: r.Service, Revision: revisionMessage(r.Revision), Reason: r.Reason,
		})
	}
	s.Engine.Reason, s.Trouble = m.EngineReason, m.Trouble
	if err := checkState(&s); err != nil {
		return nil, err
	}
	raw, err := pb.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode peer state: %w", err)
	}
	if len(raw) > MaxState {
		return nil, invalid("state", "is %d bytes, at most %d are allowed", len(raw), MaxState)
	}
	return raw, nil
}

// DecodeState is the inverse of [EncodeState] and checks every bound. A phase this
// version does not know is PhaseUnknown.
func DecodeState(raw []byte) (shoal.PeerState, error) {
	if len(raw) > MaxState {
		return shoal.PeerState{}, invalid("state", "is %d bytes, at most %d are allowed", len(raw), MaxState)
	}
	var m shoalv1.PeerState
	if err := unmarshal(raw, &m); err != nil {
		return shoal.PeerState{}, fmt.Errorf("decode peer state: %w", err)
	}
	s := shoal.PeerState{
		Free: resourcesOf(m.GetFree()), Used: resourcesOf(m.GetUsed()), Images: m.GetImages(),
		Engine: shoal.EngineStatus{Down: m.GetEngineDown(), Reason: m.GetEngineReason()}, Trouble: m.GetTrouble(),
	}
	heldOf(&m, &s)
	if err := loadsOf(&m, &s); err != nil {
		return shoal.PeerState{}, fmt.Errorf("decode peer state: %w", err)
	}
	for _, r := range m.GetReplicas() {
		status, err := statusOf(r)
		if err != nil {
			return shoal.PeerState{}, fmt.Errorf("decode peer state: %w", err)
		}
		s.Replicas = append(s.Replicas, status)
	}
	for _, r := range m.GetRefusals() {
		s.Refusals = append(s.Refusals, shoal.Refusal{
			Service: r.GetService(), Revision: revisionOf(r.GetRevision()), Reason: r.GetReason(),
		})
	}
	if err := checkState(&s); err != nil {
		return shoal.PeerState{}, fmt.Errorf("decode peer state: %w", err)
	}
	return s, nil
}

func replicaMessage(r *shoal.ReplicaStatus) *shoalv1.ReplicaStatus {
	m := &shoalv1.ReplicaStatus{
		Id: replicaBytes(r.ID), Service: r.Service, Slot: int32(r.Slot), Revision: revisionMessage(r.Revision),
		Phase: shoalv1.Phase(r.Phase), Health: r.Health, Addr: r.Addr, Restarts: int32(r.Restarts),
		ExitCode: int32(r.ExitCode), Reason: r.Reason, Container: r.Container, Image: r.Image,
		StartedAt: r.StartedAt, Failures: int32(r.Failures),
	}
	for _, p := range r.Ports {
		m.Ports = append(m.Ports, &shoalv1.PortBinding{
			Container: uint32(p.Container), Protocol: p.Protocol, HostIp: p.HostIP, HostPort: uint32(p.HostPort),
		})
	}
	return m
}

func statusOf(m *shoalv1.ReplicaStatus) (shoal.ReplicaStatus, error) {
	id, err := replicaOf(m.GetId())
	r := shoal.ReplicaStatus{
		ID: id, Service: m.GetService(), Slot: int(m.GetSlot()), Revision: revisionOf(m.GetRevision()),
		Phase: shoal.Phase(m.GetPhase()), Health: m.GetHealth(), Addr: m.GetAddr(),
		Restarts: int(m.GetRestarts()), ExitCode: int(m.GetExitCode()), Reason: m.GetReason(),
		Container: m.GetContainer(), Image: m.GetImage(), StartedAt: m.GetStartedAt(), Failures: int(m.GetFailures()),
	}
	if r.Phase < shoal.PhaseUnknown || r.Phase > shoal.PhaseLost {
		r.Phase = shoal.PhaseUnknown
	}
	for _, p := range m.GetPorts() {
		container, perr := portOf(p.GetContainer())
		if err == nil {
			err = perr
		}
		host, perr := portOf(p.GetHostPort())
		if err == nil {
			err = perr
		}
		r.Ports = append(r.Ports, shoal.PortBinding{
			Container: container, Protocol: p.GetProtocol(), HostIP: p.GetHostIp(), HostPort: host,
		})
	}
	return r, err
}

// sentence makes text fit for the wire.
func sentence(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "?")
	if len(s) <= maxReason {
		return s
	}
	return strings.ToValidUTF8(s[:maxReason], "")
}
