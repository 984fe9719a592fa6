// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

func load(t *testing.T, text string, opts Options) (*Project, error) {
	t.Helper()
	opts.Files, opts.Stdin = []string{"-"}, strings.NewReader(text)
	if opts.Project == "" {
		opts.Project = "shop"
	}
	return Load(t.Context(), opts)
}

func TestLoadEveryKey(t *testing.T) {
	p, err := load(t, `
services:
  web:
    image: hello:${TAG:-1}
    entrypoint: ["/hello"]
    command: serve --port 80
    environment: {A: "1", B: two}
    labels: {tier: front}
    ports: ["80", "8080:81/udp", {target: 82, published: "8082"}]
    restart: on-failure:3
    stop_signal: SIGINT
    stop_grace_period: 1m30s
    healthcheck: {test: ["CMD", "/hello", "check"], interval: 2s, timeout: 1s, start_period: 3s, retries: 4}
    deploy:
      mode: replicated
      replicas: 3
      resources:
        limits: {cpus: "0.5", memory: 64M, pids: 100}
        reservations: {cpus: "0.25", memory: 32M}
      placement:
        constraints: ["node.labels.zone == eu", "node.hostname != a", "disk in (ssd, nvme)", "!spot"]
        max_replicas_per_node: 2
      restart_policy: {delay: 5s, window: 1m}
      update_config: {parallelism: 2, order: start-first}
    x-shoal: {on_partition: sticky, priority: 7, strategy: binpack}
`, Options{Env: map[string]string{"TAG": "2"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []shoal.Spec{{
		Name: "web", Project: "shop", Image: "hello:2",
		Entrypoint: []string{"/hello"}, Command: []string{"serve", "--port", "80"},
		Env: map[string]string{"A": "1", "B": "two"}, Labels: map[string]string{"tier": "front"},
		Ports: []shoal.Port{
			{Container: 80, Protocol: "tcp"},
			{Container: 81, Published: 8080, Protocol: "udp"},
			{Container: 82, Published: 8082, Protocol: "tcp"},
		},
		Limits:       shoal.Resources{CPUMilli: 500, MemBytes: 64 << 20},
		Reservations: shoal.Resources{CPUMilli: 250, MemBytes: 32 << 20},
		PidsLimit:    100,
		Mode:         shoal.ModeReplicated, Replicas: 3,
		Constraints: []shoal.Selector{
			{Key: "zone", Op: shoal.OpEqual, Values: []string{"eu"}},
			{Key: "peer", Op: shoal.OpNotEqual, Values: []string{"a"}},
			{Key: "disk", Op: shoal.OpIn, Values: []string{"ssd", "nvme"}},
			{Key: "spot", Op: shoal.OpNotExists},
		},
		Strategy: shoal.StrategyBinpack, MaxPerPeer: 2, Priority: 7, OnPartition: shoal.PartitionSticky,
		Health: &shoal.Health{
			Test: []string{"CMD", "/hello", "check"}, Interval: 2 * time.Second, Timeout: time.Second,
			StartPeriod: 3 * time.Second, Retries: 4,
		},
		Restart: shoal.Restart{
			Condition: shoal.RestartAny, Delay: 5 * time.Second, MaxAttempts: 3, Window: time.Minute,
		},
		StopSignal: "SIGINT", StopGrace: 90 * time.Second,
		Rollout: shoal.Rollout{Parallelism: 2, StartFirst: true},
	}}
	if diff := cmp.Diff(want, p.Specs); diff != "" {
		t.Errorf("Load: want (-), got (+):\n%s", diff)
	}
}

func TestLoadDefaults(t *testing.T) {
	p, err := load(t, "services: {b: {image: hello}, a: {image: hello, deploy: {mode: global}}}", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Specs) != 2 || p.Specs[0].Name != "a" || p.Specs[1].Name != "b" {
		t.Fatalf("Load(two services) = %v, want a then b", p.Specs)
	}
	if got := p.Specs[0].Mode; got != shoal.ModeGlobal {
		t.Errorf("a.Mode = %q, want global", got)
	}
	if b := p.Specs[1]; b.Replicas != 1 || b.Restart.Condition != shoal.RestartAny || b.OnPartition != shoal.PartitionAvailable {
		t.Errorf("b = %+v, want 1 replica, restart any, available", b)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"all unsupported keys at once": {
			"services:\n  web:\n    image: hello\n    volumes: [data:/d]\n    depends_on: [db]\n  db:\n    image: hello\nvolumes:\n  data: {driver: local}\n",
			"keys that are not supported: -:4 services.web.volumes, -:5 services.web.depends_on, -:8 volumes",
		},
		"misspelt key":        {"services:\n  web:\n    image: hello\n    replcias: 3\n", "-:4 services.web.replcias"},
		"unknown x-shoal":     {"services: {web: {image: hello, x-shoal: {colour: red}}}", "services.web.x-shoal.colour"},
		"behind an anchor":    {"x-base: &b {privileged: true}\nservices: {web: {image: hello, <<: *b}}", "services.web.privileged"},
		"no image":            {"services: {web: {command: x}}", "web"},
		"upper-case service":  {"services: {Web: {image: hello}}", "name must match"},
		"empty":               {"", "empty"},
		"tabs":                {"services:\n\tweb: {}\n", "line 2"},
		"duplicate key":       {"services:\n  web: {image: a}\n  web: {image: b}\n", "already defined"},
		"negative replicas":   {"services: {web: {image: hello, deploy: {replicas: -1}}}", "services.web.deploy.replicas: must be greater"},
		"too many replicas":   {"services: {web: {image: hello, deploy: {replicas: 10001}}}", "replicas must be 0–10000, got 10001"},
		"host address":        {"services: {web: {image: hello, ports: ['127.0.0.1:80:80']}}", "ports[0] names the host address"},
		"port twice":          {"services: {web: {image: hello, ports: ['80:80','80:81']}}", "publishes 80/tcp twice"},
		"unknown mode":        {"services: {web: {image: hello, deploy: {mode: job}}}", "deploy.mode must be"},
		"fixed":               {"services: {web: {image: hello, x-shoal: {on_partition: fixed}}}", "on_partition fixed needs a guard"},
		"parallelism 0":       {"services: {web: {image: hello, deploy: {update_config: {parallelism: 0}}}}", "parallelism must be 1"},
		"unknown restart":     {"services: {web: {image: hello, restart: sometimes}}", "restart must be"},
		"bad constraint":      {"services: {web: {image: hello, deploy: {placement: {constraints: ['zone ~ eu']}}}}", "constraints[0]"},
		"memory without unit": {"services: {web: {image: hello, mem_limit: 512}}", "missing a unit?"},
		"bad image":           {"services: {web: {image: 'Hello:1'}}", "is not an image reference"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := load(t, c.text, Options{})
			if err == nil {
				t.Fatalf("Load = %+v, want an error with %q", p.Specs, c.want)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("Load: %q, want it to contain %q", err, c.want)
			}
		})
	}
}

func TestLoadSelectsAndWarns(t *testing.T) {
	text := "version: '3'\nservices: {web: {image: hello, container_name: xy}, db: {image: hello}}"
	p, err := load(t, text, Options{Services: []string{"web"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Specs) != 1 || p.Specs[0].Name != "web" {
		t.Errorf("Specs = %v, want web only", p.Specs)
	}
	want := []string{"-:1 version changes nothing here", "-:2 services.web.container_name changes nothing here"}
	if diff := cmp.Diff(want, p.Warnings); diff != "" {
		t.Errorf("Warnings: want (-), got (+):\n%s", diff)
	}
	var invalid *shoal.InvalidError
	if _, err := load(t, text, Options{Services: []string{"nosuch"}}); !errors.As(err, &invalid) {
		t.Errorf("Load(service nosuch): %v, want an InvalidError", err)
	}
}

func TestLoadFindsAndMergesFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(t.Context(), Options{Dir: dir}); !errors.Is(err, shoal.ErrNotFound) {
		t.Fatalf("Load(empty directory): %v, want ErrNotFound", err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := write("compose.yaml", "name: shop\nservices: {web: {image: 'hello:1', env_file: a.env}}")
	over := write("over.yaml", "services: {web: {image: 'hello:2'}}")
	write("a.env", "COLOUR=blue\n")
	p, err := Load(t.Context(), Options{Files: []string{base, over}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "shop" || p.Specs[0].Image != "hello:2" || p.Specs[0].Env["COLOUR"] != "blue" {
		t.Errorf("Load = %s %+v, want shop, hello:2 and COLOUR=blue", p.Name, p.Specs[0])
	}
}

func FuzzInspectKeys(f *testing.F) {
	f.Add([]byte("services: {web: {image: hello}}"))
	f.Add([]byte("a: &a [*a]\nb: *a"))
	f.Add([]byte("services: &s {web: *s}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		soft, hard, err := inspectKeys("f", text)
		if err != nil && len(soft)+len(hard) > 0 {
			t.Errorf("inspectKeys gave keys and an error: %v", err)
		}
	})
}
