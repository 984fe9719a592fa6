// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
)

// outside is a registry that counts what it is asked for, and may refuse.
type outside struct {
	host string

	mu     sync.Mutex // guards what follows
	asked  map[string]int
	refuse int // status; 0: none
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
		o.mu.Unlock()
		if status != 0 {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(status)
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
