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
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal/lab"
	"github.com/shoalnet/shoal/lab/topology"
)

// noLab is the name of a lab that there is not.
const noLab = "no-such-lab-of-the-driver"

// starting is a server whose lab is coming up, and its client. Asking for the end closes
// over.
func starting(t *testing.T) (s *server, c *Client, over chan struct{}) {
	t.Helper()
	over = make(chan struct{}, 9)
	s = newServer(noLab, func() { over <- struct{}{} })
	socket := filepath.Join(t.TempDir(), "socket")
	if err := s.listen(socket); err != nil {
		t.Fatal(err)
	}
	return s, dialAt(noLab, socket), over
}

// raw sends what no client of ours would, and returns the answer's error.
func raw(t *testing.T, c *Client, method, path string, body io.Reader) *Error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://lab"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var r reply
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if r.Error == nil {
		t.Fatalf("%s %s was answered %s", method, path, r.Answer)
	}
	return r.Error
}

// What is no question is refused in one line, and the next question is answered.
func TestHostile(t *testing.T) {
	s, c, _ := starting(t)
	for _, x := range []struct{ name, method, path, body, says string }{
		{"not JSON", "POST", "/kill", "h2", "does not understand what kill is asked"},
		{"nothing", "POST", "/kill", "", "does not understand what kill is asked"},
		{"half of it", "POST", "/kill", `{"Host": "h2`, "does not understand what kill is asked"},
		{"of another type", "POST", "/kill", `{"Host": 2}`, "does not understand what kill is asked"},
		{"a list", "POST", "/kill", `[]`, "does not understand what kill is asked"},
		{"two", "POST", "/kill", `{"Host": "h2"} {"Host": "h3"}`, "something follows it"},
		{"a field of another version", "POST", "/kill", `{"Host": "h2", "Softly": true}`, `unknown field "Softly"; is it of another version?`},
		{"a verb of another version", "POST", "/burn", `{}`, `does not know POST "burn"; is it of another version?`},
		{"no verb", "POST", "/", `{}`, `does not know POST ""`},
		{"a path", "POST", "/x/../kill/kill", `{}`, `does not know POST`},
		{"another method", "GET", "/hosts", `{}`, `does not know GET "hosts"`},
		{"too large", "POST", "/kill", `{"Host": "` + strings.Repeat("h", maxAsk) + `"}`, "too large"},
	} {
		got := raw(t, c, x.method, x.path, strings.NewReader(x.body))
		if !strings.Contains(got.Text, x.says) || strings.Contains(got.Text, "\n") {
			t.Errorf("%s: %q, want a line with %q", x.name, got.Text, x.says)
		}
	}
	var starts *Error
	if err := c.Do(t.Context(), Kill, Ask{Host: "h2"}, nil); !errors.As(err, &starts) || starts.Kind != KindStarting {
		t.Errorf("asked of a lab that is coming up: %v", err)
	}
	if err := s.end(t.Context(), nil); err != nil {
		t.Errorf("end = %v", err)
	}
}

// Who asks for the end waits for it, and hears how it went.
func TestDown(t *testing.T) {
	for _, want := range []error{nil, errors.New("a process does not go")} {
		s, c, over := starting(t)
		answers := make(chan error, 2)
		for range cap(answers) {
			go func() { answers <- c.Down(t.Context()) }()
			<-over
		}
		select {
		case err := <-answers:
			t.Errorf("before the end it was answered %v", err)
		default:
		}
		if err := s.end(t.Context(), want); !errors.Is(err, want) {
			t.Errorf("end(%v) = %v", want, err)
		}
		for range cap(answers) {
			if err := <-answers; fmt.Sprint(err) != fmt.Sprint(want) {
				t.Errorf("Down = %v, want %v", err, want)
			}
		}
		if err := c.Do(t.Context(), Hosts, Ask{}, nil); !errors.Is(err, ErrNoDriver) {
			t.Errorf("asked after the end: %v", err)
		}
	}
}

// Who goes away while the lab ends does not keep its driver.
func TestDownCalledOff(t *testing.T) {
	s, c, over := starting(t)
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() { answer <- c.Down(ctx) }()
	<-over
	cancel()
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Errorf("Down, called off = %v", err)
	}
	if err := s.end(t.Context(), nil); err != nil {
		t.Errorf("end = %v", err)
	}
}

// A socket that is in use, or cannot be made, ends the start of the lab.
func TestListenFails(t *testing.T) {
	s, socket := newServer(noLab, func() {}), filepath.Join(t.TempDir(), "socket")
	other, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := s.listen(socket); err == nil || !strings.Contains(err.Error(), "open the driver's socket") {
		t.Errorf("listen where another does = %v", err)
	}
	if err := s.end(t.Context(), nil); err != nil {
		t.Errorf("end of what did not begin = %v", err)
	}
}

func TestErrorOf(t *testing.T) {
	for _, x := range []struct {
		err  error
		kind string
	}{
		{errors.New("something\nelse"), ""},
		{fmt.Errorf("kill: %w", &lab.UnknownHostError{Name: "h9"}), KindUnknown},
		{&lab.DownError{Host: "h2"}, KindDown},
		{&topology.AskError{Err: errors.New("h1 has no link to itself")}, KindUsage},
		{&lab.CheckError{Check: lab.CheckNetwork}, KindRefused},
		{(&lab.Info{Name: "A B"}).CheckName(), KindUsage},
		{&Error{Kind: KindStarting, Text: "it is coming up"}, KindStarting},
	} {
		if got := errorOf(x.err); got.Kind != x.kind || strings.Contains(got.Text, "\n") {
			t.Errorf("errorOf(%v) = %+v, want a line of the kind %q", x.err, got, x.kind)
		}
	}
}

// What a verb is told arrives as it was sent.
func FuzzReadAsk(f *testing.F) {
	isCut := true
	for v, a := range map[Verb]Ask{
		Kill: {Host: "h2"}, Split: {Sides: "h1 | h2", OneWay: true}, down: {}, Exec: {Host: "h1", Args: []string{"sh", "-c", "exit"}},
		SetLink: {Host: "h1", Other: "h2", Change: topology.Change{RTT: "50ms", Loss: "2%", Cut: &isCut}}, Clock: {Host: "h1", Offset: "-2m"},
	} {
		text, err := json.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("POST", "/"+string(v), text)
	}
	f.Add("GET", "/kill", []byte(`{`))
	f.Add("POST", "/../kill", []byte(`{"Host": "h2"}]`))
	f.Fuzz(func(t *testing.T, method, path string, body []byte) {
		v, a, err := readAsk(method, path, bytes.NewReader(body))
		if err != nil {
			if a != nil || v != "" || strings.Contains(errorOf(err).Text, "\n") {
				t.Errorf("readAsk = %q, %+v with %q", v, a, err)
			}
			return
		}
		if verbs[v] == nil && v != down {
			t.Errorf("readAsk knows %q", v)
		}
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		_, again, err := readAsk(method, path, bytes.NewReader(text))
		if diff := cmp.Diff(a, again); err != nil || diff != "" {
			t.Errorf("sent again it is read as (-first +second): %v\n%s", err, diff)
		}
	})
}

// Nobody answers for a lab that there is not, and removing it is no error.
func TestNoLab(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := Dial(noLab).Do(ctx, Hosts, Ask{}, nil); !errors.Is(err, ErrNoDriver) {
		t.Errorf("Do = %v", err)
	}
	if err := Remove(ctx, noLab); err != nil {
		t.Errorf("Remove = %v", err)
	}
}
