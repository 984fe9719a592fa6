// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// all converts a list; the result is never nil, so that JSON shows an empty array.
func all[M, T any](in []M, of func(M) T) []T {
	out := make([]T, len(in))
	for i, m := range in {
		out[i] = of(m)
	}
	return out
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func revisionOf(m *shoalv1.RevisionID) string {
	if m == nil {
		return ""
	}
	return revisionIDOf(m).String()
}

func revisionIDOf(m *shoalv1.RevisionID) shoal.RevisionID {
	return shoal.RevisionID{Seq: m.GetSeq(), Author: shoal.PeerID(m.GetAuthor())}
}

func freshnessOf(m *shoalv1.Freshness) Freshness {
	f := Freshness{
		Members: int(m.GetMembers()), Heard: int(m.GetHeard()), Oldest: m.GetOldestSeconds(), Newest: m.GetNewestSeconds(), Trouble: m.GetTrouble(),
		Agree: int(m.GetAgree()), Differ: m.GetDiffer(),
	}
	for _, s := range m.GetSilent() {
		f.Silent = append(f.Silent, SilentPeer{ID: s.GetId(), Name: s.GetName(), State: s.GetState(), Age: s.GetAgeSeconds()})
	}
	return f
}

func serviceOf(m *shoalv1.ServiceRow) Service {
	return Service{
		Name: m.GetName(), Mode: m.GetMode(), Project: m.GetProject(), Image: m.GetImage(),
		Replicas: int(m.GetWant()), Ready: int(m.GetReady()), Unplaced: int(m.GetUnplaced()), Revision: revisionOf(m.GetRevision()),
		Ports: all(m.GetPorts(), func(p *shoalv1.Port) Port {
			return Port{Container: uint16(p.GetContainer()), Protocol: p.GetProtocol(), HostPort: uint16(p.GetPublished()), Host: p.GetHost()}
		}),
		Labels: m.GetLabels(), Accepted: timeOf(m.GetAccepted()), Conflicts: int(m.GetConflicts()),
		Stopped: m.GetIsStopped(), Autoscale: autoscaledOf(m.GetAutoscale()), Job: jobOf(m.GetJob()),
	}
}

func autoscaledOf(m *shoalv1.AutoscaleRow) *Autoscaled {
	if m == nil {
		return nil
	}
	return &Autoscaled{
		Min: int(m.GetMin()), Max: int(m.GetMax()), Targets: m.GetTargets(), Wanted: int(m.GetWanted()), Says: m.GetSays(), Last: m.GetLast(),
		Metrics: all(m.GetMetrics(), func(x *shoalv1.AutoscaleRow_Metric) AutoscaleMetric {
			return AutoscaleMetric{Metric: x.GetMetric(), Unit: x.GetUnit(), Target: x.GetTarget(), Observed: x.Observed, Missing: int(x.GetMissing())}
		}),
	}
}

func replicaOf(m *shoalv1.ReplicaRow) Replica {
	return Replica{
		Service: m.GetService(), Slot: int(m.GetSlot()), ID: m.GetReplica(), Peer: m.GetPeer(), PeerName: m.GetPeerName(),
		State: m.GetState(), Health: m.GetHealth(), Reason: m.GetReason(), Restarts: int(m.GetRestarts()), ExitCode: int(m.GetExitCode()),
		Ports: all(m.GetPorts(), func(p *shoalv1.PortBinding) Port {
			return Port{Container: uint16(p.GetContainer()), Protocol: p.GetProtocol(), HostIP: p.GetHostIp(), HostPort: uint16(p.GetHostPort())}
		}),
		Addr: m.GetAddr(), Image: m.GetImage(), Digest: m.GetDigest(), Revision: revisionOf(m.GetRevision()), Current: m.GetIsCurrent(),
		Started: timeOf(m.GetStarted()), Container: m.GetContainer(),
	}
}

func peerOf(m *shoalv1.PeerRow) Peer {
	return Peer{
		ID: m.GetId(), Name: m.GetName(), State: m.GetState(), Self: m.GetIsSelf(), Seen: m.GetSeenSeconds(), RTT: m.GetRttSeconds(),
		Path: m.GetPath(), Pings: int(m.GetPings()), PingsLost: int(m.GetPingsLost()),
		Role: m.GetRole(), Zone: m.GetZone(), Labels: m.GetLabels(),
		Room: roomOf(m), CPUUsed: m.GetUsed().GetCpuMilli(), MemUsed: m.GetUsed().GetMemBytes(),
		Replicas: int(m.GetReplicas()), Engine: m.GetEngine(), EngineAPI: m.GetEngineApi(), EngineTrouble: m.GetEngineTrouble(), Trouble: m.GetTrouble(),
		Version: m.GetVersion(), Cordoned: m.GetIsCordoned(), Draining: m.GetIsDraining(),
		Platforms: m.GetPlatforms(), Addrs: m.GetAddrs(), PublishAddr: m.GetPublishAddr(), Allows: m.GetAllowedPolicy(),
	}
}

func roomOf(m *shoalv1.PeerRow) *Room {
	has, free := m.GetAllocatable(), m.GetFree()
	if has == nil || free == nil {
		return nil
	}
	return &Room{CPUMilli: has.GetCpuMilli(), CPUFree: free.GetCpuMilli(), Mem: has.GetMemBytes(), MemFree: free.GetMemBytes()}
}

func tokenOf(m *shoalv1.TokenRow) Token {
	return Token{
		ID: m.GetId(), Issuer: m.GetIssuerName(), Role: m.GetRole(), Expires: timeOf(m.GetExpires()),
		Uses: int(m.GetUses()), Used: int(m.GetUsed()), State: m.GetState(),
	}
}

func outcomeOf(m *shoalv1.WishOutcome, f *shoalv1.Freshness) Outcome {
	return Outcome{
		Changes: all(m.GetChanges(), changeOf), Accepted: m.GetIsAccepted(), Acks: int(m.GetAcks()), AcksWanted: int(m.GetAcksWanted()),
		Freshness: freshnessOf(f),
	}
}

func changeOf(m *shoalv1.PlanChange) Change {
	return Change{
		Kind: m.GetKind(), Service: m.GetService(), Peer: m.GetPeer(), PeerName: m.GetPeerName(), Revision: revisionOf(m.GetRevision()), Details: m.GetDetails(),
		Places:   all(m.GetPlaces(), placeOf),
		Unplaced: m.GetUnplaced(), Replicas: int(m.GetReplicas()), Notes: m.GetNotes(), Stopped: m.GetIsStopped(),
	}
}

func placeOf(m *shoalv1.Place) Place { return Place{Peer: m.GetPeer(), Name: m.GetName()} }

func markOf(m *shoalv1.PeerMark) Mark { return Mark{Drain: m.GetDrain(), By: placeOf(m.GetBy())} }

func editOf(m *shoalv1.PeerEdit) Edit {
	return Edit{Label: m.GetLabel(), Value: m.GetValue(), Gone: m.GetGone(), Own: m.GetOwn(), By: placeOf(m.GetBy())}
}

func heldOf(m *shoalv1.HeldSlot) Held {
	return Held{Replica: replicaOf(m.GetReplica()), Stays: m.GetDoesStay(), Stuck: m.GetIsStuck(), Why: m.GetWhy()}
}

func progressOf(m *shoalv1.ServiceProgress) Progress {
	return Progress{
		Service: serviceOf(m.GetService()), Replicas: all(m.GetReplicas(), replicaOf),
		Exists: m.GetDoesExist(), Settled: m.GetIsSettled(), Trouble: m.GetTrouble(), TroubleSlot: int(m.GetTroubleSlot()),
		Rollout: knownRollout(m.GetRollout()),
	}
}

func detailOf(m *shoalv1.InspectServiceResponse) (ServiceDetail, error) {
	spec, err := proto.SpecOf(m.GetSpec())
	if err != nil {
		return ServiceDetail{}, err
	}
	return ServiceDetail{
		Service: serviceOf(m.GetService()), Spec: spec, Rows: all(m.GetReplicas(), replicaOf), Heads: all(m.GetHeads(), revisionOf),
		Lost: all(m.GetConflicts(), func(c *shoalv1.WishConflict) shoal.Conflict {
			return shoal.Conflict{Service: m.GetService().GetName(), Loser: revisionIDOf(c.GetLoser()), Winner: revisionIDOf(c.GetWinner()), Rule: c.GetRule()}
		}),
		Verdicts:  all(m.GetVerdicts(), verdictOf),
		Freshness: freshnessOf(m.GetFreshness()),
	}, nil
}

func lineOf(m *shoalv1.LogRow) LogLine {
	return LogLine{
		Time: timeOf(m.GetTime()), Service: m.GetService(), Slot: int(m.GetSlot()), Replica: m.GetReplica(),
		Peer: m.GetPeer(), PeerName: m.GetPeerName(), Stderr: m.GetIsStderr(), Text: m.GetText(),
	}
}

func eventOf(m *shoalv1.EventRow) Event {
	return Event{
		Time: timeOf(m.GetTime()), Kind: m.GetKind(), Peer: m.GetPeer(), PeerName: m.GetPeerName(),
		Service: m.GetService(), Slot: int(m.GetSlot()), Text: m.GetText(),
	}
}
