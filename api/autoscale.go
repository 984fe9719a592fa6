// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// service makes a service's row, with how it is scaled.
func (m *moment) service(svc *shoal.Service, want int) *shoalv1.ServiceRow {
	row, a := m.pane.service(svc, want), svc.Spec.Autoscale
	if a == nil {
		return row
	}
	row.Autoscale = &shoalv1.AutoscaleRow{
		Min: int32(a.Min), Max: int32(a.Max), Targets: a.Targets(), Wanted: int32(svc.Replicas), Last: svc.Scale.Why,
	}
	if m.scaling == nil {
		return row
	}
	if n, says, ok := m.scaling(svc.Spec.Name); ok {
		row.Autoscale.Wanted, row.Autoscale.Says = int32(n), says
	}
	return row
}
