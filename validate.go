// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// MaxReplicas is the most replicas a service may have.
const MaxReplicas = 10000

var (
	namePattern   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	envPattern    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,255}$`)
	signalPattern = regexp.MustCompile(`^(SIG)?[A-Z0-9+-]{1,12}$|^[0-9]{1,2}$`)
)

// CheckName reports whether a service, project or peer name is well formed.
func CheckName(field, name string) error {
	if !namePattern.MatchString(name) {
		return &InvalidError{Field: field, Why: fmt.Sprintf("must match [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?, got %q", name)}
	}
	return nil
}

// maxAliases is the most other names a service may have in one network.
const maxAliases = 32

// CheckAliases reports whether what a service is called besides its name is well formed:
// labels of DNS, none twice, at most 32. The error names the entry of field.
func CheckAliases(field string, aliases []string) error {
	if len(aliases) > maxAliases {
		return invalid(field, "has %d entries, at most %d are allowed", len(aliases), maxAliases)
	}
	for i, a := range aliases {
		entry := fmt.Sprintf("%s[%d]", field, i)
		if err := CheckName(entry, a); err != nil {
			return err
		}
		if slices.Contains(aliases[:i], a) {
			return invalid(entry, "is %q for the second time", a)
		}
	}
	return nil
}

// CheckReplicas reports whether n is a number of replicas a service may have.
func CheckReplicas(n int) error {
	if n < 0 || n > MaxReplicas {
		return &InvalidError{Field: "replicas", Why: fmt.Sprintf("must be 0–%d, got %d", MaxReplicas, n)}
	}
	return nil
}

// Validate checks what can be judged from the spec alone: names, ranges and
// enumerations. The error is an *InvalidError that names the field.
func (s *Spec) Validate() error {
	checks := []func() error{
		func() error { return CheckName("name", s.Name) },
		s.checkProject, s.checkImage,
		func() error { return CheckReplicas(s.Replicas) },
		s.checkEnums, s.checkEnv, s.checkPorts, s.checkResources, s.checkHealth, s.checkTimes,
		s.checkSetup, s.checkPlace, s.checkReach, s.checkNetworks, s.checkRollouts, s.checkAutoscale, s.checkJob, s.checkSchedule, s.checkOrder, s.checkPre,
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spec) checkProject() error {
	if s.Project == "" {
		return nil
	}
	if len(s.Project) > 63 || strings.ContainsFunc(s.Project, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) {
		return &InvalidError{Field: "project", Why: fmt.Sprintf("must have only a-z, 0-9, - and _, got %q", s.Project)}
	}
	return nil
}

func (s *Spec) checkImage() error {
	if err := CheckImage(s.Image); err != nil {
		return err
	}
	if s.Digest != "" {
		if err := CheckDigest("digest", s.Digest); err != nil {
			return err
		}
	}
	if _, own, pinned := strings.Cut(s.Image, "@"); pinned && s.Digest != "" && s.Digest != own {
		return &InvalidError{Field: "digest", Why: fmt.Sprintf("%s is not that of %s", s.Digest, s.Image)}
	}
	if len(s.Platforms) > MaxPlatforms {
		return &InvalidError{Field: "platforms", Why: fmt.Sprintf("has %d entries, at most %d are allowed", len(s.Platforms), MaxPlatforms)}
	}
	return nil
}

func (s *Spec) checkEnums() error {
	switch s.Mode {
	case ModeReplicated, ModeGlobal, ModeReplicatedJob, ModeGlobalJob:
	default:
		return oneOf("mode", s.Mode, ModeReplicated, ModeGlobal, ModeReplicatedJob, ModeGlobalJob)
	}
	if s.Strategy != StrategySpread && s.Strategy != StrategyBinpack {
		return oneOf("strategy", s.Strategy, StrategySpread, StrategyBinpack)
	}
	switch s.OnPartition {
	case PartitionAvailable, PartitionSticky:
	case PartitionFixed:
		return &InvalidError{Field: "on_partition", Why: "fixed needs a guard beside each container, which this version does not have; use available or sticky"}
	default:
		return oneOf("on_partition", s.OnPartition, PartitionAvailable, PartitionSticky)
	}
	switch s.Restart.Condition {
	case RestartAny, RestartOnFailure, RestartNone:
		return nil
	}
	return oneOf("restart", s.Restart.Condition, RestartAny, RestartOnFailure, RestartNone)
}

func oneOf[T ~string](field string, got T, want ...T) error {
	names := make([]string, len(want))
	for i, w := range want {
		names[i] = string(w)
	}
	return &InvalidError{Field: field, Why: fmt.Sprintf("must be %s, got %q", strings.Join(names, " or "), got)}
}

// maxText bounds one value of the environment or a label.
const maxText = 64 << 10

func (s *Spec) checkEnv() error {
	for _, m := range []struct {
		field string
		of    map[string]string
	}{{"environment", s.Env}, {"labels", s.Labels}} {
		for _, k := range sortedKeys(m.of) {
			v := m.of[k]
			switch {
			case m.field == "environment" && !envPattern.MatchString(k):
				return &InvalidError{Field: "environment", Why: fmt.Sprintf("has the name %q; letters, digits and _ are allowed", k)}
			case k == "" || strings.ContainsRune(k+v, 0):
				return &InvalidError{Field: m.field, Why: fmt.Sprintf("%q is empty or holds a NUL", k)}
			case len(v) > maxText:
				return &InvalidError{Field: m.field, Why: fmt.Sprintf("%s has %d bytes, at most %d are allowed", k, len(v), maxText)}
			case m.field == "labels" && strings.HasPrefix(k, "net.shoal."):
				return &InvalidError{Field: "labels", Why: fmt.Sprintf("%s: net.shoal.* is Shoal's own", k)}
			}
		}
	}
	return nil
}

func (s *Spec) checkPorts() error {
	type key struct {
		port  uint16
		proto string
	}
	seen := map[key]bool{}
	for i, p := range s.Ports {
		field := fmt.Sprintf("ports[%d]", i)
		switch {
		case p.Container == 0:
			return &InvalidError{Field: field, Why: "must be 1-65535, got 0"}
		case p.Protocol != "tcp" && p.Protocol != "udp":
			return &InvalidError{Field: field, Why: fmt.Sprintf("protocol must be tcp or udp, got %q", p.Protocol)}
		case p.Published != 0 && seen[key{p.Published, p.Protocol}]:
			return &InvalidError{Field: field, Why: fmt.Sprintf("publishes %d/%s twice", p.Published, p.Protocol)}
		}
		seen[key{p.Published, p.Protocol}] = true
	}
	return nil
}

// minMemory is the smallest limit the engine accepts.
const minMemory = 6 << 20

func (s *Spec) checkResources() error {
	for _, r := range []struct {
		field string
		of    Resources
	}{{"limits", s.Limits}, {"reservations", s.Reservations}} {
		if r.of.CPUMilli < 0 || r.of.MemBytes < 0 {
			return &InvalidError{Field: r.field, Why: "must not be negative"}
		}
	}
	if m := s.Limits.MemBytes; m != 0 && m < minMemory {
		return &InvalidError{Field: "limits.memory", Why: fmt.Sprintf("must be at least 6 MiB, got %d bytes (missing a unit?)", m)}
	}
	if s.Limits.MemBytes != 0 && s.Reservations.MemBytes > s.Limits.MemBytes {
		return &InvalidError{Field: "reservations.memory", Why: "is more than the limit"}
	}
	if s.Limits.CPUMilli != 0 && s.Reservations.CPUMilli > s.Limits.CPUMilli {
		return &InvalidError{Field: "reservations.cpus", Why: "is more than the limit"}
	}
	if s.MaxPerPeer < 0 {
		return &InvalidError{Field: "max_replicas_per_node", Why: "must not be negative"}
	}
	if s.PidsLimit < 0 {
		return &InvalidError{Field: "pids_limit", Why: "must not be negative"}
	}
	return nil
}

// healthInterval is the engine's default between two checks.
const healthInterval = 30 * time.Second

func (s *Spec) checkHealth() error {
	h := s.Health
	if h == nil || h.Disable {
		return nil
	}
	if len(h.Test) > 0 && (h.Test[0] != "CMD" && h.Test[0] != "CMD-SHELL" || len(h.Test) < 2 || strings.TrimSpace(h.Test[1]) == "") {
		return &InvalidError{Field: "healthcheck.test", Why: "must be CMD or CMD-SHELL and a command"}
	}
	for _, d := range []time.Duration{h.Interval, h.Timeout, h.StartPeriod} {
		if d < 0 || d != 0 && d < time.Millisecond {
			return &InvalidError{Field: "healthcheck", Why: fmt.Sprintf("has the duration %s, at least 1ms is needed", d)}
		}
	}
	if h.Retries < 0 {
		return &InvalidError{Field: "healthcheck.retries", Why: "must not be negative"}
	}
	interval := h.Interval
	if interval == 0 {
		interval = healthInterval
	}
	if h.Timeout > interval {
		return &InvalidError{Field: "healthcheck.timeout", Why: fmt.Sprintf("%s is longer than the interval %s; one check that hangs would hide the next", h.Timeout, interval)}
	}
	return nil
}

func (s *Spec) checkTimes() error {
	if s.StopSignal != "" && !signalPattern.MatchString(s.StopSignal) {
		return &InvalidError{Field: "stop_signal", Why: fmt.Sprintf("%q is not a signal", s.StopSignal)}
	}
	if s.StopGrace < 0 || s.StopGrace > time.Hour {
		return &InvalidError{Field: "stop_grace_period", Why: fmt.Sprintf("must be 0-1h, got %s", s.StopGrace)}
	}
	if s.Restart.Delay < 0 || s.Restart.Window < 0 || s.Restart.MaxAttempts < 0 {
		return &InvalidError{Field: "restart", Why: "must not be negative"}
	}
	return nil
}

// sortedKeys returns a map's keys in order, so that the first error is always the same.
func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
