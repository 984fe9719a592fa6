// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

// preFailed says that a revision does not begin, for what is run before it failed; nil if it
// may.
func preFailed(r *api.Rollout, wrote string) *ending {
	why, failed := strings.CutPrefix(r.Waits, shoal.PreFailed)
	if !failed || r.Revision != wrote {
		return nil
	}
	why, _, _ = strings.Cut(why, "; see ")
	return &ending{"pre_deploy_failed", fmt.Sprintf("the pre_deploy of %s failed: %s; nothing was changed", r.Service, why), "shoal logs " + shoal.PreName(r.Service)}
}

// preJSON is what is run before the first wave of a revision.
type preJSON struct {
	Image    string            `json:"image,omitempty"` // "": the service's
	Digest   string            `json:"digest,omitempty"`
	Command  []string          `json:"command,omitempty"`
	Env      map[string]string `json:"environment,omitempty"`
	Attempts int               `json:"attempts"`
	Deadline float64           `json:"deadline_seconds"` // 0: without end
	For      string            `json:"for,omitempty"`    // the revision; "": nothing is run, for the current one goes back
}

func preJSONOf(p *shoal.PreDeploy) *preJSON {
	if p == nil {
		return nil
	}
	out := &preJSON{p.Image, p.Digest, p.Command, p.Env, p.Attempts, p.Deadline.Seconds(), ""}
	if !p.For.IsZero() {
		out.For = p.For.String()
	}
	return out
}

// text is what is run, in a line.
func (p *preJSON) text() string {
	if p == nil {
		return ""
	}
	var parts []string
	if what := strings.TrimSpace(p.Image + " " + strings.Join(p.Command, " ")); what != "" {
		parts = append(parts, what)
	}
	parts = append(parts, count(p.Attempts, "attempt"))
	if p.Deadline > 0 {
		parts = append(parts, "within "+seconds(p.Deadline))
	}
	return strings.Join(parts, ", ")
}
