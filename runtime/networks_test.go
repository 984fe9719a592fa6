// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"testing"

	"github.com/docker/docker/api/types/network"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

// choosy is an engine that has networks, and refuses the first subnets it is asked for.
type choosy struct {
	refuse int
	there  []network.Summary
	asked  []string
}

func (c *choosy) behave(w http.ResponseWriter, r *http.Request, path string) bool {
	switch {
	case path == "/networks" && r.Method == http.MethodGet:
		_ = json.NewEncoder(w).Encode(c.there)
	case path == "/networks/create":
		var in network.CreateRequest
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusTeapot)
			return true
		}
		c.asked = append(c.asked, in.IPAM.Config[0].Subnet)
		if len(c.asked) <= c.refuse {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"message":"Pool overlaps with other one on this address space"}`)
			return true
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"Id":"%064x"}`, len(c.asked))
	default:
		return false
	}
	return true
}

func TestEnsureNetworkTriesTheNext(t *testing.T) {
	c := &choosy{refuse: 2, there: []network.Summary{
		{ID: "x", Name: "theirs", IPAM: network.IPAM{Config: []network.IPAMConfig{{Subnet: "fd00::/64"}, {Subnet: "10.213.0.0/23"}}}},
	}}
	f := &fakeEngine{api: "1.41", behave: c.behave}
	d := newFakeDocker(t, serveFake(t, f), patient)
	n, err := d.EnsureNetwork(t.Context(), "shop_default", []netip.Prefix{netip.MustParsePrefix("10.213.9.0/24")})
	if err != nil || n.Subnet.String() != "10.213.16.0/22" || n.Bridge != "br-000000000000" {
		t.Errorf("EnsureNetwork = %+v, %v; want 10.213.16.0/22", n, err)
	}
	if got := fmt.Sprint(c.asked); got != "[10.213.4.0/22 10.213.12.0/22 10.213.16.0/22]" {
		t.Errorf("asked for %s, want those that overlap nothing we know of", got)
	}
}

func TestEnsureNetworkGivesUp(t *testing.T) {
	c := &choosy{refuse: 1000}
	f := &fakeEngine{api: "1.41", behave: c.behave}
	d := newFakeDocker(t, serveFake(t, f), patient)
	if _, err := d.EnsureNetwork(t.Context(), "shop_default", nil); !errors.Is(err, shoal.ErrNoSpace) {
		t.Errorf("EnsureNetwork = %v, want ErrNoSpace", err)
	}
	if len(c.asked) != 8 {
		t.Errorf("asked %d times, want 8", len(c.asked))
	}
}

func TestEnsureNetworkRefusesAnotherShape(t *testing.T) {
	c := &choosy{there: []network.Summary{{
		ID: "x", Name: "by-hand", Driver: "bridge",
		Labels: map[string]string{runtime.LabelCluster: string(cluster), runtime.LabelPeer: string(peer), runtime.LabelNetwork: "shop"},
		IPAM:   network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.213.0.0/22", Gateway: "10.213.0.1"}}},
	}}}
	f := &fakeEngine{api: "1.41", behave: c.behave}
	d := newFakeDocker(t, serveFake(t, f), patient)
	if _, err := d.EnsureNetwork(t.Context(), "shop", nil); !errors.Is(err, shoal.ErrConflict) || len(c.asked) != 0 {
		t.Errorf("EnsureNetwork = %v after asking for %v, want ErrConflict", err, c.asked)
	}
	if all, err := d.ListNetworks(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("ListNetworks = %+v, %v; want it left out", all, err)
	}
}
