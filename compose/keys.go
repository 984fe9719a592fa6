// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// support is what Shoal does with a Compose key.
type support int

const (
	supported support = iota + 1
	free              // supported, and what is below it is the user's own text
	harmless          // changes nothing that matters; named once
)

// keys is the one table of what is understood. A path is the keys from the top,
// "*" standing for any name. What is not here is refused.
var keys = map[string]support{
	"name": supported, "version": harmless, "services": supported,
	"services.*": supported,

	"services.*.image":             supported,
	"services.*.command":           free,
	"services.*.entrypoint":        free,
	"services.*.environment":       free,
	"services.*.env_file":          free,
	"services.*.labels":            free,
	"services.*.ports":             free, // judged in ports.go
	"services.*.restart":           supported,
	"services.*.stop_signal":       supported,
	"services.*.stop_grace_period": supported,
	"services.*.scale":             supported,
	"services.*.extends":           free,
	"services.*.profiles":          free,
	"services.*.mem_limit":         supported,
	"services.*.mem_reservation":   supported,
	"services.*.cpus":              supported,
	"services.*.pids_limit":        supported,
	"services.*.container_name":    harmless,
	"services.*.attach":            harmless,
	"services.*.annotations":       harmless,

	"services.*.healthcheck":              supported,
	"services.*.healthcheck.test":         free,
	"services.*.healthcheck.interval":     supported,
	"services.*.healthcheck.timeout":      supported,
	"services.*.healthcheck.start_period": supported,
	"services.*.healthcheck.retries":      supported,
	"services.*.healthcheck.disable":      supported,

	"services.*.deploy":                                 supported,
	"services.*.deploy.mode":                            supported,
	"services.*.deploy.replicas":                        supported,
	"services.*.deploy.labels":                          harmless,
	"services.*.deploy.resources":                       supported,
	"services.*.deploy.resources.limits":                supported,
	"services.*.deploy.resources.limits.cpus":           supported,
	"services.*.deploy.resources.limits.memory":         supported,
	"services.*.deploy.resources.limits.pids":           supported,
	"services.*.deploy.resources.reservations":          supported,
	"services.*.deploy.resources.reservations.cpus":     supported,
	"services.*.deploy.resources.reservations.memory":   supported,
	"services.*.deploy.placement":                       supported,
	"services.*.deploy.placement.constraints":           free,
	"services.*.deploy.placement.max_replicas_per_node": supported,
	"services.*.deploy.restart_policy":                  supported,
	"services.*.deploy.restart_policy.condition":        supported,
	"services.*.deploy.restart_policy.delay":            supported,
	"services.*.deploy.restart_policy.max_attempts":     supported,
	"services.*.deploy.restart_policy.window":           supported,
	"services.*.deploy.update_config":                   supported,
	"services.*.deploy.update_config.parallelism":       supported,
	"services.*.deploy.update_config.order":             supported,

	"services.*.x-shoal":              supported,
	"services.*.x-shoal.on_partition": supported,
	"services.*.x-shoal.priority":     supported,
	"services.*.x-shoal.strategy":     supported,
}

// found is one key of one file.
type found struct {
	file string
	line int
	path string // as the user wrote it: services.web.volumes
}

func (f found) String() string { return fmt.Sprintf("%s:%d %s", f.file, f.line, f.path) }

// inspectKeys walks one file's text and sorts its keys into those that are harmless
// and those that are refused. A key below a refused key is not named again.
func inspectKeys(file string, text []byte) (harmlessKeys, refused []found, err error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(doc.Content) == 0 {
		return nil, nil, fmt.Errorf("%s: the file is empty", file)
	}
	w := &walker{file: file}
	w.walk(doc.Content[0], nil, nil)
	return w.harmless, w.refused, nil
}

// maxKeys bounds a walk: a file of anchors can describe billions of keys.
const maxKeys = 200_000

type walker struct {
	file     string
	seen     int
	harmless []found
	refused  []found
}

// walk visits a mapping; pattern is its path in the table, path as written.
func (w *walker) walk(n *yaml.Node, pattern, path []string) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content) && w.seen < maxKeys; i += 2 {
		w.seen++
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			w.walk(value, pattern, path)
			continue
		}
		w.visit(key, value, pattern, path)
	}
}

func (w *walker) visit(key, value *yaml.Node, pattern, path []string) {
	name := key.Value
	at := append(slices.Clone(path), name)
	in := append(slices.Clone(pattern), name)
	if len(pattern) == 1 && pattern[0] == "services" {
		in[1] = "*"
	}
	if strings.HasPrefix(name, "x-") && name != "x-shoal" {
		return // an extension of somebody else: Compose says to ignore it
	}
	f := found{file: w.file, line: key.Line, path: strings.Join(at, ".")}
	switch keys[strings.Join(in, ".")] {
	case supported:
		w.walk(value, in, at)
	case free:
	case harmless:
		w.harmless = append(w.harmless, f)
	default:
		if !empty(value) {
			w.refused = append(w.refused, f)
		}
	}
}

// empty reports whether a value says nothing: null, {} or [].
func empty(n *yaml.Node) bool {
	return n.Tag == "!!null" || (n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode) && len(n.Content) == 0
}
