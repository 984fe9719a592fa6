// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
)

// basic lets through who has the login, by basic authentication.
func (w *world) basic(password string) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			status(401, "WWW-Authenticate", `Basic realm="here"`)(rw, r)
			return
		}
		w.through(rw, r)
	}
}

func TestBasic(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, false, func(c *Config) { c.DockerConfig = dir })
	raw, _ := w.push("app", "v1", content(10))
	w.breaks(w.basic(secret))
	resolve := func(ref string) error {
		_, err := w.client.Resolve(t.Context(), w.ref(ref))
		return err
	}
	w.wantWait(resolve("app:v1"), backOff, shoal.ErrRefused, "401, it is not there or wants another login (docker login "+w.host+")")
	w.asked()
	w.wantWait(resolve("app:v1"), backOff, shoal.ErrRefused, "401")
	w.wantAsked()
	w.clock.add(time.Second)
	if told := w.client.Waits(); MayAsk(told, w.ref("app")) || !MayAsk(told, w.ref("other")) {
		t.Errorf("Waits = %v", told)
	}

	// A login that was made now counts now, a wrong one as well as the right one.
	login(t, dir, "wrong", w.host)
	if told := w.client.Waits(); !MayAsk(told, w.ref("app")) {
		t.Errorf("with another login, Waits = %v", told)
	}
	w.wantWait(resolve("app:v1"), 2*backOff, shoal.ErrRefused, "401")
	w.clock.add(time.Second)
	login(t, dir, secret, "https://"+w.host+"/v1/")
	got, err := w.client.Resolve(t.Context(), w.ref("app:v1"))
	if err != nil || got.Digest != digestOf(raw) {
		t.Errorf("Resolve = %v, %v", got, err)
	}
	if told := w.client.Waits(); len(told) != 1 || told[0].Waits != "" {
		t.Errorf("Waits = %v", told)
	}
}

// tokens is a token server as docker's token authentication describes it, for one login.
type tokens struct {
	*httptest.Server
	mu      sync.Mutex
	given   []string
	asked   []string // scope, and who asked
	refuse  http.HandlerFunc
	private bool
}

func newTokens(t *testing.T) *tokens {
	s := &tokens{}
	s.Server = newServer(t, false, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		u, p, _ := r.BasicAuth()
		if r.Method == http.MethodPost { // OAuth2, with a refresh token
			u, p = "refresh", r.FormValue("refresh_token")
		}
		s.asked = append(s.asked, r.FormValue("scope")+" "+r.FormValue("service")+" "+u)
		switch {
		case s.refuse != nil:
			s.refuse(rw, r)
		case s.private && p != secret:
			status(401)(rw, r)
		default:
			token := fmt.Sprintf("token-%d", len(s.given))
			s.given = append(s.given, token)
			fmt.Fprintf(rw, `{"token":%q,"expires_in":300}`, token)
		}
	}))
	return s
}

// bearer lets through who has the newest token of s.
func (w *world) bearer(s *tokens) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		ok := len(s.given) > 0 && r.Header.Get("Authorization") == "Bearer "+s.given[len(s.given)-1]
		s.mu.Unlock()
		if !ok {
			status(401, "WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="reg",scope="repository:app:pull"`, s.URL))(rw, r)
			return
		}
		w.through(rw, r)
	}
}

// newTokenWorld is a registry that wants tokens, and a client with a login.
func newTokenWorld(t *testing.T, config any) (*world, *tokens) {
	s := newTokens(t)
	dir := t.TempDir()
	w := newWorld(t, false, func(c *Config) {
		c.Registries = append(c.Registries, s.Listener.Addr().String())
		c.DockerConfig = dir
	})
	w.push("app", "v1", content(10))
	w.breaks(w.bearer(s))
	if config == nil {
		login(t, dir, secret, w.host)
	} else {
		dockerConfig(t, dir, map[string]any{"auths": map[string]any{w.host: config}})
	}
	return w, s
}

func TestToken(t *testing.T) {
	for name, c := range map[string]struct {
		config any
		who    string
	}{
		"login":          {nil, user},
		"identity token": {map[string]string{"identitytoken": secret}, "refresh"},
		"nobody":         {map[string]string{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w, s := newTokenWorld(t, c.config)
			s.private = c.who != ""
			if _, err := w.client.Resolve(t.Context(), w.ref("app:v1")); err != nil {
				t.Fatal(err)
			}
			if want := []string{"repository:app:pull reg " + c.who}; !slices.Equal(s.asked, want) {
				t.Errorf("asked for tokens: %q, want %q", s.asked, want)
			}
			// The registry forgets the token: another one is fetched, and nobody waits.
			s.given = append(s.given, "of another time")
			if _, err := w.client.Resolve(t.Context(), w.ref("app:v1")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTokenRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		refuse http.HandlerFunc
		left   time.Duration
		kind   error
		why    string
		whole  bool
	}{
		{"wrong login", status(401), backOff, shoal.ErrRefused, "401 from 127.0.0.1:", false},
		{"asked too much", status(429, "Retry-After", "40"), 40 * time.Second, shoal.ErrUnreachable, "429 from 127.0.0.1:", true},
		{"down", status(502), backOff, shoal.ErrUnreachable, "502 from 127.0.0.1:", true},
		{"no token", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "{}") }, backOff, shoal.ErrUnreachable, "broken answer", true},
		{"endless", func(rw http.ResponseWriter, _ *http.Request) {
			for range 3 {
				_, _ = rw.Write([]byte(strings.Repeat(" ", maxAside)))
			}
			fmt.Fprint(rw, `{"token":"t"}`)
		}, backOff, shoal.ErrUnreachable, "broken answer", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, s := newTokenWorld(t, nil)
			s.refuse = c.refuse
			_, err := w.client.Resolve(t.Context(), w.ref("app:v1"))
			w.wantWait(err, c.left, c.kind, c.why)
			if MayAsk(w.client.Waits(), w.ref("other")) == c.whole {
				t.Errorf("Waits = %v", w.client.Waits())
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error has the password: %v", err)
			}
		})
	}
}

// helper puts a credential helper of a name in front of all programs.
func helper(t *testing.T, name, script string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":/usr/bin:/bin")
}

func TestHelper(t *testing.T) {
	answer := fmt.Sprintf(`read server; [ "$1" = get ] && [ "$server" = "$WANT" ] && echo '{"Username":%q,"Secret":%q}'`, user, secret)
	for _, c := range []struct {
		name, script string
		store        bool   // for all registries, not for this one
		note         string // of the error; "": it works
	}{
		{name: "of the registry", script: answer},
		{name: "of all", script: answer, store: true},
		{name: "knows none", script: "echo credentials not found in native keychain; exit 1", note: "401"},
		{name: "fails", script: "echo " + secret + "; exit 1", note: "credential helper test fails: exit status 1"},
		{name: "hangs", script: "exec sleep 60", note: "credential helper test does not answer"},
		{name: "leaves a child", script: "sleep 5 & exit 0", note: "credential helper test"},
		{name: "says too much", script: "head -c 1000000 /dev/zero", note: "other than JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			helper(t, "test", c.script)
			dir := t.TempDir()
			w := newWorld(t, false, func(c *Config) { c.DockerConfig, c.Timeout = dir, 3*time.Second })
			t.Setenv("WANT", w.host)
			config := map[string]any{"credHelpers": map[string]string{w.host: "test"}}
			if c.store {
				config = map[string]any{"credsStore": "test"}
			}
			dockerConfig(t, dir, config)
			w.push("app", "v1", content(10))
			w.breaks(w.basic(secret))
			begin := time.Now()
			_, err := w.client.Resolve(t.Context(), w.ref("app:v1"))
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
			if c.note == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			w.wantWait(err, backOff, shoal.ErrRefused, c.note)
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error has what the helper printed: %v", err)
			}
			w.breaks(nil) // what is for everybody needs no login
			if _, err := w.client.Resolve(t.Context(), w.ref("other:v1")); !errors.Is(err, shoal.ErrNotFound) {
				t.Error(err)
			}
		})
	}
}

// A helper gives another password every day: a login that worked and does not any more is
// asked for once more, and nobody waits.
func TestHelperRenews(t *testing.T) {
	helper(t, "test", fmt.Sprintf(`printf '{"Username":%q,"Secret":"%%s"}' "$(cat "$PASSWORD")"`, user))
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	t.Setenv("PASSWORD", password)
	w := newWorld(t, false, func(c *Config) { c.DockerConfig = dir })
	dockerConfig(t, dir, map[string]any{"credsStore": "test"})
	w.push("app", "v1", content(10))
	for _, p := range []string{"monday", "tuesday"} {
		if err := os.WriteFile(password, []byte(p), 0o600); err != nil {
			t.Fatal(err)
		}
		w.breaks(w.basic(p))
		if _, err := w.client.Resolve(t.Context(), w.ref("app:v1")); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestKeyring(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + secret))
	entry := map[string]string{"auth": auth}
	for _, c := range []struct {
		name, registry string
		config         any
		found          bool
		why            string
	}{
		{name: "docker.io as docker writes it", registry: hub, config: map[string]any{"auths": map[string]any{hubLogin: entry}}, found: true},
		{name: "docker.io by its name", registry: hub, config: map[string]any{"auths": map[string]any{"docker.io": entry}}, found: true},
		{name: "another", registry: "ghcr.io", config: map[string]any{"auths": map[string]any{hubLogin: entry}}},
		{name: "a helper that is not there", registry: "ghcr.io", config: map[string]any{"credHelpers": map[string]string{"ghcr.io": "gone"}}, why: "no usable login"},
		{name: "a store that is not there", registry: "ghcr.io", config: map[string]any{"credsStore": "gone", "auths": map[string]any{"ghcr.io": entry}}, found: true},
		{name: "a helper elsewhere", registry: "ghcr.io", config: map[string]any{"credHelpers": map[string]string{"ghcr.io": "../../bin/sh"}}, why: "is no name of one"},
		{name: "no configuration", registry: hub, config: []string{secret}, why: "docker's configuration is none"},
		{name: "bad base64", registry: hub, config: map[string]any{"auths": map[string]any{hubLogin: map[string]string{"auth": secret + "%"}}}, why: "docker's configuration is none"},
		{name: "huge", registry: hub, config: strings.Repeat("x", maxDockerConfig), why: "larger than 1 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKeyring(t.TempDir(), time.Second)
			none := k.version()
			if e, err := k.login(t.Context(), c.registry); err != nil || e.Username != "" {
				t.Errorf("without a configuration: %v, %v", e, err)
			}
			dockerConfig(t, k.dir, c.config)
			if k.version() == none {
				t.Error("the version stays when a configuration comes")
			}
			got, err := k.login(t.Context(), c.registry)
			if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why) || strings.Contains(err.Error(), secret)) {
				t.Errorf("error = %v, want %q", err, c.why)
			}
			if c.found != (got.Username == user && got.Password == secret) {
				t.Errorf("found %t, want %t", !c.found, c.found)
			}
		})
	}
}

// What a registry redirects to gets no login and no token, be it one that there is a login
// for, and is bounded in number and place.
func TestRedirect(t *testing.T) {
	all := content(1000)
	var mu sync.Mutex
	var got []http.Header
	cdn := newServer(t, false, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		got = append(got, r.Header.Clone())
		mu.Unlock()
		if strings.HasPrefix(r.URL.Path, "/challenge") && r.Header.Get("Authorization") == "" {
			status(401, "WWW-Authenticate", `Basic realm="there"`)(rw, r)
			return
		}
		http.ServeContent(rw, r, "", time.Time{}, strings.NewReader(string(all)))
	}))
	plain := newServer(t, true, status(200))
	cdnHost := strings.Replace(cdn.Listener.Addr().String(), "127.0.0.1", "localhost", 1)
	dir := t.TempDir()
	w := newWorld(t, false, func(c *Config) {
		c.DockerConfig = dir
		c.Registries = append(c.Registries, cdnHost, plain.Listener.Addr().String())
		c.Insecure = []string{plain.Listener.Addr().String()}
	})
	login(t, dir, secret, w.host, cdnHost, cdn.Listener.Addr().String())
	to := func(location string) {
		w.breaks(func(rw http.ResponseWriter, r *http.Request) {
			if _, _, ok := r.BasicAuth(); !ok {
				status(401, "WWW-Authenticate", `Basic realm="here"`)(rw, r)
				return
			}
			http.Redirect(rw, r, location, http.StatusTemporaryRedirect)
		})
	}
	to("https://" + cdnHost + "/blob?signature=abc")
	for _, from := range []int64{0, 400} {
		if b, err := w.read(w.ref("app"), digestOf(all), from, 1000); err != nil || string(b) != string(all[from:]) {
			t.Errorf("from %d: %d bytes, %v", from, len(b), err)
		}
	}
	to("https://" + cdnHost + "/challenge?signature=abc")
	_, err := w.read(w.ref("app"), digestOf(all), 0, 1000)
	w.wantWait(err, backOff, shoal.ErrRefused, "401 from localhost")
	if strings.Contains(err.Error()+w.logged.String(), "signature") {
		t.Errorf("an address that opens a door is told: %v", err)
	}
	mu.Lock()
	for _, h := range got {
		if h.Get("Authorization") != "" {
			t.Error("the login went to another host")
		}
	}
	mu.Unlock()

	for i, c := range []struct{ location, why string }{
		{"https://169.254.169.254/latest/meta-data", "is an address of the link"},
		{"https://metadata.google.internal/", "is where a cloud tells"},
		{plain.URL + "/blob", "without TLS"},
		{"file:///etc/passwd", "other than HTTP"},
		{"https://127.0.0.1:1/", "is this machine"},
		{w.server.URL + "/v2/again", "more than the 5"},
	} {
		to(c.location)
		_, err := w.read(w.ref(fmt.Sprintf("app%d", i)), digestOf(all), 0, 1000)
		w.wantWait(err, backOff, shoal.ErrRefused, c.why)
	}
}

// A registry without TLS may send us to one with it, and not back.
func TestRedirectLeavesTLS(t *testing.T) {
	var back string
	tls := newServer(t, false, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, back, http.StatusFound)
	}))
	w := newWorld(t, true, func(c *Config) { c.Registries = append(c.Registries, tls.Listener.Addr().String()) })
	back = w.server.URL + "/v2/app"
	w.breaks(func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, tls.URL, http.StatusFound) })
	_, err := w.read(w.ref("app"), digestOf(nil), 0, 0)
	w.wantWait(err, backOff, shoal.ErrRefused, "leaves TLS")
}
