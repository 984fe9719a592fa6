// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

var update = flag.Bool("update", false, "rewrite the golden files, and the table of docs/metrics.md")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// member is a peer of the records.
func member(id shoal.PeerID, name string) shoal.Peer {
	return shoal.Peer{ID: id, Facts: shoal.PeerFacts{Name: name, Addrs: []string{"/ip4/192.0.2.1/tcp/4710"}}}
}

// busy is a peer that does a bit of everything: osaka is reached straight, kyoto by osaka,
// kobe is dead, nara was removed and has no row.
func busy() Snapshot {
	own, other := shoal.Digest{1}, shoal.Digest{2}
	d := &shoal.Desired{Digest: own, Peers: []shoal.Peer{
		member("id-kobe", "kobe"), member("id-kyoto", "kyoto"), member("id-nara", "nara"), member("id-osaka", "osaka"), member("id-tokyo", "tokyo"),
	}}
	d.Peers[2].Removed = true
	d.Services = []shoal.Service{{Spec: shoal.Spec{Name: "db"}, Replicas: 1}, {Spec: shoal.Spec{Name: "web", Autoscale: &shoal.Autoscale{Min: 2, Max: 10}}, Replicas: 4}}
	lives := map[shoal.PeerID]shoal.Life{
		"id-kobe": {State: shoal.LifeDead}, "id-kyoto": {State: shoal.LifeAlive, Digest: other}, "id-osaka": {State: shoal.LifeAlive, Digest: own},
	}
	states := map[shoal.PeerID]*shoal.PeerState{"id-tokyo": {Replicas: []shoal.ReplicaStatus{
		{ID: shoal.ReplicaID{1}, Service: "web", Phase: shoal.PhaseReady, Restarts: 2},
		{ID: shoal.ReplicaID{2}, Service: "web", Phase: shoal.PhaseReady, Restarts: 1},
		{ID: shoal.ReplicaID{3}, Service: "db", Phase: shoal.PhasePulling},
	}}}
	times := shoal.Histogram{Bounds: []time.Duration{time.Millisecond, time.Second}, Counts: []uint64{3, 2, 1}, Sum: 4 * time.Second}
	return Snapshot{
		Status: shoal.MemberStatus{
			Self: "id-tokyo", Cluster: "id-cluster", Version: "v1",
			Store: &shoal.StoreStatus{Records: 30, Live: 20, Blocks: 10, Refused: map[string]uint64{"form": 1, "signature": 2}},
		},
		View: shoal.NewView("id-tokyo", d, lives, states),
		Links: map[shoal.PeerID]Link{
			"id-osaka": {Path: "direct", Transport: "quic", RTT: 1500 * time.Microsecond, Pings: 20, Lost: 5},
			"id-kyoto": {Path: "relayed", By: "id-osaka", Transport: "tcp", RTT: 80 * time.Millisecond, Pings: 10},
		},
		Reach: map[string]shoal.Traffic{"web": {
			Open: 2, Total: 6, In: 1000, Out: 50000, Refused: map[string]uint64{"no replica": 4}, Retries: 3, Connect: times, FirstByte: times,
		}},
		Served: &shoal.Traffic{Open: 1, Total: 8, In: 300, Out: 700, Refused: map[string]uint64{"holder busy": 1}},
		Ports: []shoal.PortState{
			{PublishedPort: shoal.PublishedPort{Port: 53, Protocol: "udp", Service: "dns"}, Trouble: "taken"},
			{PublishedPort: shoal.PublishedPort{Port: 8080, Protocol: "tcp", Service: "web"}, Address: "192.0.2.1:8080", Usable: 2},
		},
		Images: &Images{Used: 3 << 20, Limit: 1 << 30, FromMembers: 2 << 20, FromOutside: 1 << 20, ToMembers: 4 << 20, Refused: map[string]uint64{"list": 1}},
		Rollouts: map[string]shoal.RolloutReport{
			"db": {State: "complete", Slots: 1, Current: 1, Healthy: 1}, "web": {State: "failing", Slots: 4, Current: 2, Healthy: 1, Failed: 1},
		},
		Scaling: map[string]shoal.Scaling{"web": {Want: 6, Metrics: []shoal.Measured{
			{Metric: "cpu", Unit: "%", Target: 60, Observed: 90, Known: true, Missing: 1},
			{Metric: "memory", Unit: "%", Target: 80, Missing: 4},
			{Metric: "requests", Unit: "/s", Target: 20, Observed: 2.5, Known: true},
		}}},
	}
}

// written is what of ours is told of a snapshot, by a registry that checks more than the
// daemon's.
func written(t rapid.TB, s Snapshot) string {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(newCollector(func() Snapshot { return s })); err != nil {
		t.Fatal(err)
	}
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range all {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestText(t *testing.T) {
	for name, s := range map[string]Snapshot{
		"busy":     busy(),
		"stranger": {Status: shoal.MemberStatus{Self: "id-tokyo", Version: "v1", Trouble: "removed by osaka"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := "testdata/" + name + ".txt"
			got := written(t, s)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("metrics (-%s +got):\n%s", file, diff)
			}
		})
	}
}

// What the rules of Prometheus say of names, units and help texts.
func TestLint(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(written(t, busy()))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	seen := written(t, busy())
	for _, f := range families {
		if !strings.Contains(seen, "\n"+f.name) {
			t.Errorf("%s has no value in a peer that does everything, so nobody looked at it", f.name)
		}
		if (f.numbers == nil) == (f.durations == nil) || (f.durations != nil) != (f.kind == histogram) || strings.HasSuffix(f.help, ".") {
			t.Errorf("%s: its row makes no sense", f.name)
		}
	}
}

// However members, services and counts are, there is an answer: two members may have one
// name, one may have none, and there may be a link to who is not known any more.
func TestAnyPeer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := []shoal.PeerID{"id-a", "id-b", "id-c"}
		anyID, anyName := rapid.SampledFrom(ids), rapid.SampledFrom([]string{"", "osaka", "tokyo"})
		count := rapid.Uint64Max(1 << 50)
		d := &shoal.Desired{}
		lives, links := map[shoal.PeerID]shoal.Life{}, map[shoal.PeerID]Link{}
		for _, id := range ids {
			p := member(id, anyName.Draw(t, "name"))
			p.Removed = rapid.Bool().Draw(t, "removed")
			d.Peers = append(d.Peers, p)
			lives[id] = shoal.Life{State: rapid.SampledFrom([]shoal.LifeState{shoal.LifeUnknown, shoal.LifeAlive, shoal.LifeDead}).Draw(t, "life")}
			links[id] = Link{Path: rapid.SampledFrom([]string{"", "direct", "relayed"}).Draw(t, "path"), By: rapid.SampledFrom([]shoal.PeerID{"", "id-a", "id-x"}).Draw(t, "by"), Pings: rapid.IntRange(0, 20).Draw(t, "pings")}
		}
		self := anyID.Draw(t, "self")
		state := &shoal.PeerState{}
		for i := range rapid.IntRange(0, 5).Draw(t, "replicas") {
			state.Replicas = append(state.Replicas, shoal.ReplicaStatus{
				ID: shoal.ReplicaID{byte(i)}, Service: rapid.SampledFrom([]string{"web", "db"}).Draw(t, "service"), Phase: shoal.Phase(rapid.IntRange(-1, 11).Draw(t, "phase")),
			})
		}
		s := Snapshot{
			Status: shoal.MemberStatus{Self: self}, Links: links,
			View:  shoal.NewView(self, d, lives, map[shoal.PeerID]*shoal.PeerState{self: state}),
			Reach: map[string]shoal.Traffic{"web": {Total: count.Draw(t, "total")}, "db": {Refused: map[string]uint64{"silent": count.Draw(t, "silent")}}},
		}
		text := written(t, s)
		if want := fmt.Sprintf("shoal_ingress_errors_total{reason=\"silent\",service=\"db\"} %v\n", float64(s.Reach["db"].Refused["silent"])); !strings.Contains(text, want) {
			t.Fatalf("no line %q in\n%s", want, text)
		}
	})
}

// The exporter has the runtime's and the system's numbers beside ours.
func TestExporterText(t *testing.T) {
	text, err := New(busy, slog.New(slog.DiscardHandler)).Text()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nshoal_engine_up 1\n", "\ngo_goroutines ", "\nprocess_"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in the text", want)
		}
	}
}
