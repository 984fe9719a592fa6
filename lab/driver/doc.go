// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package driver runs a lab in a process of its own, for people who type commands: [Spawn]
// starts that process and returns when the lab is up, [Dial] asks it, on a unix socket
// beside the lab's registration, which only root may open.
//
//	err := driver.Spawn(ctx, []string{self, "drive"}, order, progress)
//	c := driver.Dial("default")
//	err = c.Do(ctx, driver.Kill, driver.Ask{Host: "h2"}, nil)
//
// A lab lives as long as its driver: when that ends, for whatever reason, the hosts end
// with it, and lab.Sweep removes what stays.
//
// The package decides nothing and knows nothing of a lab but what package lab tells.
package driver
