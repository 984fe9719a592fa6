// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"io"
	"net/http"
	"time"
)

// minRate is below what nobody on this machine sends for long, in bytes a second.
const minRate = 1 << 10

// patientBody reads a body with a deadline that moves as bytes come: a connection that is
// silent for idle, or slower than minRate over more than that, is cut.
type patientBody struct {
	io.ReadCloser
	conn  *http.ResponseController
	call  *call
	idle  time.Duration
	start time.Time
	read  int64
}

func (b *patientBody) Read(p []byte) (int, error) {
	now := time.Now()
	if b.start.IsZero() {
		b.start = now
	}
	deadline := now.Add(b.idle)
	if slow := b.start.Add(b.idle + time.Duration(b.read/minRate)*time.Second); slow.Before(deadline) {
		deadline = slow
	}
	_ = b.conn.SetReadDeadline(deadline) // a connection that cannot has no slow sender either
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if err == io.EOF {
		_ = b.conn.SetReadDeadline(time.Time{}) // or it would end a long answer
	}
	if err != nil && err != io.EOF && b.call.err == nil {
		b.call.err = err
	}
	return n, err
}

// patientWriter gives each write of an answer the time idle. Between writes it waits as
// long as it takes a blob to arrive.
type patientWriter struct {
	http.ResponseWriter
	conn *http.ResponseController
	idle time.Duration
}

func (w *patientWriter) Write(p []byte) (int, error) {
	_ = w.conn.SetWriteDeadline(time.Now().Add(w.idle))
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (r *Registry) patient(w http.ResponseWriter, req *http.Request, c *call) (http.ResponseWriter, io.ReadCloser) {
	conn := http.NewResponseController(w)
	_ = conn.SetWriteDeadline(time.Time{}) // that of the connection's last request
	body := req.Body
	if body != http.NoBody {
		_ = conn.SetReadDeadline(time.Now().Add(r.cfg.Idle)) // net/http reads what nobody did
		body = &patientBody{ReadCloser: body, conn: conn, call: c, idle: r.cfg.Idle}
	}
	return &patientWriter{ResponseWriter: w, conn: conn, idle: r.cfg.Idle}, body
}
