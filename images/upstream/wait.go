// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
)

const (
	backOff    = 5 * time.Second // doubled with each failure in a row
	backOffMax = 10 * time.Minute
	// What a registry may ask for. It is the user's choice of a registry, but an hour in
	// which nobody can deploy is as much as a wrong header may cost.
	retryMin, retryMax = time.Second, time.Hour

	maxWaits = 512 // remembered; a reference costs one at most
	maxTold  = 32  // on a beat: shoal.PeerState
)

// WaitError says that a registry failed, or must not be asked yet. errors.Is tells what
// was behind it: shoal.ErrUnreachable, it does not answer or asks for time;
// shoal.ErrRefused, it wants another login than there is, or sent us where nobody goes;
// [ErrMismatch], its answer was false.
type WaitError struct {
	Registry   string        // "docker.io"
	Repository string        // "library/hello" if only that waits, "" for all of the registry
	Until      time.Duration // on the monotonic clock of this peer; asking before is in vain
	Why        string        // for people: "429", "no such host"
	left       time.Duration
	cause      error
}

// Error returns one line: "docker.io: 429, again in 40s".
func (e *WaitError) Error() string {
	return e.name() + ": " + e.Why + ", again in " + about(e.left)
}

// Unwrap returns what kind of failure it was.
func (e *WaitError) Unwrap() error { return e.cause }

func (e *WaitError) name() string {
	if e.Repository == "" {
		return e.Registry
	}
	return e.Registry + "/" + e.Repository
}

// about rounds up, so coarsely that a text with it, which goes out when it changes, changes
// some twenty times an hour at most.
func about(d time.Duration) string {
	step := 10 * time.Minute
	switch {
	case d <= 10*time.Second:
		step = 5 * time.Second
	case d <= time.Minute:
		step = 10 * time.Second
	case d <= 10*time.Minute:
		step = time.Minute
	}
	d = max((d+step-1)/step, 1) * step
	if d < time.Minute {
		return d.String()
	}
	return fmt.Sprintf("%dm", d/time.Minute)
}

// failure is one thing that went wrong, as the memory takes it.
type failure struct {
	why   string
	cause error
	whole bool          // the registry as such failed, not what was asked of it
	retry time.Duration // what the registry asks for; 0: nothing
	login string        // version of the login it was; another one may be tried at once
}

// waits remembers who must not be asked until when. It is safe for concurrent use.
type waits struct {
	clock shoal.Clock
	mu    sync.Mutex
	by    map[string]*wait // by registry, and by registry/repository
}

type wait struct {
	failure
	registry, repo string
	set, until     time.Duration
	times          int // failures in a row
}

func newWaits(clock shoal.Clock) *waits { return &waits{clock: clock, by: map[string]*wait{}} }

// check returns a *WaitError if t must not be asked now. login is the version of the login
// that there is for it.
func (w *waits) check(t target, login string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.clock.Mono()
	for _, key := range []string{t.registry, t.place()} {
		if x := w.by[key]; x != nil && x.holds(now, login) {
			return x.err(now)
		}
	}
	return nil
}

// failed remembers that a question put at the time began failed. Questions that were on
// their way together count as one failure; news: this is the one.
func (w *waits) failed(t target, began time.Duration, f failure) (e *WaitError, news bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.clock.Mono()
	key, repo := t.place(), t.repo
	if f.whole {
		key, repo = t.registry, ""
	}
	x := w.by[key]
	if x == nil || now > x.until+backOffMax {
		w.makeRoom(now)
		x = &wait{registry: t.registry, repo: repo}
		w.by[key] = x
	}
	news = x.times == 0 || began > x.set
	if news {
		x.times++
		x.set = now
		x.failure = f
		x.until = now + min(backOff<<min(x.times-1, 10), backOffMax)
		if f.retry > 0 {
			x.until = now + f.retry
		}
	} else if until := now + f.retry; f.retry > 0 && until > x.until {
		x.failure, x.until = f, until
	}
	return x.err(now), news
}

// worked forgets failures, unless they came after the question was put: those of the
// registry, and those of a login. What was false stays for a while, for it may be again.
func (w *waits) worked(t target, began time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range []string{t.registry, t.place()} {
		if x := w.by[key]; x != nil && began > x.set && (x.repo == "" || x.login != "") {
			delete(w.by, key)
		}
	}
}

// makeRoom forgets what is long over, and if that is not enough what ends first.
func (w *waits) makeRoom(now time.Duration) {
	maps.DeleteFunc(w.by, func(_ string, x *wait) bool { return now > x.until+backOffMax })
	for len(w.by) >= maxWaits {
		first := ""
		for key, x := range w.by {
			if first == "" || x.until < w.by[first].until {
				first = key
			}
		}
		delete(w.by, first)
	}
}

// told returns what the beats say: the registries that may be asked, and what waits with
// the login that there is.
func (w *waits) told(registries []string, login string) []shoal.Upstream {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.clock.Mono()
	var running []*wait
	for _, x := range w.by {
		if x.holds(now, login) {
			running = append(running, x)
		}
	}
	// Whole registries first, then what lasts longest: those are kept if there are many.
	slices.SortFunc(running, func(a, b *wait) int {
		return cmp.Or(cmp.Compare(min(len(a.repo), 1), min(len(b.repo), 1)), cmp.Compare(b.until, a.until), cmp.Compare(a.repo, b.repo))
	})
	out := map[string]string{}
	for _, r := range registries {
		out[r] = ""
	}
	for _, x := range running {
		e := x.err(now)
		if _, there := out[e.name()]; there || len(out) < maxTold {
			out[e.name()] = e.Why + ", again in " + about(e.left)
		}
	}
	ups := make([]shoal.Upstream, 0, len(out))
	for _, name := range slices.Sorted(maps.Keys(out)) {
		ups = append(ups, shoal.Upstream{Registry: name, Waits: out[name]})
	}
	return ups
}

// holds reports whether x still forbids to ask.
func (x *wait) holds(now time.Duration, login string) bool {
	return now < x.until && (x.login == "" || x.login == login)
}

func (x *wait) err(now time.Duration) *WaitError {
	return &WaitError{Registry: x.registry, Repository: x.repo, Until: x.until, Why: x.why, left: x.until - now, cause: x.cause}
}

// retryAfter reads a Retry-After header (RFC 9110 section 10.2.3), seconds or a date, and
// bounds it. A date is held against the sender's own, for clocks of two machines are never
// compared. 0: there is none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	said := strings.TrimSpace(h.Get("Retry-After"))
	if said == "" {
		return 0
	}
	if n, err := strconv.ParseUint(said, 10, 64); err == nil {
		return max(retryMin, min(time.Duration(min(n, uint64(retryMax/time.Second)))*time.Second, retryMax))
	}
	at, err := http.ParseTime(said)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return max(retryMin, min(at.Sub(now), retryMax))
}

// statusText says a refusal in short: "429", "401 from auth.docker.io".
func statusText(t target, status int, host string) string {
	s := strconv.Itoa(status)
	if host != "" && host != t.host() {
		s += " from " + clip(host)
	}
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		return fmt.Sprintf("%s, it is not there or wants another login (docker login %s)", s, t.registry)
	}
	return s
}
