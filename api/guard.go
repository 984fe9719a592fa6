// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// Media types, without gRPC's, which are one prefix.
const (
	typeJSON        = "application/json"
	typeProto       = "application/proto"
	typeStreamJSON  = "application/connect+json"
	typeStreamProto = "application/connect+proto"
	typeGRPC        = "application/grpc"
)

// guard stands before the handler: it answers in JSON whatever is no request at
// all, reads the body within its bounds, and judges JSON strictly. A method that takes a
// stream of requests reads them itself, each within its bounds: see control.
type guard struct {
	next    http.Handler
	prefix  string
	methods map[string]protoreflect.MethodDescriptor
	errors  *connect.ErrorWriter
}

func newGuard(prefix string, next http.Handler) *guard {
	g := &guard{next: next, prefix: prefix, methods: map[string]protoreflect.MethodDescriptor{}, errors: connect.NewErrorWriter()}
	methods := shoalv1.File_shoal_v1_control_proto.Services().ByName("ControlService").Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		g.methods[string(m.Name())] = m
	}
	return g
}

// ServeHTTP implements [http.Handler].
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, under := strings.CutPrefix(r.URL.Path, g.prefix)
	method, known := g.methods[name]
	if !under || !known {
		g.refuse(w, r, http.StatusNotFound, &Error{
			Code: CodeBadPath, What: fmt.Sprintf("no such path %q", clip(r.URL.Path, 128)),
			Why: "this daemon serves API v1", Todo: "use POST " + g.prefix + "METHOD",
		})
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		g.refuse(w, r, http.StatusMethodNotAllowed, &Error{
			Code: CodeBadMethod, What: fmt.Sprintf("method %s is not allowed here", clip(r.Method, 16)), Todo: "use POST",
		})
		return
	}
	streaming := method.IsStreamingServer() || method.IsStreamingClient()
	if method.IsStreamingClient() && r.ProtoMajor < 2 {
		w.Header().Set("Connection", "close")
		g.refuse(w, r, http.StatusHTTPVersionNotSupported, &Error{
			Code: CodeInvalid, What: name + " needs HTTP/2 and a stream of messages, in gRPC or Connect's form", Todo: "use the shoal command",
		})
		return
	}
	media, ok := mediaOf(r, streaming)
	if !ok {
		g.refuse(w, r, http.StatusUnsupportedMediaType, &Error{
			Code: CodeInvalid, What: fmt.Sprintf("content type %q is not taken here", clip(r.Header.Get("Content-Type"), 64)),
			Todo: "use " + mediaWanted(streaming),
		})
		return
	}
	if method.IsStreamingClient() {
		g.stream(w, r, method)
		return
	}
	body, err := readBody(w, r)
	if err != nil {
		w.Header().Set("Connection", "close")
		status := http.StatusBadRequest
		if describe(err).Code == CodeTooLarge {
			status = http.StatusRequestEntityTooLarge
		}
		g.refuse(w, r, status, err)
		return
	}
	if text, ok := jsonOf(media, body); ok {
		if err := judge(text, method.Input()); err != nil {
			_ = g.errors.Write(w, r, wire(err)) // a client that is gone needs no answer
			return
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	if streaming {
		r = r.WithContext(context.WithValue(r.Context(), controlKey{}, &control{http.NewResponseController(w)}))
	}
	g.next.ServeHTTP(w, r)
}

// stream passes a stream of requests on unread; the first must come within bodyTime.
func (g *guard) stream(w http.ResponseWriter, r *http.Request, method protoreflect.MethodDescriptor) {
	read := &control{http.NewResponseController(w)}
	if err := read.rc.SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		_ = g.errors.Write(w, r, wire(fmt.Errorf("limit the time of %s: %w", method.Name(), err)))
		return
	}
	g.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), controlKey{}, read)))
}

// control limits the time of one stream. Each message of a client is bounded by
// maxMessage; all together by nothing but what takes them. JSON in them is not judged
// as strictly as in others: the shoal command does not send any.
type control struct{ rc *http.ResponseController }

type controlKey struct{}

func controlOf(ctx context.Context) *control {
	c, _ := ctx.Value(controlKey{}).(*control) // guard has put it there
	return c
}

// goOn takes the limit of the first message off.
func (c *control) goOn() error { return c.rc.SetReadDeadline(time.Time{}) }

// end makes what waits for the next message return.
func (c *control) end() { _ = c.rc.SetReadDeadline(time.Now()) } // a stream that is over waits for nothing

// refuse answers in JSON with an HTTP status that Connect has no code for.
func (g *guard) refuse(w http.ResponseWriter, r *http.Request, status int, err error) {
	plain := r.Clone(r.Context())
	plain.Header = http.Header{} // so that the answer is JSON whatever was asked
	_ = g.errors.Write(&fixedStatus{ResponseWriter: w, status: status}, plain, wire(err))
}

// fixedStatus answers with its own status.
type fixedStatus struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (f *fixedStatus) WriteHeader(int) { f.ResponseWriter.WriteHeader(f.status) }

func mediaOf(r *http.Request, streaming bool) (string, bool) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return "", false
	}
	if strings.HasPrefix(media, typeGRPC) {
		return media, true
	}
	if streaming {
		return media, slices.Contains([]string{typeStreamJSON, typeStreamProto}, media)
	}
	return media, slices.Contains([]string{typeJSON, typeProto}, media)
}

func mediaWanted(streaming bool) string {
	if streaming {
		return typeStreamJSON + " (five bytes of envelope, then JSON)"
	}
	return typeJSON
}

// readBody reads the whole body, at most maxBody bytes and for at most bodyTime.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		return nil, fmt.Errorf("limit the time of a request: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, &Error{Code: CodeInvalid, What: "request body did not arrive whole", Why: oneLine(err.Error())}
	}
	if len(body) > maxBody { // most clients read an answer only when they could send all
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
		return nil, &Error{Code: CodeTooLarge, What: fmt.Sprintf("request body is larger than %d MiB", maxBody>>20)}
	}
	if err := rc.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("limit the time of a request: %w", err)
	}
	return body, nil
}

// jsonOf returns the JSON of a body, without the envelope of a stream. What is no
// whole envelope is left to Connect to refuse.
func jsonOf(media string, body []byte) ([]byte, bool) {
	switch media {
	case typeJSON:
		return body, true
	case typeStreamJSON:
		if len(body) >= 5 && body[0] == 0 && int(binary.BigEndian.Uint32(body[1:5])) == len(body)-5 {
			return body[5:], true
		}
	}
	return nil, false
}

// judge decodes a request once, strictly, only to say what is wrong with it.
func judge(text []byte, desc protoreflect.MessageDescriptor) error {
	if err := checkJSON(text, maxDepth); err != nil {
		return err
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(desc.FullName())
	if err != nil {
		return errors.New("request type is not registered")
	}
	return decodeJSON(text, kind.New().Interface())
}

// clip bounds what is repeated to a user.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
