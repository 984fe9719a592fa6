// Copyright The Shoal Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalnet/shoal"
)

func (a *app) peerRenameCmd() *cobra.Command {
	ask := peerAsk{wish: shoal.PeerWish{Change: shoal.PeerEdit}}
	cmd := &cobra.Command{
		Use: "rename PEER NAME", Short: "Give a peer another name", Args: atLeast(2, 2),
		Long: `Give a peer another name, which no other member may have. It stands over the name that
the machine gives itself, also when that restarts. ` + peerNaming,
		Example: "  shoal peer rename osaka osaka-1\n  shoal peer rename x7Kp2mQz osaka",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := shoal.CheckName("name", args[1]); err != nil {
				return err
			}
			ask.wish.Name = args[1]
			return a.changePeers(cmd, args[:1], ask)
		},
	}
	ask.add(cmd.Flags())
	return cmd
}

func (a *app) peerLabelCmd() *cobra.Command {
	ask := peerAsk{wish: shoal.PeerWish{Change: shoal.PeerEdit}}
	var remove []string
	cmd := &cobra.Command{
		Use: "label PEER KEY=VALUE|KEY-...", Short: "Set and take away labels of a peer",
		Args: func(cmd *cobra.Command, args []string) error {
			return atLeast(2-min(1, len(remove)), 0)(cmd, args)
		},
		Long: `Set labels of a peer, which constraints look at; KEY- or --rm KEY takes one away. zone is
where it stands, for spreading. What is set here stands over the machine's own labels,
and over an older value: the plan says over which. What runs already is not moved.
` + peerNaming,
		Example: "  shoal peer label osaka zone=b disk=ssd\n  shoal peer label osaka disk-\n  shoal peer label osaka --rm disk",
		RunE: func(cmd *cobra.Command, args []string) error {
			w := &ask.wish
			w.Set, w.Unset = map[string]string{}, remove
			for _, arg := range args[1:] {
				k, v, sets := strings.Cut(arg, "=")
				gone, takes := strings.CutSuffix(arg, "-")
				_, twice := w.Set[k]
				switch {
				case sets && k != "" && !twice:
					w.Set[k] = v
				case sets && twice:
					return usage("label: %q comes twice", k)
				case !sets && takes && gone != "":
					w.Unset = append(w.Unset, gone)
				default:
					return usage("label: %q is neither KEY=VALUE nor KEY-", arg)
				}
			}
			return a.changePeers(cmd, args[:1], ask)
		},
	}
	cmd.Flags().StringArrayVar(&remove, "rm", nil, "KEY of a label to take away")
	ask.add(cmd.Flags())
	return cmd
}

func (a *app) peerRmCmd() *cobra.Command {
	ask := peerAsk{wish: shoal.PeerWish{Change: shoal.PeerRemove}}
	cmd := &cobra.Command{
		Use: "rm PEER...", Short: "End the membership of peers", Args: someArgs(0),
		Long: `End the membership of peers: they may not link, write or read any more, and others take
their slots. For a machine that is gone; one that is alive leaves by "shoal leave" on it,
or is drained first. A removed daemon that comes back is told so, stops its containers
and forgets the cluster; named volumes stay on it.

A peer that is alive and holds slots, or has data that no other peer has, is removed
only with --force. ` + peerNaming,
		Example: "  shoal drain osaka && shoal peer rm osaka\n  shoal peer rm osaka --force --plan\n  shoal peer rm osaka --force",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changePeers(cmd, args, ask)
		},
	}
	cmd.Flags().BoolVar(&ask.ignoreMissing, "ignore-not-found", false, "a peer that does not exist is no error")
	cmd.Flags().BoolVar(&ask.wish.Force, "force", false, "also if it is alive and holds slots, or has data")
	ask.add(cmd.Flags())
	return cmd
}
