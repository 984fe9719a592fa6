// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package wish

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/shoalnet/shoal"
)

// existing returns the service that a wish is about. What runs before another one's first
// wave cannot be asked for anything by itself.
func existing(d *shoal.Desired, name string) (*shoal.Service, error) {
	s, ok := d.Service(name)
	switch {
	case !ok:
		return nil, noService(d, name)
	case s.IsPre:
		of := shoal.PreOf(name)
		return nil, &shoal.AdviceError{
			Err:    fmt.Errorf("service %q is what %s runs before its first wave (x-shoal.pre_deploy): %w", name, of, shoal.ErrRefused),
			Advice: fmt.Sprintf("change %[1]s; \"shoal rollout rollback %[1]s\" ends it, \"shoal restart %[2]s\" runs it again", of, name),
		}
	}
	return s, nil
}

// carryPre settles what a user does not say of a service's pre_deploy: the revision that it
// runs for. Of the same container and the same words it is that of the revision before, else
// the one that is written. It returns what the user should know of its image.
func (s *step) carryPre(spec *shoal.Spec, old *shoal.Service, images findings) (note string, err error) {
	if spec.PreDeploy == nil {
		return "", nil
	}
	pre := *spec.PreDeploy
	pre.For = shoal.RevisionID{}
	switch {
	case returnedPre(spec, old):
		pre.Platforms = old.Spec.PreDeploy.Platforms
		spec.PreDeploy = &pre
	default:
		pre.Digest, pre.Platforms = "", nil
		spec.PreDeploy = &pre
		if pre.Image == "" {
			break
		}
		if note, err = images.settlePre(spec, old); err != nil {
			return "", err
		}
	}
	if old != nil && spec.SamePre(&old.Spec) {
		pre.For = old.Spec.PreDeploy.For
		return note, nil
	}
	s.preDue = true
	return note, nil
}

// returnedPre is [returned] of the image of a pre_deploy.
func returnedPre(s *shoal.Spec, old *shoal.Service) bool {
	return old != nil && s.PreDeploy != nil && old.Spec.PreDeploy != nil &&
		s.PreDeploy.Digest != "" && s.PreDeploy.Image == old.Spec.PreDeploy.Image && s.PreDeploy.Digest == old.Spec.PreDeploy.Digest
}

// settlePre puts into the pre_deploy of a spec what its image stands for.
func (f findings) settlePre(spec *shoal.Spec, old *shoal.Service) (note string, err error) {
	if f == nil {
		return "", nil
	}
	pre := spec.PreDeploy
	found := f[pre.Image]
	var invalid *shoal.InvalidError
	if errors.Is(found.err, shoal.ErrConflict) || errors.As(found.err, &invalid) {
		return "", fmt.Errorf("service %s: pre_deploy: %w", spec.Name, found.err)
	}
	if old != nil && old.Spec.PreDeploy != nil {
		was := old.Spec.PreDeploy
		if was.Image == pre.Image && was.Digest != "" && cmp.Or(found.Digest, was.Digest) == was.Digest {
			pre.Digest, pre.Platforms = was.Digest, was.Platforms
			if found.Digest == "" {
				return fmt.Sprintf("%s stands for nothing now; pre_deploy keeps %s", pre.Image, brief(pre.Digest)), nil
			}
			return "", nil
		}
	}
	pre.Digest, pre.Platforms = found.Digest, found.Platforms
	return found.note, nil
}

// withoutPre returns the spec of an earlier revision that is gone back to: nothing is run
// before it.
func withoutPre(spec *shoal.Spec) {
	if spec.PreDeploy != nil {
		pre := *spec.PreDeploy
		pre.For = shoal.RevisionID{}
		spec.PreDeploy = &pre
	}
}

// preAgain makes a revision of the service that a pre_deploy belongs to, which differs in
// nothing but that it is run again.
func preAgain(d *shoal.Desired, author shoal.PeerID, name string) (*step, error) {
	old, ok := d.Service(shoal.PreOf(name))
	if !ok {
		return nil, noService(d, name)
	}
	spec := old.Spec
	withoutPre(&spec)
	s := &step{spec: &spec, preDue: true, change: shoal.Change{
		Kind: shoal.ChangeUpdate, Service: old.Spec.Name, Revision: old.Revision, Replicas: old.Replicas, Details: []string{"run pre_deploy again"},
	}}
	s.revise(d, author, old)
	return s, nil
}

// freePre refuses a pre_deploy whose job would have the name of a service.
func freePre(d *shoal.Desired, steps []*step) error {
	for _, s := range steps {
		if s.rev == nil || s.spec.PreDeploy == nil {
			continue
		}
		name := shoal.PreName(s.spec.Name)
		if other, taken := d.Service(name); taken && !other.IsPre {
			return &shoal.AdviceError{
				Err:    fmt.Errorf("service %q: pre_deploy would run as %s, and there is a service of that name: %w", s.spec.Name, name, shoal.ErrConflict),
				Advice: fmt.Sprintf("remove it with \"shoal rm %s\"", name),
			}
		}
	}
	return nil
}
