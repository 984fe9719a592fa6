// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/images/blobs"
	"github.com/shoalnet/shoal/internal/logkey"
)

// The codes of errors (distribution-spec v1.1, "Error Codes"), and what it has none for:
// CONFLICT, RANGE_INVALID (as distribution calls it), UNAVAILABLE and UNKNOWN.
const (
	codeBlobUnknown         = "BLOB_UNKNOWN"
	codeUploadUnknown       = "BLOB_UPLOAD_UNKNOWN"
	codeDigestInvalid       = "DIGEST_INVALID"
	codeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
	codeManifestInvalid     = "MANIFEST_INVALID"
	codeManifestUnknown     = "MANIFEST_UNKNOWN"
	codeNameInvalid         = "NAME_INVALID"
	codeNameUnknown         = "NAME_UNKNOWN"
	codeSizeInvalid         = "SIZE_INVALID"
	codeUnauthorized        = "UNAUTHORIZED"
	codeDenied              = "DENIED"
	codeUnsupported         = "UNSUPPORTED"
	codeTooMany             = "TOOMANYREQUESTS"
	codeConflict            = "CONFLICT"
	codeRangeInvalid        = "RANGE_INVALID"
	codeUnavailable         = "UNAVAILABLE"
	codeUnknown             = "UNKNOWN"
)

// fault is an error as the protocol says it.
type fault struct {
	status int
	code   string
	err    error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

func faultf(status int, code, format string, args ...any) error {
	return &fault{status: status, code: code, err: fmt.Errorf(format, args...)}
}

// unknown makes shoal.ErrNotFound a 404 of a code, and leaves other errors alone.
func unknown(code string, err error) error {
	if errors.Is(err, shoal.ErrNotFound) {
		return &fault{status: http.StatusNotFound, code: code, err: err}
	}
	return err
}

func isInvalid(err error) bool {
	_, ok := errors.AsType[*shoal.InvalidError](err)
	return ok
}

// faultOf says an error of ours as the protocol does. Docker tries again for a minute
// after most errors of a push, but not after DENIED and TOOMANYREQUESTS, of which it shows
// the text (its distribution/push_v2.go, retryOnError); so what does not go away by itself
// is DENIED. For a 5xx it would show the status alone.
func faultOf(err error) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	for _, row := range []struct {
		is     error
		status int
		code   string
	}{
		{shoal.ErrConflict, http.StatusConflict, codeConflict},
		{shoal.ErrNoSpace, http.StatusForbidden, codeDenied},
		{shoal.ErrRefused, http.StatusForbidden, codeDenied},
		{shoal.ErrNotMember, http.StatusForbidden, codeDenied},
		{shoal.ErrNotFound, http.StatusNotFound, codeUnknown},
		{blobs.ErrMismatch, http.StatusBadRequest, codeDigestInvalid},
		{fs.ErrClosed, http.StatusServiceUnavailable, codeUnavailable},
		{shoal.ErrUnreachable, http.StatusServiceUnavailable, codeUnavailable},
		{context.Canceled, http.StatusServiceUnavailable, codeUnavailable},
		{context.DeadlineExceeded, http.StatusServiceUnavailable, codeUnavailable},
		{os.ErrDeadlineExceeded, http.StatusRequestTimeout, codeUnavailable},
	} {
		if errors.Is(err, row.is) {
			return &fault{status: row.status, code: row.code, err: err}
		}
	}
	if isInvalid(err) {
		return &fault{status: http.StatusBadRequest, code: codeUnsupported, err: err}
	}
	return nil
}

// writeError answers a request with an error, in one line.
func (r *Registry) writeError(w http.ResponseWriter, req *http.Request, err error) {
	if c := callOf(req.Context()); c.err != nil {
		err = c.err // ociserver lost what it wraps
	}
	f := faultOf(err)
	if f != nil {
		err = ociregistry.NewError(oneLine(f), f.code, nil)
	}
	body, status := ociregistry.MarshalError(err)
	if f != nil {
		status = f.status // one code has several
	}
	if status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", "GET, HEAD") // what every path but an upload's knows
	}
	switch {
	case req.Context().Err() != nil:
		r.log.Debug("registry request ended", "method", req.Method, "path", req.URL.Path, logkey.Err, err)
	case status >= http.StatusInternalServerError:
		r.log.Error("registry request failed", "method", req.Method, "path", req.URL.Path, logkey.Err, err)
	default:
		r.log.Debug("registry request refused", "method", req.Method, "path", req.URL.Path, "status", status, logkey.Err, err)
	}
	writeJSON(w, status, "application/json", body)
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// writeJSON answers with a document. A client that is gone does not get it.
func writeJSON(w http.ResponseWriter, status int, mediaType string, body json.RawMessage) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
