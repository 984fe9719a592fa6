// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"

	"github.com/shoalnet/shoal"
)

var aboutServices = []family{
	{
		name: "shoal_rollout_info", kind: gauge, labels: []string{"service", "state"},
		help:    "Always 1; state says where the rollout of the current revision stands: complete, rolling, watching, canary, paused, failing, blocked or stopped",
		numbers: ofRollouts(func(r *shoal.RolloutReport, add adder) { add(1, r.State) }),
	},
	{
		name: "shoal_rollout_slots", kind: gauge, labels: []string{"service"}, help: "Slots that a service has",
		numbers: ofRollouts(func(r *shoal.RolloutReport, add adder) { add(float64(r.Slots)) }),
	},
	{
		name: "shoal_rollout_current_slots", kind: gauge, labels: []string{"service"}, help: "Of them, those that have come to the current revision",
		numbers: ofRollouts(func(r *shoal.RolloutReport, add adder) { add(float64(r.Current)) }),
	},
	{
		name: "shoal_rollout_healthy_slots", kind: gauge, labels: []string{"service"}, help: "Of these, those that are healthy",
		numbers: ofRollouts(func(r *shoal.RolloutReport, add adder) { add(float64(r.Healthy)) }),
	},
	{
		name: "shoal_rollout_failed_slots", kind: gauge, labels: []string{"service"}, help: "Slots that failed at the current revision",
		numbers: ofRollouts(func(r *shoal.RolloutReport, add adder) { add(float64(r.Failed)) }),
	},
	{
		name: "shoal_autoscale_replicas", kind: gauge, labels: []string{"service"}, help: "Replicas that an autoscaled service should have by what is written",
		numbers: ofScaled(func(s *shoal.Service, add adder) { add(float64(s.Replicas)) }),
	},
	{
		name: "shoal_autoscale_min_replicas", kind: gauge, labels: []string{"service"}, help: "The fewest that it may have",
		numbers: ofScaled(func(s *shoal.Service, add adder) { add(float64(s.Spec.Autoscale.Min)) }),
	},
	{
		name: "shoal_autoscale_max_replicas", kind: gauge, labels: []string{"service"}, help: "The most that it may have",
		numbers: ofScaled(func(s *shoal.Service, add adder) { add(float64(s.Spec.Autoscale.Max)) }),
	},
	{
		name: "shoal_autoscale_wanted_replicas", kind: gauge, labels: []string{"service"}, help: "Replicas that this peer would have it have now, with windows and steps",
		numbers: func(s *Snapshot, add adder) {
			for service, x := range s.Scaling {
				add(float64(x.Want), service)
			}
		},
	},
	{
		name: "shoal_autoscale_target", kind: gauge, labels: []string{"service", "metric"},
		help:    "What one replica should have of a metric: cpu and memory as parts of what it is sized at, 1 for all of it; open connections; requests a second",
		numbers: ofMetrics(func(m *shoal.Measured, add adder) { add(scaled(m, m.Target)) }),
	},
	{
		name: "shoal_autoscale_observed", kind: gauge, labels: []string{"service", "metric"},
		help: "What a replica has of it in the mean, as far as this peer hears; absent while nobody reports it",
		numbers: ofMetrics(func(m *shoal.Measured, add adder) {
			if m.Known {
				add(scaled(m, m.Observed))
			}
		}),
	},
	{
		name: "shoal_autoscale_unreported_replicas", kind: gauge, labels: []string{"service", "metric"},
		help:    "Replicas of which nothing is reported: for a moment those that start; while it is all of them the service is not scaled down",
		numbers: ofMetrics(func(m *shoal.Measured, add adder) { add(float64(m.Missing)) }),
	},
}

// scaled writes shares as parts of one, as Prometheus has them.
func scaled(m *shoal.Measured, value float64) float64 {
	if m.Unit == "%" {
		return value / 100
	}
	return value
}

// ofRollouts reads a metric of every service; its label goes first.
func ofRollouts(read func(*shoal.RolloutReport, adder)) func(*Snapshot, adder) {
	return func(s *Snapshot, add adder) {
		for service, r := range s.Rollouts {
			read(&r, first(add, service))
		}
	}
}

// ofScaled is that of every autoscaled service of the view.
func ofScaled(read func(*shoal.Service, adder)) func(*Snapshot, adder) {
	return func(s *Snapshot, add adder) {
		if s.View == nil {
			return
		}
		for i := range s.View.Services() {
			if svc := &s.View.Services()[i]; svc.Spec.Autoscale != nil {
				read(svc, first(add, svc.Spec.Name))
			}
		}
	}
}

// ofMetrics is that of every target of an autoscaled service, which has a label, too.
func ofMetrics(read func(*shoal.Measured, adder)) func(*Snapshot, adder) {
	return func(s *Snapshot, add adder) {
		for service, x := range s.Scaling {
			for i := range x.Metrics {
				read(&x.Metrics[i], first(add, service, x.Metrics[i].Metric))
			}
		}
	}
}

// first adds values whose first labels are these.
func first(add adder, labels ...string) adder {
	return func(value float64, more ...string) { add(value, append(slices.Clip(labels), more...)...) }
}
