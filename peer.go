// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

// Role says what a member may write.
type Role string

// The roles.
const (
	RoleOperator Role = "operator" // may accept wishes, admit and remove
	RolePeer     Role = "peer"     // reads, and writes about itself only
)

// Peer is one machine as the records know it.
type Peer struct {
	ID        PeerID
	Role      Role
	Admission []byte    // signed envelope of the record that admitted it
	Facts     PeerFacts // as they count: with the edits of operators
	Own       PeerFacts // as the peer itself recorded them
	Cordoned  bool      // takes no new slots
	Draining  bool      // also hands over present ones
	Removed   bool      // its pen has ended; kept so that its records can be judged
	Removal   []byte    // signed envelope of a record that removed it, nil unless Removed
	// Marks are those in force, sorted by ID: what lifting names.
	Marks []Mark
	// Edits are those that count, sorted by Label.
	Edits []Edit
	// By is what each operator's newest record says of it, read-only.
	By map[PeerID]*MarkBody
}

// Name returns the peer's name, or its short ID while it has none.
func (p *Peer) Name() string {
	if p.Facts.Name != "" {
		return p.Facts.Name
	}
	return p.ID.Short()
}

// Left reports whether the peer left the cluster by itself: it holds nothing and has
// no address any more. It stays a member by its key, and may come back by a new token.
func (p *Peer) Left() bool { return p.Facts.Leaving && len(p.Facts.Addrs) == 0 }

// TakesSlots reports whether the peer may be given slots, if it lives: it is a member that
// is not cordoned, draining or on its way out.
func (p *Peer) TakesSlots() bool {
	return !p.Removed && !p.Cordoned && !p.Draining && !p.Facts.Leaving
}

// Zone returns the peer's zone label, "" if it has none.
func (p *Peer) Zone() string { return p.Facts.Labels["zone"] }

// PeerFacts are the slow facts a peer records about itself.
type PeerFacts struct {
	Name          string
	Labels        map[string]string
	Capacity      Resources // what the machine has
	Reserved      Resources // kept from containers
	Platforms     []string  // "linux/amd64"
	Engine        string    // "docker 20.10.24"
	EngineAPI     string    // "1.41"
	Version       string    // of shoald
	Addrs         []string  // multiaddresses to dial it by
	PublishAddr   string    // the address its containers' ports are published on
	Leaving       bool      // it hands over its slots and goes
	AllowedPolicy []string  // rules its owner allows; empty: none
}

// Allocatable is what containers may use.
func (f *PeerFacts) Allocatable() Resources { return f.Capacity.Sub(f.Reserved) }
