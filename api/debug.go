// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"

	"connectrpc.com/connect"

	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// debugPiece is how much of a file goes into one message.
const debugPiece = 256 << 10

// GetDebug implements the service.
func (s *Server) GetDebug(ctx context.Context, _ *connect.Request[shoalv1.GetDebugRequest], stream *connect.ServerStream[shoalv1.GetDebugResponse]) error {
	if s.deps.Report == nil {
		return nil
	}
	return s.deps.Report(ctx, func(name string, data []byte) error {
		for {
			n := min(len(data), debugPiece)
			if err := stream.Send(&shoalv1.GetDebugResponse{Name: name, Data: data[:n]}); err != nil {
				return err
			}
			if data = data[n:]; len(data) == 0 {
				return nil
			}
		}
	})
}

// Debug returns the files that the daemon adds to a report of a fault, by name.
func (c *Client) Debug(ctx context.Context) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := each(ctx, c, c.rpc.GetDebug, &shoalv1.GetDebugRequest{}, func(r *shoalv1.GetDebugResponse) error {
		out[r.GetName()] = append(out[r.GetName()], r.GetData()...)
		return nil
	})
	return out, err
}
