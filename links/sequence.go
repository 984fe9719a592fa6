// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"sync"
)

// sequenceStep is how many numbers one write to disk reserves (DESIGN section 3).
const sequenceStep = 1000

// Sequence hands out this peer's author sequence numbers: each once in the life of
// the key, also across crashes and a lost store. They grow, with gaps after a
// restart. Safe for concurrent use.
type Sequence struct {
	// mu guards the rest. It is held while a step is reserved on disk, once in a
	// thousand numbers: nobody may have a number before that is done.
	mu       sync.Mutex
	files    files
	last     uint64 // handed out last
	reserved uint64 // on disk: numbers up to here may have been handed out
}

func openSequence(f files) (*Sequence, error) {
	reserved, err := readCounter(f, sequenceFile)
	if err != nil {
		return nil, err
	}
	return &Sequence{files: f, last: reserved, reserved: reserved}, nil
}

// Next returns the next number, 1 at first. An error means that the disk did not
// take the reservation; no number was used.
func (s *Sequence) Next() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == s.reserved {
		if err := s.reserve(s.reserved + sequenceStep); err != nil {
			return 0, err
		}
	}
	s.last++
	return s.last, nil
}

// Skip makes sure that no number up to n is handed out any more: for a peer that
// finds records of its own above its reservation, after its files were restored
// from a backup.
func (s *Sequence) Skip(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n <= s.last {
		return nil
	}
	if n > s.reserved {
		if err := s.reserve(n); err != nil {
			return err
		}
	}
	s.last = n
	return nil
}

// Used reports whether numbers may have been handed out, in this life or an earlier one.
func (s *Sequence) Used() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reserved > 0
}

func (s *Sequence) reserve(n uint64) error {
	if err := writeCounter(s.files, sequenceFile, n); err != nil {
		return err
	}
	s.reserved = n
	return nil
}
