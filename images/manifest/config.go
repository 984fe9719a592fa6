// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"
	"fmt"

	"github.com/shoalnet/shoal"
)

// Config is what of an image's configuration somebody but the engine needs.
type Config struct {
	Platform string   // "linux/amd64"; "" if it does not say
	DiffIDs  []string // digests of the unpacked layers, in order
}

// ParseConfig reads the configuration of an image. *shoal.InvalidError: it is none.
func ParseConfig(raw []byte) (Config, error) {
	if len(raw) > MaxConfig {
		return Config{}, invalid("config", "is %d bytes, at most %d are taken", len(raw), MaxConfig)
	}
	var d struct {
		platform
		RootFS struct {
			Type    string   `json:"type"`
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return Config{}, invalid("config", "is not JSON: %s", err)
	}
	if len(d.RootFS.DiffIDs) > MaxLayers {
		return Config{}, invalid("config.rootfs.diff_ids", "are %d, at most %d are taken", len(d.RootFS.DiffIDs), MaxLayers)
	}
	for i, id := range d.RootFS.DiffIDs {
		if !digestForm.MatchString(id) {
			return Config{}, &shoal.InvalidError{
				Field: fmt.Sprintf("config.rootfs.diff_ids[%d]", i), Why: fmt.Sprintf("must be sha256 and 64 hex digits, got %q", clip(id)),
			}
		}
	}
	return Config{Platform: d.String(), DiffIDs: d.RootFS.DiffIDs}, nil
}
