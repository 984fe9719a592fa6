// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// ExecMessage returns what says to run a command in a replica.
func ExecMessage(at shoal.Target, o *shoal.ExecOptions) *shoalv1.ExecStart {
	return &shoalv1.ExecStart{
		Target: &shoalv1.Target{Service: at.Service, Slot: int32(at.Slot)}, Command: o.Command, Env: o.Env, User: o.User,
		WorkDir: o.WorkDir, Tty: o.TTY, Stdin: o.Stdin, Privileged: o.Privileged, Size: SizeMessage(o.Size),
	}
}

// ExecFrom is the inverse of ExecMessage.
func ExecFrom(m *shoalv1.ExecStart) (shoal.Target, shoal.ExecOptions) {
	return shoal.Target{Service: m.GetTarget().GetService(), Slot: int(m.GetTarget().GetSlot())}, shoal.ExecOptions{
		Command: m.GetCommand(), Env: m.GetEnv(), User: m.GetUser(), WorkDir: m.GetWorkDir(),
		TTY: m.GetTty(), Stdin: m.GetStdin(), Privileged: m.GetPrivileged(), Size: SizeFrom(m.GetSize()),
	}
}

// SizeMessage returns the message of a terminal's size.
func SizeMessage(w shoal.WindowSize) *shoalv1.WindowSize {
	return &shoalv1.WindowSize{Width: uint32(w.Width), Height: uint32(w.Height)}
}

// SizeFrom is the inverse of SizeMessage; what no terminal can be is as large as one can be.
func SizeFrom(m *shoalv1.WindowSize) shoal.WindowSize {
	const most = 1<<16 - 1
	return shoal.WindowSize{Width: uint16(min(m.GetWidth(), most)), Height: uint16(min(m.GetHeight(), most))}
}
