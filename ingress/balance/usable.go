// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/shoalnet/shoal"
)

// Row is a replica as this peer sees it now.
type Row struct {
	Backend
	Usable    bool
	Why       string        // it is not, as of [Table.Usable]
	Open      int           // connections
	Connect   time.Duration // average as of the last one; 0: never measured
	FirstByte time.Duration // the same
	Refusals  int           // in a row
}

// Usable reports whether a replica would be given a connection at now by itself, and why
// not, for people: "not ready: starting", "holder not heard for 12s", "releasing", "left
// out for 4s more after 3 refused connections". One that is left out may be given some
// all the same while all others are.
func (t *Table) Usable(id shoal.ReplicaID, now time.Duration) (usable bool, why string) {
	e := t.entries[id]
	if e == nil || !e.listed {
		return false, "not a replica of this service"
	}
	why = e.unable(now)
	return why == "", why
}

// unable says why e is not picked, "" if it may be.
func (e *entry) unable(now time.Duration) string {
	if why := e.barred(now); why != "" {
		return why
	}
	if e.able(now) {
		return ""
	}
	after := fmt.Sprintf("after %d refused connections", e.refusals)
	if e.refusals == 1 {
		after = "after a refused connection"
	}
	if now >= e.until {
		return "one connection tries it " + after
	}
	left := (e.until - now + time.Second - 1).Truncate(time.Second)
	return fmt.Sprintf("left out for %s more %s", left, after)
}

// Rows returns all replicas by slot, with those that are no longer named but have open
// connections.
func (t *Table) Rows(now time.Duration) []Row {
	rows := make([]Row, 0, len(t.entries))
	for id, e := range t.entries {
		usable, why := t.Usable(id, now)
		rows = append(rows, Row{
			Backend: e.Backend, Usable: usable, Why: why, Open: e.open, Refusals: e.refusals,
			Connect: time.Duration(e.connect.nanos), FirstByte: time.Duration(e.first.nanos),
		})
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Holder, b.Holder), slices.Compare(a.Replica[:], b.Replica[:]))
	})
	return rows
}
