//go:build integration && linux

// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/miekg/dns"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/pack"
	"github.com/shoalnet/shoal/runtime"
)

const talkImage = "shoal-ingress-test:1"

// harbor is one peer with a real engine and the machine's own kernel.
type harbor struct {
	t       *testing.T
	cluster shoal.PeerID
	engine  *runtime.Docker
	conf    string // of the machine's resolvers
	room    *Room
	stop    func()
	ids     map[string]string // containers by service

	mu      sync.Mutex // guards what follows
	desired *shoal.Desired
	state   *shoal.PeerState
	changed chan struct{}
}

func newHarbor(t *testing.T) *harbor {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("virtual addresses need CAP_NET_ADMIN; run make integration as root")
	}
	const self = "12D3KooWPeerA"
	h := &harbor{
		t: t, conf: filepath.Join(t.TempDir(), "resolv.conf"), ids: map[string]string{},
		desired: &shoal.Desired{Peers: []shoal.Peer{{ID: self}}}, state: &shoal.PeerState{}, changed: make(chan struct{}),
	}
	if err := os.WriteFile(h.conf, []byte("nameserver "+resolverOfTest(t)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	h.cluster = shoal.PeerID("12D3KooW" + rand.Text())
	h.engine, err = runtime.NewDocker(runtime.Config{Cluster: h.cluster, Peer: self}, shoal.NewSystemClock(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h.loadTalk()
	t.Cleanup(h.end)
	h.start()
	return h
}

// start runs a room as a daemon does that starts.
func (h *harbor) start() {
	h.t.Helper()
	cfg := Defaults()
	cfg.Resolvers = h.conf
	room, err := New(cfg, Deps{
		Self: h.View().Self(), Views: h, Clock: shoal.NewSystemClock(), Log: slog.New(slog.DiscardHandler),
		Handle: func(protocol.ID, network.StreamHandler) {}, Path: func(shoal.PeerID) string { return "" },
		Networks: h.engine, Apart: h.engine.Apart,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- room.Run(ctx) }()
	h.room = room
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("Run = %v", err)
		}
	})
}

// end removes what the test made, and fails if something is left.
func (h *harbor) end() {
	ctx := context.WithoutCancel(h.t.Context())
	for _, id := range h.ids {
		if err := h.engine.Remove(ctx, id); err != nil {
			h.t.Error(err)
		}
	}
	if err := h.room.Detach(ctx); err != nil {
		h.t.Error(err)
	}
	h.stop()
	if left, err := h.engine.ListNetworks(ctx); err != nil || len(left) != 0 {
		h.t.Errorf("left behind: %+v, %v", left, err)
	}
	_ = h.engine.Close() // idle connections only
}

// resolverOfTest is one of the machine's resolvers: it knows one name.
func resolverOfTest(t *testing.T) string {
	t.Helper()
	const at = "127.0.213.53"
	pc, err := net.ListenPacket("udp4", at+":53")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
		if question := q.Question[0]; strings.EqualFold(question.Name, "outside.example.") {
			m.Rcode = dns.RcodeSuccess
			if question.Qtype == dns.TypeA {
				m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 80)}}
			}
		}
		_ = w.WriteMsg(m) // the asker tells
	})}
	up, done := make(chan struct{}), make(chan error, 1)
	s.NotifyStartedFunc = func() { close(up) }
	go func() { done <- s.ActivateAndServe() }()
	<-up
	t.Cleanup(func() {
		_ = s.Shutdown()
		<-done
	})
	return at
}

func (h *harbor) loadTalk() {
	t := h.t
	t.Helper()
	binary, err := pack.Build(t.Context(), "./testdata/talk")
	if err != nil {
		t.Fatal(err)
	}
	img, err := pack.Image(binary, pack.Options{Path: "/talk"})
	if err != nil {
		t.Fatal(err)
	}
	var tar bytes.Buffer
	if err := pack.Tar(&tar, talkImage, img); err != nil {
		t.Fatal(err)
	}
	if err := pack.Load(t.Context(), runtime.DefaultHost, &tar); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		raw, err := client.NewClientWithOpts(client.WithHost(runtime.DefaultHost), client.WithAPIVersionNegotiation())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		if _, err := raw.ImageRemove(context.WithoutCancel(t.Context()), talkImage, image.RemoveOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// View implements shoal.Views.
func (h *harbor) View() *shoal.View {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := *h.desired
	d.Services, d.Claims = slices.Clone(d.Services), slices.Clone(d.Claims)
	self := d.Peers[0].ID
	return shoal.NewView(self, &d, nil, map[shoal.PeerID]*shoal.PeerState{self: {Replicas: slices.Clone(h.state.Replicas)}})
}

// Changed implements shoal.Views.
func (h *harbor) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// deploy runs one replica of a service, as the actors do.
func (h *harbor) deploy(name string, on []shoal.Attachment, ports ...shoal.Port) {
	t := h.t
	t.Helper()
	spec := shoal.Spec{
		Name: name, Project: "shop", Image: talkImage, Entrypoint: []string{"/talk"}, Command: []string{"serve", name, "8080", "9090", "5353"},
		Networks: on, Ports: ports,
	}
	nets, dns, err := h.room.Attach(t.Context(), &spec)
	if err != nil || !dns.IsValid() {
		t.Fatalf("Attach of %s = %+v, %s, %v; doctor: %+v", name, nets, dns, err, h.room.NameChecks(t.Context()))
	}
	self, id := h.View().Self(), shoal.ReplicaID{name[0], 1}
	revision := shoal.RevisionID{Seq: 1, Author: self}
	h.ids[name], err = h.engine.Create(t.Context(), shoal.ContainerSpec{
		Cluster: h.cluster, Peer: self, Replica: id, Revision: revision, Spec: &spec, Networks: nets, DNS: dns,
	})
	if err == nil {
		err = h.engine.Start(t.Context(), h.ids[name])
	}
	if err != nil {
		t.Fatal(err)
	}
	all, err := h.engine.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(all, func(c shoal.Container) bool { return c.ID == h.ids[name] })
	h.mu.Lock()
	h.desired.Services = append(h.desired.Services, shoal.Service{Spec: spec, Revision: revision, Replicas: 1})
	slices.SortFunc(h.desired.Services, func(a, b shoal.Service) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	h.desired.Claims = append(h.desired.Claims, shoal.Claim{Holder: self, Service: name, Replica: id, Revision: revision})
	slices.SortFunc(h.desired.Claims, func(a, b shoal.Claim) int { return strings.Compare(a.Service, b.Service) })
	h.state.Replicas = append(h.state.Replicas, shoal.ReplicaStatus{ID: id, Service: name, Revision: revision, Phase: shoal.PhaseReady, Addr: all[at].Addr})
	close(h.changed)
	h.changed = make(chan struct{})
	h.mu.Unlock()
}

// in runs talk in a service's container and returns what it says.
func (h *harbor) in(service string, args ...string) string {
	h.t.Helper()
	var out bytes.Buffer
	code, err := h.engine.Exec(h.t.Context(), h.ids[service], shoal.ExecOptions{Command: append([]string{"/talk"}, args...)}, shoal.Terminal{Out: &out, Err: io.Discard})
	if err != nil || code != 0 {
		h.t.Fatalf("talk %v in %s = %d, %v", args, service, code, err)
	}
	return strings.TrimSpace(out.String())
}

// hears asks again until the answer is as wanted: the view is followed in a moment.
func (h *harbor) hears(service, want string, args ...string) {
	h.t.Helper()
	got := ""
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // another process says it
		if got = h.in(service, args...); got == want {
			return
		}
	}
	h.t.Errorf("%s: talk %v = %q, want %q", service, args, got, want)
}

// TestNamesWithDocker: containers of one network reach each other by name and by virtual
// address, on declared ports and others; those of another do neither; all other names are
// asked of the machine's resolvers. It is the same after the daemon has started anew.
func TestNamesWithDocker(t *testing.T) {
	h := newHarbor(t)
	tcp, udp := shoal.Port{Container: 8080, Protocol: "tcp"}, shoal.Port{Container: 5353, Protocol: "udp"}
	h.deploy("web", []shoal.Attachment{{Network: "shop_front", Aliases: []string{"www"}}}, tcp, udp)
	h.deploy("api", on("shop_front", "shop_back"))
	h.deploy("db", on("shop_back"))
	h.deploy("lone", on("shop_lone"))
	check := func() (web string) {
		t.Helper()
		h.hears("api", "web", "ask", "tcp", "web:8080")
		h.hears("api", "web", "ask", "udp", "web:5353")
		for to, want := range map[string]string{"www:8080": "web", "web.shop:8080": "web", "0.web:9090": "web", "web.shop.shoal:9090": "web", "db:9090": "db"} {
			if got := h.in("api", "ask", "tcp", to); got != want {
				t.Errorf("api hears %q from %s, want %q", got, to, want)
			}
		}
		if got := h.in("web", "ask", "tcp", "web:8080"); got != "web" {
			t.Errorf("web hears %q from itself", got)
		}
		web = h.in("api", "lookup", "web")
		if a, err := netip.ParseAddr(web); err != nil || !h.virtual("shop_front").Contains(a) {
			t.Errorf("web is %s, want one address of %s", web, h.virtual("shop_front"))
		}
		for who, name := range map[string]string{"lone": "web", "web": "db", "db": "web"} {
			if got := h.in(who, "lookup", name); !strings.HasPrefix(got, "error") {
				t.Errorf("%s looks up %s = %s, want an error", who, name, got)
			}
		}
		for _, how := range [][]string{{"tcp", web + ":8080"}, {"tcp", web + ":9090"}, {"udp", web + ":5353"}} {
			if got := h.in("lone", "ask", how[0], how[1]); !strings.HasPrefix(got, "error") {
				t.Errorf("lone hears %q from %v by address", got, how)
			}
		}
		if got := h.in("lone", "lookup", "outside.example"); got != "192.0.2.80" {
			t.Errorf("a name of others = %q", got)
		}
		return web
	}
	before := check()
	for _, c := range h.room.NameChecks(t.Context()) {
		if c.State != shoal.CheckOK {
			t.Errorf("doctor: %+v", c)
		}
	}
	h.stop()
	if got := h.in("api", "ask", "tcp", before+":8080"); !strings.HasPrefix(got, "error") {
		t.Errorf("api hears %q from %s, and there is no daemon", got, before)
	}
	h.start()
	if after := check(); after != before {
		t.Errorf("web is %s, and was %s before the restart", after, before)
	}
}

// virtual returns the virtual range of a network.
func (h *harbor) virtual(name string) netip.Prefix {
	h.t.Helper()
	all, err := h.engine.ListNetworks(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(n shoal.Network) bool { return n.Name == name })
	if i < 0 {
		h.t.Fatalf("there is no network %s in %+v", name, all)
	}
	return all[i].Virtual
}
