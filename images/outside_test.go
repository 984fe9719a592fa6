// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/images/exchange"
	"github.com/shoalnet/shoal/images/swarm"
)

// outside is a registry that counts what it is asked for, and may refuse.
type outside struct {
	host string

	mu     sync.Mutex // guards what follows
	asked  map[string]int
	refuse int // status; 0: none
	slow   *slowLayer
}

// slowLayer is a layer that the registry sends a chunk after the other.
type slowLayer struct {
	digest blobs.Digest
	raw    []byte
	pause  time.Duration // after each
	hangAt int           // chunks, after which the first who asks gets no more; 0: all

	mu     sync.Mutex // guards what follows
	ranges []string   // as it was asked for
}

func (l *slowLayer) serve(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	l.ranges = append(l.ranges, r.Header.Get("Range"))
	isFirst := len(l.ranges) == 1
	l.mu.Unlock()
	from := 0
	w.Header().Set("Docker-Content-Digest", l.digest.String())
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(l.raw)-1, len(l.raw)))
		w.Header().Set("Content-Length", strconv.Itoa(len(l.raw)-from))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", strconv.Itoa(len(l.raw)))
	}
	n := 0
	for chunk := range slices.Chunk(l.raw[from:], swarm.ChunkBytes) {
		if isFirst && l.hangAt > 0 && n == l.hangAt {
			<-r.Context().Done()
			return
		}
		if _, err := w.Write(chunk); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush() // the next write says what is wrong
		n++
		select {
		case <-time.After(l.pause): // a registry is slower than what is between peers
		case <-r.Context().Done():
			return
		}
	}
}

func (l *slowLayer) asked() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ranges)
}

// holds returns how many bytes of it a member has.
func (l *slowLayer) holds(m *member) int64 {
	info, err := m.room.store.Stat(l.digest)
	if err != nil {
		return 0
	}
	return info.Have
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{asked: map[string]int{}}
	next := registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		status := o.refuse
		if r.Method == http.MethodGet && status == 0 {
			o.asked[r.URL.Path]++
		}
		slow := o.slow
		o.mu.Unlock()
		if status != 0 {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(status)
			return
		}
		if slow != nil && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/blobs/"+slow.digest.String()) {
			slow.serve(w, r)
			return
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	o.host = strings.TrimPrefix(srv.URL, "http://")
	return o
}

func (o *outside) setRefuse(status int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refuse = status
}

func (o *outside) allow(_ int, c *Config) {
	c.Upstream.Registries, c.Upstream.Insecure = []string{o.host}, []string{o.host}
}

// TestOutsideOnce: what no peer has comes from the registry that the name names, every
// blob once, whoever wants it; and not at all when a peer has it.
func TestOutsideOnce(t *testing.T) {
	o := newOutside(t)
	w := newWorld(t, 3, o.allow)
	img := newImage(t, 3, 2<<20)
	ref := o.host + "/team/app:v1"
	tag, err := name.NewTag(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	clear(o.asked)
	o.mu.Unlock()
	eventually(t, "all know who may ask", func() bool {
		for _, m := range w.members {
			if st, _ := m.told(); len(st.Upstreams) == 0 {
				return false
			}
		}
		return true
	})
	found, err := w.members[0].room.Resolve(t.Context(), ref)
	digest, _ := img.Digest()
	if err != nil || found.Digest != digest.String() {
		t.Fatalf("Resolve = %+v, %v, want %s", found, err, digest)
	}
	var g errgroup.Group
	for _, m := range w.members {
		g.Go(func() error {
			_, err := m.room.Ensure(t.Context(), ref+"@"+found.Digest, nil)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	config, _ := img.ConfigName()
	o.asked["/v2/team/app/blobs/"+config.String()]-- // Resolve read it, for the platform
	blobs := 0
	for path, n := range o.asked {
		if strings.Contains(path, "/blobs/") {
			blobs++
		}
		if n > 1 && !strings.HasSuffix(path, "/v2/") {
			t.Errorf("%s was asked for %d times", path, n)
		}
	}
	if blobs != 4 {
		t.Errorf("%d blobs were asked for, want a configuration and three layers", blobs)
	}
	var outside, members int64
	for _, m := range w.members {
		st, err := m.room.Stats()
		if err != nil || st.Used < 6<<20 {
			t.Errorf("Stats = %+v, %v; want three layers of 2 MiB in use", st, err)
		}
		outside += st.FromOutside
		members += st.FromMembers
	}
	if outside < 6<<20 || outside > 7<<20 || members < 12<<20 {
		t.Errorf("counted %d bytes from outside and %d from members, want the image once from outside and twice from members", outside, members)
	}
}

// TestOutsideRefuses: a registry that refuses is named, with when it may be asked again,
// and not asked before; what peers have comes all the same.
func TestOutsideRefuses(t *testing.T) {
	o := newOutside(t)
	w := newWorld(t, 2, o.allow)
	o.setRefuse(http.StatusTooManyRequests)
	ref := o.host + "/team/app:v1"
	_, err := w.members[0].room.Resolve(t.Context(), ref)
	if err == nil || !strings.Contains(err.Error(), "429, again in") {
		t.Errorf("Resolve = %v, want what it says and when it may be asked again", err)
	}
	digest := w.members[0].push("app:v1", newImage(t, 1, 1<<20))
	if _, err := w.members[1].room.Ensure(t.Context(), "app:v1@"+digest, nil); err != nil {
		t.Errorf("Ensure of what a peer has = %v", err)
	}
	eventually(t, "the beats say that it waits", func() bool {
		st, _ := w.members[0].told()
		for _, u := range st.Upstreams {
			if u.Registry == o.host && u.Waits != "" {
				return true
			}
		}
		return false
	})
}

// TestOutsideOff: without a registry that may be asked, none is, and the error says so.
func TestOutsideOff(t *testing.T) {
	o := newOutside(t)
	w := newWorld(t, 1, nil)
	began := time.Now()
	if _, err := w.members[0].room.Resolve(t.Context(), o.host+"/team/app:v1"); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Resolve = %v, want not found", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.asked) > 0 || time.Since(began) > 5*time.Second {
		t.Errorf("asked for %v, in %s", sortedKeys(o.asked), time.Since(began))
	}
}

// sendSlowly puts an image of one layer into the registry, and has it send that slowly.
func (o *outside) sendSlowly(t *testing.T, chunks int64, pause time.Duration, hangAt int) (ref string, l *slowLayer) {
	t.Helper()
	img := newImage(t, 1, chunks*swarm.ChunkBytes-2048) // and the headers of the archive
	tag, err := name.NewTag(o.host+"/team/app:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	in, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	raw, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	l = &slowLayer{digest: blobs.DigestOf(raw), raw: raw, pause: pause, hangAt: hangAt}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.slow = l
	return tag.Name() + "@" + digest.String(), l
}

// ensureAll begins to get an image at every member; the call that it returns waits for all.
func (w *world) ensureAll(ref string) func() error {
	eventually(w.t, "all know who may ask", func() bool {
		for _, m := range w.members {
			if st, _ := m.told(); len(st.Upstreams) == 0 {
				return false
			}
		}
		return true
	})
	var g errgroup.Group
	for _, m := range w.members {
		g.Go(func() error {
			_, err := m.room.Ensure(w.t.Context(), ref, nil)
			return err
		})
	}
	return g.Wait
}

// TestOutsideAsItArrives: what one peer gets from outside the others have chunk by chunk,
// before that one has it whole, and the registry is asked once.
func TestOutsideAsItArrives(t *testing.T) {
	o := newOutside(t)
	w := newWorld(t, 3, o.allow)
	ref, layer := o.sendSlowly(t, 12, 150*time.Millisecond, 0)
	wait := w.ensureAll(ref)
	eventually(t, "all have something before anybody has all", func() bool {
		has := 0
		for _, m := range w.members {
			if n := layer.holds(m); n > 0 && n < int64(len(layer.raw)) {
				has++
			}
		}
		return has == len(w.members)
	})
	eventually(t, "who downloads says from where, and how far", func() bool {
		for _, m := range w.members {
			p := m.room.far(layer.digest)
			if p.From == o.host && p.Done > 0 && p.Done < p.Total && p.Total == int64(len(layer.raw)) {
				return true
			}
		}
		return false
	})
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if got := layer.asked(); len(got) != 1 {
		t.Errorf("the layer was asked for %d times: %q, want once", len(got), got)
	}
	for _, m := range w.members {
		if n := layer.holds(m); n != int64(len(layer.raw)) {
			t.Errorf("%s has %d bytes, want all", m.id.Short(), n)
		}
	}
}

// TestOutsideTakeover: a download that brings nothing more is taken over where it is, after
// 10 s and not before; and who is stuck gets the rest from who took over.
func TestOutsideTakeover(t *testing.T) {
	o := newOutside(t)
	w := newWorld(t, 2, o.allow)
	ref, layer := o.sendSlowly(t, 8, 20*time.Millisecond, 3)
	wait := w.ensureAll(ref)
	eventually(t, "both have what came", func() bool {
		for _, m := range w.members {
			if layer.holds(m) != 3*swarm.ChunkBytes {
				return false
			}
		}
		return true
	})
	for _, m := range w.members {
		m.clock.leap(8 * time.Second)
	}
	time.Sleep(10 * w.members[0].cfg.Quiet) // somebody had several looks whether it is his turn
	if got := layer.asked(); len(got) != 1 {
		t.Fatalf("8 s without progress, and the layer was asked for %d times: %q", len(got), got)
	}
	for _, m := range w.members {
		m.clock.leap(2 * time.Second)
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if got, want := layer.asked(), []string{"", fmt.Sprintf("bytes=%d-", 3*swarm.ChunkBytes)}; !slices.Equal(got, want) {
		t.Errorf("the layer was asked for as %q, want %q", got, want)
	}
}

// TestOutsideFalseList: what is here of a layer goes by a list that is not the layer's. The
// registry's bytes do not fit it, and are fetched all the same, for their digest is right.
func TestOutsideFalseList(t *testing.T) {
	o := newOutside(t)
	w := newWorld(t, 1, o.allow)
	ref, layer := o.sendSlowly(t, 2, 0, 0)
	list := make([]blobs.Digest, (len(layer.raw)+swarm.ChunkBytes-1)/swarm.ChunkBytes)
	if _, err := w.members[0].room.store.Begin(layer.digest, int64(len(layer.raw)), list); err != nil {
		t.Fatal(err)
	}
	b := exchange.Blob{Digest: layer.digest, Size: int64(len(layer.raw))}
	if err := w.members[0].room.bring(t.Context(), b, ref, false); err != nil {
		t.Fatal(err)
	}
	if info, err := w.members[0].room.store.Stat(layer.digest); err != nil || !info.Complete {
		t.Errorf("Stat = %+v, %v, want it whole", info, err)
	}
	if got := layer.asked(); len(got) != 2 {
		t.Errorf("the layer was asked for as %q, want by its chunks and then as a whole", got)
	}
}
