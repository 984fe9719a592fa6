// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"net"
	"strings"

	"github.com/shoalnet/shoal/internal/logkey"
)

// notifier returns a function that tells systemd what state the daemon is in
// (sd_notify(3): one datagram to the socket in NOTIFY_SOCKET), or nobody where no
// service manager asked for it.
func notifier(ctx context.Context, socket string, log *slog.Logger) func(state string) {
	if socket == "" {
		return func(string) {}
	}
	ctx = context.WithoutCancel(ctx) // the last word comes after its end
	if strings.HasPrefix(socket, "@") {
		socket = "\x00" + socket[1:] // the abstract namespace
	}
	return func(state string) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unixgram", socket)
		if err == nil {
			_, err = conn.Write([]byte(state))
			_ = conn.Close() // a datagram has left or not
		}
		if err != nil {
			log.Warn("the service manager is not told", "state", state, logkey.Err, err)
		}
	}
}
