// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package actors

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/runtime"
)

func TestExec(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		p.engine.SetProgram("hello:1", runtime.Program{Exec: func(_ context.Context, opts shoal.ExecOptions, t shoal.Terminal) int {
			io.WriteString(t.Out, strings.Join(opts.Command, " "))
			return 3
		}})
		oneWeb(s, 2)
		var out bytes.Buffer
		opts := shoal.ExecOptions{Command: []string{"say", "it"}}
		code, err := p.system.Exec(s.t.Context(), shoal.Target{Service: "web", Slot: 1}, opts, shoal.Terminal{Out: &out})
		if err != nil || code != 3 || out.String() != "say it" {
			t.Errorf("Exec = %d, %v, %q", code, err, &out)
		}
		in, _ := io.Pipe()
		_, err = p.system.Exec(s.t.Context(), shoal.Target{Service: "web", Slot: 2}, opts, shoal.Terminal{In: in, Out: &out})
		if !errors.Is(err, shoal.ErrNotFound) || !strings.HasPrefix(err.Error(), "web/2 has no replica here") {
			t.Errorf("Exec in a slot that is not here = %v, want ErrNotFound", err)
		}
		if _, err := in.Read(nil); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the input of a command that does not run = %v, want it closed", err)
		}
		p.system.board.set(&cell{}, shoal.ReplicaStatus{ID: shoal.ReplicaID{9}, Service: "late", Phase: shoal.PhasePulling, Reason: "10%"}, shoal.Resources{}, false)
		_, err = p.system.Exec(s.t.Context(), shoal.Target{Service: "late"}, opts, shoal.Terminal{Out: &out})
		if !errors.Is(err, shoal.ErrNotFound) || !strings.HasPrefix(err.Error(), "late/0 has no container: it is pulling (10%)") {
			t.Errorf("Exec before there is a container = %v, want its phase", err)
		}
	})
}

func TestCopy(t *testing.T) {
	inSea(t, 1, func(s *sea) {
		p := s.first()
		oneWeb(s, 2)
		var packed bytes.Buffer
		w := tar.NewWriter(&packed)
		if err := errors.Join(w.WriteHeader(&tar.Header{Name: "motd", Mode: 0o600}), w.Close()); err != nil {
			t.Fatal(err)
		}
		at := shoal.Target{Service: "web", Slot: 1}
		if err := p.system.CopyTo(s.t.Context(), at, "/", io.NopCloser(&packed)); err != nil {
			t.Fatalf("CopyTo = %v", err)
		}
		var stat shoal.PathStat
		keep := func(got shoal.PathStat) error { stat = got; return nil }
		if err := p.system.CopyFrom(s.t.Context(), at, "/motd", keep, io.Discard); err != nil || stat.Name != "motd" {
			t.Errorf("CopyFrom = %v, %+v", err, stat)
		}
		if err := p.system.CopyFrom(s.t.Context(), shoal.Target{Service: "web"}, "/motd", keep, io.Discard); !errors.Is(err, shoal.ErrNotFound) {
			t.Errorf("CopyFrom the other replica = %v, want ErrNotFound: files are its own", err)
		}
		for what, err := range map[string]error{
			"CopyTo":   p.system.CopyTo(s.t.Context(), shoal.Target{Service: "web", Slot: 2}, "/", io.NopCloser(&packed)),
			"CopyFrom": p.system.CopyFrom(s.t.Context(), shoal.Target{Service: "web", Slot: 2}, "/motd", keep, io.Discard),
		} {
			if !errors.Is(err, shoal.ErrNotFound) || !strings.HasPrefix(err.Error(), "web/2 has no replica here") {
				t.Errorf("%s in a slot that is not here = %v, want ErrNotFound", what, err)
			}
		}
	})
}
