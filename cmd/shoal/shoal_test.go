// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
)

func TestParseScale(t *testing.T) {
	for arg, want := range map[string]shoal.ScaleTarget{
		"web=10":    {Service: "web", N: 10},
		"web=0":     {Service: "web"},
		"web+2":     {Service: "web", Relative: true, N: 2},
		"web-1":     {Service: "web", Relative: true, N: -1},
		"web-1=3":   {Service: "web-1", N: 3},
		"web-1-1":   {Service: "web-1", Relative: true, N: -1},
		"a-b+10000": {Service: "a-b", Relative: true, N: 10000},
	} {
		if got, err := parseScale(arg); err != nil || got != want {
			t.Errorf("parseScale(%q) = %+v, %v, want %+v", arg, got, err, want)
		}
	}
	for _, arg := range []string{"", "web", "=3", "web=", "web=+3", "web=-1", "web=1e9", "web=10001", "web+10001", "web-x", "-1", "Web=1", "web=0x3", "web=1=2", "web+", "../x=1"} {
		if got, err := parseScale(arg); err == nil {
			t.Errorf("parseScale(%q) = %+v, want an error", arg, got)
		} else if exitCode(err) != exitUsage {
			t.Errorf("parseScale(%q) = exit %d, want %d", arg, exitCode(err), exitUsage)
		}
	}
}

func FuzzScaleArg(f *testing.F) {
	for _, s := range []string{"web=10", "web+2", "web-1", "web-1-1", "a=-1", "a=9223372036854775808", "a=1e9", "=", "-", "\x00=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		got, err := parseScale(arg)
		if err != nil {
			if exitCode(err) != exitUsage {
				t.Errorf("parseScale(%q) fails with exit %d, want %d", arg, exitCode(err), exitUsage)
			}
			return
		}
		if shoal.CheckName("name", got.Service) != nil || got.N > shoal.MaxReplicas || got.N < -shoal.MaxReplicas || !got.Relative && got.N < 0 {
			t.Errorf("parseScale(%q) = %+v, out of range", arg, got)
		}
		form := fmt.Sprintf("%s=%d", got.Service, got.N)
		if got.Relative {
			form = fmt.Sprintf("%s%+d", got.Service, got.N)
		}
		if again, err := parseScale(form); err != nil || again != got {
			t.Errorf("parseScale(%q) = %+v, %v, want %+v as from %q", form, again, err, got, arg)
		}
	})
}

func TestParseSelectors(t *testing.T) {
	got, err := parseSelectors([]string{"a=b,c!=d", "k in (x,y),!z", "w notin (1)"})
	want := []string{"a=b", "c!=d", "k in (x,y)", "!z", "w notin (1)"}
	var texts []string
	for _, s := range got {
		texts = append(texts, s.String())
	}
	if err != nil || !slices.Equal(texts, want) {
		t.Errorf("parseSelectors = %q, %v, want %q", texts, err, want)
	}
}

func FuzzSelectors(f *testing.F) {
	for _, s := range []string{"a=b", "a!=b,c", "k in (a,b),!d", "k notin (a)", "((", ",", "a in ()"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if joined := strings.Join(splitOutside(text), ","); joined != text {
			t.Errorf("splitOutside(%q) loses text: %q", text, joined)
		}
		sels, err := parseSelectors([]string{text})
		if err != nil {
			return
		}
		var forms []string
		for _, s := range sels {
			forms = append(forms, s.String())
		}
		again, err := parseSelectors(forms)
		if diff := cmp.Diff(sels, again); err != nil || diff != "" {
			t.Errorf("parseSelectors(%q) does not survive its own form %q: %v\n%s", text, forms, err, diff)
		}
	})
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"0": 0, "30s": 30 * time.Second, "1h30m": 90 * time.Minute} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("parseDuration(%q) = %s, %v, want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"5":      `"5" has no unit (try "5s")`,
		"-5s":    `"-5s" is negative or longer than a year`,
		"99999h": `"99999h" is negative or longer than a year`,
		"soon":   `"soon" is no duration like 30s, 5m or 1h30m`,
		"":       `"" is no duration like 30s, 5m or 1h30m`,
	} {
		if _, err := parseDuration(text); err == nil || err.Error() != want {
			t.Errorf("parseDuration(%q) = %v, want %s", text, err, want)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"5", "5s", "-1h", "1e9h", "NaN", "9223372036854775807ns", "2026-01-02", "1m1m"} {
		f.Add(s)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseDuration(text); err == nil && (d < 0 || d > longest) {
			t.Errorf("parseDuration(%q) = %s, out of range", text, d)
		}
		if _, err := parseMoment(text, now); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("parseMoment(%q) says two lines: %v", text, err)
		}
	})
}

func FuzzContexts(f *testing.F) {
	for _, s := range []string{
		"", "current: default", "current: lab\ncontexts:\n  lab: {host: \"tcp://lab:1\", description: \"a: b\\n# c\"}\n",
		"contexts:\n  lab: {host: \"null\"}\n  y: {host: '1e3'}\n", "contexts: {lab: {host: &a x, description: *a}}",
		"contexts: {lab: {host: !!str 1}}", "a: b\n---\n", "current: {", "? [a]\n: b", "\t", "current: \"\\e[2J\"", "a\xff", "%YAML 9\n---\n",
		"!!map &x {<<: *x}", "contexts: {default: {host: x}}", "\"a\\nb\": c", "# only a comment",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := parseContexts(raw)
		if err != nil {
			if text := err.Error(); text == "" || strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) {
				t.Errorf("parseContexts(%q) fails with %q, want one clean line", raw, text)
			}
			return
		}
		again, err := parseContexts(got.encode())
		if diff := cmp.Diff(got, again, cmp.AllowUnexported(contextFile{})); err != nil || diff != "" {
			t.Errorf("parseContexts(%q) does not survive its own form %q: %v\n%s", raw, got.encode(), err, diff)
		}
	})
}

func TestParseValues(t *testing.T) {
	for text, want := range map[string]int64{"64m": 64 << 20, "1.5GiB": 3 << 29, "1 kb": 1024, "7b": 7, "2T": 2 << 40, "": 0} {
		if got, err := parseMemory(text); err != nil || got != want {
			t.Errorf("parseMemory(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"512", "-1m", "0m", "1ZB", "NaNm", "infm", "1e300g", "m", "1m2"} {
		if got, err := parseMemory(text); err == nil {
			t.Errorf("parseMemory(%q) = %d, want an error", text, got)
		}
	}
	for text, want := range map[string]shoal.Port{
		"80":          {Container: 80, Protocol: "tcp"},
		"8080:80":     {Container: 80, Published: 8080, Protocol: "tcp"},
		"5353:53/udp": {Container: 53, Published: 5353, Protocol: "udp"},
	} {
		if got, err := parsePort(text); err != nil || got != want {
			t.Errorf("parsePort(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "70000", "80:", ":80", "80:80:80", "80/sctp", "a"} {
		if got, err := parsePort(text); err == nil {
			t.Errorf("parsePort(%q) = %+v, want an error", text, got)
		}
	}
	for text, want := range map[string]shoal.Restart{
		"always": {Condition: shoal.RestartAny}, "no": {Condition: shoal.RestartNone}, "on-failure:3": {Condition: shoal.RestartOnFailure, MaxAttempts: 3},
	} {
		if got, err := parseRestart(text); err != nil || got != want {
			t.Errorf("parseRestart(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Time{"": {}, "5s": now.Add(-5 * time.Second), "2026-01-02T03:04:05Z": now, "2026-01-02": now.Truncate(24 * time.Hour)} {
		if got, err := parseMoment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("parseMoment(%q) = %s, %v, want %s", text, got, err, want)
		}
	}
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"scale", "scale", 0}, {"skale", "scale", 1}, {"sacle", "scale", 1}, {"replica", "replicas", 1}, {"", "ls", 2}, {"kitten", "sitting", 3}} {
		if got := edits(c.a, c.b); got != c.want {
			t.Errorf("edits(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
	if got := didYouMean("insp", []string{"ls", "inspect"}, ""); got != "; did you mean inspect?" {
		t.Errorf("didYouMean(insp) = %q, want inspect: it begins so", got)
	}
}

func TestAges(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", time.Minute: "1m", 59 * time.Minute: "59m", 47 * time.Hour: "47h", 50 * time.Hour: "2d",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%s) = %s, want %s", d, got, want)
		}
	}
	for s, want := range map[float64]string{1.84: "1.8s", 41.2: "41s", 180: "3m"} {
		if got := ago(s); got != want {
			t.Errorf("ago(%v) = %s, want %s", s, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 512: "512", 64 << 20: "64M", 3 << 29: "1.5G"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestFreshnessLine(t *testing.T) {
	for _, c := range []struct {
		f    api.Freshness
		want string
	}{
		{api.Freshness{Members: 3, Heard: 3, Oldest: 1.2}, ""},
		{api.Freshness{Members: 5, Heard: 4, Oldest: 1.83, Silent: []api.SilentPeer{{Name: "osaka", Age: 41}}}, "view: 4/5 peers, oldest 1.8s; osaka silent 41s\n"},
		{api.Freshness{Members: 2, Heard: 1, Silent: []api.SilentPeer{{Name: "\x1b[2Jkyoto", Age: -1}}}, "view: 1/2 peers, oldest 0.0s;  [2Jkyoto not heard yet\n"},
		{api.Freshness{Members: 2, Heard: 2, Oldest: 7}, "view: 2/2 peers, oldest 7.0s\n"},
		{api.Freshness{Members: 1, Heard: 1, Trouble: "copied identity"}, "warning: this peer: copied identity\n"},
	} {
		a, _, stderr := newApp()
		a.freshness(c.f)
		if got := stderr.String(); got != c.want {
			t.Errorf("freshness(%+v) = %q, want %q", c.f, got, c.want)
		}
	}
}

// newApp returns a command that writes to buffers.
func newApp() (a *app, stdout, stderr *bytes.Buffer) {
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	return &app{in: strings.NewReader(""), out: stdout, err: stderr, env: map[string]string{}, now: time.Now, output: "table"}, stdout, stderr
}

func TestColorsOnlyOnATerminal(t *testing.T) {
	for _, c := range []struct {
		terminal, off bool
		env           string
		want          bool
	}{{true, false, "", true}, {false, false, "", false}, {true, true, "", false}, {true, false, "1", false}} {
		a, stdout, _ := newApp()
		a.terminal, a.noColor, a.env["NO_COLOR"] = c.terminal, c.off, c.env
		if err := a.logLine(api.LogLine{Service: "web", Text: "hi"}, false); err != nil {
			t.Fatal(err)
		}
		if err := a.showPlan(api.Outcome{Changes: []api.Change{{Kind: "+", Service: "web"}}}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(stdout.String(), "\x1b["); got != c.want {
			t.Errorf("terminal %v, --no-color %v, NO_COLOR=%q: colours %v, want %v", c.terminal, c.off, c.env, got, c.want)
		}
	}
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]string{"y\n": "", "YES\n": "", "n\n": "not accepted: nothing was written", "": "not accepted: nothing was written"} {
		a, _, stderr := newApp()
		a.terminal, a.in = true, strings.NewReader(answer)
		err := a.confirm(t.Context(), "Deploy 1 change?")
		if got := fmt.Sprint(err); err == nil && want != "" || err != nil && got != want {
			t.Errorf("confirm(%q) = %v, want %q", answer, err, want)
		}
		if stderr.String() != "Deploy 1 change? [y/N] " {
			t.Errorf("confirm asks %q", stderr)
		}
	}
	a, _, _ := newApp() // Ctrl-C while it asks
	r, w := io.Pipe()
	a.terminal, a.in = true, r
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.confirm(ctx, "Deploy?"); err == nil || err.Error() != "interrupted; not accepted: nothing was written" {
		t.Errorf("confirm(interrupted) = %v", err)
	}
	_ = w.Close()
}

// Whatever the moment of the interrupt, the user learns whether the wish stands.
func TestSubmitInterrupted(t *testing.T) {
	a, _, _ := newApp()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	asked := false
	_, err := a.submit(gone, func(context.Context) (api.Outcome, error) { asked = true; return api.Outcome{}, nil })
	if asked || err == nil || err.Error() != "interrupted; not accepted: nothing was written" || exitCode(err) != exitError {
		t.Errorf("submit(interrupted before) = %v, asked %v, want not accepted", err, asked)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = a.submit(ctx, func(context.Context) (api.Outcome, error) {
		cancel()
		return api.Outcome{Accepted: true}, nil
	})
	if err == nil || err.Error() != "interrupted; accepted: it goes on, shoal ps shows how" || exitCode(err) != exitTimeout {
		t.Errorf("submit(interrupted meanwhile) = %v, want accepted", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	_, err = a.submit(ctx, func(context.Context) (api.Outcome, error) {
		cancel()
		return api.Outcome{}, &api.Error{Code: api.CodeConflict, What: "no"}
	})
	if err == nil || err.Error() != "interrupted; not accepted: no" {
		t.Errorf("submit(refused meanwhile) = %v, want not accepted", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = a.submit(ctx, func(ctx context.Context) (api.Outcome, error) {
		<-ctx.Done() // no answer comes
		return api.Outcome{}, ctx.Err()
	})
	if err == nil || err.Error() != "interrupted; whether it was accepted is not known; shoal ls shows it" {
		t.Errorf("submit(no answer) = %v, want that it is not known", err)
	}
}

// An interrupt ends the watch too; who was interrupted must not read that its progress is
// not known.
func TestAwaitInterrupted(t *testing.T) {
	a, _, _ := newApp()
	ctx, cancel := context.WithCancel(t.Context())
	watching, stop := context.WithCancel(ctx)
	defer stop()
	cancel()
	for range 64 { // a select with both ready would take either
		_, err := a.judgeProgress(ctx, watching, nil, &progress{app: a}, time.Hour)
		if err == nil || err.Error() != "interrupted; accepted: it goes on, shoal ps shows how" {
			t.Fatalf("judgeProgress(interrupted) = %v", err)
		}
		err = a.judgeDrain(ctx, watching, nil, api.Change{PeerName: "osaka"}, time.Hour)
		if err == nil || err.Error() != "interrupted; accepted: it goes on, shoal peer inspect osaka shows how" {
			t.Fatalf("judgeDrain(interrupted) = %v", err)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{usage("x"), 2},
		{&shoal.InvalidError{}, 2},
		{silent(exitChanges), 3},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), 4},
		{&api.Error{Code: api.CodeTimeout}, 4},
		{&coded{code: exitUnhealthy, name: "unhealthy", err: errors.New("x")}, 5},
		{&api.Error{Code: api.CodeUnreachable}, 6},
		{&api.Error{Code: api.CodeConflict}, 7},
		{&api.Error{Code: api.CodeRefused}, 7},
		{&api.Error{Code: api.CodeNotFound}, 1},
		{&api.Error{Code: api.CodeNotMember}, 1},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("exitCode(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

// Every verb has a help of its own: what it does, and an example.
func TestEveryVerbHasHelp(t *testing.T) {
	a, _, _ := newApp()
	for _, cmd := range a.root().Commands() {
		all := cmd.Commands()
		if len(all) == 0 {
			all = append(all, cmd)
		}
		for _, c := range all {
			if c.Name() == "revoke" && c.Example == "" || c.Long == "" || c.Example == "" || c.Short == "" {
				t.Errorf("%s has no long help or no example", c.CommandPath())
			}
		}
	}
}

// Nothing a peer says can command the reader's terminal.
func TestTablesAreClean(t *testing.T) {
	a, stdout, _ := newApp()
	rows := []api.Replica{{Service: "web", State: "failed", Reason: "exit 1\n\x1b[2J\u009b31m", PeerName: "o\tsaka"}}
	if err := show(a, a.out, rows, a.replicaTable()); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(stdout.String(), "\x1b\t\u009b") || strings.Count(stdout.String(), "\n") != 2 {
		t.Errorf("table = %q, want two clean lines", stdout)
	}
}

// A daemon stops while somebody waits: before or in the middle, the wish stands.
func TestWaitSurvivesALostDaemon(t *testing.T) {
	cluster := apitest.New("tokyo")
	dir := t.TempDir()
	socket := dir[:min(len(dir), 80)] + "/s"
	stop := apitest.Start(t, cluster.Deps(), socket)
	c, err := api.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, _, stderr := newApp()
	spec := shoal.Spec{
		Name: "web", Image: "slow:1", Mode: shoal.ModeReplicated, Replicas: 1, Strategy: shoal.StrategySpread,
		OnPartition: shoal.PartitionAvailable, Restart: shoal.Restart{Condition: shoal.RestartAny},
	}
	if _, err := c.Deploy(t.Context(), shoal.DeployWish{Specs: []shoal.Spec{spec}}, api.WishOptions{}); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- a.await(t.Context(), c, []string{"web"}, nil) }()
	stop()
	if err := <-waited; err == nil || !strings.HasPrefix(err.Error(), "accepted, but its progress is not known: ") {
		t.Errorf("await with the daemon stopped = %v after %q, want that it is accepted", err, stderr)
	}
}
