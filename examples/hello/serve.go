// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// site is the web server's state.
type site struct {
	version string
	work    time.Duration // CPU time that a page takes
	log     io.Writer
	quit    func(code int)

	mu   sync.Mutex // guards what follows
	sick bool
	held [][]byte
}

func serve(ctx context.Context, o options, log io.Writer) error {
	s := &site{version: o.version, work: o.work, log: log, quit: os.Exit}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", o.listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second}
	say(log, "hello v%s from %s listens on %s\n", s.version, whoami(), l.Addr())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	var over <-chan time.Time // nil: never
	if o.life > 0 {
		over = time.After(o.life)
	}
	select {
	case err := <-ended:
		return err
	case <-over:
		_ = server.Close() // it dies as it is
		<-ended
		return exitCode(o.code)
	case <-ctx.Done():
	}
	say(log, "hello stops\n")
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = server.Shutdown(within)
	if served := <-ended; err == nil && !errors.Is(served, http.ErrServerClosed) {
		err = served
	}
	return err
}

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /sick", s.turn)
	mux.HandleFunc("GET /quit", s.leave)
	mux.HandleFunc("GET /eat", s.eat)
	return mux
}

func (s *site) page(w http.ResponseWriter, _ *http.Request) {
	toil(s.work)
	host, _ := os.Hostname() // "" is fine: it is only shown
	say(w, "hello v%s from %s\nreplica %s\nslot %s\nservice %s\npeer %s\nhost %s\n",
		s.version, whoami(), os.Getenv("SHOAL_REPLICA"), os.Getenv("SHOAL_SLOT"),
		os.Getenv("SHOAL_SERVICE"), os.Getenv("SHOAL_PEER"), host)
}

// toil keeps one core busy. On a machine whose cores are busy already it is less work.
func toil(d time.Duration) {
	for began := time.Now(); time.Since(began) < d; {
	}
}

func (s *site) health(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	sick := s.sick
	s.mu.Unlock()
	if sick {
		http.Error(w, "sick", http.StatusServiceUnavailable)
		return
	}
	say(w, "ok\n")
}

// turn makes a healthy server sick, and a sick one healthy.
func (s *site) turn(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	s.sick = !s.sick
	sick := s.sick
	s.mu.Unlock()
	say(s.log, "sick is now %t\n", sick)
	say(w, "sick is now %t\n", sick)
}

// leave ends the process without ceremony.
func (s *site) leave(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(or(r.FormValue("code"), "0"))
	if err != nil || code < 0 || code > 255 {
		http.Error(w, "code must be 0-255", http.StatusBadRequest)
		return
	}
	say(s.log, "quit with code %d\n", code)
	s.quit(code)
}

// eat allocates memory and keeps it.
func (s *site) eat(w http.ResponseWriter, r *http.Request) {
	mb, err := strconv.Atoi(r.FormValue("mb"))
	if err != nil || mb < 0 || mb > 1<<20 {
		http.Error(w, "mb must be 0-1048576", http.StatusBadRequest)
		return
	}
	say(s.log, "eats %d MiB\n", mb)
	held := eat(mb)
	s.mu.Lock()
	s.held = append(s.held, held)
	s.mu.Unlock()
	say(w, "ate %d MiB\n", mb)
}
