// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoalnet/shoal"
)

// Labels of our containers. There is none for the slot: a replica may be given
// another one, a label cannot change (DESIGN section 9).
const (
	LabelPrefix   = "net.shoal."
	LabelCluster  = LabelPrefix + "cluster"  // cluster's PeerID
	LabelPeer     = LabelPrefix + "peer"     // holder's PeerID
	LabelService  = LabelPrefix + "service"  // service's name
	LabelReplica  = LabelPrefix + "replica"  // 32 hexadecimal digits
	LabelRevision = LabelPrefix + "revision" // SEQ@PEER
	LabelRecord   = LabelPrefix + "record"   // base64 of the revision's signed envelope
)

// identity is what our labels say about a container.
type identity struct {
	cluster, peer shoal.PeerID
	service       string
	replica       shoal.ReplicaID
	revision      shoal.RevisionID
	record        []byte
}

// labelsOf returns the labels of a new container: the user's and ours.
func labelsOf(spec *shoal.ContainerSpec) (map[string]string, error) {
	out := make(map[string]string, len(spec.Spec.Labels)+6)
	for k, v := range spec.Spec.Labels {
		if strings.HasPrefix(k, LabelPrefix) {
			return nil, &shoal.InvalidError{Field: "labels", Why: fmt.Sprintf("must not begin with %s, got %q", LabelPrefix, k)}
		}
		out[k] = v
	}
	out[LabelCluster] = string(spec.Cluster)
	out[LabelPeer] = string(spec.Peer)
	out[LabelService] = spec.Spec.Name
	out[LabelReplica] = spec.Replica.String()
	out[LabelRevision] = spec.Revision.String()
	if len(spec.Record) > 0 {
		out[LabelRecord] = base64.StdEncoding.EncodeToString(spec.Record)
	}
	return out, nil
}

// identify reads our labels; an error means that they are not well formed.
func identify(labels map[string]string) (identity, error) {
	id := identity{
		cluster: shoal.PeerID(labels[LabelCluster]),
		peer:    shoal.PeerID(labels[LabelPeer]),
		service: labels[LabelService],
	}
	var err error
	if id.replica, err = shoal.ParseReplicaID(labels[LabelReplica]); err != nil {
		return identity{}, err
	}
	if id.revision, err = shoal.ParseRevisionID(labels[LabelRevision]); err != nil {
		return identity{}, err
	}
	if raw := labels[LabelRecord]; raw != "" {
		if id.record, err = base64.StdEncoding.DecodeString(raw); err != nil {
			return identity{}, fmt.Errorf("label %s: %w", LabelRecord, err)
		}
	}
	return id, nil
}

// nameOf returns the container's name: "shoal-SERVICE-REPLICA". It names the
// replica, so two creates of one replica collide in the engine.
func nameOf(spec *shoal.ContainerSpec) string {
	return "shoal-" + spec.Spec.Name + "-" + spec.Replica.Short()
}

// checkSpec refuses what neither engine may be asked for.
func checkSpec(spec *shoal.ContainerSpec, cluster, peer shoal.PeerID) error {
	switch {
	case spec.Spec == nil:
		return &shoal.InvalidError{Field: "spec", Why: "is missing"}
	case spec.Replica.IsZero():
		return &shoal.InvalidError{Field: "replica", Why: "is missing"}
	case spec.Revision.IsZero():
		return &shoal.InvalidError{Field: "revision", Why: "is missing"}
	case spec.Spec.Image == "":
		return &shoal.InvalidError{Field: "image", Why: "is missing"}
	case spec.Cluster != cluster || spec.Peer != peer:
		return fmt.Errorf("create container for peer %s of cluster %s: %w", spec.Peer.Short(), spec.Cluster.Short(), shoal.ErrRefused)
	}
	return checkSetup(&spec.Spec.Setup)
}

// envOf returns the environment, sorted: the user's, and ours on top. SHOAL_SLOT is
// the slot at creation; a replica that is given another slot keeps the old value.
func envOf(spec *shoal.ContainerSpec) []string {
	env := make(map[string]string, len(spec.Spec.Env)+4)
	maps.Copy(env, spec.Spec.Env)
	env["SHOAL_SERVICE"] = spec.Spec.Name
	env["SHOAL_SLOT"] = fmt.Sprint(spec.Slot)
	env["SHOAL_REPLICA"] = spec.Replica.String()
	env["SHOAL_PEER"] = string(spec.Peer)
	out := make([]string, 0, len(env))
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

// missingImage is shoal.ErrNotFound in the user's words.
type missingImage struct{ ref string }

// Error returns one line with what to do about it.
func (e *missingImage) Error() string {
	return fmt.Sprintf("image %s is not there (shoal image push it where docker has it)", e.ref)
}

// Unwrap makes errors.Is(err, shoal.ErrNotFound) true.
func (e *missingImage) Unwrap() error { return shoal.ErrNotFound }
