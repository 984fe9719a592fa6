// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/links"
)

// newPolicy writes a policy and returns its owner, and what it logs.
func newPolicy(t *testing.T, text string) (*owner, *bytes.Buffer) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, file, text)
	var log bytes.Buffer
	o, err := newOwner(file, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return o, &log
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestOwnerReadsAgain(t *testing.T) {
	o, log := newPolicy(t, "allow: {host: [pid]}")
	for _, step := range []struct {
		name, text string // "": the file goes
		want       []string
		changed    bool
		logs       string
	}{
		{"the same", "allow: {host: [pid]}", []string{"host:pid"}, false, ""},
		{"more", "allow: {host: [pid, ipc]}", []string{"host:pid", "host:ipc"}, true, "rules=2"},
		{"wrong", "allow: {hots: [pid]}", []string{"host:pid", "host:ipc"}, false, "the former one stays in force"},
		{"still wrong", "allow: {hots: [pid]}", []string{"host:pid", "host:ipc"}, false, ""},
		{"right again", "allow: {host: [pid, ipc]}", []string{"host:pid", "host:ipc"}, false, ""},
		{"nothing", "allow:", nil, true, "rules=0"},
		{"gone", "", nil, false, "cannot be read"},
	} {
		log.Reset()
		_, before := o.allows()
		if write(t, o.file, step.text); step.text == "" {
			if err := os.Remove(o.file); err != nil {
				t.Fatal(err)
			}
		}
		o.look()
		if got, _ := o.allows(); !slices.Equal(got, step.want) || isClosed(before) != step.changed {
			t.Errorf("%s: rules = %q, change told: %t; want %q, %t", step.name, got, isClosed(before), step.want, step.changed)
		}
		if said := log.String(); step.logs == "" && said != "" || !strings.Contains(said, step.logs) {
			t.Errorf("%s: log = %q, want %q", step.name, said, step.logs)
		}
	}
}

func TestOwnerReadsWhenTold(t *testing.T) {
	o, _ := newPolicy(t, "")
	_, changed := o.allows()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	told := make(chan os.Signal)
	go func() { defer close(ended); o.run(ctx, told) }()
	write(t, o.file, "allow: {privileged: true}")
	told <- os.Interrupt
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Error("not read")
	}
	cancel()
	<-ended
}

func TestOwnerRefusesAtStart(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open.yaml")
	write(t, open, "allow: {}")
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "bad.yaml")
	write(t, bad, "allow:\n  everything: true\n")
	for file, want := range map[string]string{
		filepath.Join(dir, "none"): "policy cannot be read: open " + dir + "/none: no such file or directory",
		dir:                        "policy cannot be read: read " + dir + ": is a directory",
		open:                       "policy " + open + " may be written by others than its owner (mode 0666); chmod go-w it",
		bad:                        bad + `:2: unknown key "everything"; allow has privileged, host, capabilities, devices, mounts, sysctls, security, logging, volumes, groups`,
	} {
		_, err := newOwner(file, slog.New(slog.DiscardHandler))
		if _, ok := errors.AsType[*shoal.InvalidError](err); !ok || err.Error() != want {
			t.Errorf("newOwner(%s) = %v, want %q", file, err, want)
		}
		if again := (&Config{Policy: file}).CheckPolicy(); again == nil || again.Error() != want {
			t.Errorf("CheckPolicy of %s = %v, want %q", file, again, want)
		}
	}
	if rules, raw, err := readPolicy(""); rules != nil || raw != nil || err != nil {
		t.Errorf("no policy = %q, %q, %v; want nothing", rules, raw, err)
	}
}

func TestOwnerWarnsOfLinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	_, log := newPolicy(t, "allow: {mounts: [{path: "+dir+"}, {path: "+dir+"/link, read_only: true}, {path: "+dir+"/absent}]}")
	if said := log.String(); strings.Count(said, "allows nothing") != 1 || !strings.Contains(said, "path="+dir+"/link leads_to=/") {
		t.Errorf("log = %q, want a warning of the link alone", said)
	}
}

// What the owner allows is in the peer's facts, soon after it changed.
func TestRulesAreTold(t *testing.T) {
	id, err := links.OpenIdentity("", nil)
	if err != nil {
		t.Fatal(err)
	}
	o, _ := newPolicy(t, "allow: {host: [pid]}")
	parts := partsOn(id, t.TempDir())
	parts.Rules = o.allows
	p, stop := runPeer(t, parts)
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := p.Init(t.Context(), shoal.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := p.awaitStack(ctx)
	if err != nil {
		t.Fatal(err)
	}
	await := func(want ...string) {
		t.Helper()
		for {
			changed := s.store.Changed()
			me, _ := s.store.Desired().Peer(id.Self())
			if slices.Equal(me.Facts.AllowedPolicy, want) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				t.Fatalf("facts tell of %q, want %q", me.Facts.AllowedPolicy, want)
			}
		}
	}
	await("host:pid")
	write(t, o.file, "allow: {host: [ipc], groups: [video]}")
	o.look()
	await("host:ipc", "group:video")
	write(t, o.file, "")
	o.look()
	await()
}
