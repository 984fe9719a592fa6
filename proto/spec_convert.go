// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// SpecMessage returns the message of a spec, for the control API. The message
// shares the spec's slices and maps.
func SpecMessage(s *shoal.Spec) *shoalv1.Spec { return specMessage(s) }

// SpecOf is the inverse of [SpecMessage]; the spec shares the message's slices and
// maps. *shoal.InvalidError: a port is out of range. It checks nothing else:
// [shoal.Spec.Validate] does.
func SpecOf(m *shoalv1.Spec) (shoal.Spec, error) { return specOf(m) }
