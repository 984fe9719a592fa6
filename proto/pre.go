// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"math"
	"time"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

func preMessage(p *shoal.PreDeploy) *shoalv1.PreDeploy {
	if p == nil {
		return nil
	}
	return &shoalv1.PreDeploy{
		Image: p.Image, Digest: p.Digest, Platforms: p.Platforms, Command: p.Command, Env: p.Env,
		Attempts: int32(p.Attempts), DeadlineNs: int64(p.Deadline), For: revisionMessage(p.For),
	}
}

func preOf(m *shoalv1.PreDeploy) *shoal.PreDeploy {
	if m == nil {
		return nil
	}
	return &shoal.PreDeploy{
		Image: m.GetImage(), Digest: m.GetDigest(), Platforms: m.GetPlatforms(), Command: m.GetCommand(), Env: m.GetEnv(),
		Attempts: int(m.GetAttempts()), Deadline: time.Duration(m.GetDeadlineNs()), For: revisionOf(m.GetFor()),
	}
}

// pre bounds what is computed with; what makes sense, [shoal.Spec.Validate] says.
func (c *checker) pre(p *shoal.PreDeploy) {
	if p == nil {
		return
	}
	c.text("pre_deploy", p.Image, maxText)
	c.digest("pre_deploy", p.Digest, true)
	c.platforms(p.Platforms)
	c.list("pre_deploy", p.Command, maxArgs, maxArg)
	c.pairs("pre_deploy", p.Env)
	c.between("pre_deploy", int64(p.Attempts), 0, maxSlot)
	c.between("pre_deploy", int64(p.Deadline), 0, math.MaxInt64)
	c.revision("pre_deploy", p.For, true)
}
