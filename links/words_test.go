// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalnet/shoal"
	shoalv1 "github.com/shoalnet/shoal/proto/shoal/v1"
)

// diary is an Inside that remembers what replicas had said.
type diary struct {
	insideFunc
	words []shoal.LastWords
}

// LastWords implements [Inside].
func (d diary) LastWords(_ context.Context, service string) ([]shoal.LastWords, error) {
	if service != "web" {
		return nil, nil
	}
	return d.words, nil
}

func TestLastWordsAcross(t *testing.T) {
	a, b := pair(t)
	if _, err := a.LastWords(t.Context(), b.id.Self(), "web"); !errors.Is(err, shoal.ErrEngineDown) {
		t.Errorf("last words before there is an engine = %v, want ErrEngineDown", err)
	}
	if _, err := a.LastWords(t.Context(), "nobody", "web"); !errors.Is(err, shoal.ErrNotFound) {
		t.Errorf("last words of a stranger = %v, want ErrNotFound", err)
	}
	want := []shoal.LastWords{{
		Service: "web", Slot: 2, Replica: shoal.ReplicaID{1}, Revision: shoal.RevisionID{Seq: 7, Author: a.id.Self()}, Time: time.Unix(1_700_000_000, 5).UTC(),
		Reason: "exited with code 1", Check: "connection refused", Lines: []string{"begin", "panic: boom"},
	}, {Service: "web", Replica: shoal.ReplicaID{2}, Missing: "the container engine did not answer in time"}}
	b.ServeInside(diary{words: want})
	for name, asker := range map[string]*Links{"another": a.Links, "itself": b.Links} {
		got, err := asker.LastWords(t.Context(), b.id.Self(), "web")
		mustBe(t, name, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: last words differ (-want +got):\n%s", name, diff)
		}
		if got, err := asker.LastWords(t.Context(), b.id.Self(), "db"); err != nil || len(got) > 0 {
			t.Errorf("%s: last words of another service = %v, %v; want none", name, got, err)
		}
	}
}

func TestWordsFromRefusesNonsense(t *testing.T) {
	id := make([]byte, 16)
	for name, w := range map[string]*shoalv1.LastWords{
		"short":           {Service: "web", Replica: id[:3]},
		"another service": {Service: "db", Replica: id},
	} {
		if got, err := wordsFrom("words", "web", &shoalv1.WordsReply{Words: []*shoalv1.LastWords{w}}); err == nil {
			t.Errorf("%s: wordsFrom = %v, want an error", name, got)
		}
	}
	if _, err := wordsFrom("words", "web", &shoalv1.WordsReply{Words: make([]*shoalv1.LastWords, maxWords+1)}); err == nil {
		t.Error("wordsFrom of too many, want an error")
	}
	got, err := wordsFrom("words", "web", &shoalv1.WordsReply{Words: []*shoalv1.LastWords{{
		Service: "web", Replica: id, Lines: slices.Repeat([][]byte{[]byte("\x1b[2J" + strings.Repeat("x", 5000))}, 40),
	}}})
	if err != nil || len(got) != 1 || len(got[0].Lines) != 1 || len(got[0].Lines[0]) > shoal.MaxLastBytes || strings.Contains(got[0].Lines[0], "\x1b") {
		t.Errorf("wordsFrom of what is no line = %v, %v; want it bounded and harmless", got, err)
	}
}
