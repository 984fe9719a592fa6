// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package gossip

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	ds "github.com/ipfs/go-datastore"
)

// hooks let tests of this package stand between a store and its disk. The zero value
// is what everybody else has: the machine's files, and nobody who looks on.
type hooks struct {
	files  vfs.FS                        // nil: the machine's
	rows   func(ds.Batching) ds.Batching // put around the rows; nil: nothing
	moment func(point string)            // told of every point that is passed; nil: nobody
	memory uint64                        // of a memtable, in bytes; 0: as much as everybody's
}

func (h *hooks) isZero() bool { return h.files == nil && h.rows == nil && h.moment == nil }

// at passes a failpoint: a moment at which a process may die, and after which nothing
// that was acknowledged may be missing.
func (h *hooks) at(point string) {
	if h.moment != nil {
		h.moment(point)
	}
}

// around passes the points before and after a step that did not fail.
func (h *hooks) around(step string, f func() error) error {
	h.at("before " + step)
	if err := f(); err != nil {
		return err
	}
	h.at("after " + step)
	return nil
}

// steps are what a store does to its disk, and around which it may die: opening, then
// the rows of a turn of the writer by their kind, then what makes the turn last and
// known, then closing.
var steps = []string{
	"mark", "open",
	"block", "order", "element", "processed", "head", "chain", "row",
	"batch", "commit", "sync", "publish", "answer",
	"close", "unmark",
}

// points returns the failpoints, two for each step.
func points() []string {
	var out []string
	for _, s := range steps {
		out = append(out, "before "+s, "after "+s)
	}
	return out
}

// stepOf names the step that writing a row is.
func stepOf(k ds.Key) string {
	for _, space := range []struct {
		under ds.Key
		step  string
	}{
		{blockSpace, "block"},
		{orderSpace, "order"},
		{crdtSpace.ChildString("s"), "element"},
		{crdtProcessed, "processed"},
		{crdtHeads, "head"},
		{chainSpace, "chain"},
	} {
		if strings.HasPrefix(k.String(), space.under.String()+"/") {
			return space.step
		}
	}
	return "row" // of go-ds-crdt's own: its version, whether it is dirty
}
