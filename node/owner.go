// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/internal/logkey"
	"github.com/shoalnet/shoal/node/policy"
)

// DefaultPolicy is where the owner's policy stands unless told otherwise. It alone may
// be absent: then nothing is allowed.
const DefaultPolicy = "/etc/shoal/policy.yaml"

// policyEvery is how often the policy's file is looked at.
const policyEvery = time.Minute

// CheckPolicy reports whether the owner's policy can be read; what is wrong in it is a
// *shoal.InvalidError with its line.
func (c *Config) CheckPolicy() error {
	_, _, err := readPolicy(c.Policy)
	return err
}

// readPolicy returns the rules of a policy's file and its bytes; none for "".
func readPolicy(file string) (rules []string, raw []byte, err error) {
	if file == "" {
		return nil, nil, nil
	}
	f, err := os.Open(file) //nolint:gosec // the owner names the file
	if errors.Is(err, fs.ErrNotExist) && file == DefaultPolicy {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, &shoal.InvalidError{Field: "policy", Why: "cannot be read: " + err.Error()}
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err == nil {
		raw, err = io.ReadAll(io.LimitReader(f, policy.MaxBytes+1))
	}
	if err != nil {
		return nil, nil, &shoal.InvalidError{Field: "policy", Why: "cannot be read: " + err.Error()}
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, nil, &shoal.InvalidError{Field: "policy", Why: fmt.Sprintf("%s may be written by others than its owner (mode %04o); chmod go-w it", file, mode)}
	}
	rules, err = policy.Parse(file, raw)
	return rules, raw, err
}

// owner holds what the machine's owner allows, as the policy's file says it now.
type owner struct {
	file string
	log  *slog.Logger

	mu      sync.Mutex // guards what follows
	raw     []byte
	rules   []string
	changed chan struct{} // closed at the next change of rules
	trouble string        // told last
}

// newOwner reads the policy; what is wrong in it is a *shoal.InvalidError.
func newOwner(file string, log *slog.Logger) (*owner, error) {
	rules, raw, err := readPolicy(file)
	if err != nil {
		return nil, err
	}
	o := &owner{file: file, log: log, raw: raw, rules: rules, changed: make(chan struct{})}
	o.tell(rules)
	return o, nil
}

// allows returns the rules, which nobody may write to, and a channel that is closed at
// their next change.
func (o *owner) allows() ([]string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rules, o.changed
}

// run looks at the file every minute, and when told to, until ctx ends.
func (o *owner) run(ctx context.Context, reload <-chan os.Signal) {
	tick := time.NewTicker(policyEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-reload:
		case <-ctx.Done():
			return
		}
		o.look()
	}
}

// look reads the file again. What cannot be read leaves the rules as they are. What
// runs is not touched either way: a container is judged when it is made.
func (o *owner) look() {
	rules, raw, err := readPolicy(o.file)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		if o.trouble != err.Error() {
			o.trouble = err.Error()
			o.log.Warn("policy is wrong; the former one stays in force", logkey.Err, err)
		}
		return
	}
	o.trouble = ""
	if bytes.Equal(raw, o.raw) && (raw == nil) == (o.raw == nil) {
		return
	}
	o.raw, o.rules = raw, rules
	close(o.changed)
	o.changed = make(chan struct{})
	o.tell(rules)
}

// tell logs what counts from now on, and what cannot count: paths are compared with
// every link followed, so a rule for a link allows nothing.
func (o *owner) tell(rules []string) {
	o.log.Info("policy", "file", o.file, "rules", len(rules))
	for _, r := range rules {
		kind, name, _ := strings.Cut(r, ":")
		if !strings.HasPrefix(kind, "mount") {
			continue
		}
		if real, err := filepath.EvalSymlinks(name); err == nil && shoal.CleanPath(real) != name {
			o.log.Warn("policy allows a mount of a link, which allows nothing; name what it leads to", "path", name, "leads_to", real)
		}
	}
}
