// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"syscall"

	"github.com/shoalnet/shoal"
)

// clockUnsynced is STA_UNSYNC of adjtimex(2).
const clockUnsynced = 0x40

// clockChecks asks the kernel whether anything keeps its clock.
func clockChecks(context.Context) []shoal.Check {
	c := shoal.Check{Area: "clock", Name: "synchronised", State: shoal.CheckOK, Detail: "the kernel says so"}
	var t syscall.Timex
	switch _, err := syscall.Adjtimex(&t); {
	case err != nil:
		c.State, c.Detail = shoal.CheckSkip, "the kernel does not tell: "+err.Error()
	case t.Status&clockUnsynced != 0:
		c.State, c.Detail = shoal.CheckWarn, "nothing synchronises it"
		c.Remedy = "run an NTP client (systemd-timesyncd, chrony); nothing in Shoal breaks, but times that people compare drift"
	}
	return []shoal.Check{c}
}
