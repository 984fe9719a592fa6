// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import "fmt"

// Whether registries outside the cluster are asked for what no peer has.
const (
	UpstreamPeersFirst = "peers-first" // where a machine's owner allows them; the default
	UpstreamNone       = "none"
)

// PolicyBody is what operators want of the whole cluster. It is in force unless another
// replaces it; of several in force, because peers did not hear each other, the strictest
// counts. Author: an operator.
type PolicyBody struct {
	ID       RevisionID   // Seq = 1 + highest of Replaces, Author = the record's author
	Replaces []RevisionID // all in force that its author saw
	Upstream string       // UpstreamPeersFirst or UpstreamNone
}

// Policy is the folded state of all policy bodies. The zero value is the default.
type Policy struct {
	PolicyBody     // the one that counts
	Since      HLC // of its record, display only
	// Heads are the IDs of all bodies in force, sorted: what the next body replaces.
	Heads []RevisionID
}

// Kind implements [Body].
func (*PolicyBody) Kind() Kind { return KindPolicy }

// About implements [Body]. There is one policy for all.
func (*PolicyBody) About() string { return "cluster" }

// AsksOutside reports whether registries outside the cluster may be asked. A word that
// this version does not know forbids it.
func (p *PolicyBody) AsksOutside() bool { return p.Upstream == "" || p.Upstream == UpstreamPeersFirst }

// CheckUpstream reports whether s is a word for PolicyBody.Upstream. The error is an
// *InvalidError of the field "upstream".
func CheckUpstream(s string) error {
	if s != UpstreamPeersFirst && s != UpstreamNone {
		return &InvalidError{Field: "upstream", Why: fmt.Sprintf("must be %s or %s, got %.20q", UpstreamPeersFirst, UpstreamNone, s)}
	}
	return nil
}
