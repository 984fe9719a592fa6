// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

// Package api is the control socket of one daemon and the client of it: the only
// way users, and the shoal command, talk to a peer.
//
// A [Server] serves shoal.v1.ControlService (proto/shoal/v1/control.proto) on a unix
// socket: Connect, gRPC, or plain JSON, so that
//
//	curl --unix-socket /run/shoal.sock -H 'Content-Type: application/json' \
//	  -d '{}' http://shoal/shoal.v1.ControlService/ListServices
//
// answers. It reads this peer's View, asks Wishes to write, Remote for logs, commands
// and files, Images and ImageMover for images, and says with every answer how fresh it
// is. A [Client] is what [Dial] returns; its types are plain values with the field names
// that -o json prints.
//
// The package never listens on TCP, never decides anything about services or peers,
// and takes no input that is too large, too deep, misspelt or ambiguous.
package api
