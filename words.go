// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of what is kept of a replica that failed.
const (
	MaxLastLines = 10
	MaxLastBytes = 2 << 10 // of all lines together
	maxLastText  = 256     // bytes of any one text beside the lines
)

// Failure says which replica of a revision failed first, as the peer saw it that tells.
// What the replica said is not in it: its holder keeps that ([LastWords]).
type Failure struct {
	Slot    int
	Peer    PeerID // its holder
	Replica ReplicaID
	After   time.Duration // since that peer first saw the revision; negative: not known
	Reason  string        // one line
}

// IsZero reports whether nothing is known to have failed.
func (f Failure) IsZero() bool { return f == Failure{} }

// Text is a failure at the current revision of a service in one line; name names peers.
func (f Failure) Text(svc *Service, name func(PeerID) string) string {
	what := fmt.Sprintf("%s/%d at %s: %s", svc.Spec.Name, f.Slot, name(f.Peer), f.Reason)
	if f.After < 0 {
		return what
	}
	by := "the operator at " + name(svc.Revision.Author)
	if !svc.Undoes.IsZero() && svc.Why != "" {
		by = name(svc.Revision.Author) + " itself"
	}
	return fmt.Sprintf("first failure %s after revision %d by %s: %s", f.After.Round(time.Second), svc.Revision.Seq, by, what)
}

// Fault says what one peer holds to be at fault for replicas that fail.
type Fault struct {
	Cause   string // application, machine, engine, cluster
	Service string // of an application
	Peer    PeerID // of a machine, or an engine
	Text    string // by which numbers, one line
}

// LastWords is what a replica had said when it first failed at a revision, as its holder
// keeps it. Lines may hold secrets: they are told to members who ask for them, and are
// neither in records nor on beats.
type LastWords struct {
	Service  string
	Slot     int
	Replica  ReplicaID
	Revision RevisionID
	Time     time.Time // holder's wall clock, display only
	Reason   string    // why it failed, one line
	Check    string    // the last line that its health check said; "": nothing, or it has none
	Lines    []string  // its last lines, the oldest first, within the bounds
	Missing  string    // why its lines could not be read; "": they were
}

// Bound makes texts of a container, or of another peer, fit for a terminal and a message:
// control characters become spaces, and of the lines the last are kept.
func (w *LastWords) Bound() {
	w.Reason, w.Check, w.Missing = plain(w.Reason, maxLastText), plain(w.Check, maxLastText), plain(w.Missing, maxLastText)
	lines := w.Lines[max(0, len(w.Lines)-MaxLastLines):]
	kept, left := make([]string, len(lines)), MaxLastBytes
	first := len(lines)
	for first > 0 && left > 0 {
		first--
		kept[first] = plain(lines[first], left)
		left -= len(kept[first])
	}
	if w.Lines = kept[first:]; len(w.Lines) == 0 {
		w.Lines = nil
	}
}

// plain keeps at most n bytes of a text, without control characters and without what is
// not UTF-8.
func plain(s string, n int) string {
	if len(s) > 4*n { // the rest cannot be needed
		s = s[:4*n]
	}
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) <= n {
		return s
	}
	const more = "..."
	n = max(n-len(more), 0)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + more
}
