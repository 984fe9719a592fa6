// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package apitest

// scaling watches the load of autoscaled services, which is always at its target.
func (c *Cluster) scaling(service string) (want int, says string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.find(c.services, service)
	if i < 0 || c.services[i].Spec.Autoscale == nil {
		return 0, "", false
	}
	return c.services[i].Replicas, "cpu 60% of 60%", true
}
