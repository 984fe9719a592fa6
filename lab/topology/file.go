// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal/lab/wire"
)

// MaxBytes bounds a file.
const MaxBytes = 256 << 10

// LineError is what is wrong with a line of a file; Line 0 is none.
type LineError struct {
	Line int
	Err  error
}

// Error implements error.
func (e *LineError) Error() string {
	if e.Line == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Err)
}

// Unwrap returns what is wrong.
func (e *LineError) Unwrap() error { return e.Err }

// Parse reads a topology from a file of that name. The whole of it is refused for one
// thing that is wrong or not known, as "FILE:LINE: WHAT".
func Parse(file string, data []byte) (*Topology, error) {
	t, err := parse(data)
	if err == nil {
		err = t.Validate()
	}
	if at, ok := errors.AsType[*LineError](err); ok {
		return nil, fmt.Errorf("%s:%d: %w", file, at.Line, at.Err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return t, nil
}

// yamlLine is how the library says where something is wrong.
var yamlLine = regexp.MustCompile(`^yaml: (?:unmarshal errors:\s*)?line (\d+): (?s:(.*))$`)

func parse(data []byte) (*Topology, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("it has %d bytes, at most %d are read", len(data), MaxBytes)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if err == nil {
		if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
			return nil, &LineError{Line: max(more.Line, 1), Err: errors.New("a second document begins, or what follows is no YAML; a file has one")}
		}
	}
	t := empty(0)
	switch m := yamlLine.FindStringSubmatch(fmt.Sprint(err)); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("it is empty; it needs hosts")
	case m != nil:
		line, _ := strconv.Atoi(m[1]) // it is digits
		return nil, &LineError{Line: line, Err: fmt.Errorf("it is no YAML: %s", m[2])}
	case err != nil:
		return nil, fmt.Errorf("it is no YAML: %w", err)
	}
	return t, each("a topology", doc.Content[0], map[string]reader{
		"network": t.readNetwork, "disk": t.readDisk, "default": t.readDefault,
		"routers": t.readRouters, "hosts": t.readHosts, "links": t.readLinks,
	})
}

// reader reads what stands under a key.
type reader func(n *yaml.Node) error

func fail(n *yaml.Node, format string, args ...any) error {
	return &LineError{Line: n.Line, Err: fmt.Errorf(format, args...)}
}

// pairs calls fn for each key of a mapping, none of which may come twice.
func pairs(what string, n *yaml.Node, fn func(key string, k, v *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return fail(n, "%s must be keys and values", what)
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
			return fail(k, "%s has a key that is no word", what)
		}
		if line := lines[k.Value]; line > 0 {
			return fail(k, "%q is named twice; line %d has it already", k.Value, line)
		}
		lines[k.Value] = k.Line
		if err := fn(k.Value, k, v); err != nil {
			return err
		}
	}
	return nil
}

// order is that in which keys are read, whatever that in the file: a host can be checked
// when the routers are known.
var order = []string{
	"routers", "network", "disk", "hosts", "default", "links", "zone", "behind", "labels", "state", "engine",
	"between", "from", "to", "delay", "rtt", "jitter", "loss", "rate", "cut",
}

// each reads a mapping whose keys are known.
func each(what string, n *yaml.Node, known map[string]reader) error {
	found := map[string]*yaml.Node{}
	err := pairs(what, n, func(key string, k, v *yaml.Node) error {
		if known[key] == nil {
			return fail(k, "%s has no key %q; it has %s", what, key, listOf(known))
		}
		found[key] = v
		return nil
	})
	for _, key := range order {
		if v := found[key]; v != nil && err == nil {
			err = known[key](v)
		}
	}
	return err
}

// word reads one word.
func word(to *string) reader {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			return fail(n, "one word must stand here")
		}
		*to = n.Value
		return nil
	}
}

// zone reads a zone's name.
func zone(to *string) reader {
	return func(n *yaml.Node) error {
		if err := word(to)(n); err != nil {
			return err
		}
		return nameError(n, checkZone(*to))
	}
}

func (t *Topology) readNetwork(n *yaml.Node) error {
	var text string
	if err := word(&text)(n); err != nil {
		return err
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return fail(n, "network must be like %s, got %q", defaultNetwork, text)
	}
	t.Network = p
	if err := t.checkNetwork(); err != nil {
		return fail(n, "%w", err)
	}
	return nil
}

func (t *Topology) readDisk(n *yaml.Node) error {
	bytesOf := func(to *int64) reader {
		return func(n *yaml.Node) error {
			var text string
			if err := word(&text)(n); err != nil {
				return err
			}
			size, err := units.RAMInBytes(text)
			if err != nil || size < minDisk {
				return fail(n, "a disk must have a size like 8GiB, %d bytes at least, got %q", minDisk, text)
			}
			*to = size
			return nil
		}
	}
	return each("disk", n, map[string]reader{"state": bytesOf(&t.Disk.State), "engine": bytesOf(&t.Disk.Engine)})
}

func (t *Topology) readDefault(n *yaml.Node) error {
	c, err := readChange("default", n, nil)
	if err != nil {
		return err
	}
	if t.Default, err = c.Apply(wire.Link{}); err != nil {
		return fail(n, "default: %w", err)
	}
	return nil
}

func (t *Topology) readRouters(n *yaml.Node) error {
	return pairs("routers", n, func(name string, k, v *yaml.Node) error {
		r := Router{Name: name}
		if err := details(v, "a router", map[string]reader{"zone": zone(&r.Zone)}); err != nil {
			return err
		}
		t.Routers = append(t.Routers, r)
		return nameError(k, t.checkName(name))
	})
}

func (t *Topology) readHosts(n *yaml.Node) error {
	return pairs("hosts", n, func(name string, k, v *yaml.Node) error {
		h := Host{Name: name}
		err := details(v, "a host", map[string]reader{
			"zone": zone(&h.Zone), "behind": func(n *yaml.Node) error {
				if err := word(&h.Behind)(n); err != nil {
					return err
				}
				return nameError(n, t.checkBehind(&h))
			},
			"labels": func(n *yaml.Node) error {
				h.Labels = map[string]string{}
				return pairs("labels", n, func(key string, _, v *yaml.Node) error {
					var value string
					defer func() { h.Labels[key] = value }()
					return word(&value)(v)
				})
			},
		})
		if err != nil {
			return err
		}
		t.Hosts = append(t.Hosts, h)
		return nameError(k, t.checkName(name))
	})
}

// details reads a mapping that may be left out.
func details(n *yaml.Node, what string, known map[string]reader) error {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	return each(what, n, known)
}

func nameError(n *yaml.Node, err error) error {
	if err != nil {
		return fail(n, "%w", err)
	}
	return nil
}

func (t *Topology) readLinks(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode {
		return fail(n, "links must be a list: - between: [h1, h2]")
	}
	for _, item := range n.Content {
		r := Rule{Line: item.Line}
		isNamed := map[string]bool{}
		end := func(key string, to *string) reader {
			return func(n *yaml.Node) error {
				isNamed[key] = true
				return word(to)(n)
			}
		}
		c, err := readChange("a link", item, map[string]reader{
			"from": end("from", &r.From), "to": end("to", &r.To),
			"between": func(n *yaml.Node) error {
				isNamed["between"] = true
				if n.Kind != yaml.SequenceNode || len(n.Content) != 2 {
					return fail(n, "between must name two: [h1, h2]")
				}
				return errors.Join(word(&r.From)(n.Content[0]), word(&r.To)(n.Content[1]))
			},
		})
		if err != nil {
			return err
		}
		if isNamed["between"] == (isNamed["from"] || isNamed["to"]) || isNamed["from"] != isNamed["to"] {
			return fail(item, "a link has either between: [A, B], or from: A and to: B for one way")
		}
		r.OneWay, r.Change = isNamed["from"], c
		t.Rules = append(t.Rules, r)
	}
	return nil
}

// readChange reads what is between two; also are keys beside that.
func readChange(what string, n *yaml.Node, also map[string]reader) (Change, error) {
	var c Change
	known := map[string]reader{
		"delay": word(&c.Delay), "rtt": word(&c.RTT), "jitter": word(&c.Jitter), "loss": word(&c.Loss), "rate": word(&c.Rate),
		"cut": func(n *yaml.Node) error {
			isCut := n.Value == "true"
			if n.Tag != "!!bool" {
				return fail(n, "cut must be true or false, got %q", n.Value)
			}
			c.Cut = &isCut
			return nil
		},
	}
	maps.Copy(known, also)
	return c, each(what, n, known)
}

func listOf(known map[string]reader) string {
	var out []string
	for _, key := range order {
		if known[key] != nil {
			out = append(out, key)
		}
	}
	return strings.Join(out, ", ")
}
