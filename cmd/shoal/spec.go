// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// specJSON is a spec with the stable names of -o json.
type specJSON struct {
	Image        string            `json:"image"`
	Digest       string            `json:"digest,omitempty"`    // what the image stood for when the wish was accepted
	Platforms    []string          `json:"platforms,omitempty"` // that it is for
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Command      []string          `json:"command,omitempty"`
	Env          map[string]string `json:"environment,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Ports        []api.Port        `json:"ports,omitempty"`
	Networks     []networkJSON     `json:"networks,omitempty"` // none with network_mode host or none
	LimitCPU     int64             `json:"limit_cpu_milli,omitempty"`
	LimitMem     int64             `json:"limit_mem_bytes,omitempty"`
	ReserveCPU   int64             `json:"reserve_cpu_milli,omitempty"`
	ReserveMem   int64             `json:"reserve_mem_bytes,omitempty"`
	PidsLimit    int64             `json:"pids_limit,omitempty"`
	Mode         string            `json:"mode"`
	FileReplicas int               `json:"file_replicas"`
	Constraints  []string          `json:"constraints,omitempty"`
	Strategy     string            `json:"strategy"`
	MaxPerPeer   int               `json:"max_per_peer,omitempty"`
	Priority     int               `json:"priority,omitempty"`
	OnPartition  string            `json:"on_partition"`
	Health       *healthJSON       `json:"health,omitempty"`
	Restart      restartJSON       `json:"restart"`
	StopSignal   string            `json:"stop_signal,omitempty"`
	StopGrace    float64           `json:"stop_grace_seconds,omitempty"`
	Parallelism  int               `json:"rollout_parallelism,omitempty"`
	StartFirst   bool              `json:"rollout_start_first,omitempty"`
	Rollout      rolloutJSON       `json:"rollout"`
	Rollback     *rolloutJSON      `json:"rollback,omitempty"`
	Autoscale    *autoscaleJSON    `json:"autoscale,omitempty"`
	DependsOn    []dependencyJSON  `json:"depends_on,omitempty"`
	Job          *jobJSON          `json:"job,omitempty"`
	Schedule     *scheduleJSON     `json:"schedule,omitempty"`
	PreDeploy    *preJSON          `json:"pre_deploy,omitempty"`
	Setup        *setupJSON        `json:"setup,omitempty"`
	SpreadBy     string            `json:"spread_by,omitempty"`
	Anywhere     bool              `json:"volumes_anywhere,omitempty"`
	LB           string            `json:"lb,omitempty"`
	Prefer       string            `json:"prefer,omitempty"`
	Proxy        bool              `json:"proxy_protocol,omitempty"`
	RestartsSaid int               `json:"restarts_asked,omitempty"`
	Demands      []string          `json:"demands,omitempty"` // what the owner of a machine has to allow
}

// setupJSON is how a container is set up, with the names of Compose.
type setupJSON struct {
	User        string            `json:"user,omitempty"`
	WorkDir     string            `json:"working_dir,omitempty"`
	Hostname    string            `json:"hostname,omitempty"`
	Init        bool              `json:"init,omitempty"`
	TTY         bool              `json:"tty,omitempty"`
	Stdin       bool              `json:"stdin_open,omitempty"`
	ReadOnly    bool              `json:"read_only,omitempty"`
	ShmBytes    int64             `json:"shm_size_bytes,omitempty"`
	ExtraHosts  []string          `json:"extra_hosts,omitempty"`
	Mounts      []mountJSON       `json:"volumes,omitempty"`
	Ulimits     []ulimitJSON      `json:"ulimits,omitempty"`
	Sysctls     map[string]string `json:"sysctls,omitempty"`
	Logging     *loggingJSON      `json:"logging,omitempty"`
	Privileged  bool              `json:"privileged,omitempty"`
	CapAdd      []string          `json:"cap_add,omitempty"`
	CapDrop     []string          `json:"cap_drop,omitempty"`
	Devices     []deviceJSON      `json:"devices,omitempty"`
	GroupAdd    []string          `json:"group_add,omitempty"`
	SecurityOpt []string          `json:"security_opt,omitempty"`
	Network     string            `json:"network_mode,omitempty"` // host, none
	PID         string            `json:"pid,omitempty"`          // host, as the next three
	IPC         string            `json:"ipc,omitempty"`
	UTS         string            `json:"uts,omitempty"`
	UserNS      string            `json:"userns_mode,omitempty"`
}

type networkJSON struct {
	Name    string   `json:"name"`
	Aliases []string `json:"aliases,omitempty"`
}

type mountJSON struct {
	Type        string `json:"type"`
	Source      string `json:"source,omitempty"`
	Target      string `json:"target"`
	ReadOnly    bool   `json:"read_only,omitempty"`
	External    bool   `json:"external,omitempty"`
	NoCopy      bool   `json:"nocopy,omitempty"`
	Create      bool   `json:"create_host_path,omitempty"`
	Propagation string `json:"propagation,omitempty"`
	Bytes       int64  `json:"size_bytes,omitempty"`
	Mode        uint32 `json:"mode,omitempty"`
}

type ulimitJSON struct {
	Name string `json:"name"`
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

type deviceJSON struct {
	Source      string `json:"source"`
	Target      string `json:"target,omitempty"`
	Permissions string `json:"permissions,omitempty"`
}

type loggingJSON struct {
	Driver  string            `json:"driver"`
	Options map[string]string `json:"options,omitempty"`
}

type healthJSON struct {
	Disable     bool     `json:"disable,omitempty"`
	Test        []string `json:"test,omitempty"`
	Interval    float64  `json:"interval_seconds,omitempty"`
	Timeout     float64  `json:"timeout_seconds,omitempty"`
	StartPeriod float64  `json:"start_period_seconds,omitempty"`
	Retries     int      `json:"retries,omitempty"`
}

type dependencyJSON struct {
	Service   string `json:"service"`
	Condition string `json:"condition"`
	Optional  bool   `json:"optional,omitempty"`
}

// text is the dependency in a few words: "db (service_healthy)".
func (d dependencyJSON) text() string {
	if d.Optional {
		return fmt.Sprintf("%s (%s, if there is one)", d.Service, d.Condition)
	}
	return fmt.Sprintf("%s (%s)", d.Service, d.Condition)
}

type restartJSON struct {
	Condition   string  `json:"condition"`
	Delay       float64 `json:"delay_seconds,omitempty"`
	MaxAttempts int     `json:"max_attempts,omitempty"`
	Window      float64 `json:"window_seconds,omitempty"`
}

func specOf(s *shoal.Spec) specJSON {
	out := specJSON{
		Image: s.Image, Digest: s.Digest, Platforms: s.Platforms, Entrypoint: s.Entrypoint, Command: s.Command, Env: s.Env, Labels: s.Labels,
		LimitCPU: s.Limits.CPUMilli, LimitMem: s.Limits.MemBytes, ReserveCPU: s.Reservations.CPUMilli, ReserveMem: s.Reservations.MemBytes,
		PidsLimit: s.PidsLimit, Mode: string(s.Mode), FileReplicas: s.Replicas, Strategy: string(s.Strategy), MaxPerPeer: s.MaxPerPeer,
		Priority: s.Priority, OnPartition: string(s.OnPartition), StopSignal: s.StopSignal, StopGrace: s.StopGrace.Seconds(),
		Parallelism: s.Rollout.Parallelism, StartFirst: s.Rollout.StartFirst, Rollout: rolloutJSONOf(&s.Rollout), Autoscale: autoscaleJSONOf(s.Autoscale), Job: jobJSONOf(s.Job), Schedule: scheduleJSONOf(s.Schedule), PreDeploy: preJSONOf(s.PreDeploy), Setup: setupOf(&s.Setup),
		SpreadBy: s.SpreadBy, Anywhere: s.VolumesAnywhere, LB: string(s.LB), Prefer: string(s.Prefer), Proxy: s.ProxyProtocol, RestartsSaid: s.Restarts, Demands: s.Demands(),
		Restart: restartJSON{string(s.Restart.Condition), s.Restart.Delay.Seconds(), s.Restart.MaxAttempts, s.Restart.Window.Seconds()},
	}
	if s.Rollback != nil {
		out.Rollback = new(rolloutJSONOf(s.Rollback))
	}
	for _, p := range s.Ports {
		out.Ports = append(out.Ports, api.Port{Container: p.Container, Protocol: p.Protocol, HostPort: p.Published, Host: p.Host})
	}
	for _, a := range s.Attachments() {
		out.Networks = append(out.Networks, networkJSON{a.Network, a.Aliases})
	}
	for _, d := range s.DependsOn {
		out.DependsOn = append(out.DependsOn, dependencyJSON{d.Service, string(d.Condition), d.Optional})
	}
	for _, c := range s.Constraints {
		out.Constraints = append(out.Constraints, c.String())
	}
	if h := s.Health; h != nil {
		out.Health = &healthJSON{h.Disable, h.Test, h.Interval.Seconds(), h.Timeout.Seconds(), h.StartPeriod.Seconds(), h.Retries}
	}
	return out
}

// text is the policy in a few words.
func (r restartJSON) text() string {
	if r.MaxAttempts > 0 {
		return fmt.Sprintf("%s, at most %s", r.Condition, count(r.MaxAttempts, "time"))
	}
	return r.Condition
}

// text is the network, and what the service is called there.
func (n networkJSON) text() string {
	if len(n.Aliases) == 0 {
		return n.Name
	}
	return fmt.Sprintf("%s (as %s)", n.Name, strings.Join(n.Aliases, ", "))
}

// setupOf returns nil for a set-up that says nothing.
func setupOf(s *shoal.Setup) *setupJSON {
	if reflect.ValueOf(*s).IsZero() {
		return nil
	}
	host := func(on bool) string {
		if on {
			return "host"
		}
		return ""
	}
	out := &setupJSON{
		User: s.User, WorkDir: s.WorkDir, Hostname: s.Hostname, Init: s.Init, TTY: s.TTY, Stdin: s.Stdin, ReadOnly: s.ReadOnly,
		ShmBytes: s.ShmBytes, ExtraHosts: s.ExtraHosts, Sysctls: s.Sysctls, Privileged: s.Privileged, CapAdd: s.CapAdd, CapDrop: s.CapDrop,
		GroupAdd: s.GroupAdd, SecurityOpt: s.SecurityOpt, Network: host(s.HostNetwork), PID: host(s.HostPID), IPC: host(s.HostIPC),
		UTS: host(s.HostUTS), UserNS: host(s.HostUser),
	}
	if s.NoNetwork {
		out.Network = "none"
	}
	for _, m := range s.Mounts {
		out.Mounts = append(out.Mounts, mountJSON{string(m.Kind), m.Source, m.Target, m.ReadOnly, m.External, m.NoCopy, m.Create, m.Spread, m.Bytes, m.Mode})
	}
	for _, u := range s.Ulimits {
		out.Ulimits = append(out.Ulimits, ulimitJSON(u))
	}
	for _, d := range s.Devices {
		out.Devices = append(out.Devices, deviceJSON{d.Host, d.Container, d.Permissions})
	}
	if l := s.Logging; l != nil {
		out.Logging = &loggingJSON{l.Driver, l.Options}
	}
	return out
}

// mounts writes mounts as docker's -v does: "data:/var/lib/data:ro".
func mounts(s *setupJSON) string {
	if s == nil {
		return ""
	}
	out := make([]string, len(s.Mounts))
	for i, m := range s.Mounts {
		out[i] = cmp.Or(m.Source, m.Type) + ":" + m.Target
		if m.ReadOnly {
			out[i] += ":ro"
		}
	}
	return strings.Join(out, ", ")
}

// words names what is set, mounts aside, in a line.
func (s *setupJSON) words() string {
	if s == nil {
		return ""
	}
	var out []string
	for _, p := range [][2]string{
		{"user", s.User},
		{"working_dir", s.WorkDir},
		{"hostname", s.Hostname},
		{"network_mode", s.Network},
		{"pid", s.PID},
		{"ipc", s.IPC},
		{"uts", s.UTS},
		{"userns_mode", s.UserNS},
		{"cap_add", strings.Join(s.CapAdd, ",")},
		{"cap_drop", strings.Join(s.CapDrop, ",")},
		{"group_add", strings.Join(s.GroupAdd, ",")},
		{"security_opt", strings.Join(s.SecurityOpt, ",")},
		{"extra_hosts", strings.Join(s.ExtraHosts, ",")},
		{"sysctls", pairs(s.Sysctls)},
	} {
		if p[1] != "" {
			out = append(out, p[0]+" "+p[1])
		}
	}
	for _, f := range []struct {
		name string
		on   bool
	}{{"init", s.Init}, {"tty", s.TTY}, {"stdin_open", s.Stdin}, {"read_only", s.ReadOnly}, {"privileged", s.Privileged}} {
		if f.on {
			out = append(out, f.name)
		}
	}
	if s.ShmBytes > 0 {
		out = append(out, "shm_size "+size(s.ShmBytes))
	}
	for _, u := range s.Ulimits {
		out = append(out, fmt.Sprintf("ulimit %s %d:%d", u.Name, u.Soft, u.Hard))
	}
	for _, d := range s.Devices {
		out = append(out, "device "+d.Source)
	}
	if s.Logging != nil {
		out = append(out, "logging "+s.Logging.Driver)
	}
	return strings.Join(out, "; ")
}
