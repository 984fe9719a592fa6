// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package autoscale says how many replicas a service should have by what they have to do:
//
//	memory, decision := autoscale.Decide(spec.Autoscale, memory, input)
//
// It tracks targets: of each metric the whole load, divided by what one replica should
// have of it, is how many replicas there should be; the metric that calls for most counts.
// The rules are those that Kubernetes documents of its HorizontalPodAutoscaler ("Algorithm
// details" and "Configurable scaling behavior" in its manual): the tolerance, how metrics
// that are missing count, stabilisation windows, and steps.
//
// It is pure. What it has to remember is a value; times are the caller's own monotonic
// clock. It refuses to look at anything but its input: which replicas are ready, and what
// they use, package steward reads from the view.
package autoscale
