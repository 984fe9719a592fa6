// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	dockerimage "github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"

	"github.com/shoalnet/shoal/actors"
	"github.com/shoalnet/shoal/internal/pack"
	"github.com/shoalnet/shoal/runtime"
)

// labelBench marks the containers that the bench makes itself, with the cluster they
// are measured beside. They do not carry the cluster's own label: its daemons must
// not see them.
const labelBench = runtime.LabelPrefix + "bench"

// cleanTime bounds what is done about leftovers after an interruption.
const cleanTime = time.Minute

// engine is the container engine, asked directly.
type engine struct {
	client  *client.Client
	host    string
	version string // "docker 20.10.24"
}

// openEngine finds the engine and gives it the image.
func openEngine(ctx context.Context, host string) (*engine, error) {
	c, err := client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	v, err := c.ServerVersion(asking)
	if err != nil {
		_ = c.Close() // it closes idle connections only
		return nil, fmt.Errorf("no container engine answers at %s; idle, deploy and images are measured on one; make engine starts it, -only write,etcd,share,ps,swarm does without: %w", host, err)
	}
	e := &engine{client: c, host: host, version: "docker " + v.Version}
	if err := e.load(ctx); err != nil {
		return nil, errors.Join(err, e.close(ctx))
	}
	return e, nil
}

// load makes an image of our example.
func (e *engine) load(ctx context.Context) error {
	binary, err := pack.Build(ctx, "./examples/hello")
	if err != nil {
		return fmt.Errorf("%w; the bench runs at the root of the repository", err)
	}
	img, err := pack.Image(binary, pack.Options{Path: "/hello"})
	if err != nil {
		return err
	}
	var tar bytes.Buffer
	if err := pack.Tar(&tar, image, img); err != nil {
		return err
	}
	return pack.Load(ctx, e.host, &tar)
}

// close removes the image; containers are gone by now.
func (e *engine) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	_, err := e.client.ImageRemove(ctx, image, dockerimage.RemoveOptions{})
	if cerrdefs.IsNotFound(err) {
		err = nil
	}
	return errors.Join(err, e.client.Close())
}

// having returns the containers with a label, in any state.
func (e *engine) having(ctx context.Context, labels ...string) ([]container.Summary, error) {
	args := filters.NewArgs()
	for _, l := range labels {
		args.Add("label", l)
	}
	return e.client.ContainerList(ctx, container.ListOptions{All: true, Filters: args})
}

// sweep removes what a cluster and the bench beside it made.
func (e *engine) sweep(ctx context.Context, cluster string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	for _, label := range []string{labelBench, runtime.LabelCluster} {
		found, err := e.having(ctx, label+"="+cluster)
		if err != nil {
			return err
		}
		var g errgroup.Group
		for _, c := range found {
			g.Go(func() error {
				err := e.client.ContainerRemove(ctx, c.ID, container.RemoveOptions{RemoveVolumes: true, Force: true})
				if cerrdefs.IsNotFound(err) {
					return nil
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	ours := filters.NewArgs(filters.Arg("label", runtime.LabelCluster+"="+cluster))
	nets, err := e.client.NetworkList(ctx, network.ListOptions{Filters: ours})
	for _, n := range nets {
		err = errors.Join(err, e.client.NetworkRemove(ctx, n.ID))
	}
	return err
}

// direct makes the same containers as a cluster, without one.
type direct struct {
	*engine
	config *container.Config
	host   *container.HostConfig
	gates  []chan struct{} // one a peer: creates and starts at a time, as a daemon has them
	made   int
	ids    []string // that run, oldest first
}

// copyOf takes the configuration from a container that a daemon made.
func (e *engine) copyOf(ctx context.Context, id, cluster string, peers int) (*direct, error) {
	c, err := e.client.ContainerInspect(ctx, id)
	if err != nil {
		return nil, err
	}
	d := &direct{engine: e, config: c.Config, host: c.HostConfig}
	d.config.Hostname = "" // each gets its own, as ours do
	// The network is the cluster's, and goes with its last container.
	d.host.NetworkMode, d.host.DNS = "default", nil
	d.config.Labels = maps.Clone(d.config.Labels)
	delete(d.config.Labels, runtime.LabelCluster)
	d.config.Labels[labelBench] = cluster
	for range peers {
		d.gates = append(d.gates, make(chan struct{}, actors.LAN().Creates))
	}
	return d, nil
}

// start starts n more, spread over as many gates as there are peers.
func (d *direct) start(ctx context.Context, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	ids := make([]string, n)
	for i := range n {
		d.made++
		name := fmt.Sprintf("shoal-bench-%.8s-%d", strings.ToLower(d.config.Labels[labelBench][20:]), d.made)
		gate := d.gates[i%len(d.gates)]
		within := func(call func() error) error {
			gate <- struct{}{}
			defer func() { <-gate }()
			return call()
		}
		g.Go(func() error {
			if err := within(func() error {
				made, err := d.client.ContainerCreate(ctx, d.config, d.host, nil, nil, name)
				ids[i] = made.ID
				return err
			}); err != nil {
				return err
			}
			return within(func() error { return d.client.ContainerStart(ctx, ids[i], container.StartOptions{}) })
		})
	}
	err := g.Wait()
	d.ids = append(d.ids, ids...)
	return err
}

// stop stops and removes the newest n, all at once, as daemons do.
func (d *direct) stop(ctx context.Context, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	keep := len(d.ids) - n
	for _, id := range d.ids[keep:] {
		g.Go(func() error {
			if err := d.client.ContainerStop(ctx, id, container.StopOptions{}); err != nil {
				return err
			}
			return d.client.ContainerRemove(ctx, id, container.RemoveOptions{RemoveVolumes: true, Force: true})
		})
	}
	d.ids = d.ids[:keep]
	return g.Wait()
}
