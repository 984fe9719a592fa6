// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"

	"github.com/shoalnet/shoal"
)

// What every container gets.
const (
	defaultPids  = 4096             // of PidsLimit when the spec says nothing: a fork bomb stays in
	defaultGrace = 10 * time.Second // Spec.StopGrace's zero value
	logMaxSize   = "10m"
	logMaxFiles  = "3"
)

// Create implements [shoal.Engine]. An empty spec.Publish publishes on every address.
// What the machine's owner does not allow is a *shoal.PolicyError; a volume that is
// not ours, or a path that is not there, is refused.
func (d *Docker) Create(ctx context.Context, spec shoal.ContainerSpec) (string, error) {
	if err := checkSpec(&spec, d.cfg.Cluster, d.cfg.Peer); err != nil {
		return "", err
	}
	labels, err := labelsOf(&spec)
	if err != nil {
		return "", err
	}
	what := "create container " + nameOf(&spec)
	// Its name alone does not find it: somebody may have renamed it.
	if have, err := d.find(ctx, what, spec.Replica); err != nil || have != nil {
		return d.complete(ctx, what, have, &spec, err)
	}
	// Where it runs already, nobody asks again; a new one is judged anew.
	if spec.Spec, err = d.gate.admit(spec.Spec); err != nil {
		return "", err
	}
	if err := prepare(&spec.Spec.Setup); err != nil {
		return "", err
	}
	if err := d.ensureVolumes(ctx, what, spec.Spec); err != nil {
		return "", err
	}
	if !networkOf(&spec.Spec.Setup).IsBridge() {
		spec.Networks = nil
	}
	if err := d.attachable(ctx, what, spec.Networks); err != nil {
		return "", err
	}
	id, err := d.make(ctx, what, &spec, labels)
	if errors.Is(err, shoal.ErrConflict) {
		return d.meet(ctx, what, &spec, err)
	}
	if err != nil || len(spec.Networks) < 2 {
		return id, err
	}
	if err := d.connectAll(ctx, what, id, spec.Networks[1:]); err != nil {
		return "", err
	}
	return id, nil
}

// make asks the engine for the container, on its first network.
func (d *Docker) make(ctx context.Context, what string, spec *shoal.ContainerSpec, labels map[string]string) (string, error) {
	return call(ctx, d, d.cfg.Slow, what, func(ctx context.Context, c *client.Client) (string, error) {
		apart, err := d.isApart(ctx, c, spec.Spec)
		if err != nil {
			return "", err
		}
		cfg, host := configOf(spec, labels), hostConfigOf(spec, apart)
		if cfg.Image, err = imageOf(ctx, c, spec); err != nil {
			return "", err
		}
		setUp(&spec.Spec.Setup, d.cfg.Cluster, c.ClientVersion(), cfg, host)
		attach(spec, host)
		made, err := c.ContainerCreate(ctx, cfg, host, nil, nil, nameOf(spec))
		if cerrdefs.IsNotFound(err) {
			return "", &missingImage{ref: spec.Spec.Image}
		}
		return made.ID, err
	})
}

// meet is for two creates of one replica that met in the engine. The engine reserves
// the name first and shows the container later: wait for it to appear. A container
// of that name that is not this replica's is the conflict that the engine said.
func (d *Docker) meet(ctx context.Context, what string, spec *shoal.ContainerSpec, conflict error) (string, error) {
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	patience := time.NewTimer(d.cfg.Slow)
	defer patience.Stop()
	for {
		if have, err := d.find(ctx, what, spec.Replica); err != nil || have != nil {
			return d.complete(ctx, what, have, spec, err)
		}
		others, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) ([]container.Summary, error) {
			name := filters.NewArgs(filters.Arg("name", "^/"+nameOf(spec)+"$"))
			return c.ContainerList(ctx, container.ListOptions{All: true, Filters: name})
		})
		if err != nil {
			return "", err
		}
		for _, o := range others {
			if o.Labels[LabelReplica] != spec.Replica.String() {
				return "", conflict
			}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return "", fmt.Errorf("%s: %w", what, ctx.Err())
		case <-patience.C:
			return "", conflict
		}
	}
}

// find returns a replica's container, nil if there is none.
func (d *Docker) find(ctx context.Context, what string, replica shoal.ReplicaID) (*container.Summary, error) {
	args := d.ours()
	args.Add("label", LabelReplica+"="+replica.String())
	found, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) ([]container.Summary, error) {
		return c.ContainerList(ctx, container.ListOptions{All: true, Filters: args})
	})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// complete returns the ID of a container that was found. One that a daemon made and did
// not live to connect to all its networks is connected now; one that has run stays as it is.
func (d *Docker) complete(ctx context.Context, what string, have *container.Summary, spec *shoal.ContainerSpec, err error) (string, error) {
	if err != nil {
		return "", err
	}
	if stateOf(have.State) != shoal.ContainerCreated || len(spec.Networks) < 2 || have.NetworkSettings == nil {
		return have.ID, nil
	}
	for _, n := range spec.Networks[1:] {
		if _, on := have.NetworkSettings.Networks[d.networkName(n.Name)]; on {
			continue
		}
		if err := d.connectTo(ctx, what, have.ID, &n); err != nil {
			return "", err
		}
	}
	return have.ID, nil
}

// ours is the filter of our containers.
func (d *Docker) ours() filters.Args {
	return filters.NewArgs(
		filters.Arg("label", LabelCluster+"="+string(d.cfg.Cluster)),
		filters.Arg("label", LabelPeer+"="+string(d.cfg.Peer)),
	)
}

// imageOf returns what to create from: the image that was made available. Its name as
// the user wrote it is taken where that stands for it now, for people who look at the
// engine; a name that moves between this answer and the create is a matter of
// milliseconds that only creating from the ID would close.
func imageOf(ctx context.Context, c *client.Client, spec *shoal.ContainerSpec) (string, error) {
	name := shoal.NormalizeRef(spec.Spec.Image) // never an image whose ID begins with the name
	if spec.Image == "" {
		return name, nil
	}
	switch found, err := c.ImageInspect(ctx, name); {
	case err == nil && found.ID == spec.Image:
		return name, nil
	case err != nil && !cerrdefs.IsNotFound(err):
		return "", err
	}
	return spec.Image, nil
}

// configOf translates what is the same on every peer, but for the setup and the image.
func configOf(spec *shoal.ContainerSpec, labels map[string]string) *container.Config {
	s := spec.Spec
	grace := s.StopGrace
	if grace == 0 {
		grace = defaultGrace
	}
	timeout := seconds(grace)
	exposed := make(nat.PortSet, len(s.Ports))
	for _, p := range s.Ports {
		exposed[portOf(p)] = struct{}{}
	}
	return &container.Config{
		Entrypoint:   s.Entrypoint,
		Cmd:          s.Command,
		Env:          envOf(spec),
		Labels:       labels,
		ExposedPorts: exposed,
		Healthcheck:  healthOf(s.Health),
		StopSignal:   s.StopSignal,
		StopTimeout:  &timeout,
	}
}

// isApart reports whether a container's ports that answer on every peer need a way in.
func (d *Docker) isApart(ctx context.Context, c *client.Client, spec *shoal.Spec) (bool, error) {
	if !slices.ContainsFunc(spec.Ports, shoal.Port.IsIngress) {
		return false, nil
	}
	return d.askApart(ctx, c)
}

// Apart reports whether this machine does not reach the addresses of containers: those of
// a rootless engine's, or Docker Desktop's. It is asked once and remembered.
func (d *Docker) Apart(ctx context.Context) (bool, error) {
	return call(ctx, d, d.cfg.Quick, "ask what the engine is", d.askApart)
}

func (d *Docker) askApart(ctx context.Context, c *client.Client) (bool, error) {
	if known := d.apart.Load(); known != nil {
		return *known, nil
	}
	info, err := c.Info(ctx)
	if err != nil {
		return false, err
	}
	is := slices.Contains(info.SecurityOptions, "name=rootless") || info.OperatingSystem == "Docker Desktop"
	d.apart.Store(&is)
	return is, nil
}

// hostConfigOf translates what binds a container to this machine, but for the setup.
func hostConfigOf(spec *shoal.ContainerSpec, apart bool) *container.HostConfig {
	s := spec.Spec
	pids := s.PidsLimit
	if pids == 0 {
		pids = defaultPids
	}
	ports := make(nat.PortMap, len(s.Ports))
	for _, p := range s.Ports {
		b := nat.PortBinding{HostIP: spec.Publish}
		if p.IsIngress() { // carried by every peer, to the container's own address
			if apart {
				ports[portOf(p)] = append(ports[portOf(p)], nat.PortBinding{HostIP: "127.0.0.1"})
			}
			continue
		}
		if p.Published != 0 {
			b.HostPort = strconv.Itoa(int(p.Published))
		}
		ports[portOf(p)] = append(ports[portOf(p)], b)
	}
	return &container.HostConfig{
		PortBindings:  ports,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled}, // the lifecycle restarts
		Resources: container.Resources{
			Memory:     s.Limits.MemBytes,
			MemorySwap: s.Limits.MemBytes, // equal: no swap on top
			NanoCPUs:   s.Limits.CPUMilli * 1_000_000,
			PidsLimit:  &pids,
		},
	}
}

func portOf(p shoal.Port) nat.Port {
	protocol := p.Protocol
	if protocol == "" {
		protocol = "tcp"
	}
	return nat.Port(fmt.Sprintf("%d/%s", p.Container, protocol))
}

// healthOf returns nil for the image's own check. Zero fields inherit the image's.
func healthOf(h *shoal.Health) *container.HealthConfig {
	switch {
	case h == nil:
		return nil
	case h.Disable:
		return &container.HealthConfig{Test: []string{"NONE"}}
	}
	return &container.HealthConfig{
		Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries,
	}
}

// seconds rounds up: an engine counts in whole ones.
func seconds(d time.Duration) int {
	return int((max(d, 0) + time.Second - 1) / time.Second)
}
