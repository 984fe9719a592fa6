// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"

	"github.com/shoalnet/shoal"
)

// oneWay is the distance of simulated peers.
const oneWay = 10 * time.Millisecond

// sim is a simulated network of stores; it lives in a synctest bubble.
type sim struct {
	t      *testing.T
	c      *cluster
	net    *simnet.Simnet
	hosts  []host.Host
	mute   []host.Host // connected to nobody, for the pubsub of deaf stores
	stores []*running
}

// newSim makes n connected hosts, without stores.
func newSim(t *testing.T, n int) *sim {
	t.Helper()
	s := &sim{t: t, c: newCluster(t, n), net: &simnet.Simnet{LatencyFunc: simnet.StaticLatency(oneWay)}}
	for _, m := range s.c.members {
		s.hosts = append(s.hosts, s.newHost(m.key))
	}
	s.net.Start()
	t.Cleanup(func() {
		for _, h := range append(s.hosts, s.mute...) {
			if err := h.Close(); err != nil {
				t.Errorf("close host: %v", err)
			}
		}
		s.net.Close()
	})
	s.stores = make([]*running, n)
	return s
}

// newHost makes a host on an address of its own.
func (s *sim) newHost(key crypto.PrivKey) host.Host {
	s.t.Helper()
	link := simnet.LinkSettings{BitsPerSecond: 1000 * simlibp2p.OneMbps}
	h, err := libp2p.New(
		libp2p.Identity(key),
		libp2p.ListenAddrStrings(fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", simnet.IntToPublicIPv4(len(s.hosts)+1000*len(s.mute)))),
		simlibp2p.QUICSimnet(s.net, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.ResourceManager(&network.NullResourceManager{}),
	)
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}

// connect links two hosts.
func (s *sim) connect(i, j int) {
	s.t.Helper()
	err := s.hosts[i].Connect(context.Background(), peer.AddrInfo{ID: s.hosts[j].ID(), Addrs: s.hosts[j].Addrs()})
	if err != nil {
		s.t.Fatalf("connect %d to %d: %v", i, j, err)
	}
}

func (s *sim) connectAll() {
	s.t.Helper()
	for i := range s.hosts {
		for j := range i {
			s.connect(i, j)
		}
	}
}

// start runs a store on host i; deaf ones neither push nor hear pushes.
func (s *sim) start(i int, deaf bool, tune func(*Config)) *running {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	voice := s.hosts[i]
	if deaf {
		s.mute = append(s.mute, nil)
		voice = s.newHost(newAuthor(s.t, fmt.Sprint("mute ", i)).key)
		s.mute[len(s.mute)-1] = voice
	}
	ps, err := NewPubSub(ctx, voice)
	if err != nil {
		s.t.Fatal(err)
	}
	cfg, deps := s.c.config(), s.c.deps(s.t, s.c.members[i])
	if tune != nil {
		tune(&cfg)
	}
	deps.Host, deps.PubSub = s.hosts[i], ps
	s.stores[i] = start(s.t, cfg, deps)
	return s.stores[i]
}

// converged waits until all stores have one digest, and returns how long it took.
func (s *sim) converged(within time.Duration) time.Duration {
	s.t.Helper()
	begin := time.Now()
	for {
		same := true
		var first shoal.Digest
		for i, st := range s.stores {
			if st == nil {
				continue
			}
			if first == (shoal.Digest{}) {
				first = st.Digest()
			}
			same = same && s.stores[i].Digest() == first
		}
		if same {
			return time.Since(begin)
		}
		if time.Since(begin) > within {
			for i, st := range s.stores {
				if st != nil {
					s.t.Logf("store %d: %s %+v", i, st.Digest(), st.Stats())
				}
			}
			s.t.Fatalf("stores differ after %v", within)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestSimPushConverges(t *testing.T) {
	for _, n := range []int{2, 5} {
		t.Logf("%d peers", n)
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, n)
			s.connectAll()
			for i := range n {
				s.start(i, false, nil)
			}
			if err := s.stores[0].Inject(t.Context(), s.c.admissions()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second) // topics are joined and first syncs over
			s.converged(time.Second)
			pulled := s.stores[1].Stats().Pulled
			for i, st := range s.stores {
				st.deploy(t, fmt.Sprintf("web-%d", i))
			}
			took := s.converged(time.Second)
			if took > 10*oneWay {
				t.Errorf("converged after %v, want a few times %v", took, oneWay)
			}
			t.Logf("%d peers wrote at once: same digest after %v", n, took)
			st := s.stores[1].Stats()
			if st.Pushed < uint64(n-1) || len(st.Refused) > 0 {
				t.Errorf("stats %+v, want %d pushed blocks and none refused", st, n-1)
			}
			if st.Pulled != pulled {
				t.Logf("%d blocks were pulled", st.Pulled-pulled)
			}
			for i := range n {
				svc, ok := s.stores[1].Desired().Service(fmt.Sprintf("web-%d", i))
				if !ok || !svc.Fresh {
					t.Errorf("service of peer %d: there %t, want it fresh", i, ok)
				}
			}
		})
	}
}

// Concurrent bursts branch the DAG; push alone, out of order, must put it together.
func TestSimBurstConverges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, each = 5, 40
		s := newSim(t, n)
		s.connectAll()
		for i := range n {
			s.start(i, false, nil)
		}
		if err := s.stores[0].Inject(t.Context(), s.c.admissions()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		for k := range each {
			for i, st := range s.stores {
				st.mark(t, s.c.members[i].id, fmt.Sprintf("m%d", k))
			}
			time.Sleep(time.Millisecond) // far less than the distance: everybody is behind everybody
		}
		t.Logf("same digest %v after %d writes", s.converged(5*time.Second), n*each)
		for i, st := range s.stores {
			if got := st.Stats(); got.Records != n*each+n || len(got.Refused) > 0 {
				t.Errorf("store %d: %+v, want %d records", i, got, n*each+n)
			}
		}
	})
}

func TestSimConvergesWithoutAnyPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5
		s := newSim(t, n)
		s.connectAll()
		for i := range n {
			s.start(i, true, nil)
		}
		if err := s.stores[0].Inject(t.Context(), s.c.admissions()); err != nil {
			t.Fatal(err)
		}
		for i, st := range s.stores {
			st.deploy(t, fmt.Sprintf("web-%d", i))
		}
		t.Logf("same digest after %v", s.converged(3*time.Minute))
		for i, st := range s.stores {
			if got := st.Stats(); got.Pushed != 0 || got.Records != 2*n {
				t.Errorf("store %d: %+v, want %d records and none by push", i, got, 2*n)
			}
			if svc, _ := st.Desired().Service(fmt.Sprintf("web-%d", (i+1)%n)); svc == nil || svc.Fresh {
				t.Errorf("store %d: what came by sync must be there and not fresh", i)
			}
		}
	})
}

func TestSimNewcomerAndEqualSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const records = 2000
		s := newSim(t, 2)
		s.start(0, false, nil)
		if err := s.stores[0].Inject(t.Context(), s.c.admissions()); err != nil {
			t.Fatal(err)
		}
		for i := range records {
			s.stores[0].mark(t, s.c.members[0].id, fmt.Sprintf("m%d", i))
		}
		s.connectAll()
		begin := time.Now()
		s.start(1, false, nil)
		if err := s.stores[1].SyncWith(t.Context(), s.c.members[0].id); err != nil {
			t.Fatalf("SyncWith = %v", err)
		}
		t.Logf("newcomer had %d records after %v simulated", records, time.Since(begin))
		s.converged(0)
		if got := s.stores[1].Stats(); got.Records != records+2 {
			t.Errorf("%+v, want %d records", got, records+2)
		}
		time.Sleep(time.Minute) // every sync that was due is over
		before := s.stores[1].Stats()
		if err := s.stores[1].SyncWith(t.Context(), s.c.members[0].id); err != nil {
			t.Fatal(err)
		}
		after := s.stores[1].Stats()
		moved := after.SyncIn + after.SyncOut - before.SyncIn - before.SyncOut
		if moved >= 4096 || after.SyncEqual != before.SyncEqual+1 {
			t.Errorf("a sync of equal stores moved %d bytes, want below 4096", moved)
		}
		t.Logf("a sync of equal stores moves %d bytes", moved)
	})
}

func TestSimAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 3)
		s.connectAll()
		for i := range 3 {
			s.start(i, i == 2, nil) // the third hears no push and must pull
		}
		if err := s.stores[0].Inject(t.Context(), s.c.admissions()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		write := func(name string, acks int) (shoal.Ack, error) {
			return s.stores[0].Update(t.Context(), func(_ *shoal.Desired, as shoal.Stamp) ([]shoal.Body, error) {
				return []shoal.Body{service(name, as)}, nil
			}, shoal.UpdateOptions{Acks: acks})
		}
		begin := time.Now()
		if ack, err := write("one", 1); err != nil || ack.Acks != 1 {
			t.Errorf("Update with 1 ack = %+v, %v", ack, err)
		}
		t.Logf("one ack after %v", time.Since(begin))
		begin = time.Now()
		if ack, err := write("two", 2); err != nil || ack.Acks != 2 {
			t.Errorf("Update with 2 acks = %+v, %v", ack, err)
		}
		t.Logf("two acks, one of them by pull, after %v", time.Since(begin))
		begin = time.Now()
		ack, err := write("three", 3)
		if !isTooFew(err) || ack.Acks != 2 || !ack.Wrote {
			t.Errorf("Update with 3 acks = %+v, %v, want 2 and ErrTooFewAcks", ack, err)
		}
		if took := time.Since(begin); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("gave up after %v, want 5s", took)
		}
	})
}

// A split writes on both sides; a heal brings both to one digest at once.
func TestSimSplitHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 4)
		s.connect(0, 1)
		s.connect(2, 3)
		for i := range 4 {
			s.start(i, false, nil)
		}
		for _, i := range []int{0, 2} {
			if err := s.stores[i].Inject(t.Context(), s.c.admissions()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		for k := range 50 {
			s.stores[0].mark(t, s.c.members[0].id, fmt.Sprintf("a%d", k))
			s.stores[3].mark(t, s.c.members[3].id, fmt.Sprintf("b%d", k))
			time.Sleep(20 * time.Millisecond)
		}
		s.connectAll()
		t.Logf("same digest %v after the heal", s.converged(10*time.Second))
		time.Sleep(time.Minute)
		s.stores[0].deploy(t, "merged")
		s.converged(time.Second)
		for i, st := range s.stores {
			if got := st.Stats(); got.Heads != 1 || len(got.Refused) > 0 {
				t.Errorf("store %d: %+v, want one head after a write on top of both sides", i, got)
			}
		}
	})
}

func isTooFew(err error) bool { return errors.Is(err, shoal.ErrTooFewAcks) }
