// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/gossip"
	"github.com/shoalnet/shoal/wish"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden is what became of one file of the corpus.
type golden struct {
	Problems []string     `json:"problems,omitempty"`
	Warnings []string     `json:"warnings,omitempty"`
	Specs    []shoal.Spec `json:"specs,omitempty"`
}

// TestCorpus parses files in the shapes people write; what is parsed, or refused, is
// in NAME.json beside NAME.yaml. What is parsed is planned, accepted, rendered, and
// parsed again: planning that changes nothing. -update rewrites the golden files.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/corpus/*.yaml")
	if err != nil || len(files) < 25 {
		t.Fatalf("Glob: %d files, %v, want at least 25", len(files), err)
	}
	accepted := 0
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			if got, p := corpus(t, name); got.Problems == nil {
				accepted++
				roundTrip(t, p)
			}
		})
	}
	if accepted < 15 {
		t.Errorf("only %d of %d files are accepted", accepted, len(files))
	}
}

// corpus loads one file and compares it with its golden file.
func corpus(t *testing.T, name string) (golden, *Project) {
	t.Helper()
	opts := Options{Files: []string{name}, Env: map[string]string{"GRAFANA_PASSWORD": "s3$cret"}}
	switch filepath.Base(name) {
	case "override.yaml":
		opts.Files = []string{"testdata/corpus/wordpress.yaml", name}
	case "profiles.yaml":
		opts.Profiles = []string{"debug"}
	}
	p, err := Load(t.Context(), opts)
	var got golden
	var all *Error
	switch {
	case errors.As(err, &all):
		got.Problems = texts(all.Problems)
	case err != nil:
		t.Fatalf("Load(%s): %v", name, err)
	default:
		got.Specs, got.Warnings = p.Specs, texts(p.Warnings)
	}
	raw, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs("testdata/corpus")
	if err != nil {
		t.Fatal(err)
	}
	raw = append(bytes.ReplaceAll(raw, []byte(here), []byte("/srv/corpus")), '\n')
	want := strings.TrimSuffix(name, ".yaml") + ".json"
	if *update {
		if err := os.WriteFile(want, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(old), string(raw)); diff != "" {
		t.Errorf("%s: want (-), got (+); -update rewrites it:\n%s", want, diff)
	}
	return got, p
}

func texts(in []Problem) []string {
	var out []string
	for _, p := range in {
		out = append(out, strings.TrimPrefix(p.String(), "testdata/corpus/"))
	}
	return out
}

// roundTrip: what is rendered is read as the same, and planning it changes nothing.
func roundTrip(t *testing.T, p *Project) {
	t.Helper()
	var file bytes.Buffer
	if err := Render(&file, p.Specs, false); err != nil {
		t.Fatal(err)
	}
	again, err := Load(t.Context(), Options{Files: []string{"-"}, Stdin: bytes.NewReader(file.Bytes()), Strict: true})
	if err != nil {
		t.Fatalf("Load of what was rendered: %v\n%s", err, file.Bytes())
	}
	if diff := gocmp.Diff(p.Specs, again.Specs); diff != "" {
		t.Errorf("Load(Render(specs)): want (-), got (+):\n%s\n%s", diff, file.Bytes())
	}
	desk := newDesk(t)
	deploy := func(specs []shoal.Spec) shoal.Wish {
		return shoal.Wish{Deploy: &shoal.DeployWish{Specs: specs, AllowUnplaced: true}}
	}
	if _, err := desk.Submit(t.Context(), deploy(p.Specs), shoal.UpdateOptions{}); err != nil {
		t.Fatalf("Submit: %v", err)
	}
	plan, err := desk.Plan(t.Context(), deploy(again.Specs))
	if err != nil || len(plan.Changes) != len(p.Specs) {
		t.Fatalf("Plan = %+v, %v, want a line for each of %d services", plan, err, len(p.Specs))
	}
	for _, ch := range plan.Changes {
		if ch.Kind != shoal.ChangeNone {
			t.Errorf("Plan of what was rendered: %s %s %v, want no change", ch.Kind, ch.Service, ch.Details)
		}
	}
}

// signer is the only peer of a cluster in memory.
type signer struct {
	priv  ed25519.PrivateKey
	id    shoal.PeerID
	store *gossip.Memory
}

func (s *signer) PeerID() shoal.PeerID { return s.id }

func (s *signer) Sign(message []byte) ([]byte, error) { return ed25519.Sign(s.priv, message), nil }

func (s *signer) View() *shoal.View {
	return shoal.NewView(s.id, s.store.Desired(), map[shoal.PeerID]shoal.Life{s.id: {State: shoal.LifeAlive}}, nil)
}

func (s *signer) Changed() <-chan struct{} { return s.store.Changed() }

func newSigner(t *testing.T, seed byte, cluster shoal.PeerID) *signer {
	t.Helper()
	s := &signer{priv: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))}
	pub, err := crypto.UnmarshalEd25519PublicKey(s.priv.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	s.id = shoal.PeerID(id.String())
	s.store = gossip.NewMemory(cmp.Or(cluster, s.id), shoal.NewSystemClock(), s)
	return s
}

func (s *signer) write(t *testing.T, body shoal.Body) {
	t.Helper()
	if _, err := s.store.Update(t.Context(), func(*shoal.Desired, shoal.Stamp) ([]shoal.Body, error) { return []shoal.Body{body}, nil }, shoal.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// newDesk returns the desk of the only peer of a cluster.
func newDesk(t *testing.T) *wish.Desk {
	t.Helper()
	root := newSigner(t, 1, "")
	s := newSigner(t, 2, root.id)
	root.write(t, &shoal.MemberBody{Peer: s.id, Role: shoal.RoleOperator})
	admission, _ := root.store.Since(0)
	s.store.Deliver(admission)
	s.write(t, &shoal.PeerBody{Peer: s.id, Facts: shoal.PeerFacts{Name: "a", Capacity: shoal.Resources{CPUMilli: 4000, MemBytes: 8 << 30}, Platforms: []string{"linux/amd64"}}})
	return wish.New(s.id, s.store, s, nil, nil)
}

// TestRenderMasks: masked values become variables that must be set.
func TestRenderMasks(t *testing.T) {
	s := []shoal.Spec{{
		Name: "web", Project: "shop", Image: "hello:1", Env: map[string]string{"PASS.WORD": "***"}, Mode: shoal.ModeReplicated, Replicas: 1,
		Strategy: shoal.StrategySpread, OnPartition: shoal.PartitionAvailable, Restart: shoal.Restart{Condition: shoal.RestartAny},
	}}
	var file bytes.Buffer
	if err := Render(&file, s, true); err != nil {
		t.Fatal(err)
	}
	if _, err := fromText(t, file.String(), Options{}); err == nil || !strings.Contains(err.Error(), "its value was masked") {
		t.Errorf("Load without the variable: %v, want that it was masked", err)
	}
	p, err := fromText(t, file.String(), Options{Env: map[string]string{"PASS_WORD": "a$b"}})
	if err != nil || p.Specs[0].Env["PASS.WORD"] != "a$b" {
		t.Errorf("Load with the variable = %+v, %v", p, err)
	}
	other := append(s, s[0])
	other[1].Project = "else"
	if err := Render(&file, other, false); err == nil {
		t.Error("Render of two projects: no error, want one")
	}
}
