// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/shoalnet/shoal/internal/logkey"
)

var (
	errLoop = errors.New("our own question came back")
	errNone = errors.New("the machine names no resolver that could be asked")
)

// Outside is what a forwarder is given.
type Outside struct {
	Log *slog.Logger
	// Path is the file that names the machine's resolvers, resolv.conf(5).
	Path string
	// Own reports whether an address is one that a Server of this peer listens on; nil:
	// none. It is called for every question, from many goroutines.
	Own func(netip.Addr) bool
	// Dial opens a socket to one of the machine's resolvers; nil: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Forwarder asks the machine's resolvers for all networks of a peer. Make it with
// NewForwarder; Run keeps it up to date. Safe for concurrent use.
type Forwarder struct {
	cfg     Config
	outside Outside

	mu        sync.Mutex // guards all below
	upstreams []*upstream
	flights   map[flightKey]*flight
	marks     map[string]int // names as we wrote them, of questions under way
	flying    int
}

// flightKey is what makes two questions one.
type flightKey struct {
	name           string // lower case
	qtype          uint16
	rd, cd, do, ad bool
	edns           bool
}

// flight is one question under way, and all who wait for its answer.
type flight struct {
	done   chan struct{} // closed when the two below are final
	answer *dns.Msg      // nobody writes to it
	err    error
}

// NewForwarder makes a forwarder that has read outside.Path once; it need not exist yet.
// The error is a *shoal.InvalidError.
func NewForwarder(cfg Config, outside Outside) (*Forwarder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if outside.Dial == nil {
		outside.Dial = new(net.Dialer).DialContext
	}
	if outside.Own == nil {
		outside.Own = func(netip.Addr) bool { return false }
	}
	f := &Forwarder{cfg: cfg, outside: outside, flights: map[flightKey]*flight{}, marks: map[string]int{}}
	f.reread()
	return f, nil
}

func (f *Forwarder) own(a netip.Addr) bool { return f.outside.Own(a) }

// enter takes one of the places for questions under way; leave gives it back.
func (f *Forwarder) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.flying >= f.cfg.InFlight {
		return false
	}
	f.flying++
	return true
}

func (f *Forwarder) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flying--
}

// resolve returns the answer to a question, the caller's own copy, with its name written
// as asked. The error is errLoop, errNone, the context's, or what the last resolver did.
func (f *Forwarder) resolve(ctx context.Context, a *ask) (*dns.Msg, error) {
	fl, mine, err := f.join(a)
	if err != nil {
		return nil, err
	}
	if mine != nil {
		mine(ctx)
	}
	select {
	case <-fl.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if fl.err != nil {
		return nil, fl.err
	}
	return rename(fl.answer.Copy(), a.question().Name), nil
}

// join finds the flight of an equal question, or makes one: then the caller has to run it.
func (f *Forwarder) join(a *ask) (fl *flight, run func(context.Context), err error) {
	q := a.question()
	key := flightKey{
		name: strings.ToLower(q.Name), qtype: q.Qtype, rd: a.msg.RecursionDesired,
		cd: a.msg.CheckingDisabled, ad: a.msg.AuthenticatedData, edns: a.opt != nil, do: a.opt != nil && a.opt.Do(),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.marks[q.Name] > 0 {
		return nil, nil, errLoop
	}
	if fl := f.flights[key]; fl != nil {
		return fl, nil, nil
	}
	fl = &flight{done: make(chan struct{})}
	f.flights[key] = fl
	name, marked := mark(q.Name)
	if marked {
		f.marks[name]++
	}
	return fl, func(ctx context.Context) {
		fl.answer, fl.err = f.tryAll(ctx, outgoing(key, name))
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.flights, key)
		if marked {
			if f.marks[name]--; f.marks[name] == 0 {
				delete(f.marks, name)
			}
		}
		close(fl.done)
	}, nil
}

// minMark is how many letters a name needs so that its case is a mark: a client that
// mixes case itself would hit that of a shorter one by chance too often.
const minMark = 8

// mark writes a name in a random mix of case that differs from name and from what plain
// clients write; false if it has too few letters for that.
func mark(name string) (string, bool) {
	lower := strings.ToLower(name)
	if strings.ToUpper(name) == lower {
		return name, false
	}
	for {
		b, letters := []byte(lower), 0
		for i, c := range b {
			if c < 'a' || c > 'z' {
				continue
			}
			letters++
			if rand.Uint32()&1 == 1 {
				b[i] = c - 'a' + 'A'
			}
		}
		if letters < minMark {
			return name, false
		}
		if out := string(b); out != name && out != lower && out != strings.ToUpper(lower) {
			return out, true
		}
	}
}

// rename writes the name that was asked for as the client wrote it.
func rename(m *dns.Msg, name string) *dns.Msg {
	for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
		if h := rr.Header(); strings.EqualFold(h.Name, name) {
			h.Name = name
		}
	}
	return m
}

// tryAll asks one resolver after the other until one answers. An answer that the next one
// may know better (SERVFAIL, REFUSED) is kept for when none does.
func (f *Forwarder) tryAll(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Whole)
	defer cancel()
	var kept *dns.Msg
	err := errNone
	for _, u := range f.order(time.Now()) {
		var answer *dns.Msg
		answer, err = f.exchange(ctx, u.addr, m)
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, ctx.Err() // we are stopping; that is not the resolver's fault
		}
		useful := err == nil && !tryNext(answer.Rcode)
		f.note(u, err == nil, useful)
		if useful {
			return answer, nil
		}
		if err == nil {
			kept = answer
		}
		if ctx.Err() != nil {
			break
		}
	}
	if kept != nil {
		return kept, nil
	}
	return nil, err
}

// tryNext: what the system's own resolver takes as a reason to ask the next server.
func tryNext(rcode int) bool {
	return rcode == dns.RcodeServerFailure || rcode == dns.RcodeRefused || rcode == dns.RcodeNotImplemented
}

// Run reads the file of the machine's resolvers again and again until ctx ends.
func (f *Forwarder) Run(ctx context.Context) error {
	t := time.NewTicker(f.cfg.Reread)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			f.reread()
		}
	}
}

// reread takes the resolvers of the file. If it cannot be read the last ones stay.
func (f *Forwarder) reread() {
	addrs, err := readResolvers(f.outside.Path)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.outside.Log.Debug("keep the last resolvers", logkey.Err, err)
		return
	}
	f.take(addrs)
}
