// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
)

func fromText(t *testing.T, text string, opts Options) (*Project, error) {
	t.Helper()
	opts.Files, opts.Stdin = []string{"-"}, strings.NewReader(text)
	if opts.Project == "" {
		opts.Project = "shop"
	}
	return Load(t.Context(), opts)
}

func TestLoadEveryKey(t *testing.T) {
	p, err := fromText(t, `
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
		Rollout: shoal.Rollout{Parallelism: 2, StartFirst: true, MinHealthy: 10 * time.Second, Deadline: 10 * time.Minute, OnFailure: shoal.FailurePause},
	}}
	if diff := cmp.Diff(want, p.Specs); diff != "" {
		t.Errorf("Load: want (-), got (+):\n%s", diff)
	}
}

func TestLoadDefaults(t *testing.T) {
	p, err := fromText(t, "services: {b: {image: hello}, a: {image: hello, deploy: {mode: global}}}", Options{})
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
			"services:\n  web:\n    image: hello\n    links: [db]\n  db:\n    image: hello\nnetworks:\n  data:\n    driver_opts: {mtu: 9000}\n",
			"stdin:4: services.web.links: is not supported: " + noLinks +
				"\nstdin:9: networks.data.driver_opts: is not supported: bridges are all made alike; remove it",
		},
		"misspelt key":        {"services:\n  web:\n    image: hello\n    replcias: 3\n", "stdin:4: services.web.replcias: is no key that Shoal knows"},
		"unknown x-shoal":     {"services: {web: {image: hello, x-shoal: {colour: red}}}", "services.web.x-shoal.colour"},
		"behind an anchor":    {"x-base: &b {links: [a]}\nservices: {web: {image: hello, <<: *b}}", "stdin:1: services.web.links"},
		"no image":            {"services:\n  web: {command: x}", "stdin:2: services.web"},
		"upper-case service":  {"services:\n  Web: {image: hello}", "stdin:2: services: name must match"},
		"empty":               {"", "stdin: the file is empty"},
		"a list":              {"- a", "stdin:1: a Compose file is a mapping"},
		"tabs":                {"services:\n\tweb: {}\n", "stdin:2: a tab stands where the line begins"},
		"no YAML":             {"services: {", "stdin:1: is not YAML: "},
		"two documents":       {"services: {web: {image: a}}\n---\nservices: {db: {image: a}}", "stdin:2: there is a second document"},
		"duplicate key":       {"services:\n  web: {image: a}\n  web: {image: b}\n", "stdin:3: the key \"web\" is there twice, first in line 2"},
		"alias of itself":     {"services: {web: &a {image: hello, x-y: *a}}", "the anchor &a holds an alias of itself"},
		"too deep":            {"x-a: " + strings.Repeat("[", 40) + strings.Repeat("]", 40), "deeper than 32 levels"},
		"a laugh":             {bomb(9, 9), "stdin:6: is more than 200000 values"},
		"many aliases":        {"x-a: &a 1\nx-b: [" + strings.Repeat("*a,", 1_000_000) + "]\nservices: {}", "stdin:2: there are more than 10000 aliases"},
		"extends too much":    {"services:\n  base: {image: hello, environment: [" + strings.Repeat("A=1,", 1000) + "]}\n" + strings.ReplaceAll(manyServices(300), "{image: hello}", "{extends: base}"), "its services are more than 200000 values once what they extend"},
		"too many problems":   {"services:\n  web:\n    image: hello\n" + manyKeys(600), "and 100 more"},
		"a remark only":       {"# nothing", "stdin: the file is empty"},
		"too many services":   {"services:\n" + manyServices(1001), "stdin:1: services: has 1001, at most 1000 are deployed at once"},
		"too large":           {strings.Repeat("#", maxFile+1), "larger than 4 MiB"},
		"negative replicas":   {"services:\n  web:\n    image: hello\n    deploy:\n      replicas: -1", "stdin:5: services.web.deploy.replicas: must be"},
		"too many replicas":   {"services:\n  web:\n    image: hello\n    deploy: {replicas: 10001}", "stdin:4: services.web.deploy.replicas: must be 0–10000, got 10001"},
		"host address":        {"services: {web: {image: hello, ports: ['127.0.0.1:80:80']}}", "ports[0]: names the host address"},
		"port twice":          {"services: {web: {image: hello, ports: ['80:80','80:81']}}", "ports[1]: publishes 80/tcp twice"},
		"port out of range":   {"services:\n  web:\n    image: hello\n    ports:\n      - '80:80'\n      - {target: 70000}", "stdin:6: services.web.ports[1]: must be 1-65535, got 70000"},
		"unknown mode":        {"services: {web: {image: hello, deploy: {mode: daily}}}", "deploy.mode: must be"},
		"fixed":               {"services: {web: {image: hello, x-shoal: {on_partition: fixed}}}", "x-shoal.on_partition: fixed needs a guard"},
		"parallelism 0":       {"services: {web: {image: hello, deploy: {update_config: {parallelism: 0}}}}", "parallelism: must be 1"},
		"unknown restart":     {"services: {web: {image: hello, restart: sometimes}}", "restart: must be"},
		"restart without end": {"services: {web: {image: hello, restart: 'on-failure:x'}}", "restart: must be"},
		"bad constraint":      {"services: {web: {image: hello, deploy: {placement: {constraints: ['zone ~ eu']}}}}", "constraints[0]"},
		"two preferences":     {"services: {web: {image: hello, deploy: {placement: {preferences: [{spread: a}, {spread: b}]}}}}", "there are 2"},
		"memory without unit": {"services:\n  web:\n    image: hello\n    mem_limit: 512", "stdin:4: services.web.mem_limit: must be at least 6 MiB"},
		"no cores":            {"services: {web: {image: hello, cpus: 0}}", "cpus: must be 0.001-4096 cores, got 0"},
		"NaN cores":           {"services: {web: {image: hello, deploy: {resources: {limits: {cpus: 'NaN'}}}}}", "limits.cpus: must be"},
		"bad image":           {"services: {web: {image: 'Hello:1'}}", "is not an image reference"},
		"volume not named":    {"services: {web: {image: hello, volumes: ['data:/d']}}", "data"},
		"volume's driver":     {"services: {web: {image: hello, volumes: ['data:/d']}}\nvolumes:\n  data:\n    driver: nfs", "stdin:4: volumes.data.driver: must be local"},
		"tmpfs target":        {"services: {web: {image: hello, tmpfs: 'run'}}", "services.web.tmpfs"},
		"tmpfs option":        {"services: {web: {image: hello, tmpfs: ['/run:uid=1']}}", "tmpfs[0]: has the option \"uid=1\""},
		"spread twice":        {"services: {web: {image: hello, x-shoal: {spread: a}, deploy: {placement: {preferences: [{spread: b}]}}}}", "keep one of them"},
		"no check":            {"services:\n  web:\n    image: hello\n    healthcheck: {test: []}", "healthcheck.test: is empty"},
		"check every 0s":      {"services: {web: {image: hello, healthcheck: {test: x, interval: 0s}}}", "healthcheck.interval: must be at least 1ms"},
		"labels that differ":  {"services: {web: {image: hello, labels: {a: b}, deploy: {labels: {a: c}}}}", "deploy.labels"},
		"circle":              {"services: {a: {image: hello, extends: b}, b: {image: hello, extends: a}}", "Circular reference"},
		"namespace":           {"services: {web: {image: hello, pid: 'container:db'}}", "services.web.pid: must be host"},
		"no entrypoint":       {"services:\n  web:\n    image: hello\n    entrypoint: []", "stdin:4: services.web.entrypoint: is empty"},
		"pull always":         {"services: {web: {image: hello, pull_policy: always}}", "pull_policy: always is not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := fromText(t, c.text, Options{})
			var all *Error
			if !errors.As(err, &all) && name != "too large" {
				t.Fatalf("Load = %+v, %v, want problems with %q", p, err, c.want)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("Load: %q, want it to contain %q", err, c.want)
			}
		})
	}
}

// bomb is a "billion laughs" of so many levels, each naming the one before so often.
func bomb(levels, times int) string {
	var b strings.Builder
	b.WriteString("x-0: &a0 [" + strings.Repeat("x,", times) + "]\n")
	for i := 1; i < levels; i++ {
		fmt.Fprintf(&b, "x-%d: &a%d [%s]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d,", i-1), times))
	}
	return b.String() + "services: {web: {image: hello}}\n"
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "    k%d: 1\n", i)
	}
	return b.String()
}

func manyServices(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  s%d: {image: hello}\n", i)
	}
	return b.String()
}

func TestLoadListsAllProblems(t *testing.T) {
	_, err := fromText(t, `services:
  web:
    image: hello
    ports: ["127.0.0.1:80:80"]
    restart: sometimes
  db:
    image: Hello
`, Options{})
	want := `stdin:4: services.web.ports[0]: names the host address 127.0.0.1; each peer publishes on its own (shoald --publish)
stdin:5: services.web.restart: must be no, always, on-failure[:N] or unless-stopped, got "sometimes"
stdin:7: services.db.image: "Hello" is not an image reference: the repository must be lower case; write hello`
	if err == nil || err.Error() != want {
		t.Errorf("Load: %v\nwant %s", err, want)
	}
}

func TestLoadSelectsAndWarns(t *testing.T) {
	text := "version: '3'\nservices: {web: {image: 'hello:1${TAG}', container_name: xy}, db: {image: hello, container_name: zz}, dev: {profiles: [dev], build: .}}"
	p, err := fromText(t, text, Options{Services: []string{"web"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Specs) != 1 || p.Specs[0].Name != "web" {
		t.Errorf("Specs = %v, want web only", p.Specs)
	}
	p, err = fromText(t, text, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range p.Warnings {
		got = append(got, w.String())
	}
	want := []string{
		"stdin:1: version: changes nothing here: Compose itself has no versions any more",
		"stdin:2: services.web.container_name: changes nothing here: containers are named SERVICE-SLOT-ID, since there may be several (and 1 more)",
		"stdin:2: the variable TAG is not set, and nothing stands in its place; set it here or in .env",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Warnings: want (-), got (+):\n%s", diff)
	}
	for name, c := range map[string]struct {
		opts Options
		want string
	}{
		"no such service": {Options{Services: []string{"nosuch"}}, `there is no service "nosuch" (there are db, dev, web)`},
		"a profile":       {Options{Profiles: []string{"dev"}}, "services.dev.build: is not supported"},
		"strict":          {Options{Strict: true}, "since there may be several (--strict)"},
	} {
		if _, err := fromText(t, text, c.opts); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Load(%s): %v, want %q", name, err, c.want)
		}
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

// FuzzLoad: whatever the text, loading ends soon and without a panic; what is
// accepted is valid and survives rendering.
func FuzzLoad(f *testing.F) {
	for _, name := range []string{"redis", "traefik", "anchors", "wordpress-order", "shoal", "rollouts", "minio", "networks", "swarm-networks"} {
		text, err := os.ReadFile("testdata/corpus/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("a: &a [*a]\nb: *a"))
	f.Add([]byte("services: &s {web: *s}"))
	f.Add([]byte("services: {web: {image: hello, volumes: [{type: tmpfs, target: /a, tmpfs: {size: 1k}}], cpus: .5}}"))
	f.Add([]byte(bomb(5, 5)))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := fromText(t, string(text), Options{})
		if err != nil {
			return
		}
		for _, s := range p.Specs {
			if err := s.Validate(); err != nil {
				t.Errorf("Load gave an invalid spec: %v", err)
			}
		}
		var out bytes.Buffer
		if err := Render(&out, p.Specs, false); err != nil {
			t.Fatal(err)
		}
		again, err := fromText(t, out.String(), Options{})
		if err != nil {
			t.Fatalf("Load of what was rendered: %v\n%s", err, out.Bytes())
		}
		if diff := cmp.Diff(p.Specs, again.Specs); diff != "" {
			t.Errorf("Load(Render(specs)): want (-), got (+):\n%s", diff)
		}
	})
}
