// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/manifest"
	"github.com/shoalnet/shoal/images/swarm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// room stands for the room images: names in a map, and what need says.
type room struct {
	mu     sync.Mutex
	tags   map[string]map[string][]manifest.Descriptor
	refuse error // of SetTag and DeleteTag
	keep   map[blobs.Digest]error
	need   func(ctx context.Context, d blobs.Digest, size int64) error // nil: nobody has anything
	needed []blobs.Digest
}

func newRoom() *room {
	return &room{tags: map[string]map[string][]manifest.Descriptor{}, keep: map[blobs.Digest]error{}}
}

func (b *room) Tag(_ context.Context, repo, tag string) (manifest.Descriptor, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch all := b.tags[repo][tag]; len(all) {
	case 0:
		return manifest.Descriptor{}, fmt.Errorf("image %s:%s: %w", repo, tag, shoal.ErrNotFound)
	case 1:
		return all[0], nil
	default:
		return manifest.Descriptor{}, fmt.Errorf("image %s:%s: %w: it is %s and %s", repo, tag, shoal.ErrConflict, all[0].Digest, all[1].Digest)
	}
}

func (b *room) Tags(_ context.Context, repo string) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tags[repo] == nil {
		return nil, fmt.Errorf("repository %s: %w", repo, shoal.ErrNotFound)
	}
	return slices.Collect(maps.Keys(b.tags[repo])), nil
}

func (b *room) Repositories(context.Context) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.tags)), nil
}

func (b *room) SetTag(_ context.Context, repo, tag string, d manifest.Descriptor) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		return b.refuse
	}
	if b.tags[repo] == nil {
		b.tags[repo] = map[string][]manifest.Descriptor{}
	}
	b.tags[repo][tag] = []manifest.Descriptor{d}
	return nil
}

func (b *room) DeleteTag(_ context.Context, repo, tag string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.refuse != nil:
		return b.refuse
	case b.tags[repo][tag] == nil:
		return fmt.Errorf("image %s:%s: %w", repo, tag, shoal.ErrNotFound)
	}
	delete(b.tags[repo], tag)
	return nil
}

func (b *room) MayRemove(_ context.Context, _ string, d blobs.Digest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keep[d]
}

func (b *room) Need(ctx context.Context, _ string, d blobs.Digest, size int64) error {
	b.mu.Lock()
	need := b.need
	b.needed = append(b.needed, d)
	b.mu.Unlock()
	if need == nil {
		return fmt.Errorf("blob %s: %w at any peer", d, shoal.ErrNotFound)
	}
	return need(ctx, d, size)
}

// served is a registry that runs on loopback over a store on disk.
type served struct {
	*Registry
	t     testing.TB
	store *blobs.Store
	room  *room
	addr  string
	stop  func()
}

var openStore = blobs.Config{Expire: time.Hour}

func serve(t testing.TB, cfg Config) *served {
	t.Helper()
	return serveDir(t, t.TempDir(), openStore, cfg, newRoom())
}

func serveDir(t testing.TB, dir string, limits blobs.Config, cfg Config, b *room) *served {
	t.Helper()
	store, err := blobs.Open(dir, limits, shoal.NewSystemClock())
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(t.Context(), cfg, store, b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, l) }()
	s := &served{Registry: r, t: t, store: store, room: b, addr: l.Addr().String()}
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, store.Close()); err != nil {
			t.Errorf("Run = %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	t.Cleanup(s.stop)
	return s
}

// answered is a response that was read.
type answered struct {
	*http.Response
	body []byte
}

// code returns the code of an error, and its text.
func (a answered) fault() (code, text string) {
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(a.body, &e) != nil || len(e.Errors) != 1 {
		return "", string(a.body)
	}
	return e.Errors[0].Code, e.Errors[0].Message
}

// do sends a request. edit may change it; path may be a whole address.
func (s *served) do(method, path string, body []byte, edit func(*http.Request)) answered {
	s.t.Helper()
	if path[0] == '/' {
		path = "http://" + s.addr + path
	}
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, path, r)
	if err != nil {
		s.t.Fatal(err)
	}
	if edit != nil {
		edit(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s = %v", method, path, err)
	}
	got, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		s.t.Fatalf("%s %s: body = %v", method, path, err)
	}
	return answered{Response: resp, body: got}
}

// want sends a request and checks the status.
func (s *served) want(status int, method, path string, body []byte, edit func(*http.Request)) answered {
	s.t.Helper()
	a := s.do(method, path, body, edit)
	if a.StatusCode != status {
		s.t.Fatalf("%s %s = %d %s, want %d", method, path, a.StatusCode, a.body, status)
	}
	return a
}

func header(key, value string) func(*http.Request) {
	return func(req *http.Request) { req.Header.Set(key, value) }
}

// location returns where an answer sends its reader.
func (s *served) location(a answered) string {
	s.t.Helper()
	u, err := a.Location()
	if err != nil {
		s.t.Fatal(err)
	}
	return u.String()
}

// push uploads a blob in one request.
func (s *served) push(b []byte) string {
	s.t.Helper()
	d := blobs.DigestOf(b).String()
	s.want(http.StatusCreated, http.MethodPost, "/v2/app/blobs/uploads/?digest="+d, b, nil)
	return d
}

// image is a manifest of blobs that were pushed.
func (s *served) image(layers ...[]byte) []byte {
	s.t.Helper()
	config := []byte(`{"architecture":"amd64","os":"linux"}`)
	s.push(config)
	for _, l := range layers {
		s.push(l)
	}
	return imageOf(config, "", layers...)
}

type doc map[string]any

func imageOf(config []byte, more string, layers ...[]byte) []byte {
	d := doc{
		"schemaVersion": 2, "mediaType": manifest.TypeManifest,
		"config": desc("application/vnd.oci.image.config.v1+json", config), "layers": []doc{},
	}
	for _, l := range layers {
		d["layers"] = append(d["layers"].([]doc), desc("application/vnd.oci.image.layer.v1.tar+gzip", l))
	}
	if more != "" {
		if err := json.Unmarshal([]byte(more), &d); err != nil {
			panic(err)
		}
	}
	return d.bytes()
}

func desc(mediaType string, content []byte) doc {
	return doc{"mediaType": mediaType, "digest": blobs.DigestOf(content).String(), "size": len(content)}
}

func (d doc) bytes() []byte {
	b, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return b
}

// content returns a blob that a seed determines.
func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b) // never fails
	return b
}

// arrive begins a blob in the store, of which nothing is there yet, and returns what puts
// chunk i into it.
func (s *served) arrive(b []byte) func(i int) {
	s.t.Helper()
	chunk := func(i int) []byte { return b[i*swarm.ChunkBytes : min(len(b), (i+1)*swarm.ChunkBytes)] }
	var list []blobs.Digest
	for i := 0; i*swarm.ChunkBytes < len(b); i++ {
		list = append(list, blobs.DigestOf(chunk(i)))
	}
	d := blobs.DigestOf(b)
	if _, err := s.store.Begin(d, int64(len(b)), list); err != nil {
		s.t.Fatal(err)
	}
	return func(i int) {
		if _, err := s.store.WriteChunk(d, i, chunk(i)); err != nil {
			s.t.Errorf("WriteChunk = %v", err)
		}
	}
}
