// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal"
)

// knowledge is what was learnt about one of our containers.
type knowledge struct {
	identity
	sign   string        // of the summary that the details belong to; "": none yet
	at     time.Duration // when the details were asked for, Clock.Mono
	event  time.Duration // when the engine last told of it, Clock.Mono
	detail detail
}

// detail is what the engine's list does not say, only an inspection.
type detail struct {
	started time.Time
	exit    int
	oom     bool
	ended   bool // it does not run, while the list still said so
}

// List implements [shoal.Engine]. The engine's list, which it answers from memory,
// has all but start time, exit code and OOM. Those are asked for when something
// about the container changed, or when they are older than Config.Refresh: a steady
// engine costs one call. One that never ran has none. The list also lags: it says "running" for a tenth of a second
// after the event of a death, and there is no second event. So the inspection's word
// counts for that. A container that is slow to inspect (the engine holds its
// lock through a start) comes without them, and is asked again next time.
func (d *Docker) List(ctx context.Context) ([]shoal.Container, error) {
	const what = "list containers"
	asked := d.clock.Mono()
	found, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) ([]container.Summary, error) {
		return c.ContainerList(ctx, container.ListOptions{All: true, Filters: d.ours()})
	})
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(s container.Summary) bool {
		id, err := identify(s.Labels)
		return err != nil || id.cluster != d.cfg.Cluster || id.peer != d.cfg.Peer
	})
	d.inspect(ctx, d.stale(found, asked), asked)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]shoal.Container, len(found))
	for i := range found {
		out[i] = containerOf(&found[i], d.known[found[i].ID])
	}
	slices.SortFunc(out, func(a, b shoal.Container) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// stale makes known what was found, forgets what was not, and returns what has to
// be inspected.
func (d *Docker) stale(found []container.Summary, now time.Duration) []container.Summary {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []container.Summary
	there := make(map[string]bool, len(found))
	for _, s := range found {
		there[s.ID] = true
		k := d.known[s.ID]
		if k == nil {
			id, err := identify(s.Labels)
			if err != nil {
				continue // List has dropped these
			}
			k = &knowledge{identity: id}
			d.known[s.ID] = k
		}
		if stateOf(s.State) == shoal.ContainerCreated {
			// It never ran: nothing to learn, and its start, under way, would hold up the
			// list until it is over (0.4 s and more), and the next list twice as long.
			k.sign, k.at, k.detail = signOf(&s), now, detail{}
			continue
		}
		if k.sign != signOf(&s) || now-k.at >= d.cfg.Refresh {
			out = append(out, s)
		}
	}
	maps.DeleteFunc(d.known, func(id string, k *knowledge) bool { return !there[id] && k.sign != "" })
	maps.DeleteFunc(d.used, func(id string, _ cpuSample) bool { return !there[id] })
	return out
}

// inspect learns the details of containers, for a fifth of Config.Quick at most. What
// cannot be learnt by then stays unknown.
func (d *Docker) inspect(ctx context.Context, of []container.Summary, asked time.Duration) {
	if len(of) == 0 {
		return
	}
	var group errgroup.Group
	group.SetLimit(d.cfg.Parallel)
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Quick/5)
	defer cancel()
	c, err := d.connect(ctx)
	if err != nil {
		return
	}
	for _, s := range of {
		group.Go(func() error {
			r, err := c.ContainerInspect(ctx, s.ID)
			if err == nil && r.ContainerJSONBase != nil && r.State != nil {
				d.learn(&s, r.State, asked)
			}
			return nil
		})
	}
	_ = group.Wait() // nothing in it fails
}

// learn keeps the details of one container, if they belong to the summary: between
// the two calls it may have gone on.
func (d *Docker) learn(s *container.Summary, state *container.State, asked time.Duration) {
	started, err := time.Parse(time.RFC3339Nano, state.StartedAt)
	if err != nil || started.Year() <= 1 {
		started = time.Time{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.known[s.ID]
	if k == nil {
		return
	}
	listed, found := stateOf(s.State), stateOf(state.Status)
	k.detail = detail{
		started: started, exit: state.ExitCode, oom: state.OOMKilled,
		ended: listed == shoal.ContainerRunning && found == shoal.ContainerExited,
	}
	k.at = asked
	k.sign = ""
	if listed == found && asked >= k.event { // else the answer may be older than the event
		k.sign = signOf(s)
	}
}

// changed makes the next List inspect a container again.
func (d *Docker) changed(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.known[id]; k != nil {
		k.sign, k.event, k.detail.ended = "", d.clock.Mono(), false
	}
}

// signOf returns what changes with the details: everything in a summary that a new
// life changes, but not the age in its status text.
func signOf(s *container.Summary) string {
	return strings.Join([]string{s.State, exitText(s.Status), addrOf(s), fmt.Sprint(portsOf(s))}, "|")
}

// containerOf joins a summary with what is known beyond it.
func containerOf(s *container.Summary, k *knowledge) shoal.Container {
	out := shoal.Container{
		ID: s.ID, State: stateOf(s.State), Image: s.ImageID,
		Health: healthText(s.Status), Addr: addrOf(s), Ports: portsOf(s),
	}
	if s.Created > 0 {
		out.Created = time.Unix(s.Created, 0)
	}
	if len(s.Names) > 0 {
		out.Name = strings.TrimPrefix(s.Names[0], "/")
	}
	if k == nil {
		return out
	}
	out.Cluster, out.Peer, out.Service = k.cluster, k.peer, k.service
	out.Replica, out.Revision, out.Record = k.replica, k.revision, k.record
	out.Started = k.detail.started
	if k.detail.ended && out.State == shoal.ContainerRunning {
		out.State, out.Health, out.Ports = shoal.ContainerExited, shoal.HealthNone, nil
	}
	if out.State != shoal.ContainerRunning {
		out.ExitCode, out.OOM = k.detail.exit, k.detail.oom
		if code, err := strconv.Atoi(exitText(s.Status)); err == nil {
			out.ExitCode = code
		}
	}
	return out
}

// stateOf sorts the engine's states into ours. A paused process exists: it runs.
func stateOf(state string) shoal.ContainerState {
	switch state {
	case container.StateCreated:
		return shoal.ContainerCreated
	case container.StateRunning, container.StatePaused, container.StateRestarting:
		return shoal.ContainerRunning
	default:
		return shoal.ContainerExited
	}
}

// healthText reads "Up 3 seconds (health: starting)", "(healthy)", "(unhealthy)".
func healthText(status string) string {
	switch {
	case strings.HasSuffix(status, "(healthy)"):
		return shoal.HealthHealthy
	case strings.HasSuffix(status, "(unhealthy)"):
		return shoal.HealthUnhealthy
	case strings.HasSuffix(status, "(health: starting)"):
		return shoal.HealthStarting
	default:
		return shoal.HealthNone
	}
}

// exitText reads the code from "Exited (3) 5 minutes ago"; "" for other texts.
func exitText(status string) string {
	rest, ok := strings.CutPrefix(status, "Exited (")
	if !ok {
		return ""
	}
	code, _, _ := strings.Cut(rest, ")")
	return code
}

// addrOf returns the address on the network that the container was made on, else on the
// first by name that has one.
func addrOf(s *container.Summary) string {
	if s.NetworkSettings == nil {
		return ""
	}
	other := ""
	for _, name := range slices.Sorted(maps.Keys(s.NetworkSettings.Networks)) {
		n := s.NetworkSettings.Networks[name]
		if n == nil || n.IPAddress == "" {
			continue
		}
		if mode := s.HostConfig.NetworkMode; name == mode || n.NetworkID == mode || name == "bridge" {
			return n.IPAddress
		}
		other = cmp.Or(other, n.IPAddress)
	}
	return other
}

// portsOf returns the published ports by (container port, protocol, address, host port).
func portsOf(s *container.Summary) []shoal.PortBinding {
	var out []shoal.PortBinding
	for _, p := range s.Ports {
		if p.PublicPort != 0 {
			out = append(out, shoal.PortBinding{Container: p.PrivatePort, Protocol: p.Type, HostIP: p.IP, HostPort: p.PublicPort})
		}
	}
	slices.SortFunc(out, func(a, b shoal.PortBinding) int {
		return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.Protocol, b.Protocol),
			cmp.Compare(a.HostIP, b.HostIP), cmp.Compare(a.HostPort, b.HostPort))
	})
	return slices.Compact(out)
}
