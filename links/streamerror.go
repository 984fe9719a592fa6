// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"errors"
	"fmt"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// failures says which error of the root has which name on a stream.
var failures = []struct {
	is   error
	name shoalv1.StreamFailure
}{
	{shoal.ErrNotFound, shoalv1.StreamFailure_STREAM_FAILURE_NOT_FOUND},
	{shoal.ErrEngineDown, shoalv1.StreamFailure_STREAM_FAILURE_ENGINE_DOWN},
	{shoal.ErrRefused, shoalv1.StreamFailure_STREAM_FAILURE_REFUSED},
	{shoal.ErrConflict, shoalv1.StreamFailure_STREAM_FAILURE_CONFLICT},
}

// streamError puts an error on a stream; nil stays nil.
func streamError(err error) *shoalv1.StreamError {
	if err == nil {
		return nil
	}
	if invalid, ok := errors.AsType[*shoal.InvalidError](err); ok {
		return &shoalv1.StreamError{Error: clip(invalid.Why), Failure: shoalv1.StreamFailure_STREAM_FAILURE_INVALID, Field: clip(invalid.Field)}
	}
	out := &shoalv1.StreamError{Error: clip(err.Error())}
	for _, f := range failures {
		if errors.Is(err, f.is) {
			out.Failure = f.name
			break
		}
	}
	return out
}

// errorFrom is the inverse of streamError; what says what was asked of whom.
func errorFrom(what string, e *shoalv1.StreamError) error {
	if e == nil {
		return nil
	}
	if e.GetFailure() == shoalv1.StreamFailure_STREAM_FAILURE_INVALID {
		return fmt.Errorf("%s: %w", what, &shoal.InvalidError{Field: clip(e.GetField()), Why: clip(e.GetError())})
	}
	text := fmt.Sprintf("%s: %s", what, clip(e.GetError()))
	for _, f := range failures {
		if f.name == e.GetFailure() {
			return &remoteError{text: text, cause: f.is}
		}
	}
	return errors.New(text)
}
