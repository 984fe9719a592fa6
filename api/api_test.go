// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func spec(name, image string, n int) shoal.Spec {
	return shoal.Spec{
		Name: name, Image: image, Replicas: n, Mode: shoal.ModeReplicated, Strategy: shoal.StrategySpread, OnPartition: shoal.PartitionAvailable,
		Restart: shoal.Restart{Condition: shoal.RestartAny}, Env: map[string]string{"KEY": "hidden"},
		Ports: []shoal.Port{{Container: 80, Protocol: "tcp"}}, StopGrace: 3 * time.Second,
		Health: &shoal.Health{Test: []string{"CMD", "true"}, Interval: time.Second}, Constraints: []shoal.Selector{{Key: "zone", Op: shoal.OpEqual, Values: []string{"a"}}},
	}
}

func dial(t *testing.T, socket string) *api.Client {
	t.Helper()
	c, err := api.Dial("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func deploy(t *testing.T, c *api.Client, specs ...shoal.Spec) api.Outcome {
	t.Helper()
	out, err := c.Deploy(t.Context(), shoal.DeployWish{Specs: specs}, api.WishOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantError(t *testing.T, err error, code, text string) {
	t.Helper()
	e, ok := errors.AsType[*api.Error](err)
	if !ok {
		t.Fatalf("error = %v (%T), want an *api.Error", err, err)
	}
	if e.Code != code || e.Error() != text {
		t.Errorf("error = %s %q, want %s %q", e.Code, e.Error(), code, text)
	}
}

func TestEveryMethodOfAMember(t *testing.T) {
	cluster := apitest.New("tokyo", "osaka", "kyoto")
	c := dial(t, apitest.Serve(t, cluster))
	ctx := t.Context()

	out := deploy(t, c, spec("web", "hello:1", 3))
	if len(out.Changes) != 1 || out.Changes[0].Kind != "+" || !out.Accepted || out.Changes[0].Places[1].Name == "" {
		t.Errorf("Deploy(web) = %+v, want one accepted + with named places", out)
	}
	services, err := c.Services(ctx)
	if err != nil || len(services.Items) != 1 {
		t.Fatalf("Services() = %+v, %v, want one", services, err)
	}
	if s := services.Items[0]; s.Name != "web" || s.Replicas != 3 || s.Ready != 3 || s.Unplaced != 0 || s.Image != "hello:1" {
		t.Errorf("Services() = %+v, want web 3/3", s)
	}
	if f := services.Freshness; f.Members != 3 || f.Heard != 3 || f.Silent != nil {
		t.Errorf("freshness = %+v, want 3 of 3", f)
	}
	if _, err := c.Scale(ctx, []shoal.ScaleTarget{{Service: "web", Relative: true, N: 2}}, api.WishOptions{}); err != nil {
		t.Fatal(err)
	}
	rows, err := c.Replicas(ctx, "web")
	if err != nil || len(rows.Items) != 5 { // also read-your-writes
		t.Fatalf("Replicas(web) = %d rows, %v, want 5", len(rows.Items), err)
	}
	if r := rows.Items[4]; r.Slot != 4 || r.State != "ready" || !r.Current || len(r.ID) != 32 || r.Ports[0].HostPort == 0 || r.Started.IsZero() {
		t.Errorf("Replicas(web)[4] = %+v, want slot 4 ready, current, with a port and a start", r)
	}
	detail, err := c.Service(ctx, "web", false)
	if err != nil {
		t.Fatal(err)
	}
	want := spec("web", "hello:1", 3)
	want.Env["KEY"] = "***"
	if diff := cmp.Diff(want, detail.Spec); diff != "" {
		t.Errorf("Service(web).Spec differs from what was deployed, masked (-want +got):\n%s", diff)
	}
	shown, err := c.Service(ctx, "web", true)
	if err != nil || shown.Spec.Env["KEY"] != "hidden" {
		t.Errorf("Service(web, show) has KEY=%q, %v, want the value", shown.Spec.Env["KEY"], err)
	}
	peers, err := c.Peers(ctx, false)
	if err != nil || len(peers.Items) != 3 || peers.Items[0].Name != "kyoto" || !peers.Items[2].Self {
		t.Errorf("Peers() = %+v, %v, want kyoto, osaka, tokyo, the last being self", peers.Items, err)
	}
	one, err := c.Peer(ctx, "osaka")
	if err != nil || one.Name != "osaka" || len(one.Rows) == 0 || one.Images[0] != "hello:1" {
		t.Errorf("Peer(osaka) = %+v, %v, want it with replicas and images", one, err)
	}
	token, err := c.CreateToken(ctx, shoal.TokenOptions{Uses: 2, Role: shoal.RolePeer})
	if err != nil || token == "" {
		t.Errorf("CreateToken() = %q, %v", token, err)
	}
	if err := c.RevokeToken(ctx, "inv1"); err != nil {
		t.Error(err)
	}
	tokens, err := c.Tokens(ctx)
	if err != nil || len(tokens.Items) != 1 || tokens.Items[0].State != "revoked" || tokens.Items[0].Uses != 2 {
		t.Errorf("Tokens() = %+v, %v, want one revoked of 2 uses", tokens.Items, err)
	}
	if _, err := c.Remove(ctx, shoal.RemoveWish{Services: []string{"web"}}, api.WishOptions{}); err != nil {
		t.Error(err)
	}
	if services, err := c.Services(ctx); err != nil || len(services.Items) != 0 {
		t.Errorf("Services() after remove = %+v, %v, want none", services.Items, err)
	}
	if err := c.Leave(ctx, shoal.LeaveOptions{}); err != nil {
		t.Error(err)
	}
	st, err := c.Status(ctx)
	if err != nil || st.Cluster != "" || st.API != "v1" || st.Freshness != nil {
		t.Errorf("Status() after leave = %+v, %v, want no cluster", st, err)
	}
}

func TestErrors(t *testing.T) {
	cluster := apitest.New("tokyo", "osaka")
	c := dial(t, apitest.Serve(t, cluster))
	ctx := t.Context()
	deploy(t, c, spec("web", "hello:1", 1), spec("db", "hello:1", 1))

	_, err := c.Scale(ctx, []shoal.ScaleTarget{{Service: "nosuch", N: 3}}, api.WishOptions{})
	wantError(t, err, api.CodeNotFound, `no service "nosuch" (known here: db, web); this peer last synced 0 s ago`)
	_, err = c.Scale(ctx, []shoal.ScaleTarget{{Service: "web", N: -1}}, api.WishOptions{})
	wantError(t, err, api.CodeInvalid, `replicas must be 0–10000, got -1`)
	_, err = c.Remove(ctx, shoal.RemoveWish{Services: []string{"web", "nosuch"}}, api.WishOptions{})
	wantError(t, err, api.CodeNotFound, `no service "nosuch" (known here: db, web); this peer last synced 0 s ago`)
	bad := spec("Web/..", "hello:1", 1)
	_, err = c.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{spec("ok", "hello:1", 1), bad}}, api.WishOptions{})
	wantError(t, err, api.CodeInvalid, `service Web/..: name must match [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?, got "Web/.."`)
	if l, err := c.Services(ctx); err != nil || len(l.Items) != 2 {
		t.Errorf("Services() after a refused deploy = %d, %v, want still 2: nothing is half applied", len(l.Items), err)
	}
	_, err = c.Deploy(ctx, shoal.DeployWish{Specs: []shoal.Spec{spec("web", "hello:1", 1)}, Create: true}, api.WishOptions{})
	wantError(t, err, api.CodeConflict, `service "web" already exists; change it with "shoal update web", or remove it with "shoal rm web"`)
	now := apitest.PeerID("tokyo")
	_, err = c.Deploy(ctx, shoal.DeployWish{
		Specs: []shoal.Spec{spec("web", "hello:2", 1)}, IfRevision: map[string]shoal.RevisionID{"web": {Seq: 7, Author: now}},
	}, api.WishOptions{})
	wantError(t, err, api.CodeConflict, `service "web" is not at revision 7@`+string(now)+`; its current revision is 1@`+string(now)+`; look at it and deploy again`)
	_, err = c.Peer(ctx, "kyoto")
	wantError(t, err, api.CodeNotFound, `no peer "kyoto" (known here: osaka, tokyo); this peer last synced 0 s ago`)
	wantError(t, c.RevokeToken(ctx, "inv9"), api.CodeNotFound, `no invite "inv9"`)
	_, err = c.CreateToken(ctx, shoal.TokenOptions{Role: "king"})
	wantError(t, err, api.CodeInvalid, `role must be operator or peer, got "king"`)
	_, err = c.Init(ctx, shoal.InitOptions{})
	wantError(t, err, api.CodeConflict, `this peer is a member of a cluster already; run "shoal leave" first`)

	cluster.Confirm(0)
	out, err := c.Scale(ctx, []shoal.ScaleTarget{{Service: "web", N: 2}}, api.WishOptions{Acks: 1})
	if err != nil || out.Acks != 0 || out.AcksWanted != 1 || !out.Accepted {
		t.Errorf("Scale(ack 1) with nobody confirming = %+v, %v, want accepted, 0 of 1: it is written", out, err)
	}
}

func TestStrangerGetsOneAnswer(t *testing.T) {
	c := dial(t, apitest.Serve(t, apitest.New()))
	ctx := t.Context()
	const text = `this daemon is not a member of a cluster yet; run "shoal init" or "shoal join TOKEN"`
	for name, ask := range map[string]func() error{
		"ls":     func() error { _, err := c.Services(ctx); return err },
		"ps":     func() error { _, err := c.Replicas(ctx); return err },
		"peers":  func() error { _, err := c.Peers(ctx, true); return err },
		"deploy": func() error { _, err := c.Deploy(ctx, shoal.DeployWish{}, api.WishOptions{}); return err },
		"scale":  func() error { _, err := c.Scale(ctx, nil, api.WishOptions{}); return err },
		"rm":     func() error { _, err := c.Remove(ctx, shoal.RemoveWish{}, api.WishOptions{}); return err },
		"tokens": func() error { _, err := c.Tokens(ctx); return err },
		"leave":  func() error { return c.Leave(ctx, shoal.LeaveOptions{}) },
		"logs":   func() error { return c.Logs(ctx, api.LogRequest{}, nil, nil) },
		"events": func() error { return c.Events(ctx, -1, time.Time{}, true, nil) },
		"watch":  func() error { return c.Watch(ctx, nil, nil) },
	} {
		t.Run(name, func(t *testing.T) { wantError(t, ask(), api.CodeNotMember, text) })
	}
	if st, err := c.Status(ctx); err != nil || st.Cluster != "" || st.Self == "" {
		t.Errorf("Status() = %+v, %v, want it to work at all times", st, err)
	}
	if _, err := c.Join(ctx, "nonsense", shoal.JoinOptions{}); err == nil {
		t.Error("Join(nonsense) = nil, want an error")
	}
	if token, err := c.Init(ctx, shoal.InitOptions{Name: "tokyo"}); err != nil || token == "" {
		t.Fatalf("Init() = %q, %v", token, err)
	}
	if _, err := c.Services(ctx); err != nil {
		t.Errorf("Services() after init: %v", err)
	}
}

// post is what curl sends.
func post(t *testing.T, socket, method, path, media, body string) (int, map[string]any) {
	t.Helper()
	hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://shoal"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", media)
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatalf("%s %s answers %d with %q, want JSON", method, path, resp.StatusCode, raw)
	}
	return resp.StatusCode, out
}

func TestJSONForCurl(t *testing.T) {
	socket := apitest.Serve(t, apitest.New("tokyo", "osaka"))
	const base = "/shoal.v1.ControlService/"
	client := dial(t, socket)
	deploy(t, client, spec("web", "hello:1", 1))
	services := func(t *testing.T) string { // without how fresh it is
		t.Helper()
		all, err := client.Services(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%+v", all.Items)
	}
	deep := strings.Repeat(`{"freshness":`, 10000) + strings.Repeat("}", 10000)
	for name, c := range map[string]struct {
		method, path, media, body string
		status                    int
		message                   string
	}{
		"list":             {"POST", base + "ListServices", "application/json", `{}`, 200, ""},
		"scale":            {"POST", base + "Scale", "application/json", `{"targets":[{"service":"web","n":2}]}`, 200, ""},
		"unknown field":    {"POST", base + "Scale", "application/json", "{\n  \"replcias\": 3}", 400, `unknown field "replcias"; line 2, column 3`},
		"nested unknown":   {"POST", base + "Deploy", "application/json", `{"specs":[{"name":"web","replcias":3}]}`, 400, `unknown field "replcias"; line 1, column 25`},
		"wrong type":       {"POST", base + "Deploy", "application/json", `{"specs":[{"name":7}]}`, 400, `invalid value for string field name: 7; line 1, column 19`},
		"truncated":        {"POST", base + "Scale", "application/json", `{"targets":[`, 400, `body ends before the JSON does; line 1, column 12`},
		"empty":            {"POST", base + "Scale", "application/json", ``, 400, `body ends before the JSON does; line 1, column 1`},
		"not an object":    {"POST", base + "Scale", "application/json", `[]`, 400, `body is no JSON object; line 1, column 1`},
		"bad syntax":       {"POST", base + "Scale", "application/json", `{"a" 1}`, 400, `invalid character '1' after object key; line 1, column 5`},
		"duplicate key":    {"POST", base + "Scale", "application/json", `{"acks":1,"acks":2}`, 400, `field "acks" is there twice; line 1, column 16`},
		"duplicate, deep":  {"POST", base + "Deploy", "application/json", `{"specs":[{"env":{"A":"1","A":"2"}}]}`, 400, `field "A" is there twice; line 1, column 29`},
		"two spellings":    {"POST", base + "Scale", "application/json", `{"planOnly":true,"plan_only":false}`, 400, `duplicate field "plan_only"; line 1, column 18`},
		"depth":            {"POST", base + "Scale", "application/json", deep, 400, `more than 32 levels of JSON; line 1, column 417`},
		"trailing":         {"POST", base + "ListServices", "application/json", `{} {}`, 400, `something follows the JSON object; line 1, column 4`},
		"number too large": {"POST", base + "Scale", "application/json", `{"targets":[{"service":"web","n":1e99}]}`, 400, `invalid value for int32 field n: 1e99; line 1, column 34`},
		"out of range":     {"POST", base + "Scale", "application/json", `{"targets":[{"service":"web","n":10001}]}`, 400, `replicas must be 0–10000, got 10001`},
		"too large":        {"POST", base + "Deploy", "application/json", `{"a":"` + strings.Repeat("x", 5<<20) + `"}`, 413, `request body is larger than 4 MiB`},
		"unknown path":     {"POST", "/v9/services", "application/json", `{}`, 404, `no such path "/v9/services"; this daemon serves API v1; use POST /shoal.v1.ControlService/METHOD`},
		"unknown version":  {"POST", "/shoal.v9.ControlService/Scale", "application/json", `{}`, 404, `no such path "/shoal.v9.ControlService/Scale"; this daemon serves API v1; use POST /shoal.v1.ControlService/METHOD`},
		"unknown method":   {"POST", base + "Explode", "application/json", `{}`, 404, `no such path "/shoal.v1.ControlService/Explode"; this daemon serves API v1; use POST /shoal.v1.ControlService/METHOD`},
		"wrong method":     {"GET", base + "ListServices", "application/json", ``, 405, `method GET is not allowed here; use POST`},
		"wrong type of body": {
			"POST", base + "ListServices", "text/plain", `{}`, 415, `content type "text/plain" is not taken here; use application/json`,
		},
		"images":         {"POST", base + "ListImages", "application/json", `{}`, 200, ""},
		"image policy":   {"POST", base + "GetImagePolicy", "application/json", `{}`, 200, ""},
		"no such policy": {"POST", base + "SetImagePolicy", "application/json", `{"upstream":"x"}`, 400, `upstream must be peers-first or none, got "x"`},
		"no image":       {"POST", base + "InspectImage", "application/json", `{"ref":"app:v1"}`, 404, `no image "app:v1" (known here: none); this peer last synced 0 s ago`},
		"no ref":         {"POST", base + "InspectImage", "application/json", `{}`, 400, `image is missing`},
		"no change":      {"POST", base + "ChangeImage", "application/json", `{"name":"app:v1"}`, 400, `change is missing: one of to, remove, pin, min_copies`},
		"not removed":    {"POST", base + "ChangeImage", "application/json", `{"name":"app:v1","remove":false}`, 400, `remove must be true`},
		"two changes":    {"POST", base + "ChangeImage", "application/json", `{"name":"app:v1","pin":true,"remove":true}`, 400, `error parsing "remove", oneof shoal.v1.ChangeImageRequest.change is already set; line 1, column 29`},
		"an archive":     {"POST", base + "ImportImage", "application/json", `{}`, 505, `ImportImage needs HTTP/2 and a stream of messages, in gRPC or Connect's form; use the shoal command`},
		"push, one body": {"POST", base + "PushImage", "application/json", `{}`, 415, `content type "application/json" is not taken here; use application/connect+json (five bytes of envelope, then JSON)`},
		"not found":      {"POST", base + "InspectService", "application/json", `{"service":"nosuch"}`, 404, `no service "nosuch" (known here: web); this peer last synced 0 s ago`},
		"conflict": {
			"POST", base + "Deploy", "application/json", `{"ifRevision":{"web":"9@x"}}`, 409,
			`service "web" is not at revision 9@x; its current revision is 1@` + string(apitest.PeerID("tokyo")) + `; look at it and deploy again`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := services(t)
			status, out := post(t, socket, c.method, c.path, c.media, c.body)
			message, _ := out["message"].(string)
			if after := services(t); c.status != 200 && after != before {
				t.Errorf("refused, and applied: %s, before %s", after, before)
			}
			if status != c.status || message != c.message {
				t.Errorf("%s %s = %d %q, want %d %q", c.method, c.path, status, message, c.status, c.message)
			}
			if c.status != 200 && !strings.Contains(toJSON(t, out), `"debug":{"code":"`) {
				t.Errorf("%s = %v, want a detail with a code", c.path, out)
			}
		})
	}
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// An endless body without a length is cut off at the limit too.
func TestChunkedBodyIsBounded(t *testing.T) {
	socket := apitest.Serve(t, apitest.New("tokyo"))
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	head := "POST /shoal.v1.ControlService/Deploy HTTP/1.1\r\nHost: shoal\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
	chunk := append([]byte("10000\r\n"), bytes.Repeat([]byte(" "), 1<<16)...)
	chunk = append(chunk, "\r\n"...)
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	go func() { // until the server stops reading
		for range 100_000 {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 413 ") {
		t.Errorf("an endless body gets %q, %v, want 413", buf[:n], err)
	}
}

func TestSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "shoal") //nolint:usetesting // the path of t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s.sock")

	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = stale.Close()
	stop := apitest.Start(t, apitest.New("tokyo").Deps(), path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket has mode %v, %v, want 0660", info.Mode(), err)
	}

	srv, err := api.NewServer(api.Config{Socket: path}, apitest.New("osaka").Deps())
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Run(t.Context()); err == nil || err.Error() != "another shoald answers on "+path+"; stop it or choose another socket" {
		t.Errorf("a second Run() = %v, want that another answers", err)
	}
	if _, err := dial(t, path).Services(t.Context()); err != nil {
		t.Errorf("the first server after a second tried: %v", err)
	}
	stop()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("after stop the directory holds %v, %v, want nothing", entries, err)
	}

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := srv.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "is there and is no socket") {
		t.Errorf("Run() over a file = %v, want a refusal", err)
	}
	if _, err := api.NewServer(api.Config{Socket: "relative"}, apitest.New().Deps()); err == nil {
		t.Error("NewServer(relative socket) = nil, want an error")
	}
}

func TestDial(t *testing.T) {
	dir := t.TempDir()
	for host, want := range map[string]string{
		"tcp://127.0.0.1:1": `host "tcp://127.0.0.1:1": unknown scheme tcp; shoald listens on a unix socket only; use unix:///PATH, or ssh://HOST for another machine's`,
		"shoal.sock":        `host "shoal.sock" is no absolute path; use unix:///PATH`,
	} {
		_, err := api.Dial(host)
		wantError(t, err, api.CodeInvalid, want)
	}
	nowhere := filepath.Join(dir, "no.sock")
	_, err := dial(t, nowhere).Status(t.Context())
	wantError(t, err, api.CodeUnreachable, `cannot reach shoald at `+nowhere+`: not running? start with "shoald"`)
}
