// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

func (a *app) moveFlags(f *pflag.FlagSet) {
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress, and only NAME@DIGEST")
}

func (a *app) imagePushCmd() *cobra.Command {
	var as string
	cmd := &cobra.Command{
		Use: "push IMAGE|FILE|DIRECTORY|-", Short: "Take an image into the cluster", Args: someArgs(1),
		ValidArgsFunction: a.imagesOrFiles,
		Long: `Take an image into the cluster: one of the engine of the asked peer, by its name, or a
file here: what "docker save" wrote, plain or compressed with gzip or zstd, a directory
that is an OCI layout, or - for such an archive on standard input. On one peer is enough:
the others get it from each other when they need it.

What is there as a directory, or is there and ends in .tar, .tgz or the like or has a slash,
is a file; everything else is the name of an image. An archive says the names of its
images; --as gives one that does not a name, or another.

"docker push" works too, see "shoal image login".`,
		Example: `  docker build -t app:v1 . && shoal image push app:v1
  shoal image push app:v1 --as shop/app:2026-01
  docker save app:v1 | shoal -H ssh://osaka image push -
  shoal image push ./layout --as app:v1`,
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := a.imageSource(args[0])
			if err != nil {
				return err
			}
			if src.open != nil {
				return a.importImage(cmd, src, as)
			}
			return a.pushImage(cmd, args[0], as)
		},
	}
	cmd.Flags().StringVar(&as, "as", "", "the image's name here")
	a.moveFlags(cmd.Flags())
	return cmd
}

func (a *app) imageImportCmd() *cobra.Command {
	var as string
	cmd := &cobra.Command{
		Use: "import FILE|-", Short: "Take the images of an archive into the cluster", Args: someArgs(1),
		ValidArgsFunction: filesOnly,
		Long: `Take all images of an archive: a tar, plain or compressed with gzip or zstd, as "docker
save" or "shoal image export" wrote it, or of an OCI layout. It is taken whole or not at all. An archive says
the names of its images; --as gives one that does not a name, or another.`,
		Example: "  docker save app:v1 db:2 | gzip > images.tar.gz\n  shoal image import images.tar.gz\n  curl -s https://example.com/app.tar | shoal image import - --as app:v1",
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := a.archiveSource(args[0])
			if err != nil {
				return err
			}
			return a.importImage(cmd, src, as)
		},
	}
	cmd.Flags().StringVar(&as, "as", "", "the image's name here")
	a.moveFlags(cmd.Flags())
	return cmd
}

func (a *app) imagePullCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pull IMAGE", Short: "Bring an image to the asked peer", Args: someArgs(1),
		Long: `Bring an image to the asked peer before anything there needs it, for its own platform,
from the peers that hold it. What is there already does not move. Services need no pull:
a peer that is to run one gets what it lacks by itself.`,
		Example: "  shoal image pull app:v1\n  shoal -H ssh://osaka image pull app:v1",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.pullImage(cmd, args[0]) },
	}
	a.moveFlags(cmd.Flags())
	return cmd
}

// pushImage takes an image of the engine.
func (a *app) pushImage(cmd *cobra.Command, ref, as string) error {
	ctx, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	m := a.moving("push " + ref)
	got, err := c.PushImage(ctx, ref, as, m.tell)
	m.end()
	switch {
	case isCut(ctx, err):
		return a.cutShort(ctx, c, orRef(as, ref), "nothing was pushed; what came so far saves the next push time")
	case isMissing(err):
		return notInEngine(ref, err)
	case err != nil:
		return err
	}
	return a.showMoved("pushed", got)
}

func orRef(as, ref string) string {
	if as == "" {
		return ref
	}
	return as
}

func isMissing(err error) bool {
	e, ok := errors.AsType[*api.Error](err)
	return ok && e.Code == api.CodeNotFound
}

// notInEngine says what to do about an image that the engine does not have.
func notInEngine(ref string, err error) error {
	e, _ := errors.AsType[*api.Error](err) // it is one, says isMissing
	out := *e
	if out.Todo != "" {
		return e
	}
	out.Todo = `"docker images" on that machine lists what there is`
	if _, serr := os.Stat(ref); serr == nil {
		out.Todo = fmt.Sprintf("there is a file of that name here: shoal image push ./%s", ref)
	}
	return &out
}

func (a *app) pullImage(cmd *cobra.Command, ref string) error {
	ctx, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	m := a.moving("pull " + ref)
	got, err := c.PullImage(ctx, ref, m.tell)
	m.end()
	switch {
	case isCut(ctx, err):
		return a.cutShort(ctx, c, ref, "nothing of it is here")
	case err != nil:
		return a.meant(ctx, c, ref, err)
	}
	return a.showMoved("here is", []api.Image{got})
}

// importImage takes an archive.
func (a *app) importImage(cmd *cobra.Command, src source, as string) error {
	ctx, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	archive, err := src.open(ctx)
	if err != nil {
		return err
	}
	m := a.moving("push " + src.name)
	got, err := c.ImportImage(ctx, archive, as, m.tell)
	m.end()
	if isCut(ctx, err) {
		if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.CodeInvalid {
			return whenCut(ctx, "nothing was taken: the archive is cut off")
		}
		return whenCut(ctx, "whether it was taken is not known; shoal image ls shows it")
	}
	if err != nil {
		return err
	}
	if err := a.showMoved("pushed", got); err != nil {
		return err
	}
	if ctx.Err() != nil {
		a.say("interrupted, but it was done")
	}
	return nil
}

// isCut reports whether a move ended because it was interrupted, or because of --timeout,
// which the daemon may notice a moment earlier.
func isCut(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil {
		return err != nil
	}
	e, ok := errors.AsType[*api.Error](err)
	at, isLimited := ctx.Deadline()
	return ok && e.Code == api.CodeTimeout && isLimited && time.Until(at) < time.Second
}

// whenCut ends a move that isCut.
func whenCut(ctx context.Context, what string) error {
	if ctx.Err() == nil || errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return &coded{code: exitTimeout, name: api.CodeTimeout, err: errors.New("not done in time; " + what)}
	}
	return interrupted(what)
}

// cutShort says what became of a move that was cut short: what the name stands for now,
// and how much of that is here; unless nobody knows the name.
func (*app) cutShort(ctx context.Context, c *api.Client, ref, unless string) error {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), learnTime)
	defer cancel()
	all, err := c.Images(call)
	if err != nil {
		return whenCut(ctx, "what became of it is not known; shoal image ls shows it")
	}
	for _, x := range all.Items {
		if x.Name == shoal.NormalizeRef(ref) {
			here := share(x.Here, x.Size)
			if here == "" {
				here = "nothing"
			}
			return whenCut(ctx, fmt.Sprintf("%s is %s, %s of it here; the next try goes on from there", x.Name, x.Digest, here))
		}
	}
	return whenCut(ctx, unless)
}

// showMoved tells what was moved.
func (a *app) showMoved(verb string, got []api.Image) error {
	switch {
	case a.quiet:
		return lines(a.out, got, func(x api.Image) string { return repository(x.Name) + "@" + x.Digest })
	case a.output == "name":
		return lines(a.out, got, func(x api.Image) string { return x.Name })
	case !a.forPeople():
		return a.encode(a.out, got)
	}
	return lines(a.out, got, func(x api.Image) string {
		return fmt.Sprintf("%s %s: %s, %s", verb, x.Name, x.Digest, size(x.Size))
	})
}

// Progress of a move is a line of a terminal that changes so often, or a line this seldom.
const (
	moveEvery = 200 * time.Millisecond
	moveLine  = 5 * time.Second
)

// moving shows how far a move is, on stderr.
type moving struct {
	app    *app
	what   string
	isLive bool
	shown  time.Time // a line, or that it began
	isDirt bool      // there is something to wipe
}

func (a *app) moving(what string) *moving {
	return &moving{app: a, what: clean(what), isLive: a.isTerminal(a.err) && a.env["TERM"] != "dumb", shown: a.now()}
}

func (m *moving) tell(p shoal.ImageProgress) {
	now, every := m.app.now(), moveLine
	if m.isLive {
		every = moveEvery
	}
	if m.app.quiet || now.Sub(m.shown) < every {
		return
	}
	m.shown = now
	line := clean(fmt.Sprintf("%s, %s: %s", m.what, p.What, p))
	if !m.isLive {
		m.app.say("%s", line)
		return
	}
	m.isDirt = true
	_, _ = io.WriteString(m.app.err, "\r\x1b[K"+m.app.fit(line)) // there is nowhere to complain
}

// end wipes the line.
func (m *moving) end() {
	if m.isDirt {
		_, _ = io.WriteString(m.app.err, "\r\x1b[K") // as above
	}
}

func (a *app) imageExportCmd() *cobra.Command {
	var file, format, platform string
	cmd := &cobra.Command{
		Use: "export IMAGE", Short: "Write an image as an archive", Args: someArgs(1),
		Long: `Write an image as a tar archive to a file, or to standard output. As oci it is an OCI
layout, which keeps every digest and has all platforms that are known, or the one of
--platform; as docker it is what "docker save" writes, of one platform. What the asked
peer lacks it gets from the others first. A file appears when it is complete.`,
		Example: `  shoal image export app:v1 -o app.tar
  shoal image export app:v1 --format docker | docker load
  shoal image export app:v1 | gzip > app.tar.gz
  shoal image export app:v1 --platform linux/arm64 -o app-arm64.tar`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (file == "" || file == "-") && a.isTerminal(a.out) {
				return usage("an archive is nothing for a terminal; write it to a file: shoal image export %s -o image.tar", args[0])
			}
			return a.exportImage(cmd, args[0], format, platform, file)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "output", "o", "", "write it to `FILE`; - or none is standard output")
	f.StringVar(&format, "format", shoal.FormatOCI, "oci or docker")
	f.StringVar(&platform, "platform", "", "only this one, like linux/arm64")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress")
	return cmd
}

func (a *app) exportImage(cmd *cobra.Command, ref, format, platform, file string) error {
	ctx, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	m := a.moving("export " + ref)
	write := func(w io.Writer) error { return c.ExportImage(ctx, ref, format, platform, w, m.tell) }
	if file == "" || file == "-" {
		err = write(a.out)
	} else {
		err = writeWhole(file, write)
	}
	m.end()
	switch {
	case isCut(ctx, err) && (file == "" || file == "-"):
		return whenCut(ctx, "the archive is cut off")
	case isCut(ctx, err):
		return whenCut(ctx, file+" was not written")
	case err != nil:
		return a.meant(ctx, c, ref, err)
	}
	if st, serr := os.Stat(file); serr == nil && !a.quiet {
		a.say("wrote %s, %s", clean(file), size(st.Size()))
	}
	return nil
}

// writeWhole makes a file that appears, in the place of an old one, when all of it is
// written. What is there and no file, a pipe say, is written to.
func writeWhole(path string, write func(io.Writer) error) error {
	st, err := os.Stat(path)
	if err == nil && st.IsDir() {
		return usage("%s is a directory; name a file in it", path)
	}
	name, mode := path, os.O_WRONLY
	if isFile := err != nil || st.Mode().IsRegular(); isFile {
		name, mode = filepath.Join(filepath.Dir(path), ".shoal-export-"+rand.Text()), os.O_WRONLY|os.O_CREATE|os.O_EXCL
	}
	f, err := os.OpenFile(name, mode, 0o666) // what the user's umask leaves of it
	if err != nil {
		return fmt.Errorf("write %s: %w", path, unpathed(err))
	}
	err = write(f)
	if cerr := f.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("write %s: %w", path, unpathed(cerr))
	}
	if name == path {
		return err
	}
	if err == nil {
		err = os.Rename(name, path)
	}
	if err != nil {
		_ = os.Remove(name) // half an archive is none
	}
	return err
}

// unpathed is what the system said, without the path that is said already.
func unpathed(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// imagesOrFiles completes with the images that are known, and with files.
func (a *app) imagesOrFiles(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 || strings.ContainsAny(typed[:min(1, len(typed))], "./") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	out, _ := a.images(cmd, args, typed)
	return out, cobra.ShellCompDirectiveDefault
}

func filesOnly(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}
