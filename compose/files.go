// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal"
)

// defaultFiles are looked for, in this order, when no file is named.
var defaultFiles = []string{"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}

// readFiles reads the Compose files and the variables for them.
func (l *load) readFiles() error {
	names := l.opts.Files
	if len(names) == 0 {
		found := ""
		for _, name := range defaultFiles {
			if _, err := os.Stat(filepath.Join(l.opts.Dir, name)); err == nil {
				found = filepath.Join(l.opts.Dir, name)
				break
			}
		}
		if found == "" {
			return &shoal.AdviceError{
				Err:    fmt.Errorf("no compose file here (looked for %s): %w", strings.Join(defaultFiles, ", "), shoal.ErrNotFound),
				Advice: "name one with -f",
			}
		}
		names = []string{found}
	}
	dir := l.opts.Dir
	if dir == "" && names[0] != "-" {
		dir = filepath.Dir(names[0])
	}
	var err error
	if l.dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("find the working directory: %w", err)
	}
	for _, name := range names {
		text, err := readFile(name, l.opts.Stdin)
		if err != nil {
			return err
		}
		if name == "-" {
			name = "stdin"
		}
		f, found := parseFile(name, l.dir, text)
		l.files = append(l.files, f)
		l.order = append(l.order, name)
		l.add(found...)
	}
	return l.readEnv()
}

// readEnv reads .env, or the files named in its place.
func (l *load) readEnv() error {
	files := l.opts.EnvFiles
	if len(files) == 0 {
		name := filepath.Join(l.dir, ".env")
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			files = []string{name}
		}
	}
	env, err := dotenv.GetEnvFromFile(l.opts.Env, files)
	if err != nil {
		return fmt.Errorf("read variables: %w", err)
	}
	l.env = env
	maps.Copy(l.env, l.opts.Env)
	return nil
}

// readFile reads one Compose file, "-" from stdin.
func readFile(name string, stdin io.Reader) ([]byte, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("open compose file: %w", err)
		}
		defer f.Close() //nolint:errcheck // read only
		in = f
	}
	if in == nil {
		return nil, errNoInput
	}
	var buf bytes.Buffer
	n, err := io.Copy(&buf, io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read compose file %s: %w", name, err)
	}
	if n > maxFile {
		return nil, fmt.Errorf("compose file %s is larger than %d MiB; no file that a person wrote is", name, maxFile>>20)
	}
	return buf.Bytes(), nil
}

// withoutVersion returns the text without the line of the top-level key version: the
// walk has named it, and compose-go would write about it to stderr.
func (f *file) withoutVersion() []byte {
	key, value := child(f.root, "version")
	if key == nil || f.root.Style&yaml.FlowStyle != 0 || value.Line != key.Line || value.Anchor != "" {
		return f.text
	}
	lines := bytes.SplitAfter(bytes.Clone(f.text), []byte("\n"))
	lines[key.Line-1] = []byte("\n")
	return bytes.Join(lines, nil)
}
