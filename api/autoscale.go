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
	now, ok := m.scaling(svc.Spec.Name)
	if !ok {
		return row
	}
	row.Autoscale.Wanted, row.Autoscale.Says = int32(now.Want), now.Says
	for _, x := range now.Metrics {
		metric := &shoalv1.AutoscaleRow_Metric{Metric: x.Metric, Unit: x.Unit, Target: x.Target, Missing: int32(x.Missing)}
		if x.Known {
			metric.Observed = &x.Observed
		}
		row.Autoscale.Metrics = append(row.Autoscale.Metrics, metric)
	}
	return row
}
