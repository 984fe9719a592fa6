// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
)

// end makes a TCP connection: one end is forwarded, the other is a user's.
func end(t *testing.T, c *api.Client, at shoal.Target, port uint16) (*net.TCPConn, <-chan error) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	carried, err := l.Accept()
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Forward(t.Context(), at, port, carried) }()
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn), done
}

// A connection is carried both ways, and each end says for itself that it is done.
func TestForward(t *testing.T) {
	cluster := apitest.New("tokyo", "osaka")
	c := dial(t, apitest.Serve(t, cluster))
	deploy(t, c, spec("web", "hello:1", 2))
	conn, done := end(t, c, shoal.Target{Service: "web", Slot: 1}, 80)
	sent := make([]byte, 300<<10) // several messages
	for i := range sent {
		sent[i] = byte(i * 7)
	}
	go func() {
		_, _ = conn.Write(sent) // what it cannot send does not come back
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "web/1:80\n"+string(sent) {
		t.Errorf("%d bytes came back, %v; want a greeting and %d", len(got), err, len(sent))
	}
	if err := <-done; err != nil {
		t.Errorf("Forward = %v", err)
	}
}

// A connection that no replica takes is reset, and the error says why.
func TestForwardRefused(t *testing.T) {
	cluster := apitest.New("tokyo")
	c := dial(t, apitest.Serve(t, cluster))
	deploy(t, c, spec("web", "hello:1", 1))
	for _, tt := range []struct {
		at   shoal.Target
		port uint16
		code string
	}{
		{shoal.Target{Service: "web", Slot: -1}, 9, api.CodeUnreachable},
		{shoal.Target{Service: "web", Slot: 7}, 80, api.CodeNotFound},
		{shoal.Target{Service: "nosuch", Slot: -1}, 80, api.CodeNotFound},
		{shoal.Target{Service: "web", Slot: -2}, 80, api.CodeInvalid},
		{shoal.Target{Service: "web", Slot: -1}, 0, api.CodeInvalid},
		{shoal.Target{Service: "No", Slot: -1}, 80, api.CodeInvalid},
	} {
		conn, done := end(t, c, tt.at, tt.port)
		err := <-done
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != tt.code {
			t.Errorf("Forward to %s port %d = %v, want %s", tt.at, tt.port, err, tt.code)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the user's end of %s port %d reads %v, want a reset", tt.at, tt.port, err)
		}
	}
}
