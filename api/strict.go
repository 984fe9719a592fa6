// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// frame is one open object or array.
type frame struct {
	keys   map[string]bool // nil for an array
	expect bool            // the next token is a key
}

// checkJSON takes exactly one JSON object whose nesting is bounded and that names
// nothing twice. Errors say where: protojson would let a nested object be merged or
// a stack grow before it noticed.
func checkJSON(text []byte, depth int) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var open []frame
	for {
		tok, err := dec.Token()
		at := int(dec.InputOffset())
		if err != nil {
			return syntax(text, at, err)
		}
		if len(open) == 0 && tok != json.Delim('{') {
			return badJSON(text, at, "body is no JSON object")
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			if len(open) == depth {
				return badJSON(text, at, fmt.Sprintf("more than %d levels of JSON", depth))
			}
			took(open)
			f := frame{}
			if tok == json.Delim('{') {
				f = frame{keys: map[string]bool{}, expect: true}
			}
			open = append(open, f)
			continue
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		default:
			key, isKey := tok.(string)
			if top := &open[len(open)-1]; isKey && top.expect {
				if top.keys[key] {
					return badJSON(text, at, fmt.Sprintf("field %q is there twice", clip(key, 64)))
				}
				top.keys[key], top.expect = true, false
				continue
			}
			took(open)
		}
		if len(open) == 0 {
			return checkEnd(dec, text)
		}
	}
}

// took notes that a value was read: in an object a key comes next.
func took(open []frame) {
	if n := len(open); n > 0 && open[n-1].keys != nil {
		open[n-1].expect = true
	}
}

func checkEnd(dec *json.Decoder, text []byte) error {
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return badJSON(text, int(dec.InputOffset()), "something follows the JSON object")
	}
	return nil
}

func syntax(text []byte, at int, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return badJSON(text, len(text), "body ends before the JSON does")
	}
	if se, ok := errors.AsType[*json.SyntaxError](err); ok && se.Offset > 0 && int(se.Offset) <= len(text) {
		at = int(se.Offset)
	}
	return badJSON(text, at, oneLine(err.Error()))
}

// badJSON says what and where; at counts bytes read, the last of which is meant.
func badJSON(text []byte, at int, what string) error {
	at = max(0, min(at, len(text)))
	before := text[:max(0, at-1)]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1
	return &Error{Code: CodeInvalid, What: what, Why: fmt.Sprintf("line %d, column %d", line, column)}
}

// protojsonError is how protojson tells a position.
var protojsonError = regexp.MustCompile(`^proto:\s*(?:syntax error )?\(line (\d+):(\d+)\): (.*)$`)

// decodeJSON decodes strictly: an unknown field, a wrong type and an invalid value
// are errors with their position.
func decodeJSON(text []byte, into proto.Message) error {
	err := protojson.UnmarshalOptions{RecursionLimit: maxDepth}.Unmarshal(text, into)
	if err == nil {
		return nil
	}
	said := oneLine(err.Error())
	if m := protojsonError.FindStringSubmatch(said); m != nil {
		return &Error{Code: CodeInvalid, What: m[3], Why: fmt.Sprintf("line %s, column %s", m[1], m[2])}
	}
	return &Error{Code: CodeInvalid, What: said}
}
