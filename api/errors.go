// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"connectrpc.com/connect"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Codes of an Error, for programs.
const (
	CodeInvalid     = "invalid"
	CodeNotFound    = "not_found"
	CodeConflict    = "conflict"
	CodeRefused     = "refused"
	CodeNotMember   = "not_member"
	CodeStarting    = "starting"
	CodeNoSpace     = "no_space"
	CodeEngineDown  = "engine_down"
	CodeTooFewAcks  = "too_few_acks"
	CodeTimeout     = "timeout"
	CodeCanceled    = "canceled"
	CodeTooLarge    = "too_large"
	CodeBadPath     = "bad_path"
	CodeBadMethod   = "bad_method"
	CodeUnreachable = "unreachable" // no peer answers, or no daemon: that one is made by the client
	CodeDenied      = "denied"      // the socket may not be used; made by the client
	CodeInternal    = "internal"
)

// Error is an answer that is an error: one line of what, why and what to do.
type Error struct {
	Code string `json:"code"`
	What string `json:"what"`
	Why  string `json:"why,omitempty"`
	Todo string `json:"todo,omitempty"`
}

// Error returns "WHAT; WHY; TODO" without the empty parts.
func (e *Error) Error() string {
	parts := []string{e.What}
	for _, p := range []string{e.Why, e.Todo} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "; ")
}

// kinds says which code and which status a sentinel has, first match wins.
var kinds = []struct {
	is   error
	code string
}{
	{shoal.ErrNotMember, CodeNotMember},
	{shoal.ErrNotFound, CodeNotFound},
	{shoal.ErrConflict, CodeConflict},
	{shoal.ErrRefused, CodeRefused},
	{shoal.ErrNoSpace, CodeNoSpace},
	{shoal.ErrEngineDown, CodeEngineDown},
	{shoal.ErrTooFewAcks, CodeTooFewAcks},
	{shoal.ErrUnreachable, CodeUnreachable},
	{context.DeadlineExceeded, CodeTimeout},
	{context.Canceled, CodeCanceled},
}

// statuses are the Connect codes, which decide the HTTP status: 400 for invalid
// input, 404, 409 for conflicts, 403 for refusals, 503 for what passes.
var statuses = map[string]connect.Code{
	CodeInvalid:     connect.CodeInvalidArgument,
	CodeNotFound:    connect.CodeNotFound,
	CodeConflict:    connect.CodeAborted,
	CodeRefused:     connect.CodePermissionDenied,
	CodeNotMember:   connect.CodeFailedPrecondition,
	CodeStarting:    connect.CodeUnavailable,
	CodeNoSpace:     connect.CodeUnavailable,
	CodeEngineDown:  connect.CodeUnavailable,
	CodeTooFewAcks:  connect.CodeUnavailable,
	CodeUnreachable: connect.CodeUnavailable,
	CodeTimeout:     connect.CodeDeadlineExceeded,
	CodeCanceled:    connect.CodeCanceled,
	CodeTooLarge:    connect.CodeResourceExhausted,
	CodeBadPath:     connect.CodeNotFound,
	CodeBadMethod:   connect.CodeUnimplemented,
	CodeInternal:    connect.CodeInternal,
}

// describe puts any error into words and a code.
func describe(err error) *Error {
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	out := &Error{Code: CodeInternal, What: oneLine(err.Error())}
	if advice, ok := errors.AsType[*shoal.AdviceError](err); ok {
		out.What = oneLine(strings.TrimSuffix(err.Error(), "; "+advice.Advice))
		out.Todo = advice.Advice
	}
	for _, room := range []string{"accept wish: ", "plan wish: "} { // the user knows what was asked
		out.What = strings.TrimPrefix(out.What, room)
	}
	if _, ok := errors.AsType[*shoal.InvalidError](err); ok {
		out.Code = CodeInvalid
		return out
	}
	for _, k := range kinds {
		if errors.Is(err, k.is) {
			out.Code = k.code
			out.What = strings.TrimSuffix(out.What, ": "+k.is.Error())
			if out.What == context.DeadlineExceeded.Error() {
				out.What = "no answer in time"
			}
			return out
		}
	}
	return out
}

// oneLine keeps what others wrote from breaking out of an error's one line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u00a0' {
			return ' '
		}
		return r
	}, s)
}

// wire turns any error into what goes over the socket.
func wire(err error) *connect.Error {
	e := describe(err)
	out := connect.NewError(statuses[e.Code], errors.New(e.Error()))
	detail, derr := connect.NewErrorDetail(&shoalv1.ErrorDetail{Code: e.Code, What: e.What, Why: e.Why, Todo: e.Todo})
	if derr == nil { // it cannot fail for a message of our own; without it the text still stands
		out.AddDetail(detail)
	}
	return out
}

func notMember() *Error {
	return &Error{
		Code: CodeNotMember,
		What: "this daemon is not a member of a cluster yet",
		Todo: `run "shoal init" or "shoal join TOKEN"`,
	}
}

// mapErrors gives every error a code and a detail. Requests that the daemon's own end
// cut off say so: nobody canceled them.
type mapErrors struct {
	stopping <-chan struct{}
}

func (m mapErrors) wire(err error) *connect.Error {
	if errors.Is(err, context.Canceled) {
		select {
		case <-m.stopping:
			err = &Error{Code: CodeUnreachable, What: "shoald is stopping"}
		default:
		}
	}
	return wire(err)
}

// WrapUnary implements [connect.Interceptor].
func (m mapErrors) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		if err != nil {
			return nil, m.wire(err)
		}
		return resp, nil
	}
}

// WrapStreamingClient implements [connect.Interceptor]; servers have none.
func (mapErrors) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements [connect.Interceptor].
func (m mapErrors) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := next(ctx, conn); err != nil {
			return m.wire(err)
		}
		return nil
	}
}

// understand is the inverse of wire on the client; path is the socket that was asked.
func understand(path string, err error) error {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return err
	}
	if own, ok := errors.AsType[*Error](err); ok {
		return own // of the dial
	}
	for _, d := range ce.Details() {
		m, derr := d.Value()
		if detail, ok := m.(*shoalv1.ErrorDetail); ok && derr == nil {
			return &Error{Code: detail.GetCode(), What: detail.GetWhat(), Why: detail.GetWhy(), Todo: detail.GetTodo()}
		}
	}
	if e := unreachable(path, err); e != nil {
		return e
	}
	isCutOff := errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) // a daemon that was killed
	switch code := ce.Code(); {
	case code == connect.CodeDeadlineExceeded:
		return &Error{Code: CodeTimeout, What: "no answer in time"}
	case code == connect.CodeCanceled:
		return &Error{Code: CodeCanceled, What: "interrupted"}
	case code == connect.CodeUnavailable, isCutOff:
		return &Error{Code: CodeUnreachable, What: fmt.Sprintf("shoald at %s closed the connection", path), Todo: "see shoald's log"}
	default:
		return &Error{Code: CodeInternal, What: oneLine(ce.Message())}
	}
}
