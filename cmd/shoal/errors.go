// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
	"github.com/shoalnet/shoal/compose"
)

// Exit codes.
const (
	exitOK = iota
	exitError
	exitUsage
	exitChanges
	exitTimeout
	exitUnhealthy
	exitUnreachable
	exitRefused
)

// coded ends the command with a code of its own; err may be nil.
type coded struct {
	code int
	name string // the code in JSON
	err  error
	// failure is the replica that failed first, for programs; nil: none is known, or there
	// are people who were told.
	failure *api.Failure
}

// Error implements error.
func (e *coded) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *coded) Unwrap() error { return e.err }

// usage is an error in what was typed.
func usage(format string, args ...any) error {
	return &coded{code: exitUsage, name: "usage", err: fmt.Errorf(format, args...)}
}

// exits are the codes of what a daemon answers; all others are exitError.
var exits = map[string]int{
	api.CodeInvalid:     exitUsage,
	api.CodeConflict:    exitRefused,
	api.CodeRefused:     exitRefused,
	api.CodeTimeout:     exitTimeout,
	api.CodeTooFewAcks:  exitTimeout,
	api.CodeUnreachable: exitUnreachable,
	api.CodeDenied:      exitUnreachable,
}

// judge returns an error's exit code and its name for programs.
func judge(err error) (int, string) {
	if err == nil {
		return exitOK, ""
	}
	if c, ok := errors.AsType[*coded](err); ok {
		return c.code, c.name
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		if code, ok := exits[e.Code]; ok {
			return code, e.Code
		}
		return exitError, e.Code
	}
	if _, ok := errors.AsType[*shoal.InvalidError](err); ok {
		return exitUsage, api.CodeInvalid
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return exitTimeout, api.CodeTimeout
	}
	return exitError, "error"
}

func exitCode(err error) int {
	code, _ := judge(err)
	return code
}

// silent is a coded error that needs no line: what there is to say was said.
func silent(code int) error { return &coded{code: code, err: errSaid} }

var errSaid = errors.New("said already")

// complain writes "error: what; why; what to do", or the same as JSON.
func (a *app) complain(err error) {
	if errors.Is(err, errSaid) {
		return
	}
	_, name := judge(err)
	file, ofFile := errors.AsType[*compose.Error](err)
	if a.output == "json" {
		out := struct {
			api.Error
			Problems []compose.Problem `json:"problems,omitempty"` // of a file, one by one
			Failure  *api.Failure      `json:"failure,omitempty"`  // of a replica
		}{Error: api.Error{Code: name, What: clean(strings.ReplaceAll(err.Error(), "\n", "; "))}}
		if e, ok := errors.AsType[*api.Error](err); ok {
			out.Error = *e
		}
		if ofFile {
			out.Problems = file.Problems
		}
		if c, ok := errors.AsType[*coded](err); ok {
			out.Failure = c.failure
		}
		if raw, jerr := plainJSON(map[string]any{"error": out}, ""); jerr == nil {
			_, _ = a.err.Write(raw) // there is nowhere to complain
			return
		}
	}
	if ofFile {
		for _, p := range file.Problems {
			a.say("error: %s", clean(p.String()))
		}
		return
	}
	a.say("error: %s", clean(err.Error()))
}

// clean keeps what others wrote from breaking out of a line or commanding a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
