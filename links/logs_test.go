// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/proto/frame"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// fixed yields the lines and then err.
func fixed(err error, lines ...shoal.LogLine) LogSource {
	return func(_ context.Context, _ shoal.LogQuery, fn func(shoal.LogLine) error) error {
		for _, l := range lines {
			if err := fn(l); err != nil {
				return err
			}
		}
		return err
	}
}

func collect(ctx context.Context, l *Links, from shoal.PeerID, q shoal.LogQuery) ([]shoal.LogLine, error) {
	var got []shoal.LogLine
	err := l.Logs(ctx, from, q, func(line shoal.LogLine) error {
		got = append(got, line)
		return nil
	})
	return got, err
}

func TestLogsAcross(t *testing.T) {
	a, b := pair(t)
	at := time.Unix(1_700_000_000, 123456789).UTC()
	sent := []shoal.LogLine{
		{Service: "web", Slot: 3, Replica: shoal.ReplicaID{1, 2}, Time: at, Text: "hello"},
		{Service: "web", Slot: 0, Stderr: true, Text: ""},
		{Service: "web", Slot: 1, Text: "not \xff UTF-8 \x00 at all", Peer: "a lie"},
	}
	var asked shoal.LogQuery
	b.ServeLogs(func(ctx context.Context, q shoal.LogQuery, fn func(shoal.LogLine) error) error {
		asked = q
		return fixed(nil, sent...)(ctx, q, fn)
	})
	q := shoal.LogQuery{Service: "web", Slot: -1, LogOptions: shoal.LogOptions{Tail: -1, Since: at, Until: at.Add(time.Hour)}}
	got, err := collect(t.Context(), a.Links, b.id.Self(), q)
	mustBe(t, "logs", err)
	for i := range sent {
		sent[i].Peer = b.id.Self() // whose line it is, is not for the sender to say
	}
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Errorf("lines differ (-sent +got):\n%s", diff)
	}
	if diff := cmp.Diff(q, asked); diff != "" {
		t.Errorf("queries differ (-asked +arrived):\n%s", diff)
	}
}

// TestLogsLongLine sends a line larger than a message may be.
func TestLogsLongLine(t *testing.T) {
	a, b := pair(t)
	text := strings.Repeat("0123456789", 30_000)
	b.ServeLogs(fixed(nil, shoal.LogLine{Service: "web", Text: text}))
	got, err := collect(t.Context(), a.Links, b.id.Self(), shoal.LogQuery{Service: "web"})
	mustBe(t, "logs", err)
	all := ""
	for _, l := range got {
		if len(l.Text) > logsText {
			t.Errorf("a piece has %d bytes, limit %d", len(l.Text), logsText)
		}
		all += l.Text
	}
	if all != text || len(got) != 7 {
		t.Errorf("%d pieces with %d bytes, want 7 with %d", len(got), len(all), len(text))
	}
}

func TestLogsMany(t *testing.T) {
	a, b := pair(t)
	const n = 20_000
	b.ServeLogs(func(_ context.Context, _ shoal.LogQuery, fn func(shoal.LogLine) error) error {
		for i := range n {
			if err := fn(shoal.LogLine{Service: "web", Slot: i, Text: "line"}); err != nil {
				return err
			}
		}
		return nil
	})
	next := 0
	err := a.Logs(t.Context(), b.id.Self(), shoal.LogQuery{}, func(l shoal.LogLine) error {
		if l.Slot != next {
			return fmt.Errorf("line %d came after %d", l.Slot, next-1)
		}
		next++
		return nil
	})
	if err != nil || next != n {
		t.Errorf("%d lines, %v, want %d", next, err, n)
	}
}

// TestLogsFollow: lines come as they are written, and stop when the asker goes.
func TestLogsFollow(t *testing.T) {
	a, b := pair(t)
	lines := make(chan string)
	ended := make(chan error, 1)
	b.ServeLogs(func(ctx context.Context, q shoal.LogQuery, fn func(shoal.LogLine) error) (err error) {
		defer func() { ended <- err }()
		for q.Follow {
			select {
			case text := <-lines:
				if err := fn(shoal.LogLine{Text: text}); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan string)
	done := make(chan error, 1)
	go func() {
		done <- a.Logs(ctx, b.id.Self(), shoal.LogQuery{LogOptions: shoal.LogOptions{Follow: true}}, func(l shoal.LogLine) error {
			got <- l.Text
			return nil
		})
	}()
	for i := range 3 {
		text := fmt.Sprint("line ", i)
		select {
		case lines <- text:
		case err := <-done:
			t.Fatalf("Logs ended before line %d: %v", i, err)
		}
		select {
		case back := <-got:
			if back != text {
				t.Errorf("line %d = %q", i, back)
			}
		case err := <-done:
			t.Fatalf("Logs ended at line %d: %v", i, err)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Logs = %v, want context.Canceled", err)
	}
	if err := <-ended; err == nil {
		t.Error("the source ended without being told to")
	}
}

// TestLogsStop: the asker's function has enough.
func TestLogsStop(t *testing.T) {
	a, b := pair(t)
	ended := make(chan error, 1)
	b.ServeLogs(func(ctx context.Context, _ shoal.LogQuery, fn func(shoal.LogLine) error) error {
		for {
			if err := fn(shoal.LogLine{Text: "on and on"}); err != nil {
				ended <- err
				return err
			}
		}
	})
	enough := errors.New("enough")
	n := 0
	err := a.Logs(t.Context(), b.id.Self(), shoal.LogQuery{}, func(shoal.LogLine) error {
		if n++; n == 10 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 10 {
		t.Fatalf("Logs = %v after %d lines, want its own error after 10", err, n)
	}
	<-ended
}

func TestLogsErrors(t *testing.T) {
	a, b := pair(t)
	line := shoal.LogLine{Text: "before"}
	for name, c := range map[string]struct{ sent, want error }{
		"not found":   {fmt.Errorf("no replica of \"web\": %w", shoal.ErrNotFound), shoal.ErrNotFound},
		"engine down": {shoal.ErrEngineDown, shoal.ErrEngineDown},
		"refused":     {shoal.ErrRefused, shoal.ErrRefused},
		"other":       {errors.New("some text \xff"), nil},
	} {
		b.ServeLogs(fixed(c.sent, line))
		got, err := collect(t.Context(), a.Links, b.id.Self(), shoal.LogQuery{Service: "web"})
		if err == nil || len(got) != 1 || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), b.id.Self().Short()) {
			t.Errorf("%s: Logs = %v, %v, want the line and %v", name, got, err, c.sent)
		}
	}
	b.ServeLogs(nil)
	if _, err := collect(t.Context(), a.Links, b.id.Self(), shoal.LogQuery{}); !errors.Is(err, shoal.ErrUnreachable) {
		t.Errorf("Logs of a peer that serves none = %v, want ErrUnreachable", err)
	}
	if _, err := collect(t.Context(), a.Links, memory(t, 9).Self(), shoal.LogQuery{}); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("Logs of a stranger = %v, want ErrNotFound", err)
	}
}

// TestLogsPeerDies: the link breaks in the middle.
func TestLogsPeerDies(t *testing.T) {
	a, b := pair(t)
	b.ServeLogs(func(ctx context.Context, _ shoal.LogQuery, fn func(shoal.LogLine) error) error {
		if err := fn(shoal.LogLine{Text: "last words"}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})
	n := 0
	err := a.Logs(t.Context(), b.id.Self(), shoal.LogQuery{}, func(shoal.LogLine) error {
		n++
		go b.stop()
		return nil
	})
	if !errors.Is(err, shoal.ErrUnreachable) || n != 1 {
		t.Errorf("Logs = %v after %d lines, want ErrUnreachable after 1", err, n)
	}
	b.stop()
	if _, err := collect(t.Context(), a.Links, b.id.Self(), shoal.LogQuery{}); !errors.Is(err, shoal.ErrUnreachable) {
		t.Errorf("Logs of a stopped peer = %v, want ErrUnreachable", err)
	}
}

func TestLogsLocal(t *testing.T) {
	a := newCluster(t, 1)
	if _, err := collect(t.Context(), a.Links, a.id.Self(), shoal.LogQuery{}); !errors.Is(err, shoal.ErrEngineDown) {
		t.Errorf("Logs without a source = %v, want ErrEngineDown", err)
	}
	want := shoal.LogLine{Peer: a.id.Self(), Text: "mine"}
	a.ServeLogs(fixed(nil, want))
	var remote shoal.Remote = a.Links
	n := 0
	err := remote.Logs(t.Context(), a.id.Self(), shoal.LogQuery{}, func(l shoal.LogLine) error {
		if l != want {
			t.Errorf("line = %+v", l)
		}
		n++
		return nil
	})
	if err != nil || n != 1 {
		t.Errorf("%d lines, %v", n, err)
	}
}

// TestLogsSlowReader: a reader that does not read is given up after logsStall, in
// virtual time, and holds no source for longer.
func TestLogsSlowReader(t *testing.T) {
	simulate(t, 2, func(t *testing.T, sim *simulation) {
		d := sim.members(t)
		for _, p := range sim.peers {
			p.SetMembers(d)
		}
		time.Sleep(time.Second)
		ended := make(chan error, 1)
		sim.peers[0].ServeLogs(func(_ context.Context, _ shoal.LogQuery, fn func(shoal.LogLine) error) error {
			for {
				if err := fn(shoal.LogLine{Text: strings.Repeat("x", 40_000)}); err != nil {
					ended <- err
					return err
				}
			}
		})
		s, err := sim.peers[1].openLogs(t.Context(), sim.peers[0].host.ID(), shoal.LogQuery{})
		mustBe(t, "open logs", err)
		start := time.Now()
		<-ended
		if took := time.Since(start); took < logsStall || took > logsStall+5*time.Second {
			t.Errorf("given up after %s, want about %s", took, logsStall)
		}
		_ = s.Reset()
	})
}

// TestBadRequests sends what no peer of ours would: the stream ends, nothing else.
func TestBadRequests(t *testing.T) {
	a, b := pair(t)
	b.ServeLogs(fixed(nil))
	p := decodeID(t, b.id.Self())
	huge := []byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3}
	garbage := []byte{0, 0, 0, 3, 0xff, 0xff, 0xff}
	for _, raw := range [][]byte{huge, garbage, {0, 0}, {}} {
		for _, proto := range []protocol.ID{ProtocolLogs, ProtocolPing} {
			s, err := a.host.NewStream(t.Context(), p, proto)
			mustBe(t, "open "+string(proto), err)
			_, _ = s.Write(raw)
			_ = s.CloseWrite()
			mustBe(t, "deadline", s.SetReadDeadline(time.Now().Add(5*time.Second)))
			var reply shoalv1.LogsReply
			if err := frame.Read(s, &reply, logsFrame); err == nil {
				t.Errorf("%s: %x was answered with %v", proto, raw, &reply)
			}
			_ = s.Reset()
		}
	}
	if _, err := a.Ping(t.Context(), b.id.Self(), false); err != nil {
		t.Errorf("the link did not survive bad requests: %v", err)
	}
}
