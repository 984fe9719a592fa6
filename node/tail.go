// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"sync"
)

// tailBytes is how much of the log a report carries.
const tailBytes = 1 << 20

// Tail keeps the last lines written to it, at most 1 MiB, for reports of faults. The
// zero value is ready; it is safe for concurrent use.
type Tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

// Write implements io.Writer and never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if len(t.text) > 2*tailBytes { // moved once a MiB, not with every line
		t.text = append([]byte(nil), t.last()...)
	}
	return len(p), nil
}

// last returns the newest whole lines. The lock is held.
func (t *Tail) last() []byte {
	if len(t.text) <= tailBytes {
		return t.text
	}
	text := t.text[len(t.text)-tailBytes:]
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	return text
}

// Lines returns what is kept.
func (t *Tail) Lines() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.last())
}
