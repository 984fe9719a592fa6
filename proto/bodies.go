// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	pb "google.golang.org/protobuf/proto"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// newMessage returns an empty body message of a kind, nil for an unknown one.
func newMessage(kind shoal.Kind) pb.Message {
	switch kind {
	case shoal.KindMember:
		return &shoalv1.MemberBody{}
	case shoal.KindPeer:
		return &shoalv1.PeerBody{}
	case shoal.KindMark:
		return &shoalv1.MarkBody{}
	case shoal.KindService:
		return &shoalv1.RevisionBody{}
	case shoal.KindScale:
		return &shoalv1.ScaleBody{}
	case shoal.KindGone:
		return &shoalv1.GoneBody{}
	case shoal.KindClaim:
		return &shoalv1.ClaimBody{}
	case shoal.KindInvite:
		return &shoalv1.InviteBody{}
	case shoal.KindOp:
		return &shoalv1.OpBody{}
	case shoal.KindRollout:
		return &shoalv1.RolloutBody{}
	case shoal.KindImage:
		return &shoalv1.ImageBody{}
	case shoal.KindPolicy:
		return &shoalv1.PolicyBody{}
	default:
		return nil
	}
}

// bodyMessage turns a checked body into its message.
func bodyMessage(b shoal.Body) pb.Message {
	switch b := b.(type) {
	case *shoal.MemberBody:
		return &shoalv1.MemberBody{
			Peer: string(b.Peer), Role: string(b.Role), Invite: b.Invite,
			Removed: b.Removed, HighestSeq: b.HighestSeq,
		}
	case *shoal.PeerBody:
		return &shoalv1.PeerBody{Peer: string(b.Peer), Facts: factsMessage(&b.Facts)}
	case *shoal.MarkBody:
		m := &shoalv1.MarkBody{Peer: string(b.Peer), Lifts: b.Lifts}
		for _, l := range b.Laid {
			m.Laid = append(m.Laid, &shoalv1.Mark{Id: l.ID, Drain: l.Drain})
		}
		for _, e := range b.Edits {
			m.Edits = append(m.Edits, &shoalv1.Edit{Label: e.Label, Value: e.Value, Gone: e.Gone, Own: e.Own, Seq: e.Seq})
		}
		return m
	case *shoal.RevisionBody:
		return &shoalv1.RevisionBody{
			Revision: revisionMessage(b.Revision), Replaces: revisionMessages(b.Replaces),
			Spec: specMessage(&b.Spec), Proposal: proposalMessage(b.Proposal),
			Past: pastMessages(b.Past), Undoes: revisionMessage(b.Undoes), Why: b.Why,
		}
	case *shoal.ScaleBody:
		return scaleMessage(b)
	case *shoal.GoneBody:
		return &shoalv1.GoneBody{Service: b.Service, Removes: revisionMessages(b.Removes)}
	case *shoal.ClaimBody:
		return claimMessage(b)
	case *shoal.InviteBody:
		return &shoalv1.InviteBody{
			Id: b.ID, Role: string(b.Role), PublicKey: b.PublicKey, ExpiresAt: b.ExpiresAt,
			Uses: int32(b.Uses), RedeemedBy: texts(b.RedeemedBy), Revoked: b.Revoked,
		}
	case *shoal.OpBody:
		return &shoalv1.OpBody{Service: b.Service, Seq: b.Seq, Stopped: b.Stopped, Of: revisionMessage(b.Of)}
	case *shoal.RolloutBody:
		return &shoalv1.RolloutBody{
			Service: b.Service, Of: revisionMessage(b.Of), Seq: b.Seq,
			Paused: b.Paused, Promoted: b.Promoted, Why: b.Why, Settled: b.Settled,
		}
	case *shoal.ImageBody:
		return imageMessage(b)
	case *shoal.PolicyBody:
		return &shoalv1.PolicyBody{Id: revisionMessage(b.ID), Replaces: revisionMessages(b.Replaces), Upstream: b.Upstream}
	default:
		return nil // checkBody refused it
	}
}

// bodyOf turns a message into its body; bounds are checked afterwards.
func bodyOf(m pb.Message) (shoal.Body, error) {
	switch m := m.(type) {
	case *shoalv1.MemberBody:
		return &shoal.MemberBody{
			Peer: shoal.PeerID(m.GetPeer()), Role: shoal.Role(m.GetRole()), Invite: m.GetInvite(),
			Removed: m.GetRemoved(), HighestSeq: m.GetHighestSeq(),
		}, nil
	case *shoalv1.PeerBody:
		return &shoal.PeerBody{Peer: shoal.PeerID(m.GetPeer()), Facts: factsOf(m.GetFacts())}, nil
	case *shoalv1.MarkBody:
		b := &shoal.MarkBody{Peer: shoal.PeerID(m.GetPeer()), Lifts: m.GetLifts()}
		for _, l := range m.GetLaid() {
			b.Laid = append(b.Laid, shoal.Mark{ID: l.GetId(), Drain: l.GetDrain()})
		}
		for _, e := range m.GetEdits() {
			b.Edits = append(b.Edits, shoal.Edit{Label: e.GetLabel(), Value: e.GetValue(), Gone: e.GetGone(), Own: e.GetOwn(), Seq: e.GetSeq()})
		}
		return b, nil
	case *shoalv1.RevisionBody:
		spec, err := specOf(m.GetSpec())
		if err != nil {
			return nil, err
		}
		past, err := pastOf(m.GetPast())
		if err != nil {
			return nil, err
		}
		p, err := proposalOf(m.GetProposal())
		return &shoal.RevisionBody{
			Revision: revisionOf(m.GetRevision()), Replaces: revisionsOf(m.GetReplaces()),
			Spec: spec, Proposal: p, Past: past, Undoes: revisionOf(m.GetUndoes()), Why: m.GetWhy(),
		}, err
	case *shoalv1.ScaleBody:
		return scaleOf(m)
	case *shoalv1.GoneBody:
		return &shoal.GoneBody{Service: m.GetService(), Removes: revisionsOf(m.GetRemoves())}, nil
	case *shoalv1.ClaimBody:
		return claimOf(m)
	case *shoalv1.InviteBody:
		return &shoal.InviteBody{
			ID: m.GetId(), Role: shoal.Role(m.GetRole()), PublicKey: m.GetPublicKey(),
			ExpiresAt: m.GetExpiresAt(), Uses: int(m.GetUses()),
			RedeemedBy: peersOf(m.GetRedeemedBy()), Revoked: m.GetRevoked(),
		}, nil
	case *shoalv1.OpBody:
		return &shoal.OpBody{Service: m.GetService(), Seq: m.GetSeq(), Stopped: m.GetStopped(), Of: revisionOf(m.GetOf())}, nil
	case *shoalv1.RolloutBody:
		return &shoal.RolloutBody{
			Service: m.GetService(), Of: revisionOf(m.GetOf()), Seq: m.GetSeq(),
			Paused: m.GetPaused(), Promoted: m.GetPromoted(), Why: m.GetWhy(), Settled: m.GetSettled(),
		}, nil
	case *shoalv1.ImageBody:
		return imageOf(m)
	case *shoalv1.PolicyBody:
		return &shoal.PolicyBody{ID: revisionOf(m.GetId()), Replaces: revisionsOf(m.GetReplaces()), Upstream: m.GetUpstream()}, nil
	default:
		return nil, invalid("kind", "%T is not a body", m)
	}
}

func factsMessage(f *shoal.PeerFacts) *shoalv1.PeerFacts {
	return &shoalv1.PeerFacts{
		Name: f.Name, Labels: f.Labels, Capacity: resourcesMessage(f.Capacity),
		Reserved: resourcesMessage(f.Reserved), Platforms: f.Platforms, Engine: f.Engine,
		EngineApi: f.EngineAPI, Version: f.Version, Addrs: f.Addrs, PublishAddr: f.PublishAddr,
		Leaving: f.Leaving, AllowedPolicy: f.AllowedPolicy,
	}
}

func factsOf(m *shoalv1.PeerFacts) shoal.PeerFacts {
	return shoal.PeerFacts{
		Name: m.GetName(), Labels: m.GetLabels(), Capacity: resourcesOf(m.GetCapacity()),
		Reserved: resourcesOf(m.GetReserved()), Platforms: m.GetPlatforms(), Engine: m.GetEngine(),
		EngineAPI: m.GetEngineApi(), Version: m.GetVersion(), Addrs: m.GetAddrs(),
		PublishAddr: m.GetPublishAddr(), Leaving: m.GetLeaving(), AllowedPolicy: m.GetAllowedPolicy(),
	}
}

func scaleMessage(b *shoal.ScaleBody) *shoalv1.ScaleBody {
	m := &shoalv1.ScaleBody{Service: b.Service, Seq: b.Seq, Proposal: proposalMessage(b.Proposal)}
	if b.Base != nil {
		m.Base = &shoalv1.ScaleBase{
			Id: revisionMessage(b.Base.ID), N: int32(b.Base.N), File: int32(b.Base.File),
			Covers: revisionMessages(b.Base.Covers), Manual: b.Base.Manual, Why: b.Base.Why,
		}
	}
	for _, a := range b.Adds {
		m.Adds = append(m.Adds, &shoalv1.ScaleAdd{Base: revisionMessage(a.Base), Delta: int32(a.Delta)})
	}
	return m
}

func scaleOf(m *shoalv1.ScaleBody) (*shoal.ScaleBody, error) {
	p, err := proposalOf(m.GetProposal())
	b := &shoal.ScaleBody{Service: m.GetService(), Seq: m.GetSeq(), Proposal: p}
	if base := m.GetBase(); base != nil {
		b.Base = &shoal.ScaleBase{
			ID: revisionOf(base.GetId()), N: int(base.GetN()), File: int(base.GetFile()),
			Covers: revisionsOf(base.GetCovers()), Manual: base.GetManual(), Why: base.GetWhy(),
		}
	}
	for _, a := range m.GetAdds() {
		b.Adds = append(b.Adds, shoal.ScaleAdd{Base: revisionOf(a.GetBase()), Delta: int(a.GetDelta())})
	}
	return b, err
}

func claimMessage(b *shoal.ClaimBody) *shoalv1.ClaimBody {
	m := &shoalv1.ClaimBody{Peer: string(b.Peer), Service: b.Service}
	known := table[shoal.RevisionID]{}
	for _, h := range b.Holds {
		m.Holds = append(m.Holds, &shoalv1.Holding{
			Slot: int32(h.Slot), Replica: replicaBytes(h.Replica),
			Revision: known.pick(h.Revision), Since: hlcMessage(h.Since), Outcome: outcomeMessage(h.Outcome),
		})
	}
	m.Revisions = revisionMessages(known.rows)
	for _, slot := range b.Data {
		m.Data = append(m.Data, int32(slot))
	}
	for _, r := range b.Released {
		m.Released = append(m.Released, &shoalv1.Released{
			Slot: int32(r.Slot), Replica: replicaBytes(r.Replica), YieldTo: string(r.YieldTo),
		})
	}
	return m
}

func claimOf(m *shoalv1.ClaimBody) (*shoal.ClaimBody, error) {
	b := &shoal.ClaimBody{Peer: shoal.PeerID(m.GetPeer()), Service: m.GetService()}
	known := table[shoal.RevisionID]{rows: revisionsOf(m.GetRevisions())}
	for _, h := range m.GetHolds() {
		id, err := replicaOf(h.GetReplica())
		if err != nil {
			return nil, err
		}
		rev, err := known.row(h.GetRevision())
		if err != nil {
			return nil, err
		}
		b.Holds = append(b.Holds, shoal.Holding{
			Slot: int(h.GetSlot()), Replica: id, Revision: rev, Since: hlcOf(h.GetSince()), Outcome: outcomeOf(h.GetOutcome()),
		})
	}
	for _, slot := range m.GetData() {
		b.Data = append(b.Data, int(slot))
	}
	for _, r := range m.GetReleased() {
		id, err := replicaOf(r.GetReplica())
		if err != nil {
			return nil, err
		}
		b.Released = append(b.Released, shoal.Release{
			Slot: int(r.GetSlot()), Replica: id, YieldTo: shoal.PeerID(r.GetYieldTo()),
		})
	}
	return b, nil
}
