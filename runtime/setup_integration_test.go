//go:build integration

// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/pack"
	"github.com/shoalnet/shoal/runtime"
)

// volumes are those of one test.
type volumes struct {
	raw  *client.Client
	made []string
}

// newVolumes removes them after the containers of a test, if it is called before
// those are taken care of.
func newVolumes(t testing.TB) *volumes {
	t.Helper()
	raw, err := rawClient()
	if err != nil {
		t.Fatal(err)
	}
	v := &volumes{raw: raw}
	t.Cleanup(func() {
		for _, name := range v.made {
			if err := raw.VolumeRemove(context.WithoutCancel(t.Context()), name, false); err != nil && !cerrdefs.IsNotFound(err) {
				t.Error(err)
			}
		}
		raw.Close()
	})
	return v
}

// one returns a new name, and makes a volume of somebody else under it unless it is
// to be ours.
func (v *volumes) one(t testing.TB, ours bool) string {
	t.Helper()
	name := "shoal-test-" + strings.ToLower(rand.Text())
	v.made = append(v.made, name)
	if !ours {
		if _, err := v.raw.VolumeCreate(t.Context(), volume.CreateOptions{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// probeImage is testdata/probe.
const probeImage = "shoal-runtime-probe:1"

func loadProbe(t *testing.T) {
	t.Helper()
	binary, err := pack.Build(t.Context(), "./testdata/probe")
	if err != nil {
		t.Fatal(err)
	}
	img, err := pack.Image(binary, pack.Options{Path: "/probe"})
	if err != nil {
		t.Fatal(err)
	}
	var tar bytes.Buffer
	if err := pack.Tar(&tar, probeImage, img); err != nil {
		t.Fatal(err)
	}
	if err := pack.Load(t.Context(), runtime.DefaultHost, &tar); err != nil {
		t.Fatal(err)
	}
	raw, err := rawClient()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := raw.ImageRemove(context.WithoutCancel(t.Context()), probeImage, image.RemoveOptions{}); err != nil {
			t.Error(err)
		}
		raw.Close()
	})
}

// machine is an engine whose owner allows something, for probes.
type machine struct {
	docker  *runtime.Docker
	cluster shoal.PeerID
	n       byte
}

func newMachine(t *testing.T, rules ...string) *machine {
	t.Helper()
	m := &machine{cluster: newCluster()}
	m.docker = newDockerWith(t, runtime.DefaultHost, peer, m.cluster, func() []string { return rules })
	removeAll(t, m.docker)
	return m
}

// make creates the container of a probe.
func (m *machine) make(t *testing.T, s shoal.Setup, command ...string) (string, error) {
	t.Helper()
	m.n++
	cs := spec(m.n, func(spec *shoal.Spec) { spec.Image, spec.Command, spec.Setup = probeImage, command, s })
	cs.Cluster = m.cluster
	return m.docker.Create(t.Context(), cs)
}

// probe runs one and returns what it says.
func (m *machine) probe(t *testing.T, s shoal.Setup, command ...string) map[string]string {
	t.Helper()
	id, err := m.make(t, s, command...)
	if err != nil {
		t.Fatalf("Create = %v", err)
	}
	if err := m.docker.Start(t.Context(), id); err != nil {
		t.Fatalf("Start = %v", err)
	}
	said := map[string]string{}
	err = m.docker.Logs(t.Context(), id, shoal.LogOptions{Follow: true, Tail: -1}, func(l shoal.LogLine) error {
		k, v, _ := strings.Cut(l.Text, "=")
		said[k] = v
		return nil
	})
	if err != nil || said["done"] != "true" {
		t.Fatalf("Logs = %v; the probe said %q", err, said)
	}
	if err := m.docker.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return said
}

// expect compares some of what a probe said.
func expect(t *testing.T, said, want map[string]string) {
	t.Helper()
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if said[k] != want[k] {
			t.Errorf("probe says %s=%q, want %q", k, said[k], want[k])
		}
	}
}

func TestDockerSetsUp(t *testing.T) {
	loadProbe(t)
	t.Run("what needs no permission", func(t *testing.T) {
		said := newMachine(t).probe(t, shoal.Setup{
			User: "1000:1001", WorkDir: "/proc", Hostname: "lighthouse", ReadOnly: true, ShmBytes: 8 << 20,
			ExtraHosts: []string{"elsewhere:192.0.2.7"}, CapDrop: []string{"ALL"}, Ulimits: []shoal.Ulimit{{Name: "nofile", Soft: 100, Hard: 1234}},
			Mounts: []shoal.Mount{{Kind: shoal.MountTmpfs, Target: "/scratch", Bytes: 4 << 20, Mode: 0o1777}},
		}, "write=/scratch/a", "write=/b")
		expect(t, said, map[string]string{
			"user": "1000:1001", "dir": "/proc", "host": "lighthouse", "elsewhere": "[192.0.2.7] <nil>", "nofile": "1234",
			"size /dev/shm": "8388608 of type 1021994", "size /scratch": "4194304 of type 1021994",
			"/scratch/a": "ok", "/b": "open /b: read-only file system",
			"CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2", "terminal": "false", "pid": "1",
		})
	})
	t.Run("init and terminal", func(t *testing.T) {
		said := newMachine(t).probe(t, shoal.Setup{Init: true, TTY: true, Stdin: true, NoNetwork: true})
		if said["pid"] == "1" {
			t.Error("the process is its container's first although there is an init")
		}
		expect(t, said, map[string]string{"terminal": "true", "interfaces": "1"})
	})
	t.Run("what the owner allows", func(t *testing.T) {
		m := newMachine(t, "cap:SYS_TIME", "sysctl:net.ipv4.*", "host:pid", "host:ipc", "host:uts", "host:user", "host:network", "group:44",
			"security:seccomp=unconfined", "security:no-new-privileges=false", "device:/dev/null", "privileged")
		said := m.probe(t, shoal.Setup{
			CapDrop: []string{"ALL"}, CapAdd: []string{"SYS_TIME"}, Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "81"},
			HostPID: true, HostIPC: true, HostUTS: true, HostUser: true, GroupAdd: []string{"44"},
			SecurityOpt: []string{"seccomp=unconfined", "no-new-privileges:false"},
			Devices:     []shoal.Device{{Host: "/dev/null", Container: "/dev/nothing", Permissions: "r"}},
		}, "read=/proc/sys/net/ipv4/ip_unprivileged_port_start", "read=/dev/nothing")
		expect(t, said, map[string]string{
			"CapEff": "0000000002000000", "/proc/sys/net/ipv4/ip_unprivileged_port_start": "81", "groups": "[0 44]",
			"Seccomp": "0", "NoNewPrivs": "0", "/dev/nothing": "",
		})
		// Only in the machine's own namespaces do two containers meet.
		alone, again := m.probe(t, shoal.Setup{}), m.probe(t, shoal.Setup{HostNetwork: true, HostPID: true, HostIPC: true, HostUTS: true, HostUser: true})
		for _, ns := range []string{"ns pid", "ns ipc", "ns uts"} {
			if said[ns] != again[ns] || said[ns] == alone[ns] {
				t.Errorf("%s = %s and %s with the machine's own, %s without", ns, said[ns], again[ns], alone[ns])
			}
		}
		if said["ns net"] == again["ns net"] || alone["Seccomp"] != "2" {
			t.Errorf("probes say %q, and in the machine's network %q", said, again)
		}
		id, err := m.make(t, shoal.Setup{Privileged: true, Logging: &shoal.Logging{Driver: "local", Options: map[string]string{"max-file": "2"}}})
		if err != nil { // it is not started: not every machine that runs tests may itself
			t.Fatal(err)
		}
		if h := created(t, id).HostConfig; !h.Privileged || h.LogConfig.Type != "local" || h.LogConfig.Config["max-file"] != "2" {
			t.Errorf("host configuration = %+v, want it privileged, with two local log files", h)
		}
	})
}

// TestDockerKeepsVolumes is data that outlives a replica, and what does not.
func TestDockerKeepsVolumes(t *testing.T) {
	loadProbe(t)
	made := newVolumes(t)
	name := made.one(t, true)
	m := newMachine(t)
	mount := func(readOnly bool) shoal.Setup {
		return shoal.Setup{Mounts: []shoal.Mount{{Kind: shoal.MountVolume, Source: name, Target: "/data", ReadOnly: readOnly}, {Kind: shoal.MountVolume, Target: "/gone"}}}
	}
	want := ""
	for range 3 {
		want += "line,"
		expect(t, m.probe(t, mount(false), "write=/data/a", "write=/gone/a", "read=/gone/a", "read=/data/a"), map[string]string{"/gone/a": "line,", "/data/a": want})
	}
	expect(t, m.probe(t, mount(true), "write=/data/a"), map[string]string{"/data/a": "open /data/a: read-only file system"})
	v, err := made.raw.VolumeInspect(t.Context(), name)
	if err != nil || v.Labels[runtime.LabelCluster] != string(m.cluster) || v.Labels[runtime.LabelService] != "web" {
		t.Errorf("volume = %+v, %v; want it to carry our labels", v, err)
	}
	left, err := made.raw.VolumeList(t.Context(), volume.ListOptions{Filters: filters.NewArgs(filters.Arg("label", runtime.LabelCluster+"="+string(m.cluster)))})
	if err != nil || len(left.Volumes) != 1 {
		t.Errorf("%d volumes are left, %v; want the named one", len(left.Volumes), err)
	}
	if _, err := newMachine(t).make(t, mount(false)); !errors.Is(err, shoal.ErrRefused) {
		t.Errorf("Create with the volume of another cluster = %v, want ErrRefused", err)
	}
}

// TestDockerMountsWhatWasJudged is about paths of the machine.
func TestDockerMountsWhatWasJudged(t *testing.T) {
	loadProbe(t)
	dir := t.TempDir()
	allowed, other := filepath.Join(dir, "allowed"), filepath.Join(dir, "other")
	for _, d := range []string{allowed, other} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"in": allowed, "allowed/out": other} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	m := newMachine(t, "mount:"+allowed, "mount:/run")
	bind := func(source string, edit func(*shoal.Mount)) shoal.Setup {
		one := shoal.Mount{Kind: shoal.MountBind, Source: source, Target: "/data"}
		if edit != nil {
			edit(&one)
		}
		return shoal.Setup{Mounts: []shoal.Mount{one}}
	}
	expect(t, m.probe(t, bind(dir+"/in", nil), "write=/data/a", "read=/data/a"), map[string]string{"/data/a": "line,"})
	expect(t, m.probe(t, bind(allowed, func(m *shoal.Mount) { m.ReadOnly = true }), "write=/data/a"), map[string]string{"/data/a": "open /data/a: read-only file system"})
	expect(t, m.probe(t, bind(allowed+"/new/one", func(m *shoal.Mount) { m.Create = true }), "write=/data/b", "read=/data/b"), map[string]string{"/data/b": "line,"})
	id, err := m.make(t, bind(dir+"/in", func(m *shoal.Mount) { m.Spread = "rslave" }))
	if err != nil {
		t.Fatal(err)
	}
	if mounts := created(t, id).Mounts; len(mounts) != 1 || mounts[0].Source != allowed || mounts[0].Propagation != "rslave" {
		t.Errorf("mounts = %+v, want the resolved path, rslave", mounts)
	}
	for source, want := range map[string]string{
		other:                  policyText("mount:" + other),
		allowed + "/out":       policyText("mount:" + other),
		allowed + "/out/../..": policyText("mount:" + dir),
		"/var/run":             policyText("mount:/run/docker.sock"),
		"/var/run/docker.sock": policyText("mount:/run/docker.sock"),
		allowed + "/absent":    "path " + allowed + "/absent is not there; make it on that machine, or ask for it with create_host_path: true",
	} {
		if _, err := m.make(t, bind(source, nil)); err == nil || err.Error() != want || !errors.Is(err, shoal.ErrRefused) {
			t.Errorf("Create with a mount of %s = %v, want %q", source, err, want)
		}
	}
	// Whoever names the socket means it.
	if _, err := newMachine(t, "mount:/run/docker.sock").make(t, bind("/var/run/docker.sock", nil)); err != nil {
		t.Errorf("Create with the engine's socket, allowed by name = %v", err)
	}
}

func policyText(demand string) string { return (&shoal.PolicyError{Demand: demand}).Error() }
