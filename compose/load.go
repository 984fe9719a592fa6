// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"

	"github.com/shoalnet/shoal"
)

// maxServices is what one deploy takes: more would be a block of records that peers
// refuse.
const maxServices = 1000

// Options say what to load.
type Options struct {
	Files    []string          // later ones are merged over earlier ones; "-" is Stdin; none: the default names in Dir
	Dir      string            // where relative paths start; "": the first file's directory
	Project  string            // overrides the file's name
	Env      map[string]string // for interpolation; counts more than EnvFiles
	EnvFiles []string          // none: .env in Dir, if it is there
	Services []string          // only these; none: all
	Profiles []string
	Strict   bool // harmless keys and the like are errors
	Stdin    io.Reader
}

// Project is a loaded file.
type Project struct {
	Name     string
	Specs    []shoal.Spec // by name
	Others   []string     // services of the file in profiles that are off, sorted
	Warnings []Problem    // harmless keys, each named once, and what else a user should know
}

// Load reads, merges, interpolates and judges Compose files. What is wrong with them
// is one *Error with all of it; nothing of the project is to be used then.
func Load(ctx context.Context, opts Options) (*Project, error) {
	l := &load{opts: &opts, missing: map[string]bool{}}
	if err := l.read(); err != nil {
		return nil, err
	}
	project, err := l.project(ctx)
	p := &Project{}
	var active []string
	if project != nil {
		p.Name = project.Name
		active = project.ServiceNames()
		p.Others = slices.Sorted(slices.Values(project.DisabledServiceNames()))
	}
	p.Warnings = l.judge(active, err)
	if err != nil {
		return nil, l.err()
	}
	l.circles()
	for _, name := range active {
		service := project.Services[name]
		c := &converter{project: project, service: &service, needs: l.needs[name], where: &where{walker: l.walker, service: name}}
		p.Specs = append(p.Specs, c.spec())
		l.addNew(c.found)
		p.Warnings = append(p.Warnings, c.warnings...)
	}
	if len(active) == 0 {
		l.add(Problem{File: l.files[0].name, Why: "there is no service to deploy; are they all in profiles?"})
	}
	p.Warnings = append(p.Warnings, l.unset()...)
	if opts.Strict {
		for _, w := range p.Warnings {
			w.Why += " (--strict)"
			l.add(w)
		}
	}
	if err := l.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// load is one Load.
type load struct {
	problems
	opts    *Options
	files   []*file
	dir     string
	env     map[string]string
	missing map[string]bool // variables that are used and not set
	walker  *walker
	needs   map[string]types.DependsOnConfig // of all services
}

// read reads the files and judges their keys.
func (l *load) read() error {
	if err := l.readFiles(); err != nil {
		return err
	}
	if err := l.err(); err != nil {
		return err
	}
	for _, f := range l.files {
		n := 0
		if key, services := child(f.root, "services"); key != nil {
			pairs(services, func(name, _ *yaml.Node) {
				n++
				if err := shoal.CheckName("name", name.Value); err != nil && n <= maxServices {
					l.add(Problem{File: f.name, Line: name.Line, Key: "services", Why: err.Error()})
				}
			})
			if n > maxServices {
				l.add(Problem{File: f.name, Line: key.Line, Key: "services", Why: fmt.Sprintf("has %d, at most %d are deployed at once; split the file", n, maxServices)})
			}
		}
	}
	if err := l.err(); err != nil {
		return err
	}
	l.walker = walkFiles(l.files, l.substitute)
	l.add(l.walker.problems...)
	return l.err()
}

// project lets compose-go merge and interpolate what was read. It was written for
// files that people write, so whatever it does with others ends here.
func (l *load) project(ctx context.Context) (p *types.Project, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("the reader of Compose files broke on it: %v", r)
		}
	}()
	details := types.ConfigDetails{WorkingDir: l.dir, Environment: l.env}
	for _, f := range l.files {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: f.name, Content: f.withoutVersion()})
	}
	p, err = loader.LoadWithContext(ctx, details, func(o *loader.Options) {
		o.SetProjectName(projectName(l.opts, l.dir), l.opts.Project != "")
		o.Profiles = l.opts.Profiles
		o.MaxNodeVisits = 10 * maxValues // parseFile was stricter
		o.Interpolate.Substitute = func(s string, _ template.Mapping) (string, error) { return l.substitute(s) }
		o.SkipConsistencyCheck = true                              // it stops at the first; the converter names all
		o.SkipResolveEnvironment, o.SkipResolveLabels = true, true // only for those wanted
	})
	if err != nil {
		return nil, err
	}
	l.needs = dependenciesOf(p)
	if want := l.opts.Services; len(want) > 0 {
		for _, name := range want {
			if !known(p, name) {
				return nil, fmt.Errorf("there is no service %q (there are %s)", name, strings.Join(allNames(p), ", "))
			}
		}
		if p, err = p.WithServicesEnabled(want...); err != nil {
			return nil, err
		}
		if p, err = p.WithSelectedServices(want, types.IgnoreDependencies); err != nil {
			return nil, err
		}
	}
	if p, err = p.WithServicesEnvironmentResolved(true); err != nil {
		return nil, err
	}
	return p.WithServicesLabelsResolved(true)
}

func known(p *types.Project, name string) bool { return slices.Contains(allNames(p), name) }

// allNames returns the names of all services, those of profiles that are off too.
func allNames(p *types.Project) []string {
	names := append(p.ServiceNames(), p.DisabledServiceNames()...)
	slices.Sort(names)
	return names
}

// judge turns what the walk found about the active services into problems and
// warnings. Where the reader refused the files, everything found counts.
func (l *load) judge(active []string, err error) []Problem {
	counts := map[owner]bool{}
	for _, name := range active {
		for _, o := range l.walker.chain(name) {
			counts[o] = true
		}
	}
	at := map[string]int{} // index of the warning by the key's pattern
	var warnings []Problem
	more := map[string]int{}
	told := false // of what compose-go complains of first
	for _, f := range l.walker.findings {
		i, named := at[f.pattern]
		switch {
		case f.service != "" && err == nil && !counts[f.owner]:
		case !f.harmless:
			told = told || f.formal || table[f.pattern] == nil
			l.add(f.Problem)
		case named && !l.opts.Strict:
			more[f.pattern]++
			warnings[i].Why = fmt.Sprintf("%s (and %d more)", f.Why, more[f.pattern])
		default:
			at[f.pattern] = len(warnings)
			warnings = append(warnings, f.Problem)
		}
	}
	if err != nil && !told {
		l.refused(err)
	}
	return warnings
}

// How compose-go names what it complains of.
var (
	composePath    = regexp.MustCompile(`\b(services|volumes|networks)\.[A-Za-z0-9_.\[\]-]+[A-Za-z0-9_\]]`)
	composeValue   = regexp.MustCompile(`'services\[([^\]]+)\]\.([^']+)' ([^']+)`)
	composeService = regexp.MustCompile(`\bservice "([^"]+)"`)
)

// refused adds what compose-go said, one problem for each of its errors.
func (l *load) refused(err error) {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range several.Unwrap() {
			l.refused(e)
		}
		return
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	for _, f := range l.files {
		text = strings.TrimPrefix(text, "validating "+f.name+": ")
	}
	text = strings.TrimPrefix(text, "error while interpolating ")
	if several := composeValue.FindAllStringSubmatch(text, -1); several != nil {
		for _, m := range several {
			p := (&where{walker: l.walker, service: m[1]}).at(m[2])
			p.Why = strings.TrimSpace(m[3])
			l.add(p)
		}
		return
	}
	path := composePath.FindString(text)
	if m := composeService.FindStringSubmatch(text); path == "" && m != nil {
		path = "services." + m[1]
	}
	p := Problem{File: l.files[len(l.files)-1].name, Why: text}
	if path != "" {
		parts := strings.SplitN(path, ".", 3)
		if len(parts) == 2 {
			parts = append(parts, "")
		}
		at := (&where{walker: l.walker, section: parts[0], service: parts[1]}).at(indexed(parts[2]))
		p = at
		p.Why = strings.TrimLeft(strings.TrimPrefix(text, path), ": ")
	}
	l.addNew([]Problem{p})
}

// indexed writes "ports.0" as "ports[0]".
func indexed(path string) string {
	return regexp.MustCompile(`\.(\d+|\[\d*\])(\.|$)`).ReplaceAllStringFunc(path, func(s string) string {
		s = strings.TrimPrefix(s, ".")
		n, dotted := strings.CutSuffix(s, ".")
		if dotted {
			return "[" + strings.Trim(n, "[]") + "]."
		}
		return "[" + strings.Trim(n, "[]") + "]"
	})
}

// maxUnset is how many variables without a value are named.
const maxUnset = 20

// variable is a name behind the dollar.
var variable = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)

// substitute fills in the variables of a text, and remembers those that are not set.
func (l *load) substitute(text string) (string, error) {
	lookup := func(name string) (string, bool) {
		v, ok := l.env[name]
		return v, ok
	}
	return template.SubstituteWithOptions(text, lookup, template.WithoutLogging, template.WithReplacementFunction(
		func(part string, m template.Mapping, cfg *template.Config) (string, error) {
			value, applied, err := template.DefaultReplacementAppliedFunc(part, m, cfg)
			if name := variable.FindString(part); err == nil && !applied {
				l.missing[name] = true
			}
			return value, err
		}))
}

// unset warns of variables that are not set, where they first stand.
func (l *load) unset() []Problem {
	var out []Problem
	names := slices.Sorted(maps.Keys(l.missing))
	for _, name := range names[:min(len(names), maxUnset)] {
		use := regexp.MustCompile(`\$\{?` + name + `\b`)
		p := Problem{File: l.files[0].name, Why: fmt.Sprintf("the variable %s is not set, and nothing stands in its place; set it here or in .env", name)}
		for _, f := range l.files {
			if i := use.FindIndex(f.text); i != nil {
				p.File, p.Line = f.name, 1+strings.Count(string(f.text[:i[0]]), "\n")
				break
			}
		}
		out = append(out, p)
	}
	return out
}

// projectName is what the project is called when the file does not say.
func projectName(opts *Options, dir string) string {
	if opts.Project != "" {
		return opts.Project
	}
	if name := loader.NormalizeProjectName(filepath.Base(dir)); name != "" {
		return name
	}
	return "default"
}

var errNoInput = errors.New("there is no standard input to read")
