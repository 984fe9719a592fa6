// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

func (a *app) imageTagCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tag IMAGE NAME[:TAG]", Short: "Give an image a further name", Args: atLeast(2, 2),
		Long: `Make a name stand for what another stands for, on all peers; nothing moves. If the name
stood for something else, it does so no more; services keep the digest they were deployed
with. Where a name has come to stand for several digests, because peers did not hear each
other, tag NAME@DIGEST NAME:TAG settles it.`,
		Example: "  shoal image tag app:v1 app:stable\n  shoal image tag app@sha256:4f06...e1 app:v1",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeImages(cmd, args[:1], "tagged", shoal.ImageChange{To: args[1]})
		},
	}
	a.briefFlag(cmd.Flags())
	return cmd
}

func (a *app) imageRmCmd() *cobra.Command {
	var ignoreMissing bool
	cmd := &cobra.Command{
		Use: "rm IMAGE...", Short: "Remove names of images", Args: someArgs(0),
		Long: `Make names stand for nothing any more, on all peers. Names that services use stay, and so
do all that were named with them. The layers stay where they are until "shoal image gc"
or the want of room removes what no name needs.`,
		Example: "  shoal image rm app:v1\n  shoal image rm app:v1 app:v2 --ignore-not-found",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, c, done, err := a.client(cmd, unaryTime)
			if err != nil {
				return err
			}
			defer done()
			names, err := removable(ctx, c, args, ignoreMissing)
			if err != nil {
				return err
			}
			return a.changeEach(ctx, c, names, "removed", shoal.ImageChange{Remove: true})
		},
	}
	cmd.Flags().BoolVar(&ignoreMissing, "ignore-not-found", false, "a name that is not there is no error")
	a.briefFlag(cmd.Flags())
	return cmd
}

// removable are the names that are there; an error if one of them must stay, before
// anything is changed.
func removable(ctx context.Context, c *api.Client, refs []string, ignoreMissing bool) ([]string, error) {
	all, err := c.Images(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, ref := range refs {
		if err := shoal.CheckRef("image", ref); err != nil {
			return nil, err
		}
		if strings.Contains(ref, "@") {
			return nil, usage("rm takes names, not digests: %s", ref)
		}
		name, isThere := shoal.NormalizeRef(ref), false
		for _, x := range all.Items {
			if x.Name != name {
				continue
			}
			isThere = true
			if len(x.Services) > 0 {
				return nil, &api.Error{
					Code: api.CodeConflict, What: fmt.Sprintf("image %s is used by %s", name, strings.Join(x.Services, ", ")),
					Why: "nothing was removed", Todo: "update them to another image, or remove them, first",
				}
			}
		}
		switch {
		case isThere:
			out = append(out, name)
		case !ignoreMissing:
			return nil, missingImage(ref, all.Items)
		}
	}
	return out, nil
}

func (a *app) imagePinCmd(pin bool) *cobra.Command {
	var copies int
	cmd := &cobra.Command{
		Use: "pin IMAGE...", Short: "Let no peer drop an image to make room", Args: someArgs(0),
		Long: `Let no peer that holds an image drop it to make room, whether a service uses it or not.
--min-copies says how many peers have to hold all of it before one may drop it; that
counts for images that are not pinned, too. Neither makes a peer fetch it.`,
		Example: "  shoal image pin app:v1\n  shoal image pin base:1 --min-copies 3",
	}
	verb := "pinned"
	if !pin {
		verb = "unpinned"
		cmd.Use, cmd.Short = "unpin IMAGE...", "Let peers drop an image again"
		cmd.Long = `Let peers drop an image again when they need room, when no service uses it and as long as
enough others hold all of it: --min-copies says how many.`
		cmd.Example = "  shoal image unpin app:v1\n  shoal image unpin base:1 --min-copies 1"
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		changes := []shoal.ImageChange{{Pin: &pin}}
		if cmd.Flags().Changed("min-copies") {
			if copies < 1 || copies > 100 {
				return usage("--min-copies: must be 1-100, got %d", copies)
			}
			changes = []shoal.ImageChange{{MinCopies: copies}, {Pin: &pin}}
		}
		return a.changeImages(cmd, args, verb, changes...)
	}
	cmd.Flags().IntVar(&copies, "min-copies", 0, "how many peers have to hold it before one may drop it, 1-100")
	a.briefFlag(cmd.Flags())
	return cmd
}

func (a *app) briefFlag(f *pflag.FlagSet) {
	f.BoolVarP(&a.quiet, "quiet", "q", false, "only NAME@DIGEST")
}

// changeImages makes the same changes of each name, and shows what it is then.
func (a *app) changeImages(cmd *cobra.Command, refs []string, verb string, changes ...shoal.ImageChange) error {
	ctx, c, done, err := a.client(cmd, unaryTime)
	if err != nil {
		return err
	}
	defer done()
	return a.changeEach(ctx, c, refs, verb, changes...)
}

func (a *app) changeEach(ctx context.Context, c *api.Client, refs []string, verb string, changes ...shoal.ImageChange) error {
	var got []api.Image
	var failed error
	for _, ref := range refs {
		x, err := changeOne(ctx, c, ref, changes)
		if err != nil {
			failed = a.meant(ctx, c, ref, err) // those before it are changed, and shown
			break
		}
		got = append(got, x)
	}
	if failed == nil || len(got) > 0 {
		if err := a.showMoved(verb, got); err != nil {
			return err
		}
	}
	return failed
}

func changeOne(ctx context.Context, c *api.Client, ref string, changes []shoal.ImageChange) (x api.Image, err error) {
	for _, change := range changes {
		change.Name = ref
		if x, err = c.ChangeImage(ctx, change); err != nil {
			return x, err
		}
	}
	return x, nil
}

func (a *app) imageGcCmd() *cobra.Command {
	var opts shoal.CollectOptions
	var room string
	cmd := &cobra.Command{
		Use: "gc", Short: "Remove what the asked peer does not need of images", Args: a.noArgs,
		Long: `Remove from the asked peer uploads that were given up and what no name needs any more.
With --room also what was used longest ago, until so much is free; with --all everything
that no service needs and nothing pins. What services need stays always, and so does an
image of which there are too few copies. Peers do the same by themselves when they need
room.`,
		Example: "  shoal image gc\n  shoal image gc --room 5g --dry-run\n  shoal image gc --all -y",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if opts.All && room != "" {
				return usage("--all and --room exclude each other")
			}
			if opts.Room, err = parseSize("room", room); err != nil {
				return err
			}
			return a.collectImages(cmd, opts)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&opts.All, "all", false, "all that no service needs and nothing pins; asks first")
	f.StringVar(&room, "room", "", "how much to make free, like 500m or 5g")
	f.BoolVar(&opts.DryRun, "dry-run", false, "only say what would be removed")
	return cmd
}

func (a *app) collectImages(cmd *cobra.Command, opts shoal.CollectOptions) error {
	_, c, done, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer done()
	if opts.All && !opts.DryRun {
		would, err := collect(cmd.Context(), c, shoal.CollectOptions{All: true, DryRun: true})
		if err != nil {
			return err
		}
		if would.Blobs > 0 {
			if err := a.confirm(cmd.Context(), fmt.Sprintf("Remove %s, %s, from this peer?", count(would.Blobs, "blob"), size(would.Bytes))); err != nil {
				return err
			}
		}
	}
	got, err := collect(cmd.Context(), c, opts)
	if err != nil {
		return err
	}
	if !a.forPeople() {
		return a.encode(a.out, got)
	}
	verb, limit := "removed", ""
	if opts.DryRun {
		verb = "would remove"
	}
	if got.Limit > 0 {
		limit = " of at most " + size(got.Limit)
	}
	_, err = fmt.Fprintf(a.out, "%s %s, %s; %s stay%s\n", verb, count(got.Blobs, "blob"), size(got.Bytes), size(got.Used), limit)
	return err
}

func collect(ctx context.Context, c *api.Client, opts shoal.CollectOptions) (api.Collected, error) {
	ctx, cancel := context.WithTimeout(ctx, acceptTime)
	defer cancel()
	return c.CollectImages(ctx, opts)
}
