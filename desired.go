// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

// Service is the folded state of one service.
type Service struct {
	Spec     Spec       // of the current revision
	Revision RevisionID // current: the highest (Seq, Author) of the heads
	Record   []byte     // the current revision's signed envelope, for container labels
	Accepted HLC        // of the current revision, display only
	Replicas int        // from the scale intents; meaningless for ModeGlobal
	Proposed []PeerID   // by slot: the newest proposal that covers it, "" if none
	Wish     RevisionID // (Revision.Seq + Scale.Seq + OpSeq, author of the newest): changes with every wish, only to be compared
	Fresh    bool       // the newest wish was written here or came by live push, not by a sync
	Heads    []RevisionID
	Scale    ScaleState
	Stopped  bool           // a user stopped it: no replica is wanted, whatever Replicas says
	OpSeq    uint64         // highest OpBody.Seq seen
	Past     []PastRevision // see RevisionBody; concurrent revisions that lost come last
	Undoes   RevisionID     // the revision that the current one goes back from; zero: none
	Why      string         // it goes back, one line
	Rollout  RolloutState
	IsPre    bool // no record says that it is there: it is what another one runs first (AddPre)
}

// Wanted returns how many slots a replicated service wants now.
func (s *Service) Wanted() int {
	if s.Stopped || s.IsAsleep() {
		return 0
	}
	return s.Replicas
}

// RolloutState is what the records say of how a service comes to its current revision.
type RolloutState struct {
	Seq      uint64 // highest RolloutBody.Seq about it seen
	Paused   bool
	Why      string // it is paused; "": a user said so
	Promoted bool
	Settled  bool // it came to all slots, and they were healthy for long enough
}

// ScaleState is what the next scale intent needs to know.
type ScaleState struct {
	Seq   uint64                // highest ScaleBody.Seq seen
	Base  RevisionID            // the base in force, zero if none
	File  int                   // the base's File: what the newest deployed file asked for, -1: none
	Bases []RevisionID          // all bases in force (more than one after a split)
	By    map[PeerID]*ScaleBody // every author's newest, read-only
	// Manual: a user asked for the base in force, or added to it.
	Manual bool
	Why    string // the load called for the base in force, one line; "": it did not, or a user added to it
}

// Conflict is a concurrent wish that lost, kept and shown; or the name of an image that
// stands for several digests, of which none won.
type Conflict struct {
	Service string     // "" if it is about an image
	Image   string     // "" if it is about a service
	Loser   RevisionID // zero if it is about an image, and so is Winner
	Winner  RevisionID
	Rule    string // the sentence that explains it
}

// Invite is the folded state of one invite.
type Invite struct {
	ID         string
	Issuer     PeerID
	Role       Role
	PublicKey  []byte
	ExpiresAt  int64 // Unix seconds, issuer's clock
	Uses       int
	RedeemedBy []PeerID
	Revoked    bool
}

// Image is the folded state of one name of an image.
type Image struct {
	// ImageBody is the one in force; Digest is "" if the name was removed, or there are
	// Rivals. ID, Pinned and MinCopies are those of the highest ID, what the image is
	// made of those of the body that knows most of it.
	ImageBody
	Since HLC // of the body with that ID, display only
	// Heads are the IDs of all bodies in force, sorted: what the next body replaces.
	Heads []RevisionID
	// Rivals are the bodies in force, this one included, if they name different digests;
	// sorted by ID. None otherwise.
	Rivals []ImageBody
}

// Desired is the folded state of all records a peer holds: a pure function of the
// set of records, the same on every peer that holds the same set (but for
// Service.Fresh and Version). It is immutable; all slices are sorted: services by
// name, peers by ID, claims by (service, slot, holder), homes by (service, slot, peer),
// invites by ID, images by name. Among the services are those that AddPre adds.
type Desired struct {
	Version   uint64 // grows with every change on this peer
	Digest    Digest
	Services  []Service
	Peers     []Peer // members, removed ones included
	Claims    []Claim
	Releases  []Release
	Homes     []Home
	Invites   []Invite
	Images    []Image
	Policy    Policy
	Conflicts []Conflict
	Gone      []GoneBody            // per service, joined over authors: all heads removed
	GoneScale map[string]ScaleState // scale of services that are removed now: a new revision covers it
	Live      int                   // records that count
	Void      int                   // records void by removal, role or missing admission
	Unknown   int                   // records of a kind this version does not know
}

// Service returns the named service.
func (d *Desired) Service(name string) (*Service, bool) {
	return find(d.Services, name, func(s *Service) string { return s.Spec.Name })
}

// Peer returns the member with this ID.
func (d *Desired) Peer(id PeerID) (*Peer, bool) {
	return find(d.Peers, id, func(p *Peer) PeerID { return p.ID })
}

// Image returns what a name of an image, as NormalizeRef writes it, stands for.
func (d *Desired) Image(name string) (*Image, bool) {
	return find(d.Images, name, func(i *Image) string { return i.Image })
}
