// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

//go:build conformance

package registry

import (
	"os"
	"os/exec"
	"testing"

	"github.com/shoalnet/shoal"
)

// TestConformance runs the conformance program of OCI's distribution-spec, as
// scripts/conformance.sh has it, against a registry with a login over a store on disk.
func TestConformance(t *testing.T) {
	s := serve(t, Config{Login: shoal.RegistryLogin{User: "shoal", Password: "secret"}})
	cmd := exec.CommandContext(t.Context(), "../../scripts/conformance.sh", s.addr, "shoal", "secret")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}
