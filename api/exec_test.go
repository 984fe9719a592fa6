// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
)

// in is an input that ends.
func in(text string) io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }

func TestExec(t *testing.T) {
	cluster := apitest.New("tokyo", "osaka")
	c := dial(t, apitest.Serve(t, cluster))
	deploy(t, c, spec("web", "hello:1", 2))
	large := strings.Repeat("0123456789abcdef", 64<<10)
	var out bytes.Buffer
	code, err := c.Exec(t.Context(), shoal.Target{Service: "web"}, shoal.ExecOptions{Command: []string{"cat"}, Stdin: true}, shoal.Terminal{In: in(large), Out: &out, Err: &out})
	if err != nil || code != 0 || out.String() != large {
		t.Errorf("Exec(cat) of %d bytes = %d, %v, %d bytes", len(large), code, err, out.Len())
	}
	// The command ends first, with input under way: nobody waits for the rest.
	typing, _ := io.Pipe()
	if code, err := c.Exec(t.Context(), shoal.Target{Service: "web"}, shoal.ExecOptions{Command: []string{"exit", "3"}, Stdin: true}, shoal.Terminal{In: typing, Out: &out, Err: &out}); err != nil || code != 3 {
		t.Errorf("Exec(exit 3) = %d, %v", code, err)
	}
	at := func(service string, slot int, command ...string) error {
		_, err := c.Exec(t.Context(), shoal.Target{Service: service, Slot: slot}, shoal.ExecOptions{Command: command}, shoal.Terminal{Out: &out, Err: &out})
		return err
	}
	wantError(t, at("web", 7, "where"), api.CodeNotFound, "no replica of web/7 is known here; this peer last synced 0 s ago; see shoal ps")
	wantError(t, at("nosuch", 0, "where"), api.CodeNotFound, `no service "nosuch" (known here: web); this peer last synced 0 s ago`)
	wantError(t, at("web", 0), api.CodeInvalid, "command must have at least one word")
	wantError(t, at("web", 0, strings.Repeat("a", 100<<10)), api.CodeInvalid, "command and env have 102400 bytes, at most 32768 are allowed")
	if err := at("web", 0, strings.Repeat("a", 200<<10)); err == nil {
		t.Error("Exec with a message larger than any may be = nil")
	}
}

// TestExecLeft: the client goes, and the command is left; nothing stays behind, which
// TestMain checks.
func TestExecLeft(t *testing.T) {
	cluster := apitest.New("tokyo")
	c := dial(t, apitest.Serve(t, cluster))
	deploy(t, c, spec("web", "hello:1", 1))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	typing, _ := io.Pipe()
	_, err := c.Exec(ctx, shoal.Target{Service: "web"}, shoal.ExecOptions{Command: []string{"cat"}, Stdin: true}, shoal.Terminal{In: typing, Out: io.Discard, Err: io.Discard})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeTimeout {
		t.Errorf("Exec whose context ended = %v, want %s", err, api.CodeTimeout)
	}
}

func TestPick(t *testing.T) {
	cluster := apitest.New("tokyo", "osaka", "kyoto")
	c := dial(t, apitest.Serve(t, cluster))
	deploy(t, c, spec("web", "hello:1", 6), spec("bad", "crash:1", 1))
	r, of, err := c.Pick(t.Context(), "web")
	if err != nil || r.PeerName != "tokyo" || of != 6 {
		t.Errorf("Pick(web) = %s/%d on %s of %d, %v; want one of this peer's own of 6", r.Service, r.Slot, r.PeerName, of, err)
	}
	all, err := c.Replicas(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range all.Items {
		if own.PeerName == "tokyo" {
			cluster.Set("web", own.Slot, shoal.PhaseStarting, "")
		}
	}
	lowest := -1
	for _, other := range all.Items {
		if other.PeerName != "tokyo" && (lowest < 0 || other.Slot < lowest) {
			lowest = other.Slot
		}
	}
	if r, _, err := c.Pick(t.Context(), "web"); err != nil || r.Slot != lowest {
		t.Errorf("Pick(web) without one here = %s/%d, %v; want slot %d", r.Service, r.Slot, err, lowest)
	}
	_, _, err = c.Pick(t.Context(), "bad")
	wantError(t, err, api.CodeNotFound, "no replica of bad is ready; see shoal ps bad, or name one as bad/SLOT")
}

// TestExecByCurl: who cannot stream both ways is told so in JSON.
func TestExecByCurl(t *testing.T) {
	socket := apitest.Serve(t, apitest.New("tokyo"))
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer hc.CloseIdleConnections()
	resp, err := hc.Post("http://shoal/shoal.v1.ControlService/Exec", "application/json", strings.NewReader(`{"start":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusHTTPVersionNotSupported || !strings.Contains(string(text), "Exec needs HTTP/2 and a stream of messages") {
		t.Errorf("POST Exec = %s, %s, %v", resp.Status, text, err)
	}
}
