// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"fmt"

	"github.com/shoalnet/shoal"
)

// scaling watches the load of autoscaled services, which is always at its target; that of
// memory nobody reports.
func (c *Cluster) scaling(service string) (out shoal.Scaling, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.find(c.services, service)
	if i < 0 || c.services[i].Spec.Autoscale == nil {
		return out, false
	}
	a := c.services[i].Spec.Autoscale
	out.Want = c.services[i].Replicas
	for _, t := range []struct {
		name, unit string
		at         int
	}{{"cpu", "%", a.CPU}, {"memory", "%", a.Memory}, {"connections", "", a.Connections}, {"requests", "/s", a.Requests}} {
		m := shoal.Measured{Metric: t.name, Unit: t.unit, Target: float64(t.at), Observed: float64(t.at), Known: true}
		says := fmt.Sprintf("%s %d%s of %[2]d%[3]s", t.name, t.at, t.unit)
		if t.name == "memory" {
			m.Known, m.Observed, m.Missing, says = false, 0, out.Want, "nobody reports memory for 45s"
		}
		if t.at == 0 {
			continue
		}
		if out.Metrics = append(out.Metrics, m); out.Says != "" {
			out.Says += ", "
		}
		out.Says += says
	}
	return out, true
}
