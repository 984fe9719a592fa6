// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/shoalnet/shoal"
)

// duration is a flag's value like 30s, 5m or 1h30m; it must have a unit.
type duration time.Duration

// Set implements pflag.Value.
func (d *duration) Set(s string) error {
	v, err := parseDuration(s)
	if err == nil {
		*d = duration(v)
	}
	return err
}

// String implements pflag.Value.
func (d *duration) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

// Type implements pflag.Value.
func (*duration) Type() string { return "duration" }

const longest = 365 * 24 * time.Hour

func parseDuration(s string) (time.Duration, error) {
	if _, err := strconv.ParseFloat(s, 64); err == nil && s != "0" {
		return 0, fmt.Errorf("%q has no unit (try %q)", s, s+"s")
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration like 30s, 5m or 1h30m", s)
	}
	if d < 0 || d > longest {
		return 0, fmt.Errorf("%q is negative or longer than a year", s)
	}
	return d, nil
}

// parseMoment reads a time, or a duration before now.
func parseMoment(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return t, nil
		}
	}
	d, err := parseDuration(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither a duration like 10m nor a time like 2026-01-02T15:04:05Z", s)
	}
	return now.Add(-d), nil
}

// parseScale reads web=10, web+2 or web-1. Since names have hyphens, the last one
// before digits is the sign.
func parseScale(arg string) (shoal.ScaleTarget, error) {
	name, number, absolute := strings.Cut(arg, "=")
	if !absolute {
		i := strings.LastIndexAny(arg, "+-")
		if i <= 0 {
			return shoal.ScaleTarget{}, usage("scale: %q is none of SVC=N, SVC+N, SVC-N", arg)
		}
		name, number = arg[:i], arg[i:]
	}
	if err := shoal.CheckName("name", name); err != nil {
		return shoal.ScaleTarget{}, err
	}
	n, err := strconv.Atoi(number)
	if err != nil || n > shoal.MaxReplicas || n < -shoal.MaxReplicas || absolute && (n < 0 || number[0] == '+') {
		return shoal.ScaleTarget{}, &shoal.InvalidError{Field: "replicas", Why: fmt.Sprintf("must be 0–%d, got %s", shoal.MaxReplicas, orNothing(number))}
	}
	return shoal.ScaleTarget{Service: name, Relative: !absolute, N: n}, nil
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// parseSelectors reads the values of -l: selectors, several of them joined by commas.
func parseSelectors(texts []string) ([]shoal.Selector, error) {
	var out []shoal.Selector
	for _, text := range texts {
		for _, part := range splitOutside(text) {
			sel, err := shoal.ParseSelector(part)
			if err != nil {
				return nil, err
			}
			out = append(out, sel)
		}
	}
	return out, nil
}

// splitOutside splits at commas that are in no parentheses.
func splitOutside(s string) []string {
	var out []string
	depth, from := 0, 0
	for i, r := range s {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth--
		case r == ',' && depth == 0:
			out = append(out, s[from:i])
			from = i + 1
		}
	}
	return append(out, s[from:])
}

// parsePairs reads KEY=VALUE flags; a KEY alone takes its value from env, if env is
// not nil.
func parsePairs(flag string, in []string, env map[string]string) (map[string]string, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(in))
	for _, p := range in {
		k, v, ok := strings.Cut(p, "=")
		if !ok && k != "" && env != nil {
			if v, ok = env[k]; !ok {
				return nil, usage("--%s: %s has no value and is not set here", flag, k)
			}
		}
		if k == "" || !ok {
			return nil, usage("--%s: %q is not KEY=VALUE", flag, p)
		}
		out[k] = v
	}
	return out, nil
}

// parseCPUs reads a number of cores, like 2 or 0.5, into thousandths.
func parseCPUs(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0.001 || f > 4096 {
		return 0, usage("--cpus: must be 0.001–4096, got %s", s)
	}
	return int64(math.Round(f * 1000)), nil
}

var byteUnits = map[string]int64{
	"b": 1, "k": 1 << 10, "kb": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "mib": 1 << 20,
	"g": 1 << 30, "gb": 1 << 30, "gib": 1 << 30, "t": 1 << 40, "tb": 1 << 40, "tib": 1 << 40,
}

// parseMemory reads what --memory says, a size that has a unit, like 64m or 1.5GiB (binary, as docker).
func parseMemory(s string) (int64, error) { return parseSize("memory", s) }

// parseSize reads the size that a flag has, with its unit; "" is 0.
func parseSize(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.ToLower(strings.TrimSpace(s[len(digits):]))
	f, err := strconv.ParseFloat(digits, 64)
	switch {
	case err != nil || math.IsNaN(f) || f <= 0:
		return 0, usage("--%s: %q is no size like 64m or 1.5g", flag, s)
	case unit == "":
		return 0, usage("--%s: %q has no unit (try %q)", flag, s, s+"m")
	case byteUnits[unit] == 0:
		return 0, usage("--%s: %q has the unknown unit %q (k, m, g, t)", flag, s, unit)
	}
	if f *= float64(byteUnits[unit]); f >= 1<<60 {
		return 0, usage("--%s: %q is too much", flag, s)
	}
	return int64(f), nil
}

// parsePort reads [PUBLISHED:]CONTAINER[/PROTOCOL], or what docker calls the long form:
// published=8080,target=80,protocol=tcp,mode=host.
func parsePort(s string) (shoal.Port, error) {
	if strings.Contains(s, "=") {
		return parseLongPort(s)
	}
	rest, proto, has := strings.Cut(s, "/")
	if !has {
		proto = "tcp"
	}
	if proto != "tcp" && proto != "udp" {
		return shoal.Port{}, usage("--publish: %q: protocol must be tcp or udp, got %q", s, proto)
	}
	parts := strings.Split(rest, ":")
	if len(parts) > 2 {
		return shoal.Port{}, usage("--publish: %q is not [PUBLISHED:]CONTAINER[/PROTOCOL]", s)
	}
	numbers := make([]uint16, len(parts))
	for i, p := range parts {
		n, err := portNumber(s, p)
		if err != nil {
			return shoal.Port{}, err
		}
		numbers[i] = n
	}
	port := shoal.Port{Container: numbers[len(numbers)-1], Protocol: proto}
	if len(numbers) == 2 {
		port.Published = numbers[0]
	}
	return port, nil
}

func portNumber(whole, s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, usage("--publish: %q: port must be 1–65535, got %s", whole, orNothing(s))
	}
	return uint16(n), nil
}

func parseLongPort(s string) (shoal.Port, error) {
	port := shoal.Port{Protocol: "tcp"}
	for part := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(part, "=")
		var err error
		switch key {
		case "published":
			port.Published, err = portNumber(s, value)
		case "target":
			port.Container, err = portNumber(s, value)
		case "protocol":
			if port.Protocol = value; value != "tcp" && value != "udp" {
				err = usage("--publish: %q: protocol must be tcp or udp, got %q", s, value)
			}
		case "mode":
			if port.Host = value == "host"; value != "host" && value != "ingress" {
				err = usage("--publish: %q: mode must be ingress or host, got %q", s, value)
			}
		default:
			err = usage("--publish: %q: %q is none of published, target, protocol and mode", s, key)
		}
		if err != nil {
			return shoal.Port{}, err
		}
	}
	if port.Container == 0 {
		return shoal.Port{}, usage("--publish: %q names no target", s)
	}
	return port, nil
}

// parseVolume reads [SOURCE:]TARGET[:ro|rw]: without SOURCE the volume goes with its
// replica. Whether the paths are any is the spec's to judge.
func parseVolume(s string) (shoal.Mount, error) {
	bad := func(why string) (shoal.Mount, error) {
		return shoal.Mount{}, usage("--volume: %q %s", s, why)
	}
	parts := strings.Split(s, ":")
	m := shoal.Mount{Kind: shoal.MountVolume, Target: parts[0]}
	if len(parts) > 1 {
		m.Source, m.Target = parts[0], parts[1]
	}
	switch {
	case len(parts) > 3 || m.Target == "" || len(parts) > 1 && m.Source == "":
		return bad("is not [VOLUME|/PATH:]TARGET[:ro]")
	case len(parts) == 3 && parts[2] != "ro" && parts[2] != "rw":
		return bad(fmt.Sprintf("ends in %q; ro and rw are allowed, and a Compose file says more", parts[2]))
	case strings.HasPrefix(m.Source, "/"):
		m.Kind, m.Create = shoal.MountBind, true
	case strings.ContainsAny(m.Source, "/~") || m.Source == "." || m.Source == "..":
		return bad("names no absolute path; it is one of the machine that holds the replica")
	}
	m.ReadOnly = len(parts) == 3 && parts[2] == "ro"
	return m, nil
}

// parseRestart reads Docker's words for restart policies.
func parseRestart(s string) (shoal.Restart, error) {
	word, tries, limited := strings.Cut(s, ":")
	r := shoal.Restart{Condition: shoal.RestartAny}
	switch word {
	case "", "always", "any", "unless-stopped":
	case "no", "none":
		r.Condition = shoal.RestartNone
	case "on-failure":
		r.Condition = shoal.RestartOnFailure
	default:
		return r, usage("--restart: must be no, on-failure[:N] or always, got %q", s)
	}
	if limited {
		n, err := strconv.Atoi(tries)
		if err != nil || n < 1 || n > 1000 || word != "on-failure" {
			return r, usage("--restart: must be no, on-failure[:N] or always, got %q", s)
		}
		r.MaxAttempts = n
	}
	return r, nil
}

// parseTarget reads SVC or SVC/SLOT; slot -1: all.
func parseTarget(s string) (service string, slot int, err error) {
	name, number, has := strings.Cut(s, "/")
	if err := shoal.CheckName("name", name); err != nil {
		return "", 0, err
	}
	if !has {
		return name, -1, nil
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n >= shoal.MaxReplicas {
		return "", 0, usage("slot must be 0–%d, got %s", shoal.MaxReplicas-1, orNothing(number))
	}
	return name, n, nil
}
