// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/shoalnet/shoal/api"
)

// words writes what the replica had said that failed first, indented.
func (a *app) words(f *api.Failure) error {
	if f == nil {
		return nil
	}
	_, err := io.WriteString(a.out, wordsText(f)+"\n")
	return err
}

// pastWords writes what replicas had said of each revision that was undone for it, below
// a table for people.
func (a *app) pastWords(all []api.Revision) error {
	if !a.forPeople() {
		return nil
	}
	for _, r := range all {
		if r.Failure == nil {
			continue
		}
		if _, err := fmt.Fprintf(a.out, "\nRevision %s: %s\n", seqOf(r.Revision), clean(r.Failure.Text)); err != nil {
			return err
		}
		if err := a.words(r.Failure); err != nil {
			return err
		}
	}
	return nil
}

// wordsText is what the replica had said that failed, or why that is not known.
func wordsText(f *api.Failure) string {
	who := fmt.Sprintf("%s/%d at %s", clean(f.Service), f.Slot, clean(f.PeerName))
	var out []string
	if f.Check != "" {
		out = append(out, fmt.Sprintf("Health check of %s: %s", who, clean(f.Check)))
	}
	switch {
	case len(f.Lines) > 0:
		out = append(out, fmt.Sprintf("Last lines of %s:", who))
	case f.Missing != "":
		out = append(out, fmt.Sprintf("Last lines of %s: not known: %s", who, clean(f.Missing)))
	default:
		out = append(out, fmt.Sprintf("Last lines of %s: it wrote none", who))
	}
	for _, line := range f.Lines {
		out = append(out, "  "+clean(line))
	}
	return strings.Join(out, "\n")
}
