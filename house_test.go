// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package shoal_test

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/shoalnet/shoal"

// The limits of a file, a function and a package.
const (
	maxFileLines = 500
	maxFuncLines = 80
	maxExported  = 30
)

// rooms says which rooms of the module a room may import. A room may always import
// its own sub-packages, the root and internal/logkey. "*" is everything but cmd.
var rooms = map[string][]string{
	"":                 {},
	"internal":         {},
	"proto":            {},
	"compose":          {},
	"runtime":          {"internal/tree"},
	"placement":        {},
	"actors/lifecycle": {},
	"gossip/fold":      {},
	"images/swarm":     {},
	"ingress/balance":  {},
	"ingress":          {},
	"ingress/plan":     {"ingress/balance"},
	"ingress/carry":    {"ingress/balance", "proto"},
	"ingress/names":    {},
	"ingress/bridge":   {},
	"images":           {"proto"},
	"images/blobs":     {"images/swarm"},
	"images/manifest":  {},
	"images/archive":   {"images/blobs", "images/manifest"},
	"images/registry":  {"images/blobs", "images/manifest"},
	"images/exchange":  {"images/blobs", "images/swarm", "proto"},
	"images/upstream":  {"images/manifest"},
	"wish":             {"placement"},
	"links":            {"proto"},
	"gossip":           {"proto"},
	"api":              {"proto"},
	"api/apitest":      {"placement", "internal/tree"},
	"steward":          {"placement"},
	"actors":           {"placement"},
	"node":             {"proto", "runtime", "placement", "wish", "links", "gossip", "actors", "api", "images", "ingress", "steward"},
	"node/metrics":     {},
	"lab":              {"*"},
	"cmd/shoald":       {"node"},
	"cmd/shoal":        {"api", "compose"},
	"cmd/shoal-lab":    {"lab"},
	"examples":         {},
	"internal/pack":    {},
	"internal/tree":    {},
}

// outside says in which rooms an outside library may be used.
var outside = []struct {
	prefix string
	rooms  []string
	why    string
}{
	{"github.com/libp2p/go-libp2p-pubsub", []string{"gossip", "node", "lab"}, "topics carry state and beats only"},
	{"github.com/libp2p/go-libp2p", []string{"links", "gossip", "images", "ingress", "node", "lab"}, "the network stays behind links"},
	{"github.com/multiformats/go-multiaddr", []string{"links", "gossip", "images", "ingress", "node", "lab"}, "users never see a multiaddress they did not write"},
	{"github.com/ipfs/go-ds-crdt", []string{"gossip"}, "the CRDT stays behind Store"},
	{"github.com/ipfs/boxo", []string{"gossip", "images"}, "blocks stay behind Store"},
	{"github.com/ipfs/go-datastore", []string{"gossip", "images"}, "datastores stay behind Store"},
	{"github.com/asynkron/protoactor-go/remote", nil, "it is plaintext and lets anybody stop any actor"},
	{"github.com/asynkron/protoactor-go/cluster", nil, "Shoal has no cluster provider"},
	{"github.com/asynkron/protoactor-go", []string{"actors"}, "actors are local"},
	{"github.com/docker/docker", []string{"runtime", "lab"}, "the engine stays behind Engine"},
	{"github.com/compose-spec/compose-go", []string{"compose"}, "one reader of Compose files"},
	{"github.com/miekg/dns", []string{"ingress"}, "names are served by ingress"},
	{"github.com/vishvananda/netlink", []string{"ingress"}, "the machine's routes are ingress's"},
	{"github.com/google/nftables", []string{"ingress"}, "the machine's tables are ingress's"},
	{"cuelabs.dev/go/oci/ociregistry", []string{"images"}, "the registry is a room"},
	{"github.com/google/go-containerregistry", []string{"images", "internal/pack", "cmd/shoal"}, "images are built at the edge"},
	{"github.com/prometheus", []string{"node/metrics"}, "one table of metrics"},
	{"google.golang.org/protobuf", []string{"proto", "api"}, "messages end at the codec"},
	{"connectrpc.com/connect", []string{"proto", "api"}, "one control surface"},
	{"github.com/robfig/cron", []string{""}, "one reader of schedules"},
	{"github.com/spf13/cobra", []string{"cmd"}, "flags end at the command"},
}

// pure rooms decide; they may not act. Imports and calls that they may not use.
var (
	pureRooms   = []string{"", "placement", "placement/autoscale", "placement/rollout", "placement/brake", "actors/lifecycle", "gossip/fold", "images/swarm", "ingress/balance", "ingress/plan", "ingress/names"}
	pureImports = []string{"os", "net", "log", "log/slog", "sync", "sync/atomic", "math/rand", "math/rand/v2", "crypto/rand", "os/exec", "syscall"}
	pureCalls   = []string{"time.Now", "time.Since", "time.Sleep", "time.After", "time.NewTimer", "time.NewTicker", "time.AfterFunc"}
	// The root declares the ports, whose methods take a context, and the system clock.
	rootMayUse = []string{"context", "io", "time.Now", "time.Since"}
)

// wide are the packages with a broader door, and how broad: the root has the nouns of
// all rooms, api the values that -o json prints.
var wide = map[string]int{"": 250, "api": 56}

type source struct {
	room, dir, path string
	file            *ast.File
	fset            *token.FileSet
	lines           int
	generated       bool
	test            bool
}

func TestHouse(t *testing.T) {
	sources := parseHouse(t)
	if len(sources) < 20 {
		t.Fatalf("parsed %d files; the walk is broken", len(sources))
	}
	packages := map[string][]*source{}
	for _, s := range sources {
		if !s.generated && !hasLicence(s.file) {
			t.Errorf("%s: has no licence header; every file starts with the two lines of LICENSE's notice", s.path)
		}
		if s.test || s.generated {
			continue
		}
		packages[s.dir] = append(packages[s.dir], s)
		checkImports(t, s)
		checkPurity(t, s)
		checkSizes(t, s)
	}
	for dir, files := range packages {
		checkPackage(t, dir, files)
	}
}

func parseHouse(t *testing.T) []*source {
	t.Helper()
	var out []*source
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			own := p != "." && exists(filepath.Join(p, "go.mod")) // bench and tools are modules of their own
			if own || strings.HasPrefix(d.Name(), ".") && p != "." || d.Name() == "testdata" || d.Name() == "bin" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		raw, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, raw, parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(p))
		if dir == "." {
			dir = ""
		}
		out = append(out, &source{
			room: roomOf(dir), dir: dir, path: p, file: f, fset: fset,
			lines: strings.Count(string(raw), "\n"), generated: ast.IsGenerated(f), test: strings.HasSuffix(p, "_test.go"),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// roomOf returns the longest room that dir lies in.
func roomOf(dir string) string {
	for d := dir; d != "." && d != ""; d = path.Dir(d) {
		if _, ok := rooms[d]; ok {
			return d
		}
	}
	return strings.SplitN(dir, "/", 2)[0]
}

func checkImports(t *testing.T, s *source) {
	t.Helper()
	for _, imp := range s.file.Imports {
		name, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if inside, ok := strings.CutPrefix(name, module); ok {
			checkInside(t, s, strings.TrimPrefix(inside, "/"))
			continue
		}
		checkOutside(t, s, name)
	}
}

func checkInside(t *testing.T, s *source, dir string) {
	t.Helper()
	may, known := rooms[s.room]
	if !known {
		t.Errorf("%s: room %q is not in the house; a new room needs a row in house_test.go and an ADR", s.path, s.room)
		return
	}
	room := roomOf(dir)
	own := within(dir, s.room) && s.room != "" || within(s.room, room) && room != "" && !slices.Contains(pureRooms, s.room)
	switch {
	case dir == "" || dir == "internal/logkey", own, slices.Contains(may, room):
	case slices.ContainsFunc(may, func(m string) bool { return within(room, m) }):
	case slices.Contains(may, "*") && !strings.HasPrefix(dir, "cmd/"):
	default:
		t.Errorf("%s: %q may not import %q: imports go one way only (STYLE: who may import whom); the loop closes through the Store", s.path, s.room, dir)
	}
}

func checkOutside(t *testing.T, s *source, name string) {
	t.Helper()
	for _, o := range outside {
		if !within(name, o.prefix) {
			continue
		}
		ok := slices.ContainsFunc(o.rooms, func(r string) bool { return within(s.dir, r) || within(s.room, r) })
		if !ok {
			t.Errorf("%s: %s may only be used in %v: %s", s.path, name, o.rooms, o.why)
		}
		return // the first, most specific row decides
	}
}

func checkPurity(t *testing.T, s *source) {
	t.Helper()
	if !slices.Contains(pureRooms, s.dir) {
		return
	}
	allowed := func(what string) bool { return s.dir == "" && slices.Contains(rootMayUse, what) }
	banned := append(slices.Clone(pureImports), "context", "io")
	for _, imp := range s.file.Imports {
		name, _ := strconv.Unquote(imp.Path.Value)
		if slices.Contains(banned, name) && !allowed(name) {
			t.Errorf("%s: pure room imports %s: decisions are values of their inputs; the shell acts", s.path, name)
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			t.Errorf("%s: pure room starts a goroutine", s.fset.Position(n.Pos()))
		case *ast.SendStmt, *ast.SelectStmt:
			t.Errorf("%s: pure room uses a channel", s.fset.Position(n.Pos()))
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok {
				if id, ok := sel.X.(*ast.Ident); ok {
					call := id.Name + "." + sel.Sel.Name
					if slices.Contains(pureCalls, call) && !allowed(call) {
						t.Errorf("%s: pure room calls %s: time is a parameter", s.fset.Position(n.Pos()), call)
					}
				}
			}
		}
		return true
	})
}

func checkSizes(t *testing.T, s *source) {
	t.Helper()
	if s.lines > maxFileLines {
		t.Errorf("%s: %d lines, limit %d: split by verb or noun", s.path, s.lines, maxFileLines)
	}
	for _, d := range s.file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		if n := s.fset.Position(fn.End()).Line - s.fset.Position(fn.Pos()).Line + 1; n > maxFuncLines {
			t.Errorf("%s: %s has %d lines, limit %d: a function fits a screen", s.path, fn.Name.Name, n, maxFuncLines)
		}
	}
}

func checkPackage(t *testing.T, dir string, files []*source) {
	t.Helper()
	docs, names := 0, 0
	for _, s := range files {
		if s.file.Doc != nil {
			docs++
		}
		names += exportedNames(s.file)
	}
	if docs != 1 {
		t.Errorf("package %q has %d package comments, want exactly one: what, how it is used, what it refuses to do", dir, docs)
	}
	limit := cmp.Or(wide[dir], maxExported)
	if names > limit {
		t.Errorf("package %q exports %d names, limit %d: a narrow door", dir, names, limit)
	}
}

// exportedNames counts top-level exported names; a group of constants, or of error
// values, counts once.
func exportedNames(f *ast.File) int {
	n := 0
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.IsExported() {
				n++
			}
		case *ast.GenDecl:
			n += exportedSpecs(d)
		}
	}
	return n
}

func exportedSpecs(d *ast.GenDecl) int {
	n := 0
	for _, sp := range d.Specs {
		switch sp := sp.(type) {
		case *ast.TypeSpec:
			if sp.Name.IsExported() {
				n++
			}
		case *ast.ValueSpec:
			for _, name := range sp.Names {
				if name.IsExported() {
					n++
				}
			}
		}
	}
	if d.Tok == token.CONST || d.Tok == token.VAR {
		return min(n, 1)
	}
	return n
}

func hasLicence(f *ast.File) bool {
	for _, c := range f.Comments {
		if c.Pos() < f.Package && strings.Contains(c.Text(), "Copyright The Shoal Authors") {
			return true
		}
	}
	return false
}

// within reports whether p is dir or lies below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}
