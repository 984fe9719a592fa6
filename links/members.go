// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalnet/shoal"
)

// maxAddrs bounds the addresses kept and dialled per peer (FAILURES 2.50).
const maxAddrs = 16

// maxKnown bounds the members remembered beside the key; the records know them all.
const maxKnown = 4096

// KnownMember is what a peer remembers of a member beside its key, so that a lost
// store forgets neither who is a member nor where it was.
type KnownMember struct {
	Peer  shoal.PeerID `json:"peer"`
	Chain [][]byte     `json:"chain,omitempty"` // admission chain, signed envelopes; nil: not seen yet
	Addrs []string     `json:"addrs,omitempty"` // last known multiaddresses, at most 16
}

// clusterState is the content of cluster.json; the file's presence is membership.
type clusterState struct {
	Cluster shoal.PeerID `json:"cluster"`
	Chain   [][]byte     `json:"chain"` // of this peer
	role    shoal.Role   // from the chain

	Name   string            `json:"name,omitempty"` // as init or join said
	Labels map[string]string `json:"labels,omitempty"`
}

func (id *Identity) loadMembership() error {
	found, err := readJSON(id.files, clusterFile, &id.cluster)
	if err != nil {
		return err
	}
	id.members = map[shoal.PeerID]KnownMember{}
	if !found {
		return nil
	}
	id.cluster.role, err = VerifyChain(id.cluster.Cluster, id.self, id.cluster.Chain)
	if err != nil {
		return fmt.Errorf("read %s: %w", clusterFile, err)
	}
	if _, err := readKey(id.files, clusterKeyFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var known []KnownMember
	if _, err := readJSON(id.files, membersFile, &known); err != nil {
		return err
	}
	for _, m := range known {
		id.members[m.Peer] = m
	}
	return nil
}

// Cluster returns the cluster this peer belongs to, "" before init or join.
func (id *Identity) Cluster() shoal.PeerID {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.cluster.Cluster
}

// Role returns the role this peer's admission chain gives it, "" outside a cluster.
func (id *Identity) Role() shoal.Role {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.cluster.role
}

// Chain returns this peer's admission chain: signed envelopes from the cluster key
// to it. Not to be written to.
func (id *Identity) Chain() [][]byte {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.cluster.Chain
}

// SetMembership makes this peer a member of cluster, durably. The chain must lead
// from the cluster to this peer (*ChainError). shoal.ErrConflict: it belongs to
// another cluster.
func (id *Identity) SetMembership(cluster shoal.PeerID, chain [][]byte) error {
	role, err := VerifyChain(cluster, id.self, chain)
	if err != nil {
		return err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if c := id.cluster.Cluster; c != "" && c != cluster {
		return otherCluster(c)
	}
	state := clusterState{Cluster: cluster, Chain: chain, role: role}
	if err := writeJSON(id.files, clusterFile, &state); err != nil {
		return err
	}
	id.cluster = state
	return nil
}

// Named returns the name and the labels that init or join gave this peer, "" and nil
// if they gave none. The labels are not to be written to.
func (id *Identity) Named() (string, map[string]string) {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.cluster.Name, id.cluster.Labels
}

// SetNamed keeps what init or join said, durably, until the cluster is left.
func (id *Identity) SetNamed(name string, labels map[string]string) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	state := id.cluster
	state.Name, state.Labels = name, maps.Clone(labels)
	if err := writeJSON(id.files, clusterFile, &state); err != nil {
		return err
	}
	id.cluster = state
	return nil
}

// Forget makes this peer a member of nothing: the cluster's files are moved aside
// to identity/left-<n>/, where people can still find them. The key, the boot
// counter and the author sequence stay.
func (id *Identity) Forget() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.cluster.Cluster == "" {
		return nil
	}
	names, err := id.files.list(identityDir)
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	n := 1
	for _, name := range names {
		if rest, ok := strings.CutPrefix(name, "left-"); ok {
			if k, err := strconv.Atoi(rest); err == nil && k >= n {
				n = k + 1
			}
		}
	}
	aside := identityDir + "/left-" + strconv.Itoa(n) + "/"
	for _, name := range []string{clusterFile, membersFile, clusterKeyFile} { // the first one is membership
		if err := id.files.move(name, aside+strings.TrimPrefix(name, identityDir+"/")); err != nil {
			return fmt.Errorf("leave: %w", err)
		}
	}
	id.cluster, id.members = clusterState{}, map[shoal.PeerID]KnownMember{}
	return nil
}

// Members returns the remembered members by ID, without this peer.
func (id *Identity) Members() []KnownMember {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.sortedMembers()
}

// addrsOf returns the last known addresses of one member.
func (id *Identity) addrsOf(peer shoal.PeerID) []string {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.members[peer].Addrs
}

func (id *Identity) sortedMembers() []KnownMember {
	out := make([]KnownMember, 0, len(id.members))
	for _, peer := range slices.Sorted(maps.Keys(id.members)) {
		out = append(out, id.members[peer])
	}
	return out
}

// Remember keeps what is new in each: a nil Chain or empty Addrs leaves what was
// known. Chains that do not lead from the cluster to their peer are dropped.
// Nothing is written when nothing changed.
func (id *Identity) Remember(members ...KnownMember) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.cluster.Cluster == "" {
		return shoal.ErrNotMember
	}
	changed := false
	for _, m := range members {
		old, known := id.members[m.Peer]
		if m.Peer == id.self || m.Peer == "" || !known && len(id.members) >= maxKnown {
			continue
		}
		next := old
		next.Peer = m.Peer
		if len(m.Chain) > 0 && !equalChains(m.Chain, old.Chain) {
			if _, err := VerifyChain(id.cluster.Cluster, m.Peer, m.Chain); err == nil {
				next.Chain = m.Chain
			}
		}
		if len(m.Addrs) > 0 {
			next.Addrs = slices.Clone(m.Addrs[:min(len(m.Addrs), maxAddrs)])
		}
		if !known || !equalChains(next.Chain, old.Chain) || !slices.Equal(next.Addrs, old.Addrs) {
			id.members[m.Peer] = next
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return id.saveMembers()
}

// ForgetMembers drops members that were removed from the cluster.
func (id *Identity) ForgetMembers(peers ...shoal.PeerID) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	before := len(id.members)
	for _, p := range peers {
		delete(id.members, p)
	}
	if len(id.members) == before {
		return nil
	}
	return id.saveMembers()
}

func (id *Identity) saveMembers() error {
	members := id.sortedMembers()
	return writeJSON(id.files, membersFile, &members)
}

func equalChains(a, b [][]byte) bool {
	return slices.EqualFunc(a, b, func(x, y []byte) bool { return string(x) == string(y) })
}

func otherCluster(c shoal.PeerID) error {
	return &shoal.AdviceError{
		Err:    fmt.Errorf("already a member of cluster %s: %w", c.Short(), shoal.ErrConflict),
		Advice: "run \"shoal leave\" first",
	}
}

func readJSON(f files, name string, into any) (bool, error) {
	raw, err := f.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	return true, nil
}

func writeJSON(f files, name string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		err = f.write(name, append(raw, '\n'), publicMode)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
