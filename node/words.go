// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/shoalnet/shoal"
)

// wordsFile keeps on disk what replicas of this peer had said when they failed, for the
// owner of the data directory only: it may hold secrets, as the engine's own logs do. The
// name is its path. It implements actors.Shelf.
type wordsFile string

// maxWordsFile is more bytes than are ever written.
const maxWordsFile = 4 << 20

// Load implements actors.Shelf. No file is no words.
func (f wordsFile) Load() ([]shoal.LastWords, error) {
	info, err := os.Stat(string(f))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Size() > maxWordsFile:
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", f, info.Size(), maxWordsFile)
	}
	data, err := os.ReadFile(string(f))
	if err != nil {
		return nil, err
	}
	var all []shoal.LastWords
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("read %s: %w", f, err)
	}
	return all, nil
}

// Save implements actors.Shelf. A crash leaves the file as it was before, or as it is
// after.
func (f wordsFile) Save(all []shoal.LastWords) error {
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	next := string(f) + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, string(f))
}
