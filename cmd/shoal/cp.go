// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

type copyFlags struct{ archive, follow, quiet bool }

func (a *app) cpCmd() *cobra.Command {
	var f copyFlags
	cmd := &cobra.Command{
		Use: "cp [flags] SOURCE TARGET", Short: "Copy files out of a replica, or into one", Args: atLeast(2, 2),
		ValidArgsFunction: a.places,
		Long: `Copy files and directories between here and a replica, on whatever peer it is; it may
have failed. One of SOURCE and TARGET is SERVICE[/SLOT]:PATH, the other a path here, or - for a tar
archive on standard input or output. Without SLOT it is a replica as for "shoal exec". A
path here that has a colon is written ./like:this.

It goes as with "docker cp": into a TARGET that is a directory, else under TARGET's name;
"DIRECTORY/." is what the directory holds, without itself. What is there is overwritten.
Owners are those who may write there, with -a those of the source. Devices, pipes and
sockets are left out, which is said. A copy that moves nothing for 30 s is given up.

What is copied into a replica is in that container alone, and gone when it is replaced: for
what must stay there are volumes. A peer of role "peer" reaches only into its own replicas.`,
		Example: "  shoal cp web/1:/var/log/app.log .\n  shoal cp ./conf/. web/1:/etc/app\n  shoal cp web:/data - | tar -t\n  shoal cp web/0:/data - | shoal cp - web/1:/",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.cp(cmd, f, args[0], args[1]) },
	}
	cmd.Flags().BoolVarP(&f.archive, "archive", "a", false, "keep owners, and setuid and setgid bits")
	cmd.Flags().BoolVarP(&f.follow, "follow-link", "L", false, "copy what SOURCE links to, not the link")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "do not say what was copied")
	return cmd
}

func (a *app) cp(cmd *cobra.Command, f copyFlags, source, target string) error {
	from, err := parsePlace(source)
	if err != nil {
		return err
	}
	to, err := parsePlace(target)
	if err != nil {
		return err
	}
	switch {
	case from.isInside() && to.isInside():
		return usage("both are replicas; copy through here: shoal cp %s - | shoal cp - %s", source, target)
	case !from.isInside() && !to.isInside():
		return usage("neither is a replica: one must be SERVICE[/SLOT]:PATH; to copy here there is cp")
	case to.path == "-" && a.isTerminal(a.out):
		return usage("an archive is nothing for a terminal; put it into a file or a pipe: shoal cp %s - > files.tar", source)
	}
	ctx, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	cp := &copying{app: a, flags: f, client: c, meter: meter{app: a, isLive: a.terminal && !f.quiet}}
	if from.isInside() {
		err = cp.download(ctx, from, to)
	} else {
		err = cp.upload(ctx, from, to)
	}
	cp.meter.end()
	if err != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return silent(exitInterrupted)
	}
	if err == nil && !f.quiet && to.path != "-" {
		cp.say(source, target)
	}
	return err
}

// isTerminal says whether what is read from or written to is one.
func (*app) isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// place is one side of a copy.
type place struct {
	target string // SERVICE[/SLOT]; "": here
	path   string // as it was typed: a slash or a "/." at its end says something
}

func (p place) isInside() bool { return p.target != "" }

// inside is the path in a container: absolute, for nobody is anywhere in there.
func (p place) inside() string { return path.Clean("/" + p.path) }

// local is the path here, ready for the system: "DIR/." loses its end.
func (p place) local() string { return filepath.Clean(p.path) }

// isContent says that the directory itself is not meant.
func (p place) isContent() bool {
	return strings.HasSuffix(p.path, "/.") || p.path == "." || p.path == "/" && p.isInside()
}

// isDirectory says that it can be nothing else.
func (p place) isDirectory() bool { return p.isContent() || strings.HasSuffix(p.path, "/") }

func parsePlace(s string) (place, error) {
	target, rest, has := strings.Cut(s, ":")
	if !has || strings.HasPrefix(s, "/") || strings.HasPrefix(s, ".") {
		if s == "" {
			return place{}, usage("a path must not be empty")
		}
		return place{path: s}, nil
	}
	if _, _, err := parseTarget(target); err != nil {
		return place{}, usage("%q is no SERVICE[/SLOT]:PATH: %w; a file of that name is written ./%s", s, err, s)
	}
	if rest == "" {
		return place{}, usage("%q has no path; / is all of it", s)
	}
	return place{target: target, path: rest}, nil
}

// spot is where a source goes: under a name in a directory that is there. The name "."
// is the directory itself.
type spot struct{ dir, name string }

// found is what is at a target, whose path has no slash at its end.
type found struct {
	path           string
	isThere, isDir bool
}

// decide returns where a source goes, by the rules of "docker cp".
func decide(from place, isDir bool, base string, to place, at found) (spot, error) {
	switch {
	case from.isDirectory() && !isDir:
		return spot{}, usage("%s is no directory", from.path)
	case at.isDir && isDir && from.isContent():
		return spot{at.path, "."}, nil
	case at.isDir:
		return spot{at.path, base}, nil
	case at.isThere && isDir:
		return spot{}, usage("a directory cannot go over the file %s", to.path)
	case at.isThere && to.isDirectory():
		return spot{}, usage("%s is no directory", to.path)
	case !at.isThere && !isDir && to.isDirectory():
		return spot{}, usage("there is no directory %s", to.path)
	}
	return spot{path.Dir(at.path), path.Base(at.path)}, nil
}

// copying is one copy under way.
type copying struct {
	app    *app
	flags  copyFlags
	client *api.Client
	meter  meter
	left   int // special files left out
}

func (cp *copying) say(source, target string) {
	what := "copied "
	if source != "-" { // of an archive it is not known
		what += count(cp.meter.files, "file") + ", "
	}
	what += fmt.Sprintf("%s from %s to %s", size(cp.meter.bytes), source, target)
	if cp.left > 0 {
		what += fmt.Sprintf("; left out %d devices, pipes or sockets", cp.left)
	}
	cp.app.say("%s", clean(what))
}

// errFollow ends a copy whose source turned out to be a link.
var errFollow = errors.New("it is a link")

// maxLinks is how often a link may lead to another: Linux's own bound (path_resolution(7)).
const maxLinks = 40

func (cp *copying) download(ctx context.Context, from, to place) error {
	at, err := cp.app.target(ctx, cp.client, from.target)
	if err != nil {
		return err
	}
	source := from.inside()
	for range maxLinks {
		var st shoal.PathStat
		err := cp.fetch(ctx, at, source, from, to, &st)
		if !errors.Is(err, errFollow) {
			return err
		}
		source = linked(source, st.Link)
	}
	return fmt.Errorf("%s: more than %d links lead to each other", from.path, maxLinks)
}

// linked is where a link leads.
func linked(from, link string) string {
	if path.IsAbs(link) {
		return path.Clean(link)
	}
	return path.Join(path.Dir(from), link)
}

// fetch copies one path out of a replica. st is what is there.
func (cp *copying) fetch(ctx context.Context, at shoal.Target, source string, from, to place, st *shoal.PathStat) error {
	archive, come := io.Pipe()
	defer context.AfterFunc(ctx, func() { _ = archive.CloseWithError(ctx.Err()) })() // it never fails
	taken := make(chan error, 1)
	hasBegun := false
	begin := func(s shoal.PathStat) error {
		*st = s
		if s.Mode&fs.ModeSymlink != 0 && s.Link != "" && (cp.flags.follow || from.isDirectory()) {
			return errFollow
		}
		take, err := cp.taker(source, from, to, s)
		if err != nil {
			return err
		}
		hasBegun = true
		go func() {
			err := take(archive)
			_ = archive.CloseWithError(err) // ends the copy, if it is not at its end
			taken <- err
		}()
		return nil
	}
	err := cp.client.CopyFrom(ctx, at, source, begin, io.MultiWriter(come, &cp.meter))
	_ = come.CloseWithError(err) // nil is the end
	if !hasBegun || err != nil && to.path == "-" {
		return err // a Write to a pipe that nobody reads cannot be ended; it ends with the process
	}
	return cmp.Or(err, <-taken) // what ended the copy is why the archive broke, not the reverse
}

// taker returns what takes the archive of a source.
func (cp *copying) taker(source string, from, to place, st shoal.PathStat) (func(io.Reader) error, error) {
	if to.path == "-" {
		return func(archive io.Reader) error { _, err := io.Copy(cp.app.out, archive); return err }, nil
	}
	if err := copyable(from, st.Mode); err != nil {
		return nil, err
	}
	there, err := localFound(to.path)
	if err != nil {
		return nil, err
	}
	spot, err := decide(from, st.Mode.IsDir(), path.Base(from.inside()), to, there)
	if err != nil {
		return nil, err
	}
	u := &unpacker{copying: cp, name: spot.name, isWhole: source == "/"}
	return func(archive io.Reader) error { return u.unpack(spot.dir, archive) }, nil
}

// copyable refuses a source of which nothing would be copied.
func copyable(from place, mode fs.FileMode) error {
	if mode&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket|fs.ModeIrregular) != 0 {
		return usage("%s is a device, pipe or socket; only files, directories and links are copied", from.path)
	}
	return nil
}

// localFound says what is at a target here; a link it follows, so that what it leads to
// is overwritten, or made.
func localFound(p string) (found, error) {
	at := filepath.Clean(p)
	for range maxLinks {
		st, err := os.Lstat(at)
		if err != nil { // whatever else it is will be said when it is used
			return found{path: at}, nil
		}
		if st.Mode()&fs.ModeSymlink == 0 {
			return found{path: at, isThere: true, isDir: st.IsDir()}, nil
		}
		link, err := os.Readlink(at)
		if err == nil && !filepath.IsAbs(link) {
			var dir string
			dir, err = filepath.EvalSymlinks(filepath.Dir(at)) // ".." is that of what a link leads to
			link = filepath.Join(dir, link)
		}
		if err != nil {
			return found{}, fmt.Errorf("read %s: %w", p, errors.Unwrap(err))
		}
		at = link
	}
	return found{}, fmt.Errorf("%s: more than %d links lead to each other", p, maxLinks)
}

func (cp *copying) upload(ctx context.Context, from, to place) error {
	at, err := cp.app.target(ctx, cp.client, to.target)
	if err != nil {
		return err
	}
	if from.path == "-" {
		return cp.client.CopyTo(ctx, at, to.inside(), metered{newInput(cp.app.in), &cp.meter})
	}
	source := from.local()
	stat := os.Lstat
	if cp.flags.follow || from.isDirectory() {
		stat = os.Stat
	}
	st, err := stat(source)
	if err != nil {
		return fmt.Errorf("read %s: %w", from.path, errors.Unwrap(err))
	}
	if err := copyable(from, st.Mode()); err != nil {
		return err
	}
	there, err := cp.insideFound(ctx, at, to.inside())
	if err != nil {
		return err
	}
	absolute, err := filepath.Abs(source) // "." has a name too
	if err != nil {
		return err
	}
	spot, err := decide(from, st.IsDir(), filepath.Base(absolute), to, there)
	if err != nil {
		return err
	}
	archive, come := io.Pipe()
	g, within := errgroup.WithContext(ctx)
	g.Go(func() error {
		p := &packer{copying: cp, name: spot.name}
		err := p.pack(source, st, io.MultiWriter(come, &cp.meter))
		_ = come.CloseWithError(err) // nil is the end
		if errors.Is(err, io.ErrClosedPipe) {
			return nil // the other side ended it, and says why
		}
		return err
	})
	g.Go(func() error { return cp.client.CopyTo(within, at, spot.dir, archive) })
	return g.Wait()
}

// insideFound says what is at the target of an upload; a link it follows.
func (cp *copying) insideFound(ctx context.Context, at shoal.Target, p string) (found, error) {
	for range maxLinks {
		st, err := cp.client.Stat(ctx, at, p)
		if refused, ok := errors.AsType[*api.Error](err); ok && refused.Code == api.CodeNotFound {
			// The directory above tells a missing file from a missing replica.
			_, err := cp.client.Stat(ctx, at, path.Dir(p))
			return found{path: p}, err
		}
		if err != nil || st.Mode&fs.ModeSymlink == 0 || st.Link == "" {
			return found{path: p, isThere: true, isDir: st.Mode.IsDir()}, err
		}
		p = linked(p, st.Link)
	}
	return found{}, fmt.Errorf("%s: more than %d links lead to each other", p, maxLinks)
}

// meterEvery is how often the line of a terminal changes.
const meterEvery = 200 * time.Millisecond

// meter counts what is copied, and shows it while that goes on.
type meter struct {
	app    *app
	isLive bool
	bytes  int64 // of the archive
	files  int
	shown  time.Time
}

// Write implements io.Writer.
func (m *meter) Write(p []byte) (int, error) {
	m.bytes += int64(len(p))
	if now := m.app.now(); m.isLive && now.Sub(m.shown) >= meterEvery {
		m.shown = now
		_, _ = fmt.Fprintf(m.app.err, "\r\x1b[Kcopying %s", size(m.bytes)) // there is nowhere to complain
	}
	return len(p), nil
}

// metered is what is typed or piped in, counted as it is read.
type metered struct {
	*input
	m *meter
}

// Read implements io.Reader.
func (in metered) Read(p []byte) (int, error) {
	n, err := in.input.Read(p)
	_, _ = in.m.Write(p[:n]) // it never fails
	return n, err
}

// end wipes the line.
func (m *meter) end() {
	if !m.shown.IsZero() {
		_, _ = io.WriteString(m.app.err, "\r\x1b[K") // as above
	}
}

// places completes with replicas that a path follows, and with files.
func (a *app) places(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	const files = cobra.ShellCompDirectiveDefault
	if len(args) > 1 || strings.HasPrefix(typed, ".") || strings.HasPrefix(typed, "/") || strings.Contains(typed, ":") {
		return nil, files
	}
	offered, _ := a.slots(cmd, nil, typed)
	for i, o := range offered {
		name, about, _ := strings.Cut(o, "\t")
		offered[i] = cobra.CompletionWithDesc(name+":", about)
	}
	return offered, files | cobra.ShellCompDirectiveNoSpace
}
