// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/shoalnet/shoal"
)

// DefaultFiles are looked for, in this order, when no file is named.
var defaultFiles = []string{"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}

// maxFile is the most a Compose file may have; the largest in the wild are a
// hundredth of it.
const maxFile = 4 << 20

// Options say what to load.
type Options struct {
	Files    []string          // later ones are merged over earlier ones; "-" is Stdin; none: the default names in Dir
	Dir      string            // where relative paths start; "": the first file's directory
	Project  string            // overrides the file's name
	Env      map[string]string // for interpolation
	Services []string          // only these; none: all
	Profiles []string
	Stdin    io.Reader
}

// Project is a loaded file.
type Project struct {
	Name     string
	Specs    []shoal.Spec // by name
	Warnings []string     // harmless keys, each named once
}

// UnsupportedError names every key that means something Shoal cannot do.
type UnsupportedError struct{ Keys []string }

// Error lists the keys with file and line.
func (e *UnsupportedError) Error() string {
	return "keys that are not supported: " + strings.Join(e.Keys, ", ")
}

// Load reads, merges, interpolates and judges Compose files. Errors are
// *UnsupportedError, *shoal.InvalidError with the service and field, or the
// reader's own with file and line.
func Load(ctx context.Context, opts Options) (*Project, error) {
	files, dir, err := readFiles(opts)
	if err != nil {
		return nil, err
	}
	p := &Project{}
	var refused []string
	for _, f := range files {
		soft, hard, err := inspectKeys(f.Filename, f.Content)
		if err != nil {
			return nil, err
		}
		for _, k := range soft {
			p.Warnings = append(p.Warnings, k.String()+" changes nothing here")
		}
		for _, k := range hard {
			refused = append(refused, k.String())
		}
	}
	if len(refused) > 0 {
		return nil, &UnsupportedError{Keys: refused}
	}
	project, err := loader.LoadWithContext(ctx, types.ConfigDetails{
		ConfigFiles: files, WorkingDir: dir, Environment: opts.Env,
	}, func(o *loader.Options) {
		o.SetProjectName(projectName(opts, dir), opts.Project != "")
		o.Profiles = opts.Profiles
	})
	if err != nil {
		return nil, fmt.Errorf("read compose file: %w", err)
	}
	p.Name = project.Name
	return p, p.convert(project, opts.Services)
}

// convert fills Specs with the wanted services of a loaded project.
func (p *Project) convert(project *types.Project, wanted []string) error {
	for _, name := range wanted {
		if _, ok := project.Services[name]; !ok {
			return &shoal.InvalidError{Field: "service", Why: fmt.Sprintf("%q is not in the file (there are %s)", name, strings.Join(project.ServiceNames(), ", "))}
		}
	}
	for _, name := range project.ServiceNames() {
		if len(wanted) > 0 && !slices.Contains(wanted, name) {
			continue
		}
		service := project.Services[name]
		spec, err := toSpec(p.Name, &service)
		if err != nil {
			return fmt.Errorf("service %s: %w", name, err)
		}
		p.Specs = append(p.Specs, spec)
	}
	if len(p.Specs) == 0 {
		return &shoal.InvalidError{Field: "services", Why: "names none to deploy"}
	}
	return nil
}

func readFiles(opts Options) ([]types.ConfigFile, string, error) {
	names := opts.Files
	if len(names) == 0 {
		found := ""
		for _, name := range defaultFiles {
			if _, err := os.Stat(filepath.Join(opts.Dir, name)); err == nil {
				found = filepath.Join(opts.Dir, name)
				break
			}
		}
		if found == "" {
			return nil, "", fmt.Errorf("no compose file here (looked for %s): %w", strings.Join(defaultFiles, ", "), shoal.ErrNotFound)
		}
		names = []string{found}
	}
	dir := opts.Dir
	if dir == "" && names[0] != "-" {
		dir = filepath.Dir(names[0])
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, "", fmt.Errorf("find the working directory: %w", err)
	}
	var files []types.ConfigFile
	for _, name := range names {
		text, err := readFile(name, opts.Stdin)
		if err != nil {
			return nil, "", err
		}
		files = append(files, types.ConfigFile{Filename: name, Content: text})
	}
	return files, dir, nil
}

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
		return nil, &shoal.InvalidError{Field: "file", Why: "is - but there is no standard input"}
	}
	var buf bytes.Buffer
	n, err := io.Copy(&buf, io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read compose file %s: %w", name, err)
	}
	if n > maxFile {
		return nil, &shoal.InvalidError{Field: "file", Why: fmt.Sprintf("%s is larger than %d MiB", name, maxFile>>20)}
	}
	return buf.Bytes(), nil
}

// projectName is what the project is called when the file does not say.
func projectName(opts Options, dir string) string {
	if opts.Project != "" {
		return opts.Project
	}
	if name := loader.NormalizeProjectName(filepath.Base(dir)); name != "" {
		return name
	}
	return "default"
}
