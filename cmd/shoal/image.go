// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

func (a *app) imageCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "image", Short: "Bring images into the cluster, list and change them", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		a.imageLsCmd(), a.imageInspectCmd(), a.imageWhoCmd(), a.imagePushCmd(), a.imageImportCmd(), a.imagePullCmd(), a.imageExportCmd(),
		a.imageTagCmd(), a.imageRmCmd(), a.imagePinCmd(true), a.imagePinCmd(false), a.imagePolicyCmd(), a.imageGcCmd(), a.imageLoginCmd(),
	)
	return cmd
}

func (a *app) imageLsCmd() *cobra.Command {
	var l listFlags
	by := facets[api.Image]{
		"name": func(x api.Image) string { return x.Name }, "repository": func(x api.Image) string { return repository(x.Name) },
		"digest": func(x api.Image) string { return x.Digest }, "pinned": func(x api.Image) string { return fmt.Sprint(x.Pinned) },
		"used": func(x api.Image) string { return fmt.Sprint(len(x.Services) > 0) },
	}
	cmd := &cobra.Command{
		Use: "ls [IMAGE]", Short: "List the images that the cluster knows", Args: atLeast(0, 1),
		Long: `List the names that stand for an image, all or those of one repository. HERE is how much
of it the asked peer has, COPIES how many peers heard have all of it, of how many there
have to be before one drops it to make room. An image that only engines have, because
nobody pushed it, is not listed: "docker images" lists it on that machine.

--selector compares repository, tag, and whether it is used, pinned and here.`,
		Example: "  shoal image ls\n  shoal image ls app -o wide\n  shoal image ls -l '!used' -q\n  shoal image ls -f pinned=true -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.list(cmd, &l, func(ctx context.Context, c *api.Client, w io.Writer) (api.Freshness, error) {
				all, err := c.Images(ctx)
				if err != nil {
					return api.Freshness{}, err
				}
				items := all.Items
				if len(args) > 0 {
					if items = named(items, args[0]); len(items) == 0 {
						return api.Freshness{}, missingImage(args[0], all.Items)
					}
				}
				if items, err = keep(items, &l, by, imageLabels); err != nil {
					return api.Freshness{}, err
				}
				return all.Freshness, show(a, w, items, a.imageTable())
			})
		},
	}
	a.addListFlags(cmd, &l, by.keys())
	return cmd
}

// repository is a name without its tag.
func repository(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}

// named are the images of a name, or of a repository.
func named(items []api.Image, name string) []api.Image {
	var out []api.Image
	for _, x := range items {
		if repository(x.Name) == name || x.Name == shoal.NormalizeRef(name) {
			out = append(out, x)
		}
	}
	return out
}

// missingImage is the error about a name that nobody gave.
func missingImage(name string, known []api.Image) error {
	return nearImage(&api.Error{Code: api.CodeNotFound, What: fmt.Sprintf("no image %q", name)}, name, known)
}

// nearImage says which image may have been meant.
func nearImage(e *api.Error, name string, known []api.Image) error {
	var names []string
	for _, x := range known {
		names = append(names, x.Name)
	}
	near := cmp.Or(didYouMean(name, names, ""), didYouMean(shoal.NormalizeRef(name), names, ""))
	if near == "" {
		return e
	}
	out := *e
	out.Todo = strings.TrimPrefix(near, "; ")
	return &out
}

// meant adds to an error about an image that nobody knows which may have been meant. That
// it cannot be had is no news.
func (*app) meant(ctx context.Context, c *api.Client, ref string, err error) error {
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Code != api.CodeNotFound || e.Todo != "" {
		return err
	}
	all, lerr := c.Images(ctx)
	isNamed := func(x api.Image) bool { return x.Name == shoal.NormalizeRef(ref) }
	if lerr != nil || slices.ContainsFunc(all.Items, isNamed) {
		return err // it is about something else than the name
	}
	return nearImage(e, ref, all.Items)
}

// imageLabels are what -l compares: images have no labels of their own.
func imageLabels(x api.Image) map[string]string {
	out := map[string]string{"repository": repository(x.Name), "tag": strings.TrimPrefix(x.Name, repository(x.Name)+":")}
	for k, is := range map[string]bool{"used": len(x.Services) > 0, "pinned": x.Pinned, "here": x.Here > 0} {
		if is {
			out[k] = "true"
		}
	}
	return out
}

func (a *app) imageTable() table[api.Image] {
	return table[api.Image]{
		name: func(x api.Image) string { return x.Name },
		columns: []column[api.Image]{
			{head: "NAME", cell: func(x api.Image) string { return x.Name }},
			{head: "DIGEST", cell: func(x api.Image) string { return a.short(x.Digest) }},
			{head: "SIZE", cell: func(x api.Image) string { return size(x.Size) }},
			{head: "HERE", cell: func(x api.Image) string { return share(x.Here, x.Size) }},
			{head: "COPIES", cell: func(x api.Image) string { return fmt.Sprintf("%d/%d", x.Copies, x.MinCopies) }},
			{head: "USED BY", cell: func(x api.Image) string { return strings.Join(x.Services, ", ") }},
			{head: "AGE", cell: func(x api.Image) string { return a.since(x.Since) }},
			{head: "PINNED", wide: true, cell: func(x api.Image) string { return yesNo(x.Pinned) }},
			{head: "PLATFORMS", wide: true, cell: func(x api.Image) string { return strings.Join(x.Platforms, ", ") }},
			{head: "NAMED BY", wide: true, cell: func(x api.Image) string { return x.Author.Name }},
			{head: "RIVALS", some: true, cell: func(x api.Image) string { return a.shortAll(x.Rivals) }},
		},
	}
}

func (a *app) shortAll(digests []string) string {
	out := make([]string, len(digests))
	for i, d := range digests {
		out[i] = a.short(d)
	}
	return strings.Join(out, ", ")
}

func yesNo(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// Words for how much of something is there.
const (
	isWhole   = "whole"
	isPartial = "partial"
)

// share is how much of something is there: "whole", "45%", "" for nothing.
func share(have, of int64) string {
	switch {
	case have <= 0:
		return ""
	case have >= of:
		return isWhole
	}
	return fmt.Sprintf("%d%%", min(99, max(1, int(float64(have)/float64(of)*100))))
}

func (a *app) imageInspectCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "inspect IMAGE...", Short: "Tell all about images", Args: someArgs(0),
		Long: `Tell all about images, NAME[:TAG] or NAME@DIGEST: what they are made of, who uses them,
and how many peers hold each part. The other peers are asked for that; those that do not
answer are named.`,
		Example: "  shoal image inspect app:v1\n  shoal image inspect app:v1 -o json\n  shoal image inspect app:v1 -o template='{{.digest}}'",
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.askImages(cmd, args)
			if err != nil {
				return err
			}
			if err := inspect(a, all, a.describeImage, func(d api.ImageDetail) string { return d.Name }); err != nil {
				return err
			}
			a.freshness(all[len(all)-1].Freshness)
			return nil
		},
	}
	cmd.Flags().BoolVar(&a.noTrunc, "no-trunc", false, "do not shorten digests")
	return cmd
}

// askImages asks for all about images.
func (a *app) askImages(cmd *cobra.Command, refs []string) ([]api.ImageDetail, error) {
	ctx, c, done, err := a.client(cmd, unaryTime)
	if err != nil {
		return nil, err
	}
	defer done()
	var all []api.ImageDetail
	for _, ref := range refs {
		d, err := c.Image(ctx, ref)
		if err != nil {
			return nil, a.meant(ctx, c, ref, err)
		}
		all = append(all, d)
	}
	return all, nil
}

func (a *app) describeImage(d api.ImageDetail) error {
	err := a.fields([][2]string{
		{"Name", d.Name},
		{"Digest", d.Digest},
		{"Rivals", strings.Join(d.Rivals, ", ")},
		{"Media type", d.MediaType},
		{"Platforms", strings.Join(d.Platforms, ", ")},
		{"Size", size(d.Size)},
		{"Here", cmp.Or(share(d.Here, d.Size), "nothing")},
		{"Copies", fmt.Sprintf("%d, of at least %d", d.Copies, d.MinCopies)},
		{"Pinned", yesNo(d.Pinned)},
		{"Used by", strings.Join(d.Services, ", ")},
		{"Named by", d.Author.Name},
		{"Since", moment(d.Since)},
		{"No answer", placeNames(d.Silent)},
	})
	if err != nil {
		return err
	}
	return tabulate(a.out, d.Blobs, append(a.blobColumns(),
		column[api.ImageBlob]{head: "HERE", cell: func(b api.ImageBlob) string { return share(b.Here, b.Size) }},
		column[api.ImageBlob]{head: "PEERS", cell: func(b api.ImageBlob) string { return fmt.Sprint(len(b.Holders)) }},
	), a.output == "wide")
}

func (a *app) blobColumns() []column[api.ImageBlob] {
	return []column[api.ImageBlob]{
		{head: "BLOB", cell: func(b api.ImageBlob) string { return a.short(b.Digest) }},
		{head: "KIND", cell: func(b api.ImageBlob) string { return b.Kind }},
		{head: "PLATFORM", some: true, cell: func(b api.ImageBlob) string { return b.Platform }},
		{head: "SIZE", cell: func(b api.ImageBlob) string { return size(b.Size) }},
	}
}

func (a *app) imageWhoCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "who IMAGE", Short: "Show which peers hold which parts of an image", Args: someArgs(1),
		Long: `Show for each part of an image (a layer, a manifest, ...) which peer has it whole, or
partly because it is still arriving. The other peers are asked; of one that does not
answer it is not known (?).`,
		Example: "  shoal image who app:v1\n  shoal image who app:v1 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.askImages(cmd, args)
			if err != nil {
				return err
			}
			d := all[0]
			if !a.forPeople() {
				return inspect(a, all, a.describeImage, func(d api.ImageDetail) string { return d.Name })
			}
			if err := tabulate(a.out, d.Blobs, append(a.blobColumns(), whoColumns(&d)...), a.output == "wide"); err != nil {
				return err
			}
			if len(d.Silent) > 0 {
				a.say("warning: %s did not answer: what is there is not known", clean(placeNames(d.Silent)))
			}
			a.freshness(d.Freshness)
			return nil
		},
	}
	cmd.Flags().BoolVar(&a.noTrunc, "no-trunc", false, "do not shorten digests")
	return cmd
}

// whoColumns are one column a peer, by name.
func whoColumns(d *api.ImageDetail) []column[api.ImageBlob] {
	var peers []api.Place
	add := func(more []api.Place) {
		for _, p := range more {
			if !slices.Contains(peers, p) {
				peers = append(peers, p)
			}
		}
	}
	for i := range d.Blobs {
		add(d.Blobs[i].Holders)
		add(d.Blobs[i].Partial)
	}
	add(d.Silent)
	slices.SortFunc(peers, func(x, y api.Place) int { return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Peer, y.Peer)) })
	out := make([]column[api.ImageBlob], len(peers))
	for i, p := range peers {
		out[i] = column[api.ImageBlob]{head: clean(p.Name), cell: func(b api.ImageBlob) string {
			switch {
			case slices.Contains(b.Holders, p):
				return isWhole
			case slices.Contains(b.Partial, p):
				return isPartial
			case slices.Contains(d.Silent, p):
				return "?"
			}
			return ""
		}}
	}
	return out
}

// placeNames joins the names of peers.
func placeNames(peers []api.Place) string {
	out := make([]string, len(peers))
	for i, p := range peers {
		out[i] = p.Name
	}
	return strings.Join(out, ", ")
}
