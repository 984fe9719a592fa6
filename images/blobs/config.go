// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package blobs

import (
	"time"

	"github.com/shoalnet/shoal"
)

// Config are the limits of a store.
type Config struct {
	Limit   int64   // bytes of all blobs, partial ones at their full size; 0: none
	Share   float64 // of the disk's size, the same, 0 to 1; 0: none. The smaller counts
	Reserve int64   // bytes to leave free on the disk
	// ReserveShare is the same as a share of the disk's size, 0 to 1; 0: none. The smaller
	// of the two counts, so that a small disk is not all reserve.
	ReserveShare float64
	Expire       time.Duration // after which what nobody refers to or uses is removed
}

// Validate returns a *shoal.InvalidError for a field out of range.
func (c Config) Validate() error {
	switch {
	case c.Limit < 0:
		return &shoal.InvalidError{Field: "limit", Why: "must not be negative"}
	case !(c.Share >= 0 && c.Share <= 1): // not a number fails, too
		return &shoal.InvalidError{Field: "share", Why: "must be 0-1"}
	case !(c.ReserveShare >= 0 && c.ReserveShare <= 1):
		return &shoal.InvalidError{Field: "reserve share", Why: "must be 0-1"}
	case c.Reserve < 0:
		return &shoal.InvalidError{Field: "reserve", Why: "must not be negative"}
	case c.Expire <= 0:
		return &shoal.InvalidError{Field: "expire", Why: "must be above 0"}
	}
	return nil
}
