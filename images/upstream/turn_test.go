// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalnet/shoal"
)

func TestTurn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Custom(func(t *rapid.T) shoal.PeerID { return shoal.PeerID(rapid.StringN(1, 8, -1).Draw(t, "peer")) })
		peers := rapid.SliceOfNDistinct(id, 1, 8, func(p shoal.PeerID) shoal.PeerID { return p }).Draw(t, "peers")
		digest := rapid.String().Draw(t, "digest")
		shuffled := rapid.Permutation(peers).Draw(t, "shuffled")

		// turnOf returns after how many spans without progress it is p's turn, as seen
		// by somebody who knows these peers.
		turnOf := func(p shoal.PeerID, known []shoal.PeerID) int {
			for n := range len(known) {
				at := time.Duration(n) * 10 * time.Second
				if Turn(p, known, digest, at) {
					if !Turn(p, known, digest, at+time.Hour) {
						t.Fatalf("%q's turn ends", p)
					}
					if at > 0 && Turn(p, known, digest, at-1) {
						t.Fatalf("%q's turn comes early", p)
					}
					return n
				}
			}
			t.Fatalf("it is never %q's turn among %q", p, known)
			return 0
		}
		order := slices.Clone(peers)
		slices.SortFunc(order, func(a, b shoal.PeerID) int { return cmp.Compare(turnOf(a, peers), turnOf(b, peers)) })
		for n, p := range order {
			// Exactly one has each turn, the first at once, and everybody agrees.
			if turnOf(p, peers) != n || turnOf(p, shuffled) != n {
				t.Fatalf("turns of %q: %d, %d, want %d", p, turnOf(p, peers), turnOf(p, shuffled), n)
			}
		}
		gone := rapid.IntRange(0, len(order)-1).Draw(t, "gone")
		left := slices.Delete(slices.Clone(order), gone, gone+1)
		for n, p := range left {
			// Who came before keeps the turn, who came after moves up by one.
			if turnOf(p, left) != n {
				t.Fatalf("%q has turn %d after %q went, want %d", p, turnOf(p, left), order[gone], n)
			}
		}
		if Turn(order[gone], left, digest, time.Hour) {
			t.Fatal("it is the turn of a peer that may not ask")
		}
	})
}

// The digests of a cluster are spread over who may ask.
func TestTurnSpreads(t *testing.T) {
	peers := []shoal.PeerID{"a", "b", "c", "d"}
	count := map[shoal.PeerID]int{}
	for i := range 1000 {
		for _, p := range peers {
			if Turn(p, peers, fmt.Sprint(i), 0) {
				count[p]++
			}
		}
	}
	for _, p := range peers {
		if count[p] < 200 || count[p] > 300 {
			t.Errorf("%s has the first turn for %d of 1000 digests", p, count[p])
		}
	}
}

func TestMayAsk(t *testing.T) {
	told := func(pairs ...string) (out []shoal.Upstream) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, shoal.Upstream{Registry: pairs[i], Waits: pairs[i+1]})
		}
		return out
	}
	for _, c := range []struct {
		told []shoal.Upstream
		ref  string
		want bool
	}{
		{nil, "hello", false},
		{told("docker.io", ""), "hello:1", true},
		{told("docker.io", ""), "docker.io/library/hello", true},
		{told("docker.io", ""), "ghcr.io/x/y", false},
		{told("*", ""), "ghcr.io/x/y", true},
		{told("*", ""), "127.0.0.1:5050/x", false},
		{told("*", ""), "localhost/x", false},
		{told("127.0.0.1:5050", ""), "127.0.0.1:5050/x", true},
		{told("*", "", "ghcr.io", "429, again in 40s"), "ghcr.io/x/y", false},
		{told("*", "", "ghcr.io", "429, again in 40s"), "hello", true},
		{told("ghcr.io", "", "ghcr.io/x/y", "401"), "ghcr.io/x/y:v1", false},
		{told("ghcr.io", "", "ghcr.io/x/y", "401"), "ghcr.io/x/z:v1", true},
		{told("ghcr.io/x/y", ""), "ghcr.io/x/y:v1", false},
		{told("*", ""), "Not/an image", false},
	} {
		if got := MayAsk(c.told, c.ref); got != c.want {
			t.Errorf("MayAsk(%v, %s) = %t, want %t", c.told, c.ref, got, c.want)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		cfg Config
		why string
	}{
		{Config{}, ""},
		{Config{Registries: []string{"*", "docker.io", "GHCR.io", "10.0.0.7:5000", "[fd00::7]:5000", "localhost", "localhost:5000", "reg:5000"}}, ""},
		{Config{Registries: []string{"https://ghcr.io"}}, "registries[0] must be a host"},
		{Config{Registries: []string{"docker.io", "ghcr.io/x"}}, "registries[1] must be a host"},
		{Config{Registries: []string{"reg"}}, "registries[0]"},
		{Config{Registries: []string{""}}, "registries[0]"},
		{Config{Registries: slices.Repeat([]string{"a.b"}, 17)}, "at most 16"},
		{Config{Insecure: []string{"*"}}, "insecure[0]"},
		{Config{Insecure: []string{"registry-1.docker.io"}}, "insecure docker.io"},
		{Config{Timeout: -1}, "timeout"},
		{Config{Stall: -1}, "stall"},
	} {
		_, err := New(c.cfg, &handClock{}, slog.New(slog.DiscardHandler))
		if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.why)
		}
	}
}

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		registries, insecure string
		yes, no              string
	}{
		{"", "", "", "hello ghcr.io/x/y localhost/x"},
		{"docker.io", "", "hello x/y docker.io/x index.docker.io/x/y hello:1 hello@sha256:" + strings.Repeat("0", 64), "ghcr.io/x/y localhost/x Hello hello:"},
		{"Index.Docker.io", "", "hello", "ghcr.io/x/y"},
		{"*", "", "hello ghcr.io/x/y 10.0.0.7:5000/x", "localhost/x localhost:5000/x 127.0.0.1:5050/x 127.1.2.3/x [::1]:5000/x 0.0.0.0:80/x"},
		{"*", "127.0.0.1:5050", "127.0.0.1:5050/x hello", "127.0.0.1:5051/x"},
		{"localhost:5000", "", "localhost:5000/x", "localhost/x hello"},
		{"docker.io", "10.0.0.7:5000", "hello", "10.0.0.7:5000/x"},
	} {
		w := newWorld(t, false, func(cfg *Config) {
			cfg.Registries, cfg.Insecure = strings.Fields(c.registries), strings.Fields(c.insecure)
		})
		for ref := range strings.FieldsSeq(c.yes) {
			if !w.client.Allowed(ref) || !MayAsk(w.client.Waits(), ref) {
				t.Errorf("%v: %s is not allowed", c, ref)
			}
		}
		for ref := range strings.FieldsSeq(c.no) {
			if w.client.Allowed(ref) || MayAsk(w.client.Waits(), ref) {
				t.Errorf("%v: %s is allowed", c, ref)
			}
		}
	}
}

func TestParse(t *testing.T) {
	sum := "sha256:" + strings.Repeat("ab", 32)
	for ref, want := range map[string]target{
		"hello":                     {hub, "library/hello", "latest", ""},
		"hello:1":                   {hub, "library/hello", "1", ""},
		"x/hello:1":                 {hub, "x/hello", "1", ""},
		"docker.io/library/hello:1": {hub, "library/hello", "1", ""},
		"registry-1.docker.io/hi":   {hub, "library/hi", "latest", ""},
		"hello@" + sum:              {hub, "library/hello", "", sum},
		"hello:1@" + sum:            {hub, "library/hello", "", sum},
		"GHCR.io/x/y:v1":            {"ghcr.io", "x/y", "v1", ""},
		"reg:5000/y":                {"reg:5000", "y", "latest", ""},
		"localhost/y":               {"localhost", "y", "latest", ""},
		"[fd00::7]:5000/y:1":        {"[fd00::7]:5000", "y", "1", ""},
	} {
		if got, err := parse(ref); err != nil || got != want {
			t.Errorf("parse(%s) = %+v, %v, want %+v", ref, got, err, want)
		}
	}
	for _, ref := range []string{
		"", ":", "@", "hello:", "hello@", "hello@sha256:12", "hello@md5:" + strings.Repeat("ab", 32), "hello:1 ", "Hello", "x//y", "/y", "../y",
		"ghcr.io/", "ghcr.io/x/../y", "ghcr.io:/y", "ghcr.io:x/y", "a_b.c/y", "http://ghcr.io/x", "ghcr.io/x?y", "u@ghcr.io/x", "ghcr.io/x%2fy", "hello:a/b",
		strings.Repeat("a", 256), "hello:" + strings.Repeat("a", 129), "hello\x00",
	} {
		if got, err := parse(ref); err == nil {
			t.Errorf("parse(%q) = %+v, want an error", ref, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"hello", "ghcr.io/x/y:v1", "[::1]:5/x", "hello@sha256:" + strings.Repeat("ab", 32), "localhost/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		got, err := parse(ref)
		if err != nil {
			return
		}
		if (got.tag == "") == (got.digest == "") {
			t.Fatalf("parse(%q) = %+v: a tag or a digest", ref, got)
		}
		// Nothing of a reference but its host says where a request goes.
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, question{target: got, kind: "manifests", id: got.tag + got.digest}.url(false), nil)
		if err != nil || req.URL.Host != got.host() || req.URL.Path != "/v2/"+got.repo+"/manifests/"+got.tag+got.digest || req.URL.RawQuery != "" || req.URL.User != nil {
			t.Fatalf("parse(%q) = %+v: %v, %v", ref, got, req, err)
		}
		sep := ":"
		if got.digest != "" {
			sep = "@"
		}
		if again, err := parse(got.place() + sep + got.tag + got.digest); err != nil || again != got {
			t.Fatalf("parse(%q) = %+v, and of its own form %+v, %v", ref, got, again, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add("bytes 5-9/10", "40", int64(5), int64(5))
	f.Add("bytes */10", "Sun, 06 Nov 1994 08:49:37 GMT", int64(5), int64(-1))
	f.Fuzz(func(t *testing.T, contentRange, retry string, from, length int64) {
		from, length = max(from, 1), max(length, -1)
		h := http.Header{"Content-Range": {contentRange}, "Retry-After": {retry}}
		st := &stream{size: length, left: length}
		if st.place(from, &ask{status: http.StatusPartialContent, header: h}) == nil && (st.left < 0 || st.size != from+st.left || st.skip != 0) {
			t.Fatalf("range %q from %d: %+v", contentRange, from, st)
		}
		if d := retryAfter(h, time.Unix(0, 0)); d != 0 && (d < retryMin || d > retryMax) {
			t.Fatalf("Retry-After %q: %s", retry, d)
		}
	})
}

func TestAbout(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "5s", 0: "5s", time.Second: "5s", 5 * time.Second: "5s", 6 * time.Second: "10s", 31 * time.Second: "40s", time.Minute: "1m",
		61 * time.Second: "2m", 10 * time.Minute: "10m", 10*time.Minute + 1: "20m", time.Hour: "60m",
	} {
		if got := about(d); got != want {
			t.Errorf("about(%s) = %s, want %s", d, got, want)
		}
	}
	texts := map[string]bool{}
	for d := time.Hour; d > 0; d -= time.Second {
		texts[about(d)] = true
	}
	if len(texts) > 22 {
		t.Errorf("an hour has %d texts", len(texts))
	}
}

// What is remembered and told is bounded; what matters most is kept.
func TestWaitsBounded(t *testing.T) {
	clock := &handClock{now: time.Second}
	w := newWaits(clock)
	for i := range 2000 {
		w.failed(target{registry: "ghcr.io", repo: fmt.Sprintf("x%d", i)}, clock.Mono(), failure{why: "401"})
	}
	w.failed(target{registry: "quay.io", repo: "x"}, clock.Mono(), failure{why: "429", whole: true, retry: time.Hour})
	if len(w.by) > maxWaits {
		t.Errorf("%d are remembered", len(w.by))
	}
	told := w.told([]string{"*", "quay.io"}, "")
	if len(told) != maxTold || !slices.IsSortedFunc(told, func(a, b shoal.Upstream) int { return cmp.Compare(a.Registry, b.Registry) }) {
		t.Errorf("%d are told: %v", len(told), told)
	}
	if !slices.Contains(told, shoal.Upstream{Registry: "quay.io", Waits: "429, again in 60m"}) || !slices.Contains(told, shoal.Upstream{Registry: "*"}) {
		t.Errorf("told %v", told)
	}
	clock.add(time.Hour + backOffMax)
	w.failed(target{registry: "ghcr.io", repo: "y"}, clock.Mono(), failure{why: "401"})
	if len(w.by) != 2 { // quay.io's is over just now
		t.Errorf("%d are remembered an hour later", len(w.by))
	}
}
