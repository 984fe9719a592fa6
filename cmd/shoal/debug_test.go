// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		`DB_PASSWORD=hunter2 next`:                   `DB_PASSWORD=******** next`,
		`"api_key": "abc123",`:                       `"api_key": "********",`,
		`--token 5 stays; token=5 goes`:              `--token 5 stays; token=******** goes`,
		`postgres://app:s3cret@db:5432/app`:          `postgres://app:********@db:5432/app`,
		`shoal join shoal1-AbCdEfGhIjKlMnOpQrStUv`:   `shoal join shoal1-********`,
		`"peer": "12D3KooW", "port": 80, "image": 1`: `"peer": "12D3KooW", "port": 80, "image": 1`,
	} {
		if got := string(redact([]byte(in))); got != want {
			t.Errorf("redact(%q) = %q, want %q", in, got, want)
		}
	}
}
