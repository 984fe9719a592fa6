// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal_test

import (
	"strings"
	"testing"

	"github.com/shoalnet/shoal"
)

func TestNormalizeRef(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for ref, want := range map[string]string{
		"hello":                         "hello:latest",
		"hello:1":                       "hello:1",
		"docker.io/library/hello:1":     "hello:1",
		"docker.io/acme/hello":          "acme/hello:latest",
		"index.docker.io/library/hello": "hello:latest",
		"127.0.0.1:5050/app":            "127.0.0.1:5050/app:latest",
		"127.0.0.1:5050/app:v1":         "127.0.0.1:5050/app:v1",
		"hello@" + digest:               "hello@" + digest,
		"hello:1@" + digest:             "hello@" + digest,
		"127.0.0.1:5050/app@" + digest:  "127.0.0.1:5050/app@" + digest,
	} {
		if got := shoal.NormalizeRef(ref); got != want {
			t.Errorf("NormalizeRef(%q) = %q, want %q", ref, got, want)
		}
	}
}
