// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"io/fs"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// CopyMessage returns what says what to copy out of a replica, or into it.
func CopyMessage(at shoal.Target, path string, upload bool) *shoalv1.CopyStart {
	return &shoalv1.CopyStart{Target: &shoalv1.Target{Service: at.Service, Slot: int32(at.Slot)}, Path: path, Upload: upload}
}

// CopyFrom is the inverse of CopyMessage.
func CopyFrom(m *shoalv1.CopyStart) (at shoal.Target, path string, upload bool) {
	return shoal.Target{Service: m.GetTarget().GetService(), Slot: int(m.GetTarget().GetSlot())}, m.GetPath(), m.GetUpload()
}

// StatMessage returns the message of what is at a path.
func StatMessage(s shoal.PathStat) *shoalv1.PathStat {
	return &shoalv1.PathStat{Name: s.Name, Bytes: s.Bytes, Mode: uint32(s.Mode), Link: s.Link}
}

// StatFrom is the inverse of StatMessage.
func StatFrom(m *shoalv1.PathStat) shoal.PathStat {
	return shoal.PathStat{Name: m.GetName(), Bytes: m.GetBytes(), Mode: fs.FileMode(m.GetMode()), Link: m.GetLink()}
}
