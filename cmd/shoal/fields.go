// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/shoalnet/shoal/api"
)

// values are what -o json, yaml and template=... write, by command.
var values = []struct {
	command string
	item    any
}{
	{"`ls`, `autoscale`", api.Service{}},
	{"`ps`", api.Replica{}},
	{"`inspect`", serviceJSON{}},
	{"`explain`", api.Explanation{}},
	{"`rollout status`", api.Rollout{}},
	{"`rollout history`", api.Revision{}},
	{"`peer ls`", api.Peer{}},
	{"`peer inspect`", peerJSON{}},
	{"`top peers`, `top services`; `top` has both, as `peers` and `services`", load{}},
	{"`image ls`; of `image push`, `import`, `pull`, `tag`, `rm`, `pin`, `unpin` too", api.Image{}},
	{"`image inspect`, `image who`", api.ImageDetail{}},
	{"`image gc`", api.Collected{}},
	{"`image policy`", api.ImagePolicy{}},
	{"`network ls`, `network inspect`", api.Network{}},
	{"`ports`", api.PublishedPort{}},
	{"`explain --reach`", api.ReachedReplica{}},
	{"`doctor`, `join --dry-run`", api.Check{}},
	{"`token ls`", api.Token{}},
	{"`token create`, `init`", tokenJSON{}},
	{"`context ls`", contextJSON{}},
	{"plans, and whatever changes something", api.Change{}},
	{"`logs`", api.LogLine{}},
	{"`events`", api.Event{}},
	{"`version`", versionJSON{}},
	{"an error, as `error`", api.Error{}},
}

const valuesHead = `
## Values of -o json, yaml and template

What is listed is one array, whatever its length; streams (` + "`logs`, `events`" + `) have an object on each line. Names stay; new ones may
come. ` + "`_seconds`" + ` are numbers, -1 is never; ` + "`_bytes`, `_milli`" + ` (thousandths of a core) are whole numbers; times are RFC 3339 in UTC.
` + "`?`" + ` is left out where there is nothing to say, ` + "`[]`" + ` is an array, ` + "`{}`" + ` has names of the user's,
` + "`.{...}`" + ` says what is inside. A template has the same names:
` + "`shoal ps -o template='{{.service}}/{{.slot}} {{.peer_name}}'`" + `.

| command | names |
|---|---|
`

// valueTable writes the names of every value.
func valueTable(b *strings.Builder) {
	b.WriteString(valuesHead)
	for _, v := range values {
		fmt.Fprintf(b, "| %s | `%s` |\n", v.command, strings.Join(namesOf(reflect.TypeOf(v.item)), "`, `"))
	}
}

// namesOf lists the fields that a value has in JSON.
func namesOf(t reflect.Type) []string {
	var out []string
	for _, f := range reflect.VisibleFields(t) {
		name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "" || name == "-" {
			continue
		}
		optional := ""
		if strings.Contains(rest, "omit") || insidePointer(t, f.Index) {
			optional = "?"
		}
		out = append(out, nameOf(name, optional, f.Type))
	}
	return out
}

// insidePointer reports whether a promoted field is of a struct that may be absent.
func insidePointer(t reflect.Type, index []int) bool {
	for _, i := range index[:len(index)-1] {
		if t = t.Field(i).Type; t.Kind() == reflect.Pointer {
			return true
		}
	}
	return false
}

// nameOf writes a field's name, and in braces the names inside of it; those of a
// replica stand once, at ps.
func nameOf(name, optional string, t reflect.Type) string {
	for {
		switch t.Kind() {
		case reflect.Pointer:
		case reflect.Slice:
			name += "[]"
		case reflect.Map:
			return name + "{}" + optional
		case reflect.Struct:
			switch t {
			case reflect.TypeFor[time.Time]():
				return name + optional
			case reflect.TypeFor[api.Replica]():
				return name + optional + ": as ps"
			}
			return name + optional + ".{" + strings.Join(namesOf(t), ", ") + "}"
		default:
			return name + optional
		}
		t = t.Elem()
	}
}
