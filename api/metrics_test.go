// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/api/apitest"
)

// Metrics come as they are, from members and strangers; what goes wrong with them, and a
// daemon that has none, are errors.
func TestMetrics(t *testing.T) {
	for name, cluster := range map[string]*apitest.Cluster{"member": apitest.New("tokyo"), "stranger": apitest.New()} {
		c := dial(t, apitest.Serve(t, cluster))
		want, _ := cluster.Metrics()
		got, err := c.Metrics(t.Context())
		if err != nil || string(got) != string(want) || !strings.Contains(string(got), "# TYPE ") {
			t.Errorf("%s: Metrics = %q, %v; want %q", name, got, err, want)
		}
	}
	for code, metrics := range map[string]func() ([]byte, error){
		api.CodeRefused:  nil,
		api.CodeInternal: func() ([]byte, error) { return nil, errors.New("two metrics of one name") },
	} {
		deps := apitest.New("tokyo").Deps()
		deps.Metrics = metrics
		socket := t.TempDir() + "/s.sock"
		stop := apitest.Start(t, deps, socket)
		_, err := dial(t, socket).Metrics(t.Context())
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != code {
			t.Errorf("Metrics = %v, want code %s", err, code)
		}
		stop()
	}
}
