// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package driver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shoalnet/shoal/lab"
)

const (
	maxAsk = 1 << 20 // bytes of a request
	// askTime is how long a request may take to come, and the last answers to go.
	askTime = 5 * time.Second
)

func socketOf(name string) string { return beside(name, "socket") }

// LogFile is what the driver of a lab says.
func LogFile(name string) string { return beside(name, "driver.log") }

func beside(name, file string) string {
	return filepath.Join((&lab.Info{Name: name}).RunDir(), file)
}

// server answers what a driver is asked, from when its lab has a name until nothing of
// the lab is left.
type server struct {
	name  string
	over  func()                  // asks for the lab's end
	lab   atomic.Pointer[lab.Lab] // nil: it is coming up
	http  *http.Server
	ended chan struct{} // closed when nothing is done to the lab any more
	err   error         // of the end; after ended

	served chan error // how serving ended; nil: it did not begin
}

func newServer(name string, over func()) *server {
	s := &server{name: name, over: over, ended: make(chan struct{})}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: askTime}
	return s
}

// open listens on the driver's socket.
func (s *server) open() error { return s.listen(socketOf(s.name)) }

// listen serves at a socket until end. If that fails later, the lab ends.
func (s *server) listen(path string) error {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("open the driver's socket: %w", err)
	}
	listener.SetUnlinkOnClose(false) // it goes with its directory; by then it may be another driver's
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("open the driver's socket: %w", err), listener.Close())
	}
	s.served = make(chan error, 1)
	go func() {
		s.served <- s.http.Serve(listener)
		s.over()
	}()
	return nil
}

// end tells who waits for the end how it went, and stops serving.
func (s *server) end(ctx context.Context, err error) error {
	s.err = err
	close(s.ended)
	if s.served == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // who has not read its answer by now never will
	}
	if how := <-s.served; !errors.Is(how, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve: %w", how))
	}
	return err
}

// isGone says whether nothing of the lab is left.
func isGone(name string) bool {
	_, err := lab.Find(name)
	return errors.Is(err, fs.ErrNotExist)
}

// serve answers POST /VERB with an Ask as JSON.
func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	conn := http.NewResponseController(w)
	err := conn.SetReadDeadline(time.Now().Add(askTime))
	v, a, readErr := readAsk(r.Method, r.URL.Path, http.MaxBytesReader(w, r.Body, maxAsk))
	// Without a deadline again: one would end what takes longer than that.
	if err = errors.Join(readErr, err, conn.SetReadDeadline(time.Time{})); err != nil {
		answer(w, nil, err)
		return
	}
	if v == down {
		s.over()
		select {
		case <-s.ended:
			answer(w, nil, s.err)
		case <-r.Context().Done(): // it ends, whether somebody waits for it or not
		}
		return
	}
	l := s.lab.Load()
	if l == nil {
		answer(w, nil, &Error{Kind: KindStarting, Text: fmt.Sprintf("lab %s is coming up; wait until it is, or end it with shoal-lab down --name %s", s.name, s.name)})
		return
	}
	out, err := verbs[v](r.Context(), l, a)
	answer(w, out, err)
}

// readAsk reads a request. What is not understood to the last word is refused: it may be
// from another version, and mean more than is understood.
func readAsk(method, path string, body io.Reader) (Verb, *Ask, error) {
	const isOther = "is it of another version?"
	v := Verb(strings.TrimPrefix(path, "/"))
	if _, isKnown := verbs[v]; method != http.MethodPost || !isKnown && v != down {
		return "", nil, fmt.Errorf("the driver does not know %s %q; %s", method, v, isOther)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return "", nil, fmt.Errorf("read what is asked: %w", err)
	}
	a := &Ask{}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(a); err != nil {
		return "", nil, fmt.Errorf("the driver does not understand what %s is asked: %w; %s", v, err, isOther)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return "", nil, fmt.Errorf("the driver does not understand what %s is asked: something follows it; %s", v, isOther)
	}
	return v, a, nil
}

// reply is an answer.
type reply struct {
	Error  *Error          `json:"error,omitempty"`
	Answer json.RawMessage `json:"answer,omitempty"`
}

func answer(w http.ResponseWriter, out any, err error) {
	var r reply
	if err == nil {
		r.Answer, err = json.Marshal(out)
	}
	if err != nil {
		r = reply{Error: errorOf(err)}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(r) // who asked may be gone
}
