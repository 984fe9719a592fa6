// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"go.uber.org/goleak"

	"github.com/shoalnet/shoal/images/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	user   = "ada"
	secret = "correct-horse-battery"
)

// handClock is moved by the test.
type handClock struct {
	mu  sync.Mutex
	now time.Duration
}

func (c *handClock) Mono() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) Wall() time.Time { return time.Unix(1_700_000_000, 0).Add(c.Mono()) }

func (c *handClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += d
}

// world is a real registry in memory, with faults in front of it, and a client of it.
type world struct {
	t      testing.TB
	mem    *ocimem.Registry
	server *httptest.Server
	host   string // of the registry, as references name it
	clock  *handClock
	client *Client
	logged *lockedBuffer

	mu    sync.Mutex
	fault http.HandlerFunc // instead of the registry; nil: none
	seen  []*http.Request
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newWorld starts a registry that speaks TLS unless plain. edit changes the configuration
// of the client, which has no login.
func newWorld(t testing.TB, plain bool, edit func(*Config)) *world {
	t.Helper()
	w := &world{t: t, mem: ocimem.New(), clock: &handClock{now: time.Second}, logged: &lockedBuffer{}}
	registry := ociserver.New(w.mem, nil)
	w.server = newServer(t, plain, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.seen = append(w.seen, r.Clone(context.Background()))
		fault := w.fault
		w.mu.Unlock()
		if fault != nil {
			fault(rw, r)
			return
		}
		registry.ServeHTTP(rw, r)
	}))
	w.host = w.server.Listener.Addr().String()
	cfg := Config{
		Registries: []string{w.host}, DockerConfig: t.TempDir(), Timeout: 2 * time.Second, Stall: 5 * time.Second,
	}
	cfg.Roots, _ = authority()
	if plain {
		cfg.Insecure = []string{w.host}
	}
	if edit != nil {
		edit(&cfg)
	}
	c, err := New(cfg, w.clock, slog.New(slog.NewTextHandler(w.logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	w.client = c
	t.Cleanup(func() {
		c.Close()
		if s := w.logged.String(); strings.Contains(s, secret) || strings.Contains(s, base64.StdEncoding.EncodeToString([]byte(user+":"+secret))) {
			t.Errorf("the log has a password: %s", s)
		}
	})
	return w
}

// both runs a test with TLS and HTTP/2, and without.
func both(t *testing.T, f func(t *testing.T, plain bool)) {
	t.Run("TLS", func(t *testing.T) { f(t, false) })
	t.Run("plain", func(t *testing.T) { f(t, true) })
}

// newServer starts a server whose certificate is for the hosts of the tests.
func newServer(t testing.TB, plain bool, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	if plain {
		s.Start()
	} else {
		_, cert := authority()
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		s.EnableHTTP2 = true // as registries do; what is plain speaks HTTP/1.1
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	return s
}

// authority returns a certificate for the hosts of the tests, and who trusts it.
var authority = sync.OnceValues(func() (*x509.CertPool, tls.Certificate) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		DNSNames: []string{hubHost, "auth.docker.io", "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		panic(err)
	}
	parsed, err := x509.ParseCertificate(raw)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool, tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
})

// breaks puts a fault in front of the registry, nil takes it away.
func (w *world) breaks(fault http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = fault
}

// through lets a request through to the registry.
func (w *world) through(rw http.ResponseWriter, r *http.Request) {
	ociserver.New(w.mem, nil).ServeHTTP(rw, r)
}

// asked returns the requests since the last call, as "GET /v2/...".
func (w *world) asked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, r := range w.seen {
		out = append(out, r.Method+" "+r.URL.Path)
	}
	w.seen = nil
	return out
}

// headers returns a header of all requests since the last call of asked.
func (w *world) headers(name string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, r := range w.seen {
		out = append(out, r.Header.Get(name))
	}
	return out
}

func (w *world) ref(rest string) string { return w.host + "/" + rest }

// push puts an image for linux/arm64 with one layer under a tag.
func (w *world) push(repo, tag string, layer []byte) (raw []byte, layerDigest string) {
	w.t.Helper()
	cfg := []byte(`{"os":"linux","architecture":"arm64","rootfs":{"type":"layers","diff_ids":[]}}`)
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifest.TypeManifest,
		"config": w.blob(repo, "application/vnd.oci.image.config.v1+json", cfg),
		"layers": []any{w.blob(repo, "application/vnd.oci.image.layer.v1.tar+gzip", layer)},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.manifest(repo, tag, manifest.TypeManifest, raw)
	return raw, digestOf(layer)
}

func (w *world) blob(repo, mediaType string, b []byte) ociregistry.Descriptor {
	w.t.Helper()
	d := ociregistry.Descriptor{MediaType: mediaType, Digest: ociregistry.Digest(digestOf(b)), Size: int64(len(b))}
	if _, err := w.mem.PushBlob(w.t.Context(), repo, d, bytes.NewReader(b)); err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) manifest(repo, tag, mediaType string, raw []byte) {
	w.t.Helper()
	if _, err := w.mem.PushManifest(w.t.Context(), repo, tag, raw, mediaType); err != nil {
		w.t.Fatal(err)
	}
}

// read reads a blob and checks its size.
func (w *world) read(ref, digest string, from int64, size int64) ([]byte, error) {
	w.t.Helper()
	r, n, err := w.client.Blob(w.t.Context(), ref, digest, from)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if n != size {
		w.t.Errorf("size = %d, want %d", n, size)
	}
	return io.ReadAll(r)
}

// login writes docker's configuration with a login for hosts.
func login(t testing.TB, dir, password string, hosts ...string) {
	t.Helper()
	auths := map[string]any{}
	for _, h := range hosts {
		auths[h] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}
	}
	dockerConfig(t, dir, map[string]any{"auths": auths})
}

func dockerConfig(t testing.TB, dir string, content any) {
	t.Helper()
	raw, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantWait checks that err says to wait, for a time and a reason of a kind.
func (w *world) wantWait(err error, left time.Duration, kind error, why string) {
	w.t.Helper()
	var wait *WaitError
	switch {
	case !errors.As(err, &wait):
		w.t.Fatalf("error = %v, want one that says to wait", err)
	case wait.Until-w.clock.Mono() != left:
		w.t.Errorf("waits %s, want %s", wait.Until-w.clock.Mono(), left)
	case !errors.Is(err, kind):
		w.t.Errorf("error %v is not: %v", err, kind)
	case !strings.Contains(err.Error(), why):
		w.t.Errorf("error = %q, want %q in it", err, why)
	case strings.Contains(err.Error(), "\n"), len(err.Error()) > 300:
		w.t.Errorf("error = %q, want one line", err)
	}
}

func (w *world) wantAsked(want ...string) {
	w.t.Helper()
	if got := w.asked(); !slices.Equal(got, want) {
		w.t.Errorf("asked %q, want %q", got, want)
	}
}

func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

func status(code int, header ...string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			rw.Header().Set(header[i], header[i+1])
		}
		rw.WriteHeader(code)
		fmt.Fprint(rw, `{"errors":[]}`)
	}
}
