// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
	"github.com/shoalnet/shoal/api"
)

func (a *app) imagePolicyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "policy [peers-first|none]", Short: "Say whether the cluster asks registries outside", Args: atLeast(0, 1),
		Long: `Show, or set for all peers, whether registries outside the cluster are asked for images that
no peer has. With peers-first, the default, they are the last resort, on machines whose
owner allows it (images.upstream in shoald's configuration); with none no peer asks one.
Where peers that did not hear each other said different things, none counts until it is
said again.`,
		Example:           "  shoal image policy\n  shoal image policy none\n  shoal image policy -o json",
		ValidArgsFunction: byWords([]string{"WORD"}, map[string]completer{"WORD": oneOf(shoal.UpstreamPeersFirst, shoal.UpstreamNone)}),
		RunE:              a.imagePolicy,
	}
}

func (a *app) imagePolicy(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		if err := shoal.CheckUpstream(args[0]); err != nil {
			return usage("image policy: %v", err)
		}
	}
	ctx, c, done, err := a.client(cmd, unaryTime)
	if err != nil {
		return err
	}
	defer done()
	var p api.ImagePolicy
	if len(args) > 0 {
		p, err = c.SetImagePolicy(ctx, args[0])
	} else {
		p, err = c.ImagePolicy(ctx)
	}
	if err != nil {
		return err
	}
	if !a.forPeople() {
		return a.encode(a.out, p)
	}
	by := "nobody said otherwise"
	if p.Author.Peer != "" {
		by = fmt.Sprintf("said at %s %s ago", clean(p.Author.Name), a.since(p.Since))
	}
	if _, err := fmt.Fprintf(a.out, "upstream: %s (%s)\n", clean(p.Upstream), by); err != nil {
		return err
	}
	if len(args) == 0 {
		a.freshness(p.Freshness)
	}
	return nil
}
