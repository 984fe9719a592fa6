// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"

	"connectrpc.com/connect"

	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// GetMetrics implements the service.
func (s *Server) GetMetrics(context.Context, *connect.Request[shoalv1.GetMetricsRequest]) (*connect.Response[shoalv1.GetMetricsResponse], error) {
	if s.deps.Metrics == nil {
		return nil, &Error{Code: CodeRefused, What: "this daemon has no metrics"}
	}
	text, err := s.deps.Metrics()
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&shoalv1.GetMetricsResponse{Text: text}), nil
}

// Metrics returns what the asked peer counts, in Prometheus' text format. It works before
// init and join.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	r, err := call(ctx, c, c.rpc.GetMetrics, &shoalv1.GetMetricsRequest{})
	return r.GetText(), err
}
