// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"fmt"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"

	"github.com/shoalnet/shoal"
)

// LabelProject is on volumes beside LabelCluster and LabelService: the project whose
// service was the first to ask for it.
const LabelProject = LabelPrefix + "project"

// ensureVolumes makes the named volumes of a spec that are not there. One that is
// there and not this cluster's is left alone, and refused. Nothing ever removes a
// volume that has a name: its data is somebody's.
func (d *Docker) ensureVolumes(ctx context.Context, what string, s *shoal.Spec) error {
	for _, m := range s.Setup.Mounts {
		if m.Kind != shoal.MountVolume || m.Source == "" {
			continue
		}
		if err := d.ensureVolume(ctx, what, s, &m); err != nil {
			return err
		}
	}
	return nil
}

func (d *Docker) ensureVolume(ctx context.Context, what string, s *shoal.Spec, m *shoal.Mount) error {
	have, err := call(ctx, d, d.cfg.Quick, what, func(ctx context.Context, c *client.Client) (*volume.Volume, error) {
		v, err := c.VolumeInspect(ctx, m.Source)
		if cerrdefs.IsNotFound(err) {
			return nil, nil
		}
		return &v, err
	})
	switch {
	case err != nil:
		return err
	case m.External && have == nil:
		return noVolume(m.Source)
	case m.External:
		return nil
	}
	if have == nil {
		// Called twice at a time, or beside somebody else, it returns what is there.
		have, err = call(ctx, d, d.cfg.Slow, what, func(ctx context.Context, c *client.Client) (*volume.Volume, error) {
			v, err := c.VolumeCreate(ctx, volume.CreateOptions{Name: m.Source, Labels: map[string]string{
				LabelCluster: string(d.cfg.Cluster), LabelService: s.Name, LabelProject: s.Project,
			}})
			return &v, err
		})
		if err != nil {
			return err
		}
	}
	if have.Labels[LabelCluster] != string(d.cfg.Cluster) {
		return foreignVolume(m.Source)
	}
	return nil
}

func noVolume(name string) error {
	return &refusal{fmt.Sprintf("volume %s is not there, and external says that Shoal must not make it; make it on that machine", name)}
}

func foreignVolume(name string) error {
	return &refusal{fmt.Sprintf("volume %s is not Shoal's; choose another name, or say external: true and let the owner allow it", name)}
}
