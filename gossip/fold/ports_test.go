// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

// published is a revision of a service that wants a port on every peer.
func published(service string, id shoal.RevisionID, port shoal.Port, replaces ...shoal.RevisionID) *shoal.RevisionBody {
	return &shoal.RevisionBody{
		Revision: id, Replaces: replaces,
		Spec: shoal.Spec{Name: service, Mode: shoal.ModeReplicated, Replicas: 1, Ports: []shoal.Port{port}},
	}
}

// TestPortOfTwoServices: what two sides of a split gave to a service each is told as a
// conflict, the same whatever comes first, until one of them wants it no more.
func TestPortOfTwoServices(t *testing.T) {
	port := shoal.Port{Container: 80, Published: 8080, Protocol: "tcp"}
	both := []Entry{at("A", 9, published("web", rev(1, "A"), port)), at("B", 9, published("api", rev(1, "B"), port))}
	want := []shoal.Conflict{{
		Service: "web", Loser: rev(1, "A"), Winner: rev(1, "B"),
		Rule: "port 8080/tcp answers for api, whose revision is the higher; publish another port for one of them",
	}}
	if diff := cmp.Diff(want, fold(t, with(both...)...).Conflicts); diff != "" {
		t.Errorf("conflicts (-want +got):\n%s", diff)
	}
	again := append(both, at("A", 10, published("web", rev(2, "A"), port, rev(1, "A"))))
	want[0].Service, want[0].Loser, want[0].Winner = "api", rev(1, "B"), rev(2, "A")
	want[0].Rule = "port 8080/tcp answers for web, whose revision is the higher; publish another port for one of them"
	if diff := cmp.Diff(want, fold(t, with(again...)...).Conflicts); diff != "" {
		t.Errorf("conflicts after the other was deployed again (-want +got):\n%s", diff)
	}
	port.Published = 8081
	ended := append(both, at("A", 10, published("web", rev(2, "A"), port, rev(1, "A"))))
	if got := fold(t, with(ended...)...).Conflicts; len(got) != 0 {
		t.Errorf("conflicts = %+v, want none", got)
	}
	port.Published, port.Host = 8080, true
	host := append(both, at("A", 10, published("web", rev(2, "A"), port, rev(1, "A"))))
	if got := fold(t, with(host...)...).Conflicts; len(got) != 0 {
		t.Errorf("conflicts with a host port = %+v, want none", got)
	}
}
