// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/shoalnet/shoal/bench/reachwire"
)

// start runs a part until the test ends, and returns where it answers.
func start(t *testing.T, args ...string) (at reachwire.Addresses) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, out, args)
		_ = out.CloseWithError(err)
		done <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run(%v) = %v", args, err)
		}
	})
	if err := json.NewDecoder(in).Decode(&at); err != nil {
		t.Fatalf("%v says nothing: %v", args, err)
	}
	go func() { _, _ = io.Copy(io.Discard, in) }() // until the part has ended
	return at
}

// What is measured must go on working as the rooms change: every door leads to a replica.
func TestDoorsLeadToReplicas(t *testing.T) {
	replicas := strings.Join(start(t, "replicas").Replicas, ",")
	holder := start(t, "peer", "-replicas", replicas)
	here := start(t, "peer", "-replicas", replicas, "-holder", holder.Host)
	if holder.Remote != "" {
		t.Errorf("a peer without a holder has a door to one at %s", holder.Remote)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for name, at := range map[string]string{"replica": strings.Split(replicas, ",")[0], "local": here.Local, "remote": here.Remote} {
		resp, err := client.Get("http://" + at + reachwire.Small)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || len(body) != reachwire.SmallBytes {
			t.Errorf("%s: %s with %d bytes, %v; want %d bytes", name, resp.Status, len(body), err, reachwire.SmallBytes)
		}
	}
}
