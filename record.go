// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import "strconv"

// Kind names a kind of record; it is the first element of its key.
type Kind string

// The kinds (DESIGN: one writer per key, folded by gossip/fold).
const (
	KindMember  Kind = "member"
	KindPeer    Kind = "peer"
	KindMark    Kind = "mark"
	KindService Kind = "service" // revisions
	KindScale   Kind = "scale"
	KindGone    Kind = "gone"
	KindClaim   Kind = "claim"
	KindInvite  Kind = "invite"
	KindOp      Kind = "op"
	KindImage   Kind = "image"
	KindPolicy  Kind = "policy"
	KindRollout Kind = "rollout"
)

// Schema is the version of the record envelope this code writes.
const Schema = 1

// Record is one signed fact. Raw is the body exactly as its author signed it, so
// that fields this version does not know survive; Body is what this version
// understood, nil for an unknown kind.
//
// Its store key is "/<kind>/<name>/<author>/<authorSeq>" (StoreKey), immutable and
// written once. The logical key without the sequence is what the fold keeps the
// newest of.
type Record struct {
	Schema    uint32
	Kind      Kind
	Name      string // what it is about: peer ID, service, invite ID
	Author    PeerID
	AuthorSeq uint64
	HLC       HLC
	Raw       []byte
	Body      Body
	Signature []byte
}

// Body is the decoded content of a record.
type Body interface {
	// Kind returns the kind of record that carries this body.
	Kind() Kind
	// About returns the Name of the record that carries this body.
	About() string
}

// MemberBody admits a peer, or removes it. Author: an operator; for the first
// member the cluster key itself.
type MemberBody struct {
	Peer       PeerID
	Role       Role
	Invite     string // ID of the redeemed invite, "" for the first member
	Removed    bool
	HighestSeq uint64 // with Removed: highest AuthorSeq seen of Peer; what lies above is void
}

// PeerBody carries a peer's slow facts. Author: that peer.
type PeerBody struct {
	Peer  PeerID
	Facts PeerFacts
}

// Mark is one cordon or drain laid on a peer.
type Mark struct {
	// ID is "<author>/<authorSeq of the record that laid it>"; "" in a draft: the store
	// fills it in.
	ID    string
	Drain bool // false: cordon only
}

// MarkBody is all marks its author laid on a peer and all it lifted, whoever laid
// them. A mark is in force if no author lifts it. Edits is what its author last said
// of each field; of several authors' edits of one field the highest (Seq, author)
// counts (docs/adr/0004). Author: an operator.
type MarkBody struct {
	Peer  PeerID
	Laid  []Mark
	Lifts []string
	Edits []Edit // sorted by Label
}

// Edit is an operator's word on a peer's name or one of its labels. It stands over
// what the peer says of itself.
type Edit struct {
	Label string // the label's key; "": the name
	Value string
	Gone  bool   // the label is taken away
	Own   bool   // what the peer says of itself counts again
	Seq   uint64 // 1 + the highest Seq of this field that its author saw
}

// OpBody is the newest operation that its author asked for on a service. Of all
// authors' the highest (Seq, author) counts. Author: an operator.
type OpBody struct {
	Service string
	Seq     uint64 // 1 + the highest Seq its author saw
	Stopped bool   // no replica is wanted, whatever the scale
	// Of is the revision that was current. A newer one starts the service again.
	Of RevisionID
}

// RolloutBody is what its author says of how a service comes to one revision; that of
// another revision does not count. It was settled if anybody says so; of what all authors
// say of the rest the highest (Seq, author) counts. Author: an operator.
type RolloutBody struct {
	Service  string
	Of       RevisionID
	Seq      uint64 // 1 + the highest Seq about Of that its author saw
	Paused   bool   // no more slots change to Of
	Promoted bool   // its canary has shown enough: all slots change
	Why      string // it is paused, one line; "": a user said so
	Settled  bool   // it came to all slots, and they were healthy for long enough
}

// Proposal is advice, never an order: slot From+i goes to Peers[i]; "" where the
// accepting peer had no proposal.
type Proposal struct {
	From  int
	Peers []PeerID
}

// RevisionBody is one revision of a service. Author: an operator.
type RevisionBody struct {
	Revision RevisionID   // Seq = 1 + highest of Replaces, Author = the record's author
	Replaces []RevisionID // all heads its author saw; the store adds the newest of every author
	Spec     Spec
	Proposal Proposal
	// Past are those that were current before, the newest first, at most [MaxPast]; a
	// large spec may leave room for fewer.
	Past []PastRevision
	// Undoes is the revision that this one goes back from; zero: none. Equal ones of
	// several authors are one wish.
	Undoes RevisionID
	Why    string // it goes back, one line; "": a user said so
}

// ScaleBase is a counter opened by "=n". It covers all bases its author saw.
type ScaleBase struct {
	ID     RevisionID // (1 + highest covered Seq, author)
	N      int
	File   int // replicas the newest deployed file asked for; -1: no file did
	Covers []RevisionID
	// Manual: a user asked for N, and did not only deploy a file.
	Manual bool
	Why    string // the load called for N, one line; "": it did not
}

// ScaleAdd is all that one author added to (or took from) one base.
type ScaleAdd struct {
	Base  RevisionID
	Delta int
}

// ScaleBody is all that its author says on a service's scale: the newest base it
// opened, if any, and its sums on each base that was in force when it added. A
// base covered by another is out of force; of several in force the highest ID
// wins. Replicas = N + all authors' deltas on the winner, at least 0. Seq is 1 +
// the highest ScaleBody.Seq its author saw, and orders proposals. Author: an operator.
type ScaleBody struct {
	Service  string
	Seq      uint64
	Base     *ScaleBase
	Adds     []ScaleAdd
	Proposal Proposal
}

// GoneBody removes the revisions it names and all they replaced; a concurrent
// revision that its author had not seen survives. It is cumulative: it names all
// heads its author ever removed. Author: an operator.
type GoneBody struct {
	Service string
	Removes []RevisionID
}

// Holding is one slot a peer holds.
type Holding struct {
	Slot     int
	Replica  ReplicaID
	Revision RevisionID
	Since    HLC // zero in a draft: the store stamps it with the record's HLC
	Outcome  *JobOutcome
}

// ClaimBody is all that a peer holds of a service, and what it released last.
// Author: that peer.
type ClaimBody struct {
	Peer     PeerID
	Service  string
	Holds    []Holding
	Released []Release // Holder and Service are implied and left empty
	// Data lists the slots that ran here with a volume before they were let go or
	// changed: their data is still here. Sorted.
	Data []int
}

// InviteBody opens, redeems or revokes an invite. Opened and revoked by an
// operator, redeemed by the operator that admitted. Each author writes only its
// own part; the fold joins them.
type InviteBody struct {
	ID         string
	Role       Role   // of the newcomer; "" when this author did not open it
	PublicKey  []byte // Ed25519; the newcomer proves the token's secret by signing with its seed
	ExpiresAt  int64  // Unix seconds by the issuer's clock
	Uses       int    // how often it may be redeemed; 1 unless asked otherwise
	RedeemedBy []PeerID
	Revoked    bool
}

// ImageBody says what the name of an image stands for. It is in force unless another
// body in force replaces it; of several in force with different digests none counts
// until somebody decides (FAILURES 2, 41). One without a digest removes the name, but no
// digest that its author had not seen. Author: an operator.
type ImageBody struct {
	Image     string       // the name, as NormalizeRef writes it, always with a tag
	ID        RevisionID   // Seq = 1 + highest of Replaces, Author = the record's author
	Replaces  []RevisionID // all in force that its author saw
	Digest    string       // of the manifest or index; "": the name stands for nothing any more
	MediaType string
	Platforms []string // that can be had, sorted
	// Blobs are the manifest or index and all that it refers to, for the platforms that
	// were moved; at most 1000. From upstream they may be the manifests only.
	Blobs     []BlobRef
	Upstream  bool // the registry that the name names had it under this digest
	Pinned    bool
	MinCopies int // 0: the default
}

// Kind implements [Body].
func (*MemberBody) Kind() Kind { return KindMember }

// Kind implements [Body].
func (*PeerBody) Kind() Kind { return KindPeer }

// Kind implements [Body].
func (*MarkBody) Kind() Kind { return KindMark }

// Kind implements [Body].
func (*RevisionBody) Kind() Kind { return KindService }

// Kind implements [Body].
func (*ScaleBody) Kind() Kind { return KindScale }

// Kind implements [Body].
func (*GoneBody) Kind() Kind { return KindGone }

// Kind implements [Body].
func (*ClaimBody) Kind() Kind { return KindClaim }

// Kind implements [Body].
func (*InviteBody) Kind() Kind { return KindInvite }

// Kind implements [Body].
func (*OpBody) Kind() Kind { return KindOp }

// Kind implements [Body].
func (*RolloutBody) Kind() Kind { return KindRollout }

// Kind implements [Body].
func (*ImageBody) Kind() Kind { return KindImage }

// About implements [Body].
func (b *MemberBody) About() string { return string(b.Peer) }

// About implements [Body].
func (b *PeerBody) About() string { return string(b.Peer) }

// About implements [Body].
func (b *MarkBody) About() string { return string(b.Peer) }

// About implements [Body].
func (b *RevisionBody) About() string { return b.Spec.Name }

// About implements [Body].
func (b *ScaleBody) About() string { return b.Service }

// About implements [Body].
func (b *GoneBody) About() string { return b.Service }

// About implements [Body].
func (b *ClaimBody) About() string { return b.Service }

// About implements [Body].
func (b *InviteBody) About() string { return b.ID }

// About implements [Body].
func (b *OpBody) About() string { return b.Service }

// About implements [Body].
func (b *RolloutBody) About() string { return b.Service }

// About implements [Body].
func (b *ImageBody) About() string { return ImageKey(b.Image) }

// Key returns the record's store key: "/<kind>/<name>/<author>/<authorSeq>". It is
// immutable and written once, by the author it names.
func (r *Record) Key() string {
	return "/" + string(r.Kind) + "/" + r.Name + "/" + string(r.Author) + "/" + strconv.FormatUint(r.AuthorSeq, 10)
}

// Logical returns what the fold keeps the newest of: the key without the sequence.
func (r *Record) Logical() string {
	return "/" + string(r.Kind) + "/" + r.Name + "/" + string(r.Author)
}
