// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal"
)

// The shape of a rendered file. Everything is in Compose's long form, and text in
// which a dollar stands has it twice.
type (
	fileYAML struct {
		Name     string                 `yaml:"name,omitempty"`
		Services map[string]serviceYAML `yaml:"services"`
		Volumes  map[string]volumeYAML  `yaml:"volumes,omitempty"`
		Networks map[string]networkYAML `yaml:"networks,omitempty"`
	}
	volumeYAML struct {
		Name     string `yaml:"name"`
		External bool   `yaml:"external,omitempty"`
	}
	networkYAML struct {
		Name string `yaml:"name"`
	}
	dependencyYAML struct {
		Condition string `yaml:"condition"`
		Required  *bool  `yaml:"required,omitempty"`
	}
	attachmentYAML struct {
		Aliases  []string `yaml:"aliases,omitempty"`
		Priority int      `yaml:"priority,omitempty"`
	}
	serviceYAML struct {
		Image       string                    `yaml:"image"`
		Entrypoint  []string                  `yaml:"entrypoint,omitempty"`
		Command     []string                  `yaml:"command,omitempty"`
		Environment map[string]string         `yaml:"environment,omitempty"`
		Labels      map[string]string         `yaml:"labels,omitempty"`
		Ports       []portYAML                `yaml:"ports,omitempty"`
		Networks    map[string]attachmentYAML `yaml:"networks,omitempty"`
		DependsOn   map[string]dependencyYAML `yaml:"depends_on,omitempty"`
		Volumes     []mountYAML               `yaml:"volumes,omitempty"`
		HealthCheck *healthYAML               `yaml:"healthcheck,omitempty"`
		StopSignal  string                    `yaml:"stop_signal,omitempty"`
		StopGrace   string                    `yaml:"stop_grace_period,omitempty"`
		User        string                    `yaml:"user,omitempty"`
		WorkingDir  string                    `yaml:"working_dir,omitempty"`
		Hostname    string                    `yaml:"hostname,omitempty"`
		Init        bool                      `yaml:"init,omitempty"`
		TTY         bool                      `yaml:"tty,omitempty"`
		StdinOpen   bool                      `yaml:"stdin_open,omitempty"`
		ReadOnly    bool                      `yaml:"read_only,omitempty"`
		ShmSize     string                    `yaml:"shm_size,omitempty"`
		ExtraHosts  []string                  `yaml:"extra_hosts,omitempty"`
		Ulimits     map[string]ulimitYAML     `yaml:"ulimits,omitempty"`
		Sysctls     map[string]string         `yaml:"sysctls,omitempty"`
		Logging     *loggingYAML              `yaml:"logging,omitempty"`
		Privileged  bool                      `yaml:"privileged,omitempty"`
		CapAdd      []string                  `yaml:"cap_add,omitempty"`
		CapDrop     []string                  `yaml:"cap_drop,omitempty"`
		Devices     []deviceYAML              `yaml:"devices,omitempty"`
		GroupAdd    []string                  `yaml:"group_add,omitempty"`
		SecurityOpt []string                  `yaml:"security_opt,omitempty"`
		NetworkMode string                    `yaml:"network_mode,omitempty"`
		PID         string                    `yaml:"pid,omitempty"`
		IPC         string                    `yaml:"ipc,omitempty"`
		UTS         string                    `yaml:"uts,omitempty"`
		UserNS      string                    `yaml:"userns_mode,omitempty"`
		Deploy      deployYAML                `yaml:"deploy"`
		Shoal       extensionYAML             `yaml:"x-shoal,omitempty"`
	}
	portYAML struct {
		Target    uint16 `yaml:"target"`
		Published string `yaml:"published,omitempty"`
		Protocol  string `yaml:"protocol"`
		Mode      string `yaml:"mode,omitempty"`
	}
	mountYAML struct {
		Type     string         `yaml:"type"`
		Source   string         `yaml:"source,omitempty"`
		Target   string         `yaml:"target"`
		ReadOnly bool           `yaml:"read_only,omitempty"`
		Bind     map[string]any `yaml:"bind,omitempty"`
		Volume   map[string]any `yaml:"volume,omitempty"`
		Tmpfs    map[string]any `yaml:"tmpfs,omitempty"`
	}
	healthYAML struct {
		Disable     bool     `yaml:"disable,omitempty"`
		Test        []string `yaml:"test,omitempty"`
		Interval    string   `yaml:"interval,omitempty"`
		Timeout     string   `yaml:"timeout,omitempty"`
		StartPeriod string   `yaml:"start_period,omitempty"`
		Retries     int      `yaml:"retries,omitempty"`
	}
	ulimitYAML struct {
		Soft int64 `yaml:"soft"`
		Hard int64 `yaml:"hard"`
	}
	loggingYAML struct {
		Driver  string            `yaml:"driver"`
		Options map[string]string `yaml:"options,omitempty"`
	}
	deviceYAML struct {
		Source      string `yaml:"source"`
		Target      string `yaml:"target,omitempty"`
		Permissions string `yaml:"permissions,omitempty"`
	}
	deployYAML struct {
		Mode      string         `yaml:"mode"`
		Replicas  *int           `yaml:"replicas,omitempty"`
		Resources map[string]any `yaml:"resources,omitempty"`
		Placement map[string]any `yaml:"placement,omitempty"`
		Restart   map[string]any `yaml:"restart_policy"`
		Update    map[string]any `yaml:"update_config,omitempty"`
		Rollback  map[string]any `yaml:"rollback_config,omitempty"`
	}
	extensionYAML struct {
		OnPartition string         `yaml:"on_partition,omitempty"`
		Priority    int            `yaml:"priority,omitempty"`
		Strategy    string         `yaml:"strategy,omitempty"`
		Spread      string         `yaml:"spread,omitempty"`
		Volumes     string         `yaml:"volumes,omitempty"`
		LB          string         `yaml:"lb,omitempty"`
		Prefer      string         `yaml:"prefer,omitempty"`
		Proxy       bool           `yaml:"proxy_protocol,omitempty"`
		Rollout     map[string]any `yaml:"rollout,omitempty"`
		Autoscale   map[string]any `yaml:"autoscale,omitempty"`
		Job         map[string]any `yaml:"job,omitempty"`
		Schedule    any            `yaml:"schedule,omitempty"`
		PreDeploy   map[string]any `yaml:"pre_deploy,omitempty"`
		Canary      any            `yaml:"canary,omitempty"`
	}
)

// Render writes specs of one project as a Compose file that [Load] reads as the same
// specs. With mask the values of the environment are left to variables of the same
// names, which whoever deploys the file has to set.
func Render(w io.Writer, specs []shoal.Spec, mask bool) error {
	out := fileYAML{Services: map[string]serviceYAML{}, Volumes: map[string]volumeYAML{}, Networks: map[string]networkYAML{}}
	for i := range specs {
		s := &specs[i]
		if i == 0 {
			out.Name = s.Project
		}
		if s.Project != out.Name {
			return &shoal.InvalidError{Field: "project", Why: fmt.Sprintf("is %q of %s and %q of %s; one file is about one project", out.Name, specs[0].Name, s.Project, s.Name)}
		}
		for _, m := range s.Setup.Mounts {
			if m.Kind == shoal.MountVolume && m.Source != "" {
				out.Volumes[m.Source] = volumeYAML{m.Source, m.External}
			}
		}
		for _, a := range s.Attachments() {
			if len(s.Networks) > 0 || s.Project == "" { // else it is what Compose takes it to be, too
				out.Networks[networkKey(s.Project, a.Network)] = networkYAML{a.Network}
			}
		}
		out.Services[s.Name] = serviceOf(s, mask)
	}
	var node yaml.Node
	if err := node.Encode(out); err != nil {
		return fmt.Errorf("render compose file: %w", err)
	}
	doubleDollars(&node)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&node); err != nil {
		return fmt.Errorf("render compose file: %w", err)
	}
	return enc.Close()
}

// asks marks a value that is a variable already; no value has a NUL of its own.
const asks = "\x00"

// doubleDollars escapes what Compose would take for variables.
func doubleDollars(n *yaml.Node) {
	for i, c := range n.Content {
		if isKey := n.Kind == yaml.MappingNode && i%2 == 0; !isKey {
			doubleDollars(c)
		}
	}
	if n.Kind != yaml.ScalarNode {
		return
	}
	if name, ok := strings.CutPrefix(n.Value, asks); ok {
		n.Value, n.Style = "${"+name+"?its value was masked}", 0 // the mark had to be quoted
		return
	}
	n.Value = strings.ReplaceAll(n.Value, "$", "$$")
}

// noVariable is what a variable's name cannot have, though the environment's can.
var noVariable = regexp.MustCompile(`[^A-Za-z0-9_]`)

func environmentOf(env map[string]string, mask bool) map[string]string {
	if !mask {
		return env
	}
	out := make(map[string]string, len(env))
	for k := range env {
		out[k] = asks + noVariable.ReplaceAllString(k, "_")
	}
	return out
}

func serviceOf(s *shoal.Spec, mask bool) serviceYAML {
	c := &s.Setup
	out := serviceYAML{
		Image: s.Image, Entrypoint: s.Entrypoint, Command: s.Command, Environment: environmentOf(s.Env, mask), Labels: s.Labels,
		StopSignal: s.StopSignal, StopGrace: period(s.StopGrace),
		User: c.User, WorkingDir: c.WorkDir, Hostname: c.Hostname, Init: c.Init, TTY: c.TTY, StdinOpen: c.Stdin, ReadOnly: c.ReadOnly,
		ShmSize: amount(c.ShmBytes), ExtraHosts: c.ExtraHosts, Sysctls: c.Sysctls,
		Privileged: c.Privileged, CapAdd: c.CapAdd, CapDrop: c.CapDrop, GroupAdd: c.GroupAdd, SecurityOpt: c.SecurityOpt,
		NetworkMode: host(c.HostNetwork), PID: host(c.HostPID), IPC: host(c.HostIPC), UTS: host(c.HostUTS), UserNS: host(c.HostUser),
		Deploy: deployOf(s),
		Shoal: extensionYAML{
			OnPartition: unless(string(s.OnPartition), string(shoal.PartitionAvailable)), Priority: s.Priority,
			Strategy: unless(string(s.Strategy), string(shoal.StrategySpread)), Spread: s.SpreadBy,
			LB: string(s.LB), Prefer: string(s.Prefer), Proxy: s.ProxyProtocol,
		},
	}
	if s.Job == nil {
		out.Deploy.Update, out.Deploy.Rollback, out.Shoal.Rollout = rolloutOf(s)
	}
	out.Shoal.Autoscale = autoscaleOf(s.Autoscale)
	out.Shoal.Job = jobOf(s.Job)
	out.Shoal.Schedule = scheduleOf(s.Schedule)
	out.Shoal.PreDeploy = preDeployOf(s.PreDeploy, mask)
	out.Shoal.Canary = canaryOf(s.Rollout.Canary)
	if s.VolumesAnywhere {
		out.Shoal.Volumes = "anywhere"
	}
	if c.NoNetwork {
		out.NetworkMode = "none"
	}
	for _, p := range s.Ports {
		y := portYAML{Target: p.Container, Published: unless(strconv.Itoa(int(p.Published)), "0"), Protocol: p.Protocol}
		if p.Host {
			y.Mode = "host"
		}
		out.Ports = append(out.Ports, y)
	}
	for i, a := range s.Networks {
		y := attachmentYAML{Aliases: a.Aliases}
		if len(s.Networks) > 1 {
			y.Priority = len(s.Networks) - i
		}
		out.Networks = set(out.Networks, networkKey(s.Project, a.Network), y)
	}
	for _, d := range s.DependsOn {
		y := dependencyYAML{Condition: string(d.Condition)}
		if d.Optional {
			y.Required = new(bool)
		}
		out.DependsOn = set(out.DependsOn, d.Service, y)
	}
	for i := range c.Mounts {
		out.Volumes = append(out.Volumes, mountOf(&c.Mounts[i]))
	}
	if h := s.Health; h != nil {
		out.HealthCheck = &healthYAML{h.Disable, h.Test, period(h.Interval), period(h.Timeout), period(h.StartPeriod), h.Retries}
	}
	for _, u := range c.Ulimits {
		out.Ulimits = set(out.Ulimits, u.Name, ulimitYAML{u.Soft, u.Hard})
	}
	if l := c.Logging; l != nil {
		out.Logging = &loggingYAML{l.Driver, l.Options}
	}
	for _, d := range c.Devices {
		out.Devices = append(out.Devices, deviceYAML{d.Host, cmp.Or(d.Container, d.Host), d.Permissions})
	}
	return out
}

func mountOf(m *shoal.Mount) mountYAML {
	out := mountYAML{Type: string(m.Kind), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
	switch m.Kind {
	case shoal.MountBind:
		out.Bind = map[string]any{"create_host_path": m.Create}
		put(out.Bind, "propagation", m.Spread)
	case shoal.MountVolume:
		if m.NoCopy {
			out.Volume = map[string]any{"nocopy": true}
		}
	case shoal.MountTmpfs:
		out.Tmpfs = map[string]any{}
		put(out.Tmpfs, "size", m.Bytes)
		put(out.Tmpfs, "mode", m.Mode)
	}
	return out
}

func deployOf(s *shoal.Spec) deployYAML {
	out := deployYAML{Mode: string(s.Mode), Restart: map[string]any{"condition": string(s.Restart.Condition)}}
	out.Replicas = &s.Replicas
	put(out.Restart, "delay", period(s.Restart.Delay))
	put(out.Restart, "window", period(s.Restart.Window))
	put(out.Restart, "max_attempts", s.Restart.MaxAttempts)

	resources := func(r shoal.Resources, pids int64) map[string]any {
		m := map[string]any{}
		if r.CPUMilli != 0 {
			m["cpus"] = strconv.FormatFloat(float64(r.CPUMilli)/1000, 'f', -1, 64)
		}
		put(m, "memory", amount(r.MemBytes))
		put(m, "pids", pids)
		return m
	}
	out.Resources = map[string]any{}
	for name, m := range map[string]map[string]any{"limits": resources(s.Limits, s.PidsLimit), "reservations": resources(s.Reservations, 0)} {
		if len(m) > 0 {
			out.Resources[name] = m
		}
	}
	out.Placement = map[string]any{}
	put(out.Placement, "max_replicas_per_node", s.MaxPerPeer)
	var constraints []string
	for _, c := range s.Constraints {
		constraints = append(constraints, c.String())
	}
	if len(constraints) > 0 {
		out.Placement["constraints"] = constraints
	}
	return out
}

// set sets a key of a map that may not be there yet.
func set[T any](m map[string]T, key string, v T) map[string]T {
	if m == nil {
		m = map[string]T{}
	}
	m[key] = v
	return m
}

// put sets a key unless the value says nothing.
func put[T comparable](m map[string]any, key string, v T) {
	var nothing T
	if v != nothing {
		m[key] = v
	}
}

func host(on bool) string {
	if on {
		return "host"
	}
	return ""
}

func unless(s, usual string) string {
	if s == usual {
		return ""
	}
	return s
}

func period(d time.Duration) string { return unless(d.String(), "0s") }

// amount writes bytes in the largest unit that is exact.
func amount(n int64) string {
	for _, u := range []struct {
		name string
		of   int64
	}{{"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}} {
		if n >= u.of && n%u.of == 0 {
			return fmt.Sprintf("%d%s", n/u.of, u.name)
		}
	}
	return unless(fmt.Sprintf("%db", n), "0b")
}
